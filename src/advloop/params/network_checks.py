"""Whether the networks that params.yaml describes can be made, and fit one another."""

from __future__ import annotations

from advloop.core.errors import counted
from advloop.params.loader import Params
from advloop.params.run import read_denoiser
from advloop.params.sections import Sections


def check_networks(params: Params, sections: Sections) -> None:
    """Raise UserError about the first value that does not fit."""
    _check_latents(params, sections)
    check_network = _check_dit if read_denoiser(params) == "dit" else _check_unet
    check_network(params, sections)
    _check_discriminator(params, sections)
    _check_adapter(params, sections)


def _check_latents(params: Params, sections: Sections) -> None:
    size, factor = sections.data.image_size, sections.autoencoder.factor
    if size % factor:
        raise params.fail("data.image_size", size, f"must be a multiple of the factor {factor}")
    channels, most = sections.autoencoder.latent_channels, 3 * factor**2
    if channels > most:
        problem = f"exceeds the {most} values of a patch of factor {factor}"
        raise params.fail("autoencoder.latent_channels", channels, problem)


def _latent_size(sections: Sections) -> int:
    return sections.data.image_size // sections.autoencoder.factor


def _check_unet(params: Params, sections: Sections) -> None:
    unet, size = sections.unet, _latent_size(sections)
    levels = len(unet.block_out_channels)
    if size % 2 ** (levels - 1):
        raise params.fail(
            "unet.block_out_channels",
            unet.block_out_channels,
            f"has {levels} levels, but latents of {counted(size, 'cell')} a side cannot be halved "
            f"{counted(levels - 1, 'time')}",
        )
    for channels in unet.block_out_channels:
        if channels % unet.norm_num_groups:
            problem = f"must divide {channels} channels"
            raise params.fail("unet.norm_num_groups", unet.norm_num_groups, problem)
    cells = size // 2 ** (levels - 1)
    if cells == 1 and unet.block_out_channels[-1] == unet.norm_num_groups:
        problem = (
            "leaves one value a group at the lowest level, which has 1 cell and as many channels, "
            "and nothing of it after the normalisation; use less"
        )
        raise params.fail("unet.norm_num_groups", unet.norm_num_groups, problem)
    for level in unet.attention_levels:
        if level >= levels:
            problem = f"is not a level: the last is {levels - 1}"
            raise params.fail("unet.attention_levels", level, problem)


def _check_dit(params: Params, sections: Sections) -> None:
    dit, size = sections.dit, _latent_size(sections)
    if size % dit.patch_size:
        problem = f"must divide the {counted(size, 'cell')} a side of the latents"
        raise params.fail("dit.patch_size", dit.patch_size, problem)
    if (width := dit.num_attention_heads * dit.attention_head_dim) % 4:
        problem = f"makes {width} channels of all heads, which must be a multiple of 4"
        raise params.fail("dit.attention_head_dim", dit.attention_head_dim, problem)


def _check_discriminator(params: Params, sections: Sections) -> None:
    channels, size = sections.discriminator.channels, _latent_size(sections)
    if 2 ** len(channels) > size:
        times, cells = counted(len(channels), "time"), counted(size, "cell")
        problem = f"halves {times}, but latents are {cells} a side"
        raise params.fail("discriminator.channels", channels, problem)


def _check_adapter(params: Params, sections: Sections) -> None:
    """The rank of an adapter of a network that this run makes; that of an imported one is unknown.

    ``models.adapters`` compares it with the layers themselves.
    """
    rank, dit = sections.train_diffusion.lora_rank, sections.dit
    if rank is None or sections.base.pretrained is not None:
        return
    widths = {
        "dit": dit.num_attention_heads * dit.attention_head_dim,
        "unet": min(sections.unet.block_out_channels),
    }
    if rank > (width := widths[read_denoiser(params)]):
        problem = f"exceeds the {width} channels of a layer that it adapts; use at most {width}"
        raise params.fail("train_diffusion.lora_rank", rank, problem)

"""Every section of params.yaml, and the checks that span several of them."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple, get_type_hints

from advloop.core.errors import UserError, counted
from advloop.params.card import CardParams
from advloop.params.data import AutoencoderParams, DataParams, EncodeDatasetParams
from advloop.params.diffusion import (
    DiffusionParams,
    DiTParams,
    EdmParams,
    UNetParams,
    VariancePreservingParams,
    read_diffusion,
)
from advloop.params.evaluation import EvaluateParams
from advloop.params.loader import Params
from advloop.params.paths import PATHS, path_problem
from advloop.params.run import VALUES, read_denoiser
from advloop.params.section import Section
from advloop.params.training import (
    MAX_OTHER_FAKES,
    BaseParams,
    DiscriminatorParams,
    GenerateParams,
    TrainDiffusionParams,
    TrainDiscParams,
    TrainingParams,
)


class Sections(NamedTuple):
    """The sections of params.yaml, but for ``objective``, whose class depends on its name."""

    data: DataParams
    autoencoder: AutoencoderParams
    encode_dataset: EncodeDatasetParams
    diffusion: DiffusionParams
    unet: UNetParams
    dit: DiTParams
    base: BaseParams
    generate: GenerateParams
    discriminator: DiscriminatorParams
    train_disc: TrainDiscParams
    train_diffusion: TrainDiffusionParams
    evaluate: EvaluateParams
    card: CardParams


SECTIONS: dict[str, type[Section]] = get_type_hints(Sections)
del SECTIONS["diffusion"]  # its class depends on its process
KEYS = {*VALUES, *SECTIONS, "diffusion", "objective", "derived"}


def check_params(params: Params) -> None:
    """Raise UserError if a value is unknown, missing, out of range or contradicts another."""
    for key in map(str, params.content):
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {close[0]}?; " if close else ""
            raise UserError(
                f"{params.path}: {key} is not a parameter; {hint}correct it in conf/ if it is "
                "there, and run `make params`"
            )
    for name, kind in VALUES.items():
        params.value(name, kind)
    loaded: dict[str, Any] = {name: params.section(name, cls) for name, cls in SECTIONS.items()}
    sections = Sections(diffusion=read_diffusion(params), **loaded)
    _check_paths(params)
    _check_value_range(params, sections)
    _check_latents(params, sections)
    check_network = _check_dit if read_denoiser(params) == "dit" else _check_unet
    check_network(params, sections)
    _check_discriminator(params, sections)
    _check_steps(params, sections)
    _check_process(params, sections.diffusion)
    _check_fakes(params, sections)
    _check_warmup(params, sections)
    _check_adapter(params, sections)
    _check_gate(params, sections)
    _check_pairs(params, sections)
    _check_play(params, sections)
    _check_alpha_bars(params, sections)
    _check_features(params, sections)


def _check_paths(params: Params) -> None:
    for key, optional in PATHS.items():
        if problem := path_problem(value := params.at(key), optional):
            raise params.fail(key, value, problem)


def _check_value_range(params: Params, sections: Sections) -> None:
    values = sections.data.value_range
    if values is not None and (len(values) != 2 or values[0] >= values[1]):
        raise params.fail("data.value_range", values, "must be [black, white], black lower")


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


def _check_steps(params: Params, sections: Sections) -> None:
    limit = sections.diffusion.num_train_timesteps
    for key, steps in (
        ("generate.num_inference_steps", sections.generate.num_inference_steps),
        ("evaluate.num_inference_steps", sections.evaluate.num_inference_steps),
        ("evaluate.base_num_inference_steps", sections.evaluate.base_num_inference_steps),
        ("train_diffusion.preview_steps", sections.train_diffusion.preview_steps),
    ):
        if steps > limit:
            raise params.fail(key, steps, f"exceeds the {limit} training timesteps")


def _check_process(params: Params, process: DiffusionParams) -> None:
    if isinstance(process, VariancePreservingParams):
        _check_betas(params, process)
        _check_prediction(params, process)
    elif isinstance(process, EdmParams) and process.sigma_min >= process.sigma_max:
        problem = f"must be below diffusion.sigma_max={process.sigma_max}"
        raise params.fail("diffusion.sigma_min", process.sigma_min, problem)


def _check_betas(params: Params, process: VariancePreservingParams) -> None:
    betas = process.betas()
    for name, value in (("beta_start", process.beta_start), ("beta_end", process.beta_end)):
        if value is not None and betas is None:
            problem = f"has no meaning in {process.beta_schedule}; use null"
            raise params.fail(f"diffusion.{name}", value, problem)
    if betas is not None and betas[0] > betas[1]:
        raise params.fail("diffusion.beta_start", betas[0], f"exceeds beta_end={betas[1]}")


def _check_prediction(params: Params, process: VariancePreservingParams) -> None:
    if process.loses_x0():
        ending = (
            "zero_terminal_snr=true"
            if process.zero_terminal_snr
            else f"beta_schedule={process.beta_schedule}"
        )
        other = "zero_terminal_snr=false" if process.zero_terminal_snr else "beta_schedule=linear"
        problem = (
            f"tells nothing of an image at the end of diffusion.{ending}, where sampling begins; "
            f"use v_prediction, or diffusion.{other}"
        )
        raise params.fail("diffusion.prediction_type", process.prediction_type, problem)


def _check_fakes(params: Params, sections: Sections) -> None:
    predicted = sections.train_disc.predicted_fraction
    replayed = sections.train_disc.replay_fraction
    if predicted + replayed > MAX_OTHER_FAKES + 1e-9:  # 0.7 + 0.2 is rounded
        raise params.fail(
            "train_disc.replay_fraction",
            replayed,
            f"and train_disc.predicted_fraction={predicted} make more than {MAX_OTHER_FAKES} "
            "of the fakes together",
        )


def _check_warmup(params: Params, sections: Sections) -> None:
    """The training itself checks it where the number of its latents is not known here."""
    trainings: list[tuple[str, TrainingParams]] = [("train_diffusion", sections.train_diffusion)]
    if sections.base.pretrained is None:
        trainings.append(("base", sections.base))
    for name, training in trainings:
        rows = training.samples_per_epoch
        if rows is not None and (problem := training.warmup_problem(rows)):
            raise params.fail(f"{name}.warmup_steps", training.warmup_steps, problem)


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


def _check_gate(params: Params, sections: Sections) -> None:
    """Under x0, the discriminator judges predictions that are noised again down to the gate."""
    gate, bound = params.at("objective.min_alpha_bar"), sections.train_disc.renoise_min_alpha_bar
    if not sections.discriminator.noise_conditioned or not isinstance(gate, int | float):
        return  # another objective, or a value that read_objective refuses
    if gate < bound:
        raise params.fail(
            "objective.min_alpha_bar",
            gate,
            "has the discriminator judge latents noisier than it is trained on, down to train_disc."
            f"renoise_min_alpha_bar={bound}; use the same value for both",
        )


def _check_pairs(params: Params, sections: Sections) -> None:
    """What a discriminator of pairs cannot have, and what it alone has."""
    training, model = sections.train_disc, sections.discriminator
    if training.loss == "bce":
        if training.r2_weight:
            problem = "belongs to train_disc.loss=relativistic; use 0"
            raise params.fail("train_disc.r2_weight", training.r2_weight, problem)
        return
    if model.dropout:
        problem = "has no place in train_disc.loss=relativistic, whose penalties compare logits of "
        raise params.fail("discriminator.dropout", model.dropout, problem + "one network; use 0.0")
    if model.noise_conditioned:
        problem = "would pair latents of different noise; use train_disc.loss=bce"
        raise params.fail("discriminator.noise_conditioned", "true", problem)


def _check_play(params: Params, sections: Sections) -> None:
    """The numbers of objective adversarial that have to agree."""
    if params.at("objective.name") != "adversarial":
        return
    names = ["num_inference_steps", "gradient_steps", "min_accuracy", "max_accuracy"]
    names += [f"{bound}discriminator_steps" for bound in ("min_", "", "max_")]
    values = {name: params.at(f"objective.{name}") for name in names}
    if not all(isinstance(v, int | float) for k, v in values.items() if k != "gradient_steps"):
        return  # read_objective refuses it
    if sections.generate.guidance_scale != 1:
        problem = "has no place in objective=adversarial, which samples without guidance; use 1.0"
        raise params.fail("generate.guidance_scale", sections.generate.guidance_scale, problem)
    made, depth = sections.generate.num_inference_steps, values["gradient_steps"]
    most = values["num_inference_steps"]
    if most != made:
        problem = f"is not the generate.num_inference_steps={made} of the round's fakes"
        raise params.fail("objective.num_inference_steps", most, problem)
    if isinstance(depth, int) and depth > most:
        problem = f"exceeds objective.num_inference_steps={most}; null means all"
        raise params.fail("objective.gradient_steps", depth, problem)
    if values["min_accuracy"] >= values["max_accuracy"]:
        problem = f"must be below objective.max_accuracy={values['max_accuracy']}"
        raise params.fail("objective.min_accuracy", values["min_accuracy"], problem)
    fewest, most = values["min_discriminator_steps"], values["max_discriminator_steps"]
    if not fewest <= values["discriminator_steps"] <= most:
        problem = f"is not between its bounds {fewest} and {most}"
        raise params.fail("objective.discriminator_steps", values["discriminator_steps"], problem)


def _check_alpha_bars(params: Params, sections: Sections) -> None:
    """Those in use leave at least one timestep."""
    bounds: dict[str, Any] = {"objective.min_alpha_bar": params.at("objective.min_alpha_bar")}
    if sections.train_disc.predicted_fraction:
        key = "generate.predicted_min_alpha_bar"
        bounds[key] = sections.generate.predicted_min_alpha_bar
    if sections.discriminator.noise_conditioned:
        bounds["train_disc.renoise_min_alpha_bar"] = sections.train_disc.renoise_min_alpha_bar
    most = sections.diffusion.max_alpha_bar()
    for key, bound in bounds.items():
        if isinstance(bound, int | float) and bound > most * (1 + 1e-6):  # float32 rounds
            problem = f"leaves no timestep, the least noisy one has {most:.4f}"
            raise params.fail(key, bound, f"{problem}; use less")


def _check_features(params: Params, sections: Sections) -> None:
    if problem := sections.evaluate.weights_problem():
        raise params.fail("evaluate.feature_weights", sections.evaluate.feature_weights, problem)

"""The boundary between pixels and latents, and its training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from advloop.autoencoder import (
    Codec,
    PatchAutoencoder,
    build_autoencoder,
    check_autoencoder,
    load_autoencoder,
    save_autoencoder,
    to_images,
    to_pixels,
)
from advloop.autoencoder_training import psnr, train_autoencoder
from advloop.core.errors import UserError
from advloop.core.runtime import seeded
from advloop.model_folder import WEIGHTS
from advloop.params.data import AutoencoderParams
from advloop.params.loader import Params
from advloop.params.schema import check_params

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
PARAMS = AutoencoderParams(
    pretrained=None,
    latent_channels=4,
    factor=4,
    width=8,
    encoder_blocks=1,
    decoder_blocks=1,
    epochs=1,
    batch_size=8,
    learning_rate=2e-3,
    l1_weight=0.3,
    latent_noise=0.1,
)
Images = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with seeded(0, "test"):
        yield


@pytest.fixture
def images() -> Images:
    """16 images (16, 16) of one filled rectangle each: structure, but no patch subspace."""
    rng = np.random.default_rng(0)
    result = np.full((16, 16, 16, 3), 255, dtype=np.uint8)
    for image in result:
        top, left = rng.integers(0, 10, 2)
        bottom, right = top + rng.integers(2, 7), left + rng.integers(2, 7)
        image[top:bottom, left:right] = rng.integers(0, 200, 3)
    return result


def noise(count: int = 2, size: int = 16) -> Images:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def low_rank_pixels(rank: int, factor: int) -> torch.Tensor:
    """(8, 3, 16, 16) whose patches lie in an affine space of dimension ``rank``."""
    size = 3 * factor**2
    cells = 16 // factor
    patches = torch.randn(8, rank, cells, cells).mul(0.1)
    space, mean = torch.randn(size, rank), torch.randn(size, 1, 1).mul(0.1)
    return F.pixel_shuffle(torch.einsum("pr,brhw->bphw", space, patches) + mean, factor)


def patches_of(pixels: torch.Tensor, factor: int) -> torch.Tensor:
    return F.pixel_unshuffle(pixels, factor).movedim(1, -1).flatten(0, 2)


def one_line(error: BaseException, *parts: str) -> None:
    message = str(error)
    assert len(message.splitlines()) == 1
    for part in parts:
        assert part in message


# --- pixels ---


def test_pixels_and_images_are_inverse_for_all_256_values() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    pixels = to_pixels(values, CPU)
    assert pixels.shape == (1, 3, 16, 16)
    assert pixels.min() == -1
    assert pixels.max() == 1
    np.testing.assert_array_equal(to_images(pixels), values)


def test_images_keep_their_channels_rows_and_columns_apart() -> None:
    picture = noise()
    pixels = to_pixels(picture, CPU)
    assert float(pixels[1, 2, 3, 4]) == pytest.approx(picture[1, 3, 4, 2] / 127.5 - 1)
    np.testing.assert_array_equal(to_images(pixels), picture)


def test_pixels_beyond_the_range_are_clipped() -> None:
    pixels = torch.tensor([-7.0, -1.0, 0.999, 1.0, 7.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_images(pixels)[0, 0, :, 0].tolist() == [0, 0, 255, 255, 255]


# --- the network ---


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_pca_start_reconstructs_patches_of_a_rank_up_to_its_channels(rank: int) -> None:
    pixels = low_rank_pixels(rank, factor=4)
    model = PatchAutoencoder(4, 4, 8, 1, 1)
    model.start_from_pca(patches_of(pixels, 4))
    torch.testing.assert_close(model.decode(model.encode(pixels)).sample, pixels, atol=1e-4, rtol=0)


def test_pca_start_loses_what_exceeds_its_channels() -> None:
    pixels = low_rank_pixels(6, factor=4)
    model = PatchAutoencoder(4, 4, 8, 1, 1)
    model.start_from_pca(patches_of(pixels, 4))
    assert (model.decode(model.encode(pixels)).sample - pixels).square().mean() > 1e-4


def test_pca_start_orders_channels_by_their_variance_around_zero() -> None:
    pixels = low_rank_pixels(4, factor=4)
    model = PatchAutoencoder(4, 4, 8, 1, 1)
    model.start_from_pca(patches_of(pixels, 4))
    latents = model.encode(pixels)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3
    spread = latents.var((0, 2, 3)).tolist()
    assert spread == sorted(spread, reverse=True)


def test_more_latent_channels_than_a_patch_has_values_work_or_are_refused(tmp_path: Path) -> None:
    content = OmegaConf.load(ROOT / "params.yaml")
    content.autoencoder.factor, content.autoencoder.latent_channels = 2, 16  # 12 values a patch
    OmegaConf.save(content, tmp_path / "params.yaml")
    try:
        check_params(Params.load(tmp_path / "params.yaml"))
    except UserError as error:
        refused = "latent_channels" in str(error)
    else:
        refused = False
    if not refused:
        pixels = to_pixels(noise(), CPU)
        model = PatchAutoencoder(16, 2, 8, 0, 0)
        model.start_from_pca(patches_of(pixels, 2))
        torch.testing.assert_close(
            model.decode(model.encode(pixels)).sample, pixels, atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("direction", ["encode", "decode"])
@torch.no_grad()
def test_network_is_affine_until_its_residual_parts_have_learnt(direction: str) -> None:
    model = PatchAutoencoder(4, 4, 8, 2, 2)
    function = model.encode if direction == "encode" else lambda x: model.decode(x).sample
    shape = (3, 16, 16) if direction == "encode" else (4, 4, 4)
    one, other = torch.randn(2, 1, *shape)

    def bend() -> float:
        """Largest distance of f((x + y) / 2) from (f(x) + f(y)) / 2."""
        middle = (function(one) + function(other)) / 2
        return float((function((one + other) / 2) - middle).abs().max())

    assert bend() < 1e-5
    nn.init.normal_(getattr(model, f"{direction}r")[-1].weight)
    assert bend() > 1e-2


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("channels", [1, 5])
def test_latents_are_smaller_by_the_factor_and_decode_to_the_image(
    factor: int, channels: int
) -> None:
    model = PatchAutoencoder(channels, factor, 8, 1, 0)
    latents = model.encode(torch.zeros(2, 3, 16, 16))
    assert latents.shape == (2, channels, 16 // factor, 16 // factor)
    assert model.decode(latents).sample.shape == (2, 3, 16, 16)


def test_network_is_built_as_the_params_say() -> None:
    config = build_autoencoder(PARAMS).config
    assert config == {key: getattr(PARAMS, key) for key in config}
    assert set(config) == {
        "latent_channels", "factor", "width", "encoder_blocks", "decoder_blocks",
    }  # fmt: skip


# --- the codec ---


@pytest.mark.parametrize("scale", [0.25, 4.0, 1 / 3, 7.7])
def test_codec_scale_multiplies_latents_and_changes_no_image(scale: float) -> None:
    model = PatchAutoencoder(4, 4, 8, 1, 1)
    plain, scaled = Codec(model), Codec(model, scale)
    latents = scaled.encode(noise())
    torch.testing.assert_close(latents, plain.encode(noise()) * scale)
    one = plain.decode(plain.encode(noise())).astype(int)
    other = scaled.decode(latents).astype(int)
    assert np.abs(one - other).max() <= (0 if math.log2(scale).is_integer() else 1)


def test_codec_returns_float32_without_gradient_and_restores_the_mode() -> None:
    model = PatchAutoencoder(4, 4, 8, 1, 1).train()
    codec = Codec(model, 2.0)
    latents = codec.encode(noise())
    assert latents.dtype == torch.float32
    assert not latents.requires_grad
    assert codec.decode(latents).dtype == np.uint8
    assert model.training


# --- files ---


def test_saved_autoencoder_comes_back_and_its_bytes_repeat(tmp_path: Path) -> None:
    model = PatchAutoencoder(4, 4, 8, 1, 2)
    nn.init.normal_(model.decoder[-1].weight)
    for name in ("a", "b"):
        save_autoencoder(tmp_path / name, model)
        assert {file.name for file in (tmp_path / name).iterdir()} == {"config.json", WEIGHTS}
    for file in ("config.json", WEIGHTS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    loaded = load_autoencoder(tmp_path / "a")
    assert isinstance(loaded, PatchAutoencoder)
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    save_autoencoder(tmp_path / "c", loaded)
    assert (tmp_path / "c" / WEIGHTS).read_bytes() == (tmp_path / "a" / WEIGHTS).read_bytes()


def diffusers_model(name: str) -> nn.Module:
    import diffusers

    if name == "AutoencoderKL":
        return diffusers.AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            layers_per_block=1,
        )
    if name == "AutoencoderDC":
        return diffusers.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=4,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()),
            encoder_block_types="ResBlock",
            decoder_block_types="ResBlock",
        )
    return diffusers.AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )


@pytest.mark.parametrize("name", ["AutoencoderKL", "AutoencoderTiny"])
def test_diffusers_folder_loads_and_encodes_to_the_mode_each_time(
    tmp_path: Path, name: str
) -> None:
    model = diffusers_model(name)
    save_autoencoder(tmp_path, model)
    loaded = load_autoencoder(tmp_path)
    assert type(loaded) is type(model)
    check_autoencoder(tmp_path, loaded, replace(PARAMS, latent_channels=4, factor=2), 16)
    codec = Codec(loaded, 0.5)
    latents = codec.encode(noise())
    assert latents.shape == (2, 4, 8, 8)
    assert torch.equal(codec.encode(noise()), latents)
    if name == "AutoencoderKL":
        with torch.no_grad():
            mean = model.eval().encode(to_pixels(noise(), CPU)).latent_dist.mean
        torch.testing.assert_close(latents, mean * 0.5)
    assert codec.decode(latents).shape == (2, 16, 16, 3)


def test_diffusers_autoencoder_of_another_interface_works_or_is_refused_in_one_line() -> None:
    model = diffusers_model("AutoencoderDC")
    try:
        check_autoencoder(Path("models/dc"), model, replace(PARAMS, factor=2), 16)
    except UserError as error:
        problem = str(error)
    else:
        codec = Codec(model)
        assert codec.decode(codec.encode(noise())).shape == (2, 16, 16, 3)
        return
    assert "models/dc" in problem
    assert "\n" not in problem


@pytest.mark.parametrize("change", ["drop", "add"])
def test_diffusers_weights_that_do_not_fit_their_config_are_refused(
    tmp_path: Path, change: str
) -> None:
    from safetensors.torch import load_file, save_file

    save_autoencoder(tmp_path, diffusers_model("AutoencoderKL"))
    weights = load_file(tmp_path / WEIGHTS)
    if change == "drop":
        del weights["encoder.conv_in.weight"]
    else:
        weights["stranger.weight"] = torch.ones(3)
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError) as caught:
        load_autoencoder(tmp_path)
    one_line(caught.value, str(tmp_path), "cannot be loaded")


def damage(folder: Path, how: str) -> None:
    config, weights = folder / "config.json", folder / WEIGHTS
    content: Any = json.loads(config.read_text())
    if how == "no config":
        config.unlink()
    elif how == "no weights":
        weights.unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "empty weights":
        weights.write_bytes(b"")
    elif how == "text":
        config.write_text("no json")
    elif how == "list":
        config.write_text("[]")
    elif how == "no class":
        config.write_text("{}")
    else:
        changes: dict[str, dict[str, Any]] = {
            "unet": {"_class_name": "UNet2DModel"},
            "module": {"_class_name": "AutoencoderBanana"},
            "other width": {"width": 16},
            "text width": {"width": "x"},
            "unknown key": {"depth": 3},
        }
        config.write_text(json.dumps(content | changes[how]))


@pytest.mark.parametrize(
    "how",
    [
        "no config", "no weights", "truncated", "empty weights", "text", "list", "no class",
        "unet", "module", "other width", "text width", "unknown key",
    ],
)  # fmt: skip
def test_folder_that_is_no_autoencoder_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    save_autoencoder(tmp_path, PatchAutoencoder(4, 4, 8, 0, 0))
    load_autoencoder(tmp_path)
    damage(tmp_path, how)
    with pytest.raises(UserError) as caught:
        load_autoencoder(tmp_path)
    one_line(caught.value, str(tmp_path), "autoencoder.pretrained=null")


def test_missing_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_autoencoder(tmp_path / "models")
    one_line(caught.value, str(tmp_path / "models"))


@pytest.mark.parametrize(
    ("channels", "factor"), [(4, 4), (8, 4), (4, 2), (4, 8)], ids=["fits", "channels", "half", "8"]
)
def test_autoencoder_must_have_the_channels_and_the_factor_of_the_params(
    channels: int, factor: int
) -> None:
    model = PatchAutoencoder(channels, factor, 8, 0, 0)
    folder = Path("models/mine")
    if (channels, factor) == (4, 4):
        check_autoencoder(folder, model, PARAMS, 16)
        return
    with pytest.raises(UserError) as caught:
        check_autoencoder(folder, model, PARAMS, 16)
    shape = [channels, 16 // factor, 16 // factor]
    one_line(caught.value, "models/mine", str(shape), "[4, 4, 4]", "autoencoder.latent_channels")


def test_size_that_the_autoencoder_cannot_encode_is_refused_in_one_line() -> None:
    with pytest.raises(UserError) as caught:
        check_autoencoder(Path("models/mine"), PatchAutoencoder(4, 4, 8, 0, 0), PARAMS, 18)
    one_line(caught.value, "models/mine", "18×18")


# --- training ---


class Shift(nn.Module):
    """Encodes pixels as they are and decodes them ``levels`` of 255 brighter."""

    def __init__(self, levels: float) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents + self.levels / 127.5


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_psnr_agrees_with_a_hand_computation(batch: int) -> None:
    images = np.full((5, 4, 4, 3), 100, dtype=np.uint8)
    images[4] = 252  # clipped to 255: an error of 3 in place of 10
    value = psnr(Codec(Shift(10.0)), images, np.array([0, 2, 4]), batch)
    assert value == pytest.approx(10 * math.log10(255**2 / ((100 + 100 + 9) / 3)))


def test_psnr_of_a_perfect_codec_is_large_and_finite() -> None:
    assert 100 < psnr(Codec(Shift(0.0)), noise(), np.arange(2), 2) < math.inf


def train(
    params: AutoencoderParams, images: Images, seed: int = 0, augmentation: str = "none"
) -> tuple[PatchAutoencoder, list[float], list[int]]:
    losses, epochs = [], []

    def on_epoch(epoch: int, loss: float) -> None:
        epochs.append(epoch)
        losses.append(loss)

    rows = np.arange(len(images))
    model = train_autoencoder(
        params, augmentation, images, rows, seed, CPU, lambda epochs: epochs, on_epoch
    )
    return model, losses, epochs


def test_training_lowers_the_loss_and_beats_the_pca_it_starts_from(images: Images) -> None:
    rows = np.arange(len(images))
    pca = PatchAutoencoder(4, 4, 8, 1, 1)
    pca.start_from_pca(patches_of(to_pixels(images, CPU), 4))
    model, losses, epochs = train(replace(PARAMS, epochs=40, width=16), images)
    assert epochs == list(range(1, 41))
    assert losses[-1] < 0.8 * losses[0]
    before, after = psnr(Codec(pca), images, rows, 16), psnr(Codec(model), images, rows, 16)
    assert after > before + 1


@pytest.mark.parametrize("augmentation", ["none", "dihedral"])
def test_training_twice_gives_the_same_weights_and_another_seed_does_not(
    images: Images, augmentation: str
) -> None:
    params = replace(PARAMS, epochs=2)
    weights = []
    for seed in (0, 0, 1):
        model, _, _ = train(params, images, seed, augmentation)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        torch.rand(3)  # the global stream must not matter
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_training_that_diverges_is_stopped_with_the_parameter_to_change(images: Images) -> None:
    with pytest.raises(UserError) as caught:
        train(replace(PARAMS, learning_rate=1e30, epochs=5), images)
    one_line(caught.value, "autoencoder.learning_rate=1e+30", "epoch")


def test_training_reads_only_the_rows_that_it_is_given(images: Images) -> None:
    changed = images.copy()
    changed[8:] = 0
    results = []
    for source in (images, changed):
        model = train_autoencoder(
            PARAMS, "none", source, np.arange(8), 0, CPU, lambda epochs: epochs, lambda *_: None
        )
        results.append(model.expand.weight.detach())
    assert torch.equal(*results)

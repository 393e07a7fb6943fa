"""Models that others trained: what is taken from their folders, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bad_files import Code
from conftest import make_project
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from omegaconf import OmegaConf
from stage_runner import ROUND, START, run_stage
from tiny_autoencoders import KINDS, tiny_autoencoder
from tiny_unet import CONFIG

from advloop.autoencoder import (
    Codec,
    import_autoencoder,
    load_autoencoder,
    read_scaling,
    save_autoencoder,
)
from advloop.core.errors import UserError
from advloop.discriminator import load_discriminator
from advloop.params.data import AutoencoderParams
from advloop.params.diffusion import DiffusionParams, UNetParams
from advloop.params.imported_noise import check_scheduler, find_scheduler
from advloop.patch_autoencoder import PatchAutoencoder
from advloop.sampling import sample_ddim
from advloop.schedule import alphas_cumprod_of
from advloop.unet import build_unet, import_base, load_checkpoint, save_checkpoint

SHAPE = (4, 8, 8)
UNET = UNetParams([8, 16], 1, [], 4)
AUTOENCODER = AutoencoderParams(None, 4, 2, 8, 1, 1, 1, 8, 1e-3, 0.3, 0.1)
V = DiffusionParams(1000, "squaredcos_cap_v2", "v_prediction")
PROCESSES = [
    V,
    DiffusionParams(1000, "linear", "epsilon"),
    DiffusionParams(200, "scaled_linear", "sample"),
    DiffusionParams(1000, "scaled_linear", "epsilon", 0.0015, 0.0195),
]
IMAGES = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)


def refusal(action: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        action(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert ";" in message, "no fix is named"
    return message


def scheduler_of(process: DiffusionParams, **changes: Any) -> DDIMScheduler:
    start, end = process.betas() or (1e-4, 0.02)
    return DDIMScheduler(
        num_train_timesteps=process.num_train_timesteps,
        beta_schedule=process.beta_schedule,
        prediction_type=process.prediction_type,
        beta_start=start,
        beta_end=end,
        clip_sample=False,
        timestep_spacing="trailing",
        **changes,
    )


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A folder as diffusers' pipelines have it, v-prediction and cosine schedule."""
    folder = tmp_path / "pipeline"
    build_unet(CONFIG, seed=3).unet.save_pretrained(folder / "unet")
    scheduler_of(V).save_pretrained(folder / "scheduler")
    tiny_autoencoder("AutoencoderKL", scaling_factor=0.5, shift_factor=0.25).save_pretrained(
        folder / "vae"
    )
    return folder


# --- The diffusion process ---


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: f"{p.prediction_type}-{p.betas()}")
def test_imported_unet_draws_what_diffusers_draws_with_its_own_scheduler(
    process: DiffusionParams, tmp_path: Path
) -> None:
    build_unet(CONFIG, seed=3).unet.save_pretrained(tmp_path / "unet")
    scheduler_of(process).save_pretrained(tmp_path / "scheduler")
    denoiser = import_base(tmp_path, SHAPE, UNET, process).eval()
    noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    alphas = alphas_cumprod_of(process)
    ours = sample_ddim(denoiser, noise, alphas, process.prediction_type, 4)
    unet = UNet2DModel.from_pretrained(tmp_path / "unet", low_cpu_mem_usage=False).eval()
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "scheduler")
    scheduler.set_timesteps(4)
    theirs = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            theirs = scheduler.step(unet(theirs, t).sample, t, theirs).prev_sample
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3 * float(theirs.abs().max()))


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"prediction_type": "epsilon"}, "diffusion.prediction_type=epsilon"),
    ({"num_train_timesteps": 500}, "diffusion.num_train_timesteps=500"),
    ({"beta_schedule": "linear"}, "diffusion.beta_schedule=linear"),
    ({"beta_schedule": "scaled_linear"}, "diffusion.beta_schedule=scaled_linear"),
]


@pytest.mark.parametrize(("changes", "fix"), CONTRADICTIONS, ids=lambda x: str(x)[:40])
def test_scheduler_of_another_process_is_refused_with_the_parameter_to_set(
    pipeline: Path, changes: dict[str, Any], fix: str
) -> None:
    scheduler_of(replace(V, **changes)).save_pretrained(pipeline / "scheduler")
    message = refusal(import_base, pipeline, SHAPE, UNET, V)
    assert f"set {fix} in conf/config.yaml" in message
    assert f"{pipeline / 'scheduler/scheduler_config.json'}" in message
    import_base(pipeline, SHAPE, UNET, replace(V, **changes))


@pytest.mark.parametrize("key", ["beta_start", "beta_end"])
def test_other_betas_are_refused_with_the_parameter_to_set(pipeline: Path, key: str) -> None:
    usual = DiffusionParams(1000, "scaled_linear", "epsilon")
    other = replace(usual, **{key: 0.01})
    scheduler_of(other).save_pretrained(pipeline / "scheduler")
    assert f"set diffusion.{key}=0.01 in" in refusal(import_base, pipeline, SHAPE, UNET, usual)
    import_base(pipeline, SHAPE, UNET, other)


def test_usual_betas_are_the_same_named_or_not(pipeline: Path) -> None:
    scheduler_of(DiffusionParams(1000, "linear", "epsilon")).save_pretrained(pipeline / "scheduler")
    for betas in ((None, None), (1e-4, 0.02), (None, 0.02)):
        check_scheduler(pipeline, DiffusionParams(1000, "linear", "epsilon", *betas))


@pytest.mark.parametrize("place", ["pipeline", "unet", "state dict", "beside the unet"])
def test_scheduler_is_found_wherever_the_model_is_named(pipeline: Path, place: str) -> None:
    model = pipeline
    if place == "unet":
        model = pipeline / "unet"
    elif place == "state dict":
        model = pipeline / "unet.pt"
        torch.save(build_unet(CONFIG, seed=3).unet.state_dict(), model)
    elif place == "beside the unet":
        (pipeline / "scheduler/scheduler_config.json").rename(
            pipeline / "unet/scheduler_config.json"
        )
        (pipeline / "scheduler").rmdir()
        model = pipeline / "unet"
    assert find_scheduler(model) is not None
    import_base(model, SHAPE, UNET, V)
    message = refusal(import_base, model, SHAPE, UNET, replace(V, prediction_type="sample"))
    assert "set diffusion.prediction_type=v_prediction" in message


def test_model_without_a_scheduler_is_taken_at_the_run_s_word(tmp_path: Path) -> None:
    build_unet(CONFIG, seed=3).unet.save_pretrained(tmp_path / "unet")
    for process in PROCESSES:
        import_base(tmp_path / "unet", SHAPE, UNET, process)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", ""),
        ("[]", "no beta_schedule"),
        ('{"_class_name": "FlowMatchEulerDiscreteScheduler"}', "no beta_schedule"),
        ('{"beta_schedule": "sigmoid"}', "beta_schedule=sigmoid"),
        ('{"beta_schedule": ["linear"]}', "beta_schedule="),
        ('{"beta_schedule": "linear", "prediction_type": "flow_prediction"}', "flow_prediction"),
        ('{"beta_schedule": "linear", "trained_betas": [0.1, 0.2]}', "trained_betas"),
        ('{"beta_schedule": "linear", "rescale_betas_zero_snr": true}', "rescale_betas_zero_snr"),
        ("[" * 100_000, ""),
        ("\udcff", ""),
    ],
)
def test_scheduler_that_no_parameter_expresses_is_refused(
    pipeline: Path, content: str, says: str
) -> None:
    file = pipeline / "scheduler/scheduler_config.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    message = refusal(import_base, pipeline, SHAPE, UNET, V)
    assert message.startswith(f"{file}: ")
    assert says in message


def test_values_that_a_scheduler_leaves_out_are_those_of_diffusers(tmp_path: Path) -> None:
    (tmp_path / "scheduler_config.json").write_text('{"beta_schedule": "linear"}')
    check_scheduler(tmp_path, DiffusionParams(1000, "linear", "epsilon"))
    default = DDPMScheduler()
    assert default.config.prediction_type == "epsilon"
    assert default.config.num_train_timesteps == 1000


# --- U-Nets ---


@pytest.mark.parametrize("sample_size", [None, 8, [8, 8]])
def test_unet_takes_the_run_s_latents_however_it_names_its_size(
    tmp_path: Path, sample_size: Any
) -> None:
    UNet2DModel(**CONFIG | {"sample_size": sample_size}).save_pretrained(tmp_path)
    assert import_base(tmp_path, SHAPE, UNET, V).latent_shape == SHAPE


def test_unet_that_is_told_noise_levels_is_refused(tmp_path: Path) -> None:
    UNet2DModel(**CONFIG, time_embedding_type="fourier").save_pretrained(tmp_path)
    assert "not timesteps" in refusal(import_base, tmp_path, SHAPE, UNET, V)


def test_unet_that_has_learnt_other_timesteps_is_refused(tmp_path: Path) -> None:
    unet = UNet2DModel(**CONFIG, time_embedding_type="learned", num_train_timesteps=50)
    unet.save_pretrained(tmp_path)
    assert "diffusion.num_train_timesteps" in refusal(import_base, tmp_path, SHAPE, UNET, V)
    import_base(tmp_path, SHAPE, UNET, replace(V, num_train_timesteps=50))


# --- State dicts ---


def test_state_dict_is_the_network_that_the_params_describe(tmp_path: Path) -> None:
    unet, autoencoder = build_unet(CONFIG, seed=3), tiny_autoencoder("PatchAutoencoder")
    torch.save(unet.unet.state_dict(), tmp_path / "unet.pt")
    torch.save(autoencoder.state_dict(), tmp_path / "autoencoder.pt")
    base = import_base(tmp_path / "unet.pt", SHAPE, UNET, V)
    weights = base.unet.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in unet.unet.state_dict().items())
    model, scale, shift = import_autoencoder(tmp_path / "autoencoder.pt", AUTOENCODER)
    assert (scale, shift) == (None, 0.0)
    assert np.array_equal(Codec(model).encode(IMAGES), Codec(autoencoder).encode(IMAGES))


def test_checkpoint_of_this_project_is_a_base_model_whatever_the_params_say(
    tmp_path: Path,
) -> None:
    unet = build_unet(CONFIG, seed=3)
    save_checkpoint(tmp_path / "best.pt", unet)
    base = import_base(tmp_path / "best.pt", SHAPE, replace(UNET, block_out_channels=[32]), V)
    weights = base.unet.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in unet.unet.state_dict().items())
    message = refusal(import_base, tmp_path / "best.pt", (4, 16, 16), UNET, V)
    assert "[4, 16, 16]" in message


NAME = "conv_in.weight"
DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing": (lambda c: {k: v for k, v in c.items() if k != NAME}, f"{NAME} is missing"),
    "unknown": (lambda c: c | {"more": torch.ones(1)}, "more is unknown"),
    "shape": (lambda c: c | {NAME: torch.ones(2, 3)}, f"{NAME} has the shape [2, 3], not [8, 4"),
    "wrapped": (lambda c: {"epoch": 1, "model": c}, "save the state dict alone"),
    "list": (lambda c: list(c.values()), "it holds a list"),
    "NaN": (lambda c: c | {NAME: c[NAME] * float("nan")}, "NaN"),
    "empty": (lambda _: {}, "is missing"),
    "code": (lambda c: c | {NAME: Code()}, "refused"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_state_dict_of_another_network_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    change, says = DAMAGE[how]
    torch.save(change(dict(build_unet(CONFIG, seed=3).unet.state_dict())), "unet.pt")
    message = refusal(import_base, Path("unet.pt"), SHAPE, UNET, V)
    assert "unet.pt" in message
    assert says in message
    assert not Path("executed").exists()


def test_state_dict_of_another_autoencoder_names_its_section(tmp_path: Path) -> None:
    torch.save(PatchAutoencoder(4, 2, 16, 1, 1).state_dict(), tmp_path / "a.pt")
    message = refusal(import_autoencoder, tmp_path / "a.pt", AUTOENCODER)
    assert message.startswith(f"autoencoder.pretrained={tmp_path / 'a.pt'}")
    assert "encoder.0.weight has the shape [16, 12, 3, 3], not [8, 12, 3, 3]" in message


# --- Autoencoders ---


@pytest.mark.parametrize("kind", KINDS)
def test_autoencoder_of_every_kind_comes_back_with_its_scale(tmp_path: Path, kind: str) -> None:
    model = tiny_autoencoder(kind)
    save_autoencoder(tmp_path / "vae", model, 0.75)
    for path in (tmp_path, tmp_path / "vae"):
        loaded, scale, shift = import_autoencoder(path, AUTOENCODER)
        assert (scale, shift) == (0.75, 0.0)
        assert np.array_equal(Codec(loaded).encode(IMAGES), Codec(model).encode(IMAGES))
        assert Codec(loaded, scale).decode(Codec(loaded, scale).encode(IMAGES)).shape == (
            2, 16, 16, 3,
        )  # fmt: skip


def test_codec_shifts_and_scales_as_diffusers_does() -> None:
    model = tiny_autoencoder("AutoencoderKL", scaling_factor=0.5, shift_factor=0.25)
    codec, plain = Codec(model, 0.5, 0.25), Codec(model)
    latents = codec.encode(IMAGES)
    torch.testing.assert_close(latents, (plain.encode(IMAGES) - 0.25) * 0.5)
    assert np.array_equal(codec.decode(latents), plain.decode(latents / 0.5 + 0.25))
    torch.testing.assert_close(latents / 0.5 + 0.25, plain.encode(IMAGES))


def test_scale_that_is_null_is_measured_and_stays_null(tmp_path: Path) -> None:
    model = tiny_autoencoder("AutoencoderKL", scaling_factor=None)
    model.save_pretrained(tmp_path / "theirs")  # type: ignore[operator]
    assert import_autoencoder(tmp_path / "theirs", AUTOENCODER)[1:] == (None, 0.0)
    save_autoencoder(tmp_path / "ours", load_autoencoder(tmp_path / "theirs"))
    assert read_scaling(tmp_path / "ours") == (None, 0.0)
    assert json.loads((tmp_path / "ours/config.json").read_text())["scaling_factor"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"scaling_factor": 0},
        {"scaling_factor": -1.0},
        {"scaling_factor": "x"},
        {"scaling_factor": float("nan")},
        {"shift_factor": "x"},
        {"shift_factor": float("inf")},
        {"latents_mean": [0.0] * 4},
    ],
    ids=str,
)
def test_scale_or_shift_that_nothing_here_applies_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    save_autoencoder(tmp_path, tiny_autoencoder("AutoencoderKL"), 1.0)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    message = refusal(import_autoencoder, tmp_path, AUTOENCODER)
    assert next(iter(changes)) in message
    assert message.startswith(str(file))


# --- A run ---


def test_a_round_starts_from_a_pipeline_of_three_channels_with_its_scale_and_shift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import diffusers

    project = make_project(tmp_path)
    monkeypatch.chdir(project)
    monkeypatch.setenv("ADVLOOP_DEVICE", "cpu")
    diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        norm_num_groups=4,
        layers_per_block=1,
        scaling_factor=0.01,
        shift_factor=0.125,
    ).save_pretrained("mine/vae")
    unet = UNet2DModel(**CONFIG | {"in_channels": 3, "out_channels": 3})
    unet.save_pretrained("mine/unet")
    scheduler_of(PROCESSES[1]).save_pretrained("mine/scheduler")
    content = OmegaConf.load("params.yaml")
    content.autoencoder.update(pretrained="mine", latent_channels=3, factor=2)
    content.base.pretrained = "mine"
    content.diffusion.update(beta_schedule="linear", prediction_type="epsilon")
    OmegaConf.save(content, "params.yaml")
    for stage, options in (START | ROUND).items():
        run_stage(stage, options, monkeypatch)
    assert "root mean square of 0.0" in capsys.readouterr().err
    stats = json.loads(Path("latents/stats.json").read_text())
    assert (stats["latent_scale"], stats["latent_shift"]) == (0.01, 0.125)
    assert stats["latent_shape"] == [3, 8, 8]
    weights = load_checkpoint(Path("base/checkpoint_best.pt")).unet.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in unet.state_dict().items())
    latents = torch.load("latents/train.pt", weights_only=True)
    images = np.load("data/images.npy")
    splits = [line.split(",")[-1] for line in Path("data/manifest.csv").read_text().split()[1:]]
    first = images[splits.index("train")][None]
    model = load_autoencoder(Path("autoencoder"))
    torch.testing.assert_close(latents[:1], Codec(model, 0.01, 0.125).encode(first))
    discriminator = load_discriminator(Path("discriminator/discriminator_best.pt"), 3)
    assert discriminator.config["in_channels"] == 3

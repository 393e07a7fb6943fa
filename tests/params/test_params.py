"""params.yaml: what is accepted, and the one line that refuses the rest."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO
from hydra import compose, initialize_config_dir
from objective_files import objective_params
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError
from small_params import DATA, EDM, FLOW, UNET

from advloop.core.errors import UserError
from advloop.objectives import read_objective
from advloop.params.checks import check_params
from advloop.params.data import DataParams
from advloop.params.diffusion import UNetParams, read_diffusion
from advloop.params.loader import LONGEST, Params
from advloop.params.run import read_exp_name, read_num_iterations, read_precision, read_seed
from advloop.params.sections import KEYS, SECTIONS

SHAPES = {  # a known geometry, so that the refusals do not depend on the committed demo
    "data.image_size": 64,
    "autoencoder.factor": 8,
    "unet.block_out_channels": [64, 128],
    "unet.norm_num_groups": 16,
    "unet.attention_levels": [],
    "discriminator.channels": [64, 128],
    "diffusion.num_train_timesteps": 1000,
}


@cache
def plain() -> DictConfig:
    """The demo with an objective that sets nothing but itself."""
    with initialize_config_dir(str(REPO / "conf"), version_base=None):
        return compose("config", overrides=["objective=ddo"])


def write(folder: Path, changes: dict[str, Any], drop: str | None = None) -> Path:
    """``plain`` with dotted ``changes``, written into ``folder``."""
    content = OmegaConf.create(OmegaConf.to_container(plain(), resolve=True))
    shapes = {k: v for k, v in SHAPES.items() if k.split(".")[0] not in changes}
    for key, value in {**shapes, **changes}.items():
        OmegaConf.update(content, key, value, merge=False, force_add=True)
    if drop:
        *parents, last = drop.split(".")
        del (content[parents[0]] if parents else content)[last]
    path = folder / "params.yaml"
    OmegaConf.save(content, path)
    return path


def load_all(path: Path) -> None:
    """Everything that check_config reads."""
    params = Params.load(path)
    check_params(params)
    read_objective(params)


def refusal(path: Path) -> str:
    """The message without the file's name, which it begins with."""
    with pytest.raises(UserError) as caught:
        load_all(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


# --- What is accepted ---


def test_committed_params_pass_the_check_and_load_as_they_are_written():
    params = Params.load(REPO / "params.yaml")
    check_params(params)
    assert {*params.content} == KEYS
    for name, cls in SECTIONS.items():
        loaded = params.section(name, cls).model_dump()
        assert loaded == params.content[name]
    assert read_diffusion(params).model_dump() == params.content["diffusion"]
    assert read_seed(params) == params.at("seed")
    assert read_num_iterations(params) == params.at("num_iterations")
    assert read_precision(params) == params.at("precision")
    assert read_exp_name(params) == params.at("exp_name")


def test_values_at_their_limits_are_accepted(tmp_path):
    changes = {
        "num_iterations": 1,
        "seed": 2**31 - 1,
        "objective.weight": 0,
        "base.samples_per_epoch": None,
        "base.grad_clip": 1,
        "unet.block_out_channels": [16, 16, 16, 32],
        "unet.attention_levels": [0, 3],
        "discriminator.channels": [8, 8, 8],
        "generate.num_inference_steps": 1000,
        "discriminator.noise_conditioned": True,
        "train_disc.predicted_fraction": 0.7,
        "train_disc.replay_fraction": 0.2,
        "train_disc.stop_accuracy": 1,
    }
    params = Params.load(write(tmp_path, changes))
    check_params(params)
    base = params.section("base", SECTIONS["base"])
    assert base.samples_per_epoch is None
    assert isinstance(base.grad_clip, float)
    assert params.section("discriminator", SECTIONS["discriminator"]).noise_conditioned is True


def test_number_in_scientific_notation_is_a_number(tmp_path):
    path = write(tmp_path, {})
    rate = OmegaConf.load(path).base.learning_rate
    path.write_text(path.read_text().replace(f"learning_rate: {rate}", "learning_rate: 6e-4"))
    assert Params.load(path).section("base", SECTIONS["base"]).learning_rate == 6e-4


def test_everything_is_all_but_derived_in_the_order_of_the_file_and_recorded_as_used(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("scale: demo\nunet:\n  b: [1]\n  a: null\nderived: {}\nseed: 0\n")
    params = Params.load(path)
    found = params.everything()
    assert list(found.items()) == [("scale", "demo"), ("unet", {"b": [1], "a": None}), ("seed", 0)]
    assert list(found["unet"]) == ["b", "a"]
    assert type(found["unet"]["b"]) is list
    assert params.used == found
    assert Params.load(path).everything("unet") == {"scale": "demo", "seed": 0}


# --- Sections in code ---


def test_section_made_in_code_is_checked_frozen_and_may_leave_out_defaults():
    assert DATA.classes == "none"
    with pytest.raises(ValidationError):
        DATA.source = "other"
    values = UNET.model_dump()
    for bad in ({"layers_per_block": 0}, {"layers_per_block": "1"}, {"more": 1}):
        with pytest.raises(ValidationError):
            UNetParams(**values | bad)
    with pytest.raises(ValidationError):
        DataParams(source="images")


# --- What is refused ---

# One example of each rule; docs/parameters.md, which a test compares, has the rule of every value.
REFUSED: dict[str, dict[str, list[Any]]] = {
    "must be of type int": {
        "num_iterations": [True, 2.0, None],
        "base.epochs": [True, 2.5, None, [1, 2], {"a": 1}],
    },
    "must be at least 1": {
        "base.epochs": [0],
        "unet.block_out_channels": [[64, 0]],
        "train_diffusion.lora_rank": [0, -2],
    },
    "must be of type int | None": {"train_diffusion.lora_rank": [1.5, True]},
    "must be of type int, not str": {"num_iterations": ["2"], "base.epochs": ["many", "5"]},
    "must be of type float": {"base.learning_rate": [True, [0.1], None, 10**400]},
    "must be of type float, not str": {"base.learning_rate": ["heavy", "0.1"]},
    "must be of type float | None": {"train_disc.stop_accuracy": [True]},
    "must be of type bool": {"discriminator.noise_conditioned": [1, 0.0, None, [True]]},
    "must be of type bool, not str": {"discriminator.noise_conditioned": ["true"]},
    "must be of type str": {"exp_name": [2024], "scale": [None], "data.source": [None, True]},
    "must be of type list[int]": {"unet.block_out_channels": [64, [64, 2.5], [64, True], [64, []]]},
    "must be of type list[int], not str": {
        "unet.block_out_channels": [["64", "128"], [64, "wide"]]
    },
    "must be one of fp32, bf16": {"precision": ["fp16", 32]},
    "must be one of none, hflip, dihedral": {"encode_dataset.augment": ["vflip", 1]},
    "must be one of adversarial, ddo, neon, none, seed, x0": {
        "objective.name": ["gan", ["seed"], None]
    },
    "must be one of unet, dit": {"denoiser": ["sit", None, 1]},
    "must be one of vp, flow, edm": {"diffusion.process": ["ddpm", ["vp"], None]},
    "must be at least 0": {"objective.weight": [-0.5], "unet.attention_levels": [[-1]]},
    "must be greater than 0": {"base.learning_rate": [0, -1e-3]},
    "must be finite and greater than 0": {"base.learning_rate": [float("nan"), float("inf")]},
    "must be finite and at least 0": {"objective.weight": [float("nan")]},
    "must be at least 1 and at most 100": {"num_iterations": [0, -1, 101]},
    "must be at least 0 and at most 2147483647": {"seed": [-1, 2**31]},
    "must be at least 3": {"generate.num_samples": [2, 0, -1]},
    "must be at least 0 and at most 0.99999": {"base.ema_decay": [1.0]},
    "must be greater than 0.5 and at most 1": {"train_disc.stop_accuracy": [0.5, 1.01]},
    "must not be empty": {"unet.block_out_channels": [[]], "discriminator.channels": [[]]},
    "is empty; name a file or a folder": {"data.source": ["", " "]},
    "is empty; name a file or a folder, or null for none": {"base.pretrained": [""]},
    "holds outputs/, which the run itself writes; name a folder of its own": {
        "data.source": [".", "..", "conf/../"]
    },
    "is in outputs/, which the run itself writes; copy it to another folder": {
        "data.source": ["outputs", "outputs/data"],
        "autoencoder.pretrained": ["./outputs/autoencoder"],
        "base.pretrained": [str(Path("outputs/final/unet").absolute())],
        "evaluate.feature_weights": ["conf/../outputs/x"],
    },
    "is an address; `dvc import-url` makes a file or folder of it here, to be named": {
        "data.source": ["s3://bucket/a", "https://example.org/a.zip"]
    },
    "must be a section of parameters": {"train_disc": [5, "text", [1, 2], None]},
}


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [(k, v, problem) for problem, found in REFUSED.items() for k, vs in found.items() for v in vs],
)
def test_bad_value_is_refused_with_its_rule_and_the_commands_that_set_it(
    tmp_path, key, value, problem
):
    text = "null" if value is None else str(value)
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    fix = f"set it in conf/ and run `make params`, or `dvc exp run -S {key}=…`"
    fix = fix.replace("objective.name=", "objective=")  # chosen as a whole
    fix = fix.replace("diffusion.process=", "diffusion=")
    assert refusal(write(tmp_path, {key: value})) == f"{key}={text} {problem}; {fix}"


ROUND = {  # 60 steps
    "train_diffusion.epochs": 10,
    "train_diffusion.samples_per_epoch": 384,
    "train_diffusion.batch_size": 64,
}
X0 = {
    "objective": {
        "name": "x0",
        "uses_discriminator": True,
        "weight": 0.1,
        "min_alpha_bar": 0.5,
        "max_gradient_ratio": 0.5,
        "ramp_steps": 20,
    },
    "discriminator.noise_conditioned": True,
    "train_disc.renoise_min_alpha_bar": 0.9,
}
ADVERSARIAL = {
    "objective": {**objective_params("adversarial").model_dump()},
    "discriminator.dropout": 0.0,
    "train_disc.loss": "relativistic",
    "generate.num_inference_steps": 8,
}
LEVELS = "unet.block_out_channels"
CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "data.image_size=60 must be a multiple of the factor 8": {"data.image_size": 60},
    "autoencoder.latent_channels=193 exceeds the 192": {"autoencoder.latent_channels": 193},
    f"{LEVELS}=[64, 64, 64, 64, 64] has 5 levels, but latents of 8": {LEVELS: [64] * 5},
    f"{LEVELS}=[64, 128] has 2 levels, but latents of 9 cells": {"data.image_size": 72},
    "unet.norm_num_groups=24 must divide 64 channels": {"unet.norm_num_groups": 24},
    "unet.norm_num_groups=16 must divide 72 channels": {LEVELS: [64, 72]},
    "unet.norm_num_groups=64 leaves one value a group at the lowest level": {
        LEVELS: [64] * 4,
        "unet.norm_num_groups": 64,
    },
    "unet.attention_levels=2 is not a level: the last is 1": {"unet.attention_levels": [0, 2]},
    "dit.patch_size=3 must divide the 8 cells": {"denoiser": "dit", "dit.patch_size": 3},
    "dit.attention_head_dim=7 makes 21 channels of all heads, which must be": {
        "denoiser": "dit",
        "dit.num_attention_heads": 3,
        "dit.attention_head_dim": 7,
    },
    "discriminator.channels=[8, 8, 8, 8] halves 4 times": {"discriminator.channels": [8] * 4},
    "generate.num_inference_steps=1001 exceeds the 1000": {"generate.num_inference_steps": 1001},
    "evaluate.num_inference_steps=1001 exceeds the 1000": {"evaluate.num_inference_steps": 1001},
    "train_diffusion.preview_steps=1001 exceeds the 1000": {"train_diffusion.preview_steps": 1001},
    "diffusion.beta_end=0.1 has no meaning in squaredcos_cap_v2": {"diffusion.beta_end": 0.1},
    "diffusion.beta_start=0.03 exceeds beta_end=0.02": {
        "diffusion.beta_schedule": "linear",
        "diffusion.beta_start": 0.03,
    },
    "diffusion.prediction_type=epsilon tells nothing of an image at the end of "
    "diffusion.beta_schedule=squaredcos_cap_v2, where sampling begins; use v_prediction, or "
    "diffusion.beta_schedule=linear; set it": {"diffusion.prediction_type": "epsilon"},
    "diffusion.prediction_type=epsilon tells nothing of an image at the end of "
    "diffusion.zero_terminal_snr=true, where sampling begins; use v_prediction, or "
    "diffusion.zero_terminal_snr=false; set it": {
        "diffusion.prediction_type": "epsilon",
        "diffusion.beta_schedule": "linear",
        "diffusion.zero_terminal_snr": True,
    },
    "diffusion.beta_schedule does not belong to diffusion.process=flow, but to vp; choose a "
    "process as a whole, with `dvc exp run -S diffusion=flow`": {
        "diffusion": {**FLOW.model_dump(), "beta_schedule": "linear"}
    },
    "diffusion.shift does not belong to diffusion.process=vp, but to flow": {"diffusion.shift": 3},
    "diffusion.prediction_type does not belong to diffusion.process=flow, but to vp and edm": {
        "diffusion": {**FLOW.model_dump(), "prediction_type": "epsilon"}
    },
    "diffusion.sigma_min=90.0 must be below diffusion.sigma_max=80.0": {
        "diffusion": {**EDM.model_dump(), "sigma_min": 90.0}
    },
    "objective.min_alpha_bar=0.995 leaves no timestep, the least noisy one has 0.9901": {
        **X0,
        "objective.min_alpha_bar": 0.995,
        "train_disc.renoise_min_alpha_bar": 0.9,
        "diffusion": {**FLOW.model_dump(), "num_train_timesteps": 1000, "shift": 100.0},
    },
    "train_disc.replay_fraction=0.41 and train_disc.predicted_fraction=0.5 make more than 0.9": {
        "train_disc.predicted_fraction": 0.5,
        "train_disc.replay_fraction": 0.41,
    },
    "train_diffusion.warmup_steps=1000 leaves nothing of the training, which has 60 steps; ": {
        **ROUND,
        "train_diffusion.warmup_steps": 1000,
    },
    "train_diffusion.lora_rank=65 exceeds the 64 channels of a layer that it adapts; use at most": {
        "base.pretrained": None,
        LEVELS: [64, 128],
        "train_diffusion.lora_rank": 65,
    },
    "train_diffusion.lora_rank=97 exceeds the 96 channels of a layer that it adapts; use at most": {
        "base.pretrained": None,
        "denoiser": "dit",
        "dit.num_attention_heads": 3,
        "dit.attention_head_dim": 32,
        "train_diffusion.lora_rank": 97,
    },
    "base.warmup_steps=60 leaves nothing of the training, which has 60 steps": {
        **{key.replace("train_diffusion", "base"): value for key, value in ROUND.items()},
        "base.pretrained": None,
        "base.warmup_steps": 60,
    },
    "generate.predicted_min_alpha_bar=0.6 leaves no timestep, the least noisy one has 0.4938": {
        "diffusion.num_train_timesteps": 2,
        "generate.num_inference_steps": 2,
        "evaluate.num_inference_steps": 2,
        "evaluate.base_num_inference_steps": 2,
        "train_diffusion.preview_steps": 2,
        "train_disc.predicted_fraction": 0.5,
        "generate.predicted_min_alpha_bar": 0.6,
    },
    "train_disc.renoise_min_alpha_bar=0.9 leaves no timestep, the least noisy one has 0.8000": {
        "discriminator.noise_conditioned": True,
        "train_disc.renoise_min_alpha_bar": 0.9,
        "diffusion.beta_schedule": "linear",
        "diffusion.beta_start": 0.2,
        "diffusion.beta_end": 0.2,
    },
    "objective.min_alpha_bar=0.95 leaves no timestep, the least noisy one has 0.9000": {
        **X0,
        "objective.min_alpha_bar": 0.95,
        "diffusion.beta_schedule": "scaled_linear",
        "diffusion.beta_start": 0.1,
        "diffusion.beta_end": 0.1,
    },
    "evaluate.feature_weights=null leaves evaluate.features=dinov2 without weights; name the "
    "folder that transformers' Dinov2Model.save_pretrained wrote; set it": {
        "evaluate.features": "dinov2"
    },
    "evaluate.feature_weights=a.pt is not used by evaluate.features=lite0": {
        "evaluate.feature_weights": "a.pt"
    },
    "evaluate.feature_weights=a.pt is not used by evaluate.features=encoder": {
        "evaluate.features": "encoder",
        "evaluate.feature_weights": "a.pt",
    },
    "evaluate.feature_weights=  is empty; name a file or a folder, or null for none": {
        "evaluate.features": "inception",
        "evaluate.feature_weights": " ",
    },
    "objective.min_alpha_bar=0.3 has the discriminator judge latents noisier than it is trained "
    "on, down to train_disc.renoise_min_alpha_bar=0.9; use the same value for both": {
        **X0,
        "objective.min_alpha_bar": 0.3,
    },
    "train_disc.r2_weight=0.1 belongs to train_disc.loss=relativistic; use 0; set it": {
        "train_disc.r2_weight": 0.1
    },
    "discriminator.dropout=0.3 has no place in train_disc.loss=relativistic, whose penalties "
    "compare logits of one network; use 0.0; set it": {
        **ADVERSARIAL,
        "discriminator.dropout": 0.3,
    },
    "discriminator.noise_conditioned=true would pair latents of different noise": {
        **ADVERSARIAL,
        "discriminator.noise_conditioned": True,
    },
    "objective.num_inference_steps=8 is not the generate.num_inference_steps=25 of the round's": {
        **ADVERSARIAL,
        "generate.num_inference_steps": 25,
    },
    "generate.guidance_scale=4.0 has no place in objective=adversarial": {
        **ADVERSARIAL,
        "generate.guidance_scale": 4.0,
    },
    "objective.gradient_steps=9 exceeds objective.num_inference_steps=8; null means all": {
        **ADVERSARIAL,
        "objective.gradient_steps": 9,
    },
    "objective.min_accuracy=0.9 must be below objective.max_accuracy=0.8": {
        **ADVERSARIAL,
        "objective.min_accuracy": 0.9,
    },
    "objective.discriminator_steps=9 is not between its bounds 1 and 8": {
        **ADVERSARIAL,
        "objective.discriminator_steps": 9,
    },
}
ALLOWED: list[dict[str, Any]] = [
    {**ROUND, "train_diffusion.warmup_steps": 59},
    {**ROUND, "train_diffusion.samples_per_epoch": None, "train_diffusion.warmup_steps": 1000},
    {"base.pretrained": "unet", "base.samples_per_epoch": 1, "base.warmup_steps": 1000},  # unused
    {"evaluate.features": "dinov2", "evaluate.feature_weights": "models/dinov2"},
    {"evaluate.features": "inception", "evaluate.feature_weights": "a.pt"},
    {"evaluate.features": "inception"},
    ADVERSARIAL,
    {**ADVERSARIAL, "objective.gradient_steps": 8, "discriminator.statistics": True},
    {**ADVERSARIAL, "train_disc.loss": "bce", "discriminator.dropout": 0.3},
    {"denoiser": "dit", "unet.norm_num_groups": 24},  # unused
    {"dit.patch_size": 3},
    {"diffusion": FLOW.model_dump()},
    {"diffusion": EDM.model_dump()},
    {"diffusion.zero_terminal_snr": True, "diffusion.prediction_type": "sample"},
    {"diffusion.beta_schedule": "linear", "diffusion.beta_start": 0.9, "diffusion.beta_end": 0.9},
    {"generate.num_samples": 3},
    {**X0, "objective.min_alpha_bar": 0.9},
    {**X0, "objective.min_alpha_bar": 0.95},
    {**X0, "objective.min_alpha_bar": 0.3, "discriminator.noise_conditioned": False},
]


@pytest.mark.parametrize("changes", ALLOWED, ids=str)
def test_values_that_only_look_like_a_contradiction_are_accepted(tmp_path, changes):
    load_all(write(tmp_path, changes))


@pytest.mark.parametrize("message", CONTRADICTIONS)
def test_values_that_contradict_each_other_are_refused(tmp_path, message):
    assert refusal(write(tmp_path, CONTRADICTIONS[message])).startswith(message)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("train_disc.learnig_rate", "; did you mean train_disc.learning_rate?"),
        ("generate.num_sample", "; did you mean generate.num_samples?"),
        ("objective.wait_for_it_please", "; known: name, uses_discriminator, weight"),
        ("discriminater", "; did you mean discriminator?; correct it in conf/"),
        ("wait_for_it_please", "; correct it in conf/ if it is there, and run `make params`"),
    ],
)
def test_unknown_name_is_refused_with_what_was_probably_meant(tmp_path, key, hint):
    assert refusal(write(tmp_path, {key: 1})).startswith(f"{key} is not a parameter{hint}")


@pytest.mark.parametrize(
    "key",
    ["objective.weight", "objective.name", "seed", "unet", "data.classes", "diffusion.beta_start"],
)
def test_missing_name_is_refused_even_if_code_has_a_default(tmp_path, key):
    assert refusal(write(tmp_path, {}, drop=key)) == f"{key} is missing; run `make params`"
    assert "missing" in refusal(write(tmp_path, {key: "???"})).lower()  # OmegaConf's mark for it


@pytest.mark.parametrize(
    "content",
    [b"", b"# nothing", b"- 1", b"a: b: c", b"[1", b"\0", b"a: 0\na: 1", b"42", b"a: \xff\xfe"],
)
def test_file_that_is_no_mapping_of_parameters_is_refused(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    assert "`make params`" in refusal(path)


def test_missing_file_is_refused_with_the_command_that_makes_it(tmp_path):
    assert refusal(tmp_path / "params.yaml") == "not found; compose it with `make params`"


def test_interpolation_that_leads_nowhere_is_refused_with_its_name(tmp_path):
    assert refusal(write(tmp_path, {"seed": "${nowhere}"})).startswith("seed: ")


def test_bad_exp_name_is_refused_with_the_name_of_the_file(tmp_path):
    path = write(tmp_path, {"exp_name": "a/b"})
    with pytest.raises(UserError, match="exp_name=a/b may hold") as caught:
        read_exp_name(Params.load(path))
    assert str(caught.value).startswith(f"{path}: ")

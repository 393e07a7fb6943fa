"""params.yaml: what is accepted, and the one line that refuses the rest."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from advloop.core.errors import UserError
from advloop.params.loader import Params
from advloop.params.run import read_exp_name, read_num_iterations, read_precision, read_seed
from advloop.params.schema import SCALARS, SECTIONS, check_params

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {  # a known geometry, so that the refusals do not depend on the committed demo
    "data.image_size": 64,
    "autoencoder.factor": 8,
    "unet.block_out_channels": [64, 128],
    "unet.norm_num_groups": 16,
    "unet.attention_levels": [],
    "discriminator.channels": [64, 128],
    "diffusion.num_train_timesteps": 1000,
}


def write(folder: Path, changes: dict[str, Any], drop: str | None = None) -> Path:
    """The committed params.yaml with dotted ``changes``, written into ``folder``."""
    content = OmegaConf.load(ROOT / "params.yaml")
    for key, value in {**SHAPES, **changes}.items():
        OmegaConf.update(content, key, value, merge=False, force_add=True)
    if drop:
        *parents, last = drop.split(".")
        del (content[parents[0]] if parents else content)[last]
    path = folder / "params.yaml"
    OmegaConf.save(content, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        check_params(Params.load(path))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    return message


@pytest.mark.parametrize("name", SECTIONS)
def test_section_of_the_committed_params_loads_with_the_values_of_the_file(name: str) -> None:
    params = Params.load(ROOT / "params.yaml")
    loaded = params.section(name, SECTIONS[name])
    assert asdict(loaded) == OmegaConf.to_container(params.content[name])


def test_committed_params_pass_the_check_and_hold_nothing_else() -> None:
    params = Params.load(ROOT / "params.yaml")
    check_params(params)
    assert set(map(str, params.content)) == {*SECTIONS, *SCALARS}
    assert read_seed(params) == params.content.seed
    assert read_num_iterations(params) == params.content.num_iterations
    assert read_precision(params) == params.content.precision
    assert read_exp_name(params) == params.content.exp_name


def test_the_geometry_of_these_tests_passes_the_check(tmp_path: Path) -> None:
    check_params(Params.load(write(tmp_path, {})))


OUT_OF_RANGE: list[tuple[str, Any, str]] = [
    ("num_iterations", 0, "at least 1"),
    ("num_iterations", -1, "at least 1"),
    ("num_iterations", True, "type int"),
    ("num_iterations", "2", "type int"),
    ("num_iterations", 2.0, "type int"),
    ("num_iterations", None, "type int"),
    ("seed", True, "type int"),
    ("seed", -1, "at least 0"),
    ("seed", 2**31, "at most"),
    ("seed", "0", "type int"),
    ("exp_name", 2024, "type str"),
    ("scale", None, "type str"),
    ("precision", "fp16", "one of fp32, bf16"),
    ("precision", 32, "type str"),
    ("objective.weight", -0.5, "at least 0"),
    ("objective.weight", float("nan"), "at least 0"),
    ("objective.weight", "heavy", "type float"),
    ("objective.name", "gan", "one of"),
    ("objective.name", ["seed"], "type str"),
    ("diffusion.beta_schedule", "sigmoid", "one of"),
    ("diffusion.prediction_type", "velocity", "one of"),
    ("encode_dataset.augment", "vflip", "one of none, hflip, dihedral"),
    ("train_diffusion.eval_interval", 0, "at least 1"),
    ("base.eval_interval", 0, "at least 1"),
    ("train_diffusion.sample_interval", 0, "at least 1"),
    ("base.learning_rate", 0, "greater than 0"),
    ("base.learning_rate", -1e-3, "greater than 0"),
    ("base.learning_rate", float("nan"), "greater than 0"),
    ("base.learning_rate", float("inf"), "greater than 0"),
    ("base.learning_rate", True, "type float"),
    ("train_diffusion.learning_rate", 0, "greater than 0"),
    ("train_disc.learning_rate", 0, "greater than 0"),
    ("autoencoder.learning_rate", 0, "greater than 0"),
    ("base.epochs", True, "type int"),
    ("base.epochs", 2.5, "type int"),
    ("base.epochs", "many", "type int"),
    ("base.epochs", [1, 2], "type int"),
    ("base.epochs", None, "type int"),
    ("base.samples_per_epoch", 0, "at least 1"),
    ("base.ema_decay", 1.0, "at most"),
    ("data.val_fraction", 0.0, "at least"),
    ("data.test_fraction", 0.9, "at most 0.5"),
    ("data.source", None, "type str"),
    ("discriminator.dropout", 1.0, "at most"),
    ("discriminator.noise_conditioned", 1, "type bool"),
    ("discriminator.noise_conditioned", 0.0, "type bool"),
    ("discriminator.noise_conditioned", "true", "type bool"),
    ("discriminator.noise_conditioned", None, "type bool"),
    ("discriminator.noise_conditioned", [True], "type bool"),
    ("discriminator.dropout", False, "type float"),
    ("data.source", True, "type str"),
    ("generate.predicted_min_alpha_bar", 0, "greater than 0"),
    ("generate.predicted_min_alpha_bar", 1, "at most 0.999"),
    ("train_disc.renoise_min_alpha_bar", 0.0, "greater than 0"),
    ("train_disc.renoise_min_alpha_bar", 1.0, "at most 0.999"),
    ("train_disc.predicted_fraction", -0.1, "at least 0 and at most 0.9"),
    ("train_disc.predicted_fraction", 0.91, "at most 0.9"),
    ("train_disc.replay_fraction", -0.1, "at least 0 and at most 0.9"),
    ("train_disc.replay_fraction", 1, "at most 0.9"),
    ("train_disc.r1_weight", -1, "at least 0"),
    ("train_disc.r1_sigma", 0, "greater than 0"),
    ("train_disc.stop_accuracy", 0.5, "greater than 0.5 and at most 1"),
    ("train_disc.stop_accuracy", 1.01, "at most 1"),
    ("train_disc.stop_accuracy", True, "type float | None"),
    ("generate.num_samples", 1, "at least 2"),
    ("evaluate.num_seeds", 2, "at least 3"),
    ("unet.block_out_channels", 64, "type list[int]"),
    ("unet.block_out_channels", [64, "wide"], "type list[int]"),
    ("unet.block_out_channels", [64, 2.5], "type list[int]"),
    ("unet.block_out_channels", ["64", "128"], "type list[int]"),
    ("unet.block_out_channels", [64, True], "type list[int]"),
    ("unet.block_out_channels", [64, []], "type list[int]"),
    ("base.epochs", {"a": 1}, "type int"),
    ("train_disc.plateau_factor", 1, "at most 0.99"),
    ("diffusion.num_train_timesteps", 10_001, "at most 10000"),
    ("unet.block_out_channels", [64, 0], "at least 1"),
    ("unet.attention_levels", [-1], "at least 0"),
]


@pytest.mark.parametrize(("key", "value", "rule"), OUT_OF_RANGE)
def test_value_out_of_range_is_refused_in_one_line(
    tmp_path: Path, key: str, value: Any, rule: str
) -> None:
    message = refusal(write(tmp_path, {key: value}))
    assert f"{key}={'null' if value is None else value} " in message
    assert rule in message
    assert "make params" in message


@pytest.mark.parametrize("value", ["5", "0.1"])
@pytest.mark.parametrize("key", ["base.batch_size", "base.learning_rate"])
def test_quoted_number_is_refused_in_one_line(tmp_path: Path, key: str, value: str) -> None:
    assert f"{key}={value} " in refusal(write(tmp_path, {key: value}))


CONTRADICTIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"data.image_size": 60}, "data.image_size=60 ", "multiple of the factor 8"),
    (
        {"unet.block_out_channels": [64] * 5},
        "unet.block_out_channels=[64, 64, 64, 64, 64] ",
        "cannot be halved 4 times",
    ),
    ({"data.image_size": 72}, "unet.block_out_channels=[64, 128] ", "9 cells"),
    ({"unet.norm_num_groups": 24}, "unet.norm_num_groups=24 ", "divide 64 channels"),
    ({"unet.block_out_channels": [64, 72]}, "unet.norm_num_groups=16 ", "divide 72 channels"),
    ({"unet.attention_levels": [0, 2]}, "unet.attention_levels=2 ", "not there"),
    (
        {"discriminator.channels": [8, 8, 8, 8]},
        "discriminator.channels=[8, 8, 8, 8] ",
        "halves 4 times",
    ),
    ({"generate.num_inference_steps": 1001}, "generate.num_inference_steps=1001 ", "1000"),
    ({"evaluate.num_inference_steps": 1001}, "evaluate.num_inference_steps=1001 ", "1000"),
    ({"train_diffusion.preview_steps": 1001}, "train_diffusion.preview_steps=1001 ", "1000"),
    (
        {"train_disc.predicted_fraction": 0.5, "train_disc.replay_fraction": 0.41},
        "train_disc.replay_fraction=0.41 ",
        "train_disc.predicted_fraction=0.5 make more than 0.9",
    ),
]


@pytest.mark.parametrize(("changes", "named", "rule"), CONTRADICTIONS)
def test_values_that_contradict_each_other_are_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], named: str, rule: str
) -> None:
    message = refusal(write(tmp_path, changes))
    assert named in message
    assert rule in message


def test_unet_without_levels_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "unet.block_out_channels" in refusal(write(tmp_path, {"unet.block_out_channels": []}))


def test_values_at_their_limits_are_accepted(tmp_path: Path) -> None:
    changes = {
        "num_iterations": 1,
        "seed": 2**31 - 1,
        "objective.weight": 0,
        "base.samples_per_epoch": None,
        "unet.block_out_channels": [16, 16, 16, 16],
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
    assert params.section("base", SECTIONS["base"]).samples_per_epoch is None
    loaded = params.section("discriminator", SECTIONS["discriminator"])
    assert loaded.noise_conditioned is True


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("train_disc.learnig_rate", "did you mean train_disc.learning_rate?"),
        ("generate.num_sample", "did you mean generate.num_samples?"),
        ("objective.wait_for_it_please", "known: name, weight"),
    ],
)
def test_unknown_key_is_refused_with_what_was_probably_meant(
    tmp_path: Path, key: str, suggestion: str
) -> None:
    message = refusal(write(tmp_path, {key: 1}))
    assert f"{key} is not a parameter" in message
    assert suggestion in message


@pytest.mark.parametrize("section", ["discriminater", "foo"])
def test_unknown_section_is_refused(tmp_path: Path, section: str) -> None:
    assert f"{section} is not a parameter" in refusal(write(tmp_path, {section: {"a": 1}}))


@pytest.mark.parametrize("key", ["objective.weight", "seed", "unet", "train_diffusion.epochs"])
def test_missing_key_is_refused_by_name(tmp_path: Path, key: str) -> None:
    message = refusal(write(tmp_path, {}, drop=key))
    assert f"{key} is missing" in message
    assert "make params" in message


@pytest.mark.parametrize("value", [5, "text", [1, 2], None])
def test_section_replaced_by_something_else_is_refused(tmp_path: Path, value: Any) -> None:
    message = refusal(write(tmp_path, {"train_disc": value}))
    assert f"train_disc={'null' if value is None else value} must be a section" in message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "- 1\n- 2\n",
        "a: b: c",
        "[1",
        "\x00",
        "seed: 0\nseed: 1\n",
        "42\n",
        "true\n",
    ],
    ids=["empty", "comment", "list", "two-colons", "open-list", "nul", "twice", "number", "bool"],
)
def test_file_that_is_no_mapping_of_parameters_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert "make params" in refusal(path)


def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"seed: \xff\xfe\n")
    refusal(path)


def test_missing_file_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    assert "not found; compose it with `make params`" in refusal(tmp_path / "params.yaml")


def test_interpolation_that_leads_nowhere_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "seed" in refusal(write(tmp_path, {"seed": "${nowhere}"}))


def test_bad_exp_name_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"exp_name": "a/b"})
    with pytest.raises(UserError, match="exp_name=a/b may hold") as caught:
        read_exp_name(Params.load(path))
    assert str(path) in str(caught.value)

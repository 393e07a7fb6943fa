"""conf/ composes into params.yaml, with what dvc.yaml needs, or is refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import CONF, OBJECTIVES, PROCESSES, SCALES, compose
from conftest import REPO

from advloop.core.rounds import check_exp_name
from advloop.objectives import read_objective
from advloop.params.checks import check_params
from advloop.params.data import AutoencoderParams, DataParams
from advloop.params.diffusion import UNetParams, read_diffusion
from advloop.params.loader import Params
from advloop.params.run import read_denoiser
from advloop.params.training import DiscriminatorParams, TrainDiscParams
from hydra_plugins.advloop_derived import derive, source_name
from hydra_plugins.conf_files import conf_digest, strays


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Params:
    """With the reference's objective; others may set samplers and trainings of their own."""
    return compose(tmp_path_factory.mktemp("full") / "params.yaml", "scale=full", "objective=seed")


# --- Composition ---


def test_conf_composes_to_exactly_the_committed_params(tmp_path):
    compose(tmp_path / "params.yaml")
    assert (tmp_path / "params.yaml").read_text() == (REPO / "params.yaml").read_text()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_composes_with_every_objective(tmp_path, scale, objective):
    params = compose(tmp_path / "params.yaml", f"scale={scale}", f"objective={objective}")
    check_params(params)
    settings = read_objective(params)
    assert params.content["scale"] == scale
    assert settings.name == params.at("objective.name")
    assert settings.uses_discriminator == params.at("objective.uses_discriminator")


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_composes_and_trains_a_base_model_of_its_own(tmp_path, process):
    options = [f"diffusion={process}", "objective=none"]
    params = compose(tmp_path / "params.yaml", *options)
    check_params(params)
    assert read_diffusion(params).process == process
    assert (params.at("base.pretrained") is None) == (process != "vp")
    mine = compose(tmp_path / "params.yaml", *options, "base.pretrained=mine")
    assert mine.at("base.pretrained") == "mine"


@pytest.mark.parametrize("scale", SCALES)
def test_a_transformer_composes_at_every_scale_and_is_trained_from_scratch(tmp_path, scale):
    params = compose(tmp_path / "params.yaml", "denoiser=dit", f"scale={scale}", "objective=none")
    check_params(params)
    assert read_denoiser(params) == "dit"
    assert params.at("base.pretrained") is None


def test_override_of_one_value_reaches_params_and_what_is_derived_from_it(tmp_path):
    params = compose(tmp_path / "params.yaml", "num_iterations=4")
    assert params.at("num_iterations") == 4
    assert list(params.at("derived.iterations")) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("scale", SCALES)
def test_additions_to_the_plain_discriminator_are_off(tmp_path, scale):
    params = compose(tmp_path / "params.yaml", f"scale={scale}", "objective=seed")
    training = params.section("train_disc", TrainDiscParams)
    assert (training.predicted_fraction, training.replay_fraction, training.r1_weight) == (0, 0, 0)
    assert (training.stop_accuracy, training.loss, training.r2_weight) == (None, "bce", 0)
    model = params.section("discriminator", DiscriminatorParams)
    assert (model.noise_conditioned, model.statistics) == (False, False)


def test_full_scale_carries_the_values_of_the_reference(full):
    reference = {
        "num_iterations": 3,
        "data.image_size": 256,
        "autoencoder.factor": 8,
        "autoencoder.latent_channels": 16,
        "unet.block_out_channels": [64, 128, 256, 512],
        "unet.layers_per_block": 2,
        "generate.num_samples": 5000,
        "generate.num_inference_steps": 100,
        "train_disc.epochs": 50,
        "train_diffusion.epochs": 50,
        "train_diffusion.eval_interval": 5,
        "train_diffusion.num_preview_samples": 64,
        "train_diffusion.sample_interval": 10,
        "diffusion.num_train_timesteps": 1000,
    }
    assert {key: full.at(key) for key in reference} == reference


def test_full_scale_unet_has_16_channels_of_32_cells_and_about_50_million_parameters(full):
    from advloop.models.denoiser import Denoiser, unet_config

    autoencoder = full.section("autoencoder", AutoencoderParams)
    cells = full.section("data", DataParams).image_size // autoencoder.factor
    config = unet_config(full.section("unet", UNetParams), autoencoder.latent_channels, cells)
    with torch.device("meta"):
        unet = Denoiser(config)
    assert unet.latent_shape == (16, 32, 32)
    assert 45e6 <= sum(p.numel() for p in unet.parameters()) <= 60e6


# --- What is derived ---


def derived(exp_name: Any = "plans", num_iterations: Any = 2, **changes: Any) -> dict[str, Any]:
    rest = {
        "uses_discriminator": False,
        "predicted_fraction": 0.0,
        "replay_fraction": 0.0,
        "autoencoder": None,
        "base": None,
        "feature_weights": None,
        "text_encoder": None,
        **changes,
    }
    return derive(exp_name, num_iterations, **rest)


@pytest.mark.parametrize(
    "name", ["a/b", "a;b", "a b", ".a", "-a", "", "x" * 65, "../a", "a\n", "é", "a$b"]
)
def test_exp_name_that_is_no_plain_file_name_is_refused(name):
    with pytest.raises(ValueError, match="exp_name="):
        derived(name)


@pytest.mark.parametrize("name", ["plans", "x" * 64, "A-b_c.9", "_a", "9"])
def test_exp_name_that_is_a_plain_file_name_is_taken_and_moves_no_file_of_the_rounds(name):
    assert derived(name) == derived("other")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/freedoom_plans.zip", "plans"),
        ("pictures", "pictures"),
        ("../scans/my pictures (1).zip", "my_pictures_1_"),
        ("/data/größe/", "gr_e"),
        (".hidden", "hidden"),
        ("x" * 90, "x" * 64),
        ("图", "_"),
        ("-", "run"),
        (2024, "2024"),
    ],
)
def test_run_without_a_name_is_called_like_its_data(tmp_path, source, name):
    assert source_name(source) == check_exp_name(name)
    if isinstance(source, str):
        params = compose(tmp_path / "params.yaml", f"data.source='{source}'")
        assert params.at("exp_name") == name


def test_name_that_the_user_gives_stays_whatever_the_data(tmp_path):
    params = compose(tmp_path / "params.yaml", "data.source=pictures", "exp_name=mine")
    assert params.at("exp_name") == "mine"


@pytest.mark.parametrize("count", [0, -1, 101, 10**9, True, "2", 1.0, None])
def test_number_of_iterations_that_is_no_whole_number_from_1_to_100_is_refused(count):
    with pytest.raises(ValueError, match=f"num_iterations={count} must be a whole number"):
        derived(num_iterations=count)


def test_each_iteration_starts_from_the_one_before_and_the_first_from_the_base_model():
    result = derived("run", num_iterations=3, autoencoder="models/ae")
    assert result["autoencoder_source"] == "models/ae"
    assert [item["model"] for item in result["iterations"].values()] == [
        "outputs/base/checkpoint_best.pt",
        "outputs/rounds/iter_0/model/checkpoint_best.pt",
        "outputs/rounds/iter_1/model/checkpoint_best.pt",
    ]
    assert {len(files) for files in result["plots"].values()} == {3}


def test_features_depend_on_the_weights_that_the_user_names_and_else_on_the_autoencoder_again():
    assert derived(feature_weights="models/dinov2")["feature_source"] == "models/dinov2"
    assert derived()["feature_source"] == "outputs/autoencoder"


def test_iteration_depends_on_what_its_settings_use_and_else_on_its_own_fakes_again():
    plain = derived()["iterations"]["1"]
    fakes = "outputs/rounds/iter_1/fake_latents.pt"
    assert {plain[key] for key in ("predicted", "replay", "discriminator")} == {fakes}
    assert (plain["fakes_options"], plain["discriminator_option"]) == ("", "")
    assert derived()["predictions"] == {}
    options = derived(uses_discriminator=True, predicted_fraction=0.5, replay_fraction=0.25)
    first, second = options["iterations"].values()
    assert options["predictions"] == options["iterations"]
    for item in (first, second):
        assert item["discriminator_option"] == f"--discriminator {item['discriminator']}"
        assert f"--predicted {item['predicted']}" in item["fakes_options"]
    assert "--replay" not in first["fakes_options"]
    assert second["replay"] == "outputs/rounds/iter_0/discriminator/replay_latents.pt"
    assert f"--replay {second['replay']}" in second["fakes_options"]


def test_digest_changes_with_content_name_and_number_of_conf_files(tmp_path):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    original = conf_digest(conf)
    assert original == conf_digest(CONF)
    config = conf / "config.yaml"
    text = config.read_text()
    config.write_text(text + "# a comment\n")
    commented = conf_digest(conf)
    config.write_text(text)
    assert conf_digest(conf) == original
    (conf / "scale/demo.yaml").rename(conf / "scale/other.yaml")
    renamed = conf_digest(conf)
    (conf / "scale/extra.yaml").write_text("")
    assert len({original, commented, renamed, conf_digest(conf)}) == 4


@pytest.mark.parametrize("entry", ["extra", "/extra", "optional extra", "extra@_here_  # why"])
def test_file_beside_config_counts_where_a_defaults_list_names_it(tmp_path, entry):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / "scale/mine.yaml").write_text(f"defaults:\n  - {entry}\n")
    before = conf_digest(conf)
    (conf / "extra.yaml").write_text("seed: 1\n")
    assert conf_digest(conf) != before
    assert strays(conf) == []


@pytest.mark.parametrize("name", [".config.yaml.swp", "._config.yaml", "scale/.demo.yaml"])
def test_files_of_editors_and_line_ends_change_no_digest(tmp_path, name):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / name).write_text("seed: 1\n")
    config = conf / "config.yaml"
    config.write_bytes(config.read_bytes().replace(b"\n", b"\r\n"))
    assert conf_digest(conf) == conf_digest(CONF)
    assert strays(conf) == []


def test_composing_from_a_subfolder_is_refused_before_it_writes_there(tmp_path, monkeypatch):
    for place in ("conf", "src/advloop"):
        monkeypatch.chdir(REPO / place)
        with pytest.raises(SystemExit, match=f"{place}/ is not the project's folder; cd {REPO},"):
            compose(tmp_path / "params.yaml", "num_iterations=4")
    assert not (tmp_path / "params.yaml").exists()


STUMBLES = {  # DVC's own words: `unexpected error`, `Same item(s) are defined as both …`, or none
    "data.source": ["null", "", "5", "[a,b]", "{a: 1}", "outputs/data"],
    "autoencoder.pretrained": ["''", "true"],
    "base.pretrained": ["./outputs/final"],
    "evaluate.feature_weights": ["s3://a/b"],
    "objective.name": ["ddo_weighted", "[seed]", "../core/files"],
    "num_iterations": ["0", "101", "[1]"],
    "exp_name": ["a/b", "''"],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in STUMBLES.items() for value in values]
)
def test_value_that_dvc_stumbles_over_is_refused_in_one_line_before_dvc_sees_it(
    tmp_path, key, value
):
    with pytest.raises(SystemExit) as caught:
        compose(tmp_path / "params.yaml", f"{key}={value}")
    (line,) = str(caught.value.code).splitlines()
    fix = (
        f"set it in conf/, or with `dvc exp run -S {key.replace('objective.name', 'objective')}=…`"
    )
    assert line.startswith(f"error: {key}=")
    assert line.endswith(f"; {fix}")
    assert not (tmp_path / "params.yaml").exists()


@pytest.fixture
def conf(tmp_path) -> Path:
    """A copy of conf/."""
    return Path(shutil.copytree(CONF, tmp_path / "conf"))


def refused(conf: Path) -> str:
    """The line with which composing ``conf`` ends, and which leaves no params.yaml."""
    target = conf.parent / "params.yaml"
    with pytest.raises(SystemExit) as caught:
        compose(target, conf=conf)
    (line,) = str(caught.value.code).splitlines()
    assert not target.exists()
    return line


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.yaml", "a: 1\nb: 2\na: 3\n", "line 3: a is there twice, first in line 1"),
        ("scale/demo.yaml", "a:\n  b: 2\n  b: 3\n", "line 3: b is there twice, first in line 2"),
        ("objective/mine.yaml", "a: [1\n", "line 2: expected"),
        ("config.yaml", "a: 1\n\tb: 2\n", "line 2: found character '\\t' that cannot start"),
        ("config.yaml", "a: b: c\n", "line 1: mapping values are not allowed here"),
        ("config.yaml", "a: \xff\n", ""),
    ],
)
def test_file_of_conf_that_is_no_yaml_is_named_with_its_line(conf, file, text, said):
    (conf / file).write_bytes(text.encode("latin-1"))
    line = refused(conf)
    assert line.startswith(f"error: conf/{file}: not valid YAML ({said}")
    assert line.endswith("; correct the file")


DEMO, NO_LIST = "scale/demo.yaml", "has no defaults list"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("config.yaml", "denoiser: unet ", "denoiser: untet ", "denoiser=untet must be one of dit"),
        ("config.yaml", "scale: demo ", "scale: dmeo ", "scale=dmeo must be one of demo, full"),
        (
            "config.yaml",
            "- scale: demo ",
            "- override scale@here: x ",
            "override scale@here=x must",
        ),
        ("config.yaml", "- scale: demo ", "- scale: [full, x] ", "scale=x must be one of demo"),
        ("config.yaml", "- scale: demo ", f"- scale: {'x' * 300} ", "scale=xxx"),
        (DEMO, "scale: demo ", "defaults: [/objective: no]\nscale: demo ", "/objective=False must"),
        ("config.yaml", None, "", NO_LIST),
        ("config.yaml", None, "# all gone\n", NO_LIST),
        ("config.yaml", None, "seed: 1\n", NO_LIST),
        ("config.yaml", None, "- seed\n", NO_LIST),
    ],
)
def test_file_of_conf_that_chooses_what_is_not_there_is_named(conf, file, old, new, said):
    text = (conf / file).read_text()
    assert old is None or text.count(old) == 1
    (conf / file).write_text(new if old is None else text.replace(old, new))
    line = refused(conf)
    assert line.startswith(f"error: conf/{file}: {said}")
    assert line.endswith("; correct the file")


@pytest.mark.parametrize(
    "entry",
    [
        "optional machine: mine",
        "machine@here: null",
        "override hydra/job_logging: disabled",
        "override /hydra/hydra_logging: none",
        "scale@second: ${scale}",
        "scale@second: [demo, full.yaml]",
    ],
)
def test_choice_that_hydra_fills_in_or_finds_elsewhere_is_left_to_it(conf, entry):
    config = conf / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("  - _self_\n", f"  - {entry}\n  - _self_\n", 1))
    assert config.read_text() != text
    assert compose(conf.parent / "params.yaml", conf=conf).content


def test_choice_that_is_left_to_the_command_line_is_taken_from_there(conf):
    config = conf / "config.yaml"
    config.write_text(config.read_text().replace("denoiser: unet ", "denoiser: ??? ", 1))
    composed = compose(conf.parent / "params.yaml", "denoiser=dit", conf=conf)
    assert read_denoiser(composed) == "dit"

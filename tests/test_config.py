"""conf/ composes into params.yaml, and check_config sees when it no longer does."""

from __future__ import annotations

import os
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from dvc.utils.hydra import compose_and_dump
from omegaconf import DictConfig, OmegaConf

import check_config
from advloop.core.errors import UserError
from advloop.params.data import AutoencoderParams, DataParams
from advloop.params.diffusion import UNetParams
from advloop.params.discriminator import DiscriminatorParams, TrainDiscParams
from advloop.params.loader import Params
from advloop.params.schema import check_params
from hydra_plugins import advloop_derived
from hydra_plugins.advloop_derived import NO_MODEL, conf_digest, derive

ROOT = Path(__file__).resolve().parent.parent
SCALES = sorted(path.stem for path in (ROOT / "conf" / "scale").glob("*.yaml"))
OBJECTIVES = sorted(path.stem for path in (ROOT / "conf" / "objective").glob("*.yaml"))


def compose(target: Path, *overrides: str) -> Path:
    """Compose conf/ as `make params` and `dvc exp run -S` do."""
    conf, plugins = ROOT / "conf", ROOT / "src"
    compose_and_dump(str(target), str(conf), None, "config", str(plugins), list(overrides))
    return target


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Params:
    return Params.load(compose(tmp_path_factory.mktemp("full") / "params.yaml", "scale=full"))


def derived(exp_name: Any = "plans", num_iterations: Any = 2, **changes: Any) -> dict[str, Any]:
    rest = {"epochs": 10, "sample_interval": 10, "autoencoder": None, "base": None, **changes}
    return derive(exp_name, num_iterations, **rest)


def test_conf_composes_to_exactly_the_committed_params(tmp_path: Path) -> None:
    composed = compose(tmp_path / "params.yaml")
    assert composed.read_text() == (ROOT / "params.yaml").read_text()


def test_there_is_a_demo_a_full_scale_and_a_control_without_discriminator() -> None:
    assert {"demo", "full"} <= set(SCALES)
    assert {"seed", "none"} <= set(OBJECTIVES)


@pytest.mark.parametrize(("scale", "objective"), list(product(SCALES, OBJECTIVES)))
def test_every_scale_composes_with_every_objective(
    tmp_path: Path, scale: str, objective: str
) -> None:
    params = Params.load(
        compose(tmp_path / "params.yaml", f"scale={scale}", f"objective={objective}")
    )
    check_params(params)
    assert params.content.scale == scale
    assert params.content.objective.name == objective


def test_override_of_one_value_reaches_params_and_what_is_derived_from_it(tmp_path: Path) -> None:
    params = Params.load(compose(tmp_path / "params.yaml", "num_iterations=4"))
    assert params.content.num_iterations == 4
    assert params.content.derived.last == "iter_3"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_iterations", 3),
        ("data.image_size", 256),
        ("autoencoder.factor", 8),
        ("autoencoder.latent_channels", 16),
        ("unet.block_out_channels", [64, 128, 256, 512]),
        ("unet.layers_per_block", 2),
        ("generate.num_samples", 5000),
        ("generate.num_inference_steps", 100),
        ("train_disc.epochs", 50),
        ("train_diffusion.epochs", 50),
        ("train_diffusion.eval_interval", 5),
        ("train_diffusion.num_preview_samples", 64),
        ("train_diffusion.sample_interval", 10),
        ("diffusion.num_train_timesteps", 1000),
    ],
)
def test_full_scale_carries_the_values_of_the_reference(full: Params, key: str, value: Any) -> None:
    assert OmegaConf.select(full.content, key) == value


def test_full_scale_unet_denoises_16_channels_of_32_cells_with_about_50_million_parameters(
    full: Params,
) -> None:
    from advloop.unet import Denoiser, unet_config

    autoencoder = full.section("autoencoder", AutoencoderParams)
    cells = full.section("data", DataParams).image_size // autoencoder.factor
    config = unet_config(full.section("unet", UNetParams), autoencoder.latent_channels, cells)
    with torch.device("meta"):
        unet = Denoiser(config)
    assert unet.latent_shape == (16, 32, 32)
    assert 45e6 <= sum(p.numel() for p in unet.parameters()) <= 60e6


@pytest.mark.parametrize(
    "name", ["a/b", "a;b", "a b", ".a", "-a", "", "x" * 65, "../a", "a\n", "é", "a$b"]
)
def test_exp_name_that_is_no_plain_file_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="exp_name="):
        derived(name)


@pytest.mark.parametrize("name", ["plans", "x" * 64, "A-b_c.9", "_a", "9"])
def test_exp_name_that_is_a_plain_file_name_names_the_metrics(name: str) -> None:
    assert f"outputs/{name}_metrics_iter_0.csv" in derived(name)["plots"]["viability"]


@pytest.mark.parametrize("count", [0, -1, True, "2", 1.0, None])
def test_num_iterations_that_is_no_whole_number_of_at_least_one_is_refused(count: Any) -> None:
    with pytest.raises(ValueError, match=f"num_iterations={count} must be a whole number"):
        derived(num_iterations=count)


@pytest.mark.parametrize("key", ["epochs", "sample_interval"])
def test_epochs_and_interval_of_zero_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"train_diffusion.{key}=0"):
        derived(**{key: 0})


def test_each_iteration_starts_from_the_model_of_the_one_before() -> None:
    result = derived(num_iterations=3)
    assert result["iterations"] == {"0": "base", "1": "iter_0", "2": "iter_1"}
    assert result["indices"] == [0, 1, 2]
    assert result["last"] == "iter_2"
    assert derived(num_iterations=1)["iterations"] == {"0": "base"}


def test_each_iteration_but_the_first_may_replay_the_fakes_of_those_before() -> None:
    assert derived(num_iterations=3)["replays"] == {
        "0": NO_MODEL,
        "1": "outputs/discriminator_iter_0/replay_latents.pt",
        "2": "outputs/discriminator_iter_1/replay_latents.pt",
    }


@pytest.mark.parametrize("scale", SCALES)
def test_what_the_discriminator_can_be_given_beside_its_samples_is_off(
    tmp_path: Path, scale: str
) -> None:
    params = Params.load(compose(tmp_path / "params.yaml", f"scale={scale}"))
    training = params.section("train_disc", TrainDiscParams)
    assert (training.predicted_fraction, training.replay_fraction) == (0, 0)
    assert training.r1_weight == 0
    assert training.stop_accuracy is None
    assert not params.section("discriminator", DiscriminatorParams).noise_conditioned


@pytest.mark.parametrize(
    ("epochs", "every", "expected"),
    [
        (10, 10, ["010"]),
        (25, 10, ["010", "020", "025"]),
        (5, 10, ["005"]),
        (3, 1, ["001", "002", "003"]),
        (1000, 500, ["500", "1000"]),
    ],
)
def test_sampled_epochs_are_the_multiples_and_the_last(
    epochs: int, every: int, expected: list[str]
) -> None:
    assert derived(epochs=epochs, sample_interval=every)["sample_epochs"] == expected


def test_plots_name_one_file_an_iteration() -> None:
    plots = derived("run", 3)["plots"]
    assert {len(files) for files in plots.values()} == {3}
    assert "outputs/discriminator_iter_2/discriminator_history.csv" in plots["discriminator_loss"]
    assert "outputs/run_metrics_iter_2.csv" in plots["diffusion_loss"]


def test_source_of_a_model_is_the_imported_folder_or_a_file_that_every_run_has() -> None:
    result = derived(autoencoder="models/ae", base=None)
    assert result["autoencoder_source"] == "models/ae"
    assert result["base_source"] == NO_MODEL


def test_digest_changes_with_content_name_and_number_of_conf_files(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    original = conf_digest(conf)
    assert original == conf_digest(ROOT / "conf")
    config = conf / "config.yaml"
    text = config.read_text()
    config.write_text(text + "# a comment\n")
    commented = conf_digest(conf)
    config.write_text(text)
    assert conf_digest(conf) == original
    (conf / "scale" / "demo.yaml").rename(conf / "scale" / "other.yaml")
    renamed = conf_digest(conf)
    (conf / "extra.yaml").write_text("")
    assert len({original, commented, renamed, conf_digest(conf)}) == 4


class Workspace:
    """A copy of conf/ and params.yaml in which check_config runs in this process."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.conf, self.params, self.out = root / "conf", root / "params.yaml", root / "out" / "ok"
        shutil.copytree(ROOT / "conf", self.conf)
        shutil.copy(ROOT / "params.yaml", self.params)
        (root / "data").symlink_to(ROOT / "data")
        patch.chdir(root)
        patch.setattr("sys.argv", ["check_config.py", "--out", str(self.out)])
        patch.setattr(check_config, "CONF", self.conf)
        patch.setattr(advloop_derived, "conf_digest", lambda: conf_digest(self.conf))

    def edit(self, **changes: Any) -> None:
        content = OmegaConf.load(self.params)
        assert isinstance(content, DictConfig)
        for key, value in changes.items():
            OmegaConf.update(content, key.replace("__", "."), value, force_add=True)
        OmegaConf.save(content, self.params)

    def refusal(self) -> str:
        with pytest.raises(UserError) as caught:
            check_config.main()
        assert not self.out.exists()
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        assert "params.yaml" in message
        return message


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return Workspace(tmp_path, monkeypatch)


def test_check_config_accepts_what_was_composed(workspace: Workspace) -> None:
    check_config.main()
    first = workspace.out.read_bytes()
    os.utime(workspace.params)
    check_config.main()
    assert workspace.out.read_bytes() == first


def test_check_config_refuses_num_iterations_edited_by_hand(workspace: Workspace) -> None:
    count = int(OmegaConf.load(workspace.params).num_iterations) + 1
    workspace.edit(num_iterations=count)
    message = workspace.refusal()
    assert f"num_iterations={count}" in message
    assert "`make params`" in message
    assert f"`dvc exp run -S num_iterations={count}`" in message


def test_check_config_refuses_exp_name_edited_by_hand(workspace: Workspace) -> None:
    workspace.edit(exp_name="other")
    message = workspace.refusal()
    assert "derived.plots" in message
    assert "exp_name=other" in message


def test_check_config_refuses_params_older_than_conf(workspace: Workspace) -> None:
    with (workspace.conf / "config.yaml").open("a") as file:
        file.write("# changed\n")
    message = workspace.refusal()
    assert "conf/ has changed" in message
    assert "`make params`" in message
    assert "`dvc exp run`" in message


def test_check_config_refuses_a_digest_edited_by_hand(workspace: Workspace) -> None:
    workspace.edit(derived__conf_digest="0" * 16)
    assert "conf/ has changed" in workspace.refusal()


def test_check_config_refuses_a_derived_key_that_nothing_implies(workspace: Workspace) -> None:
    workspace.edit(derived__leftover=1)
    assert "`make params`" in workspace.refusal()


@pytest.mark.usefixtures("workspace")
def test_check_config_prints_one_line_for_params_that_are_those_of_conf(
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_config.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert "scale=demo objective=ddo num_iterations=2" in line


def test_check_config_names_what_differs_from_conf(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.edit(generate__num_samples=24, seed=3)
    check_config.main()
    shown = capsys.readouterr().out
    assert "seed=3 (conf/: 0)" in shown
    assert "generate.num_samples=24 (conf/: 600)" in shown
    assert "evaluate" not in shown


def test_check_config_names_the_demo_values_under_a_scale_typed_by_hand(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.edit(scale="full")
    check_config.main()
    shown = capsys.readouterr().out
    assert "num_iterations=2 (conf/: 3)" in shown
    assert " more" in shown


@pytest.mark.parametrize("key", ["data.source", "autoencoder.pretrained", "base.pretrained"])
def test_check_config_refuses_a_path_that_leads_nowhere(workspace: Workspace, key: str) -> None:
    source = {"autoencoder.pretrained": "autoencoder", "base.pretrained": "base"}.get(key)
    derived = {f"derived__{source}_source": "no/such"} if source else {}
    workspace.edit(**{key.replace(".", "__"): "no/such"}, **derived)
    assert f"{key}=no/such does not exist" in workspace.refusal()


def test_check_config_replaces_its_marker_and_never_writes_into_it(workspace: Workspace) -> None:
    check_config.main()
    cached = workspace.out.with_name("cached")
    os.link(workspace.out, cached)  # as DVC's cache holds it
    cached.chmod(0o444)
    check_config.main()
    assert workspace.out.stat().st_ino != cached.stat().st_ino


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("diffusion.prediction_type", "epsilon"),
        ("diffusion.num_train_timesteps", 500),
        ("data.split_seed", 1),
        ("data.val_fraction", 0.3),
        ("data.image_size", 128),
    ],
)
def test_check_config_refuses_an_imported_model_that_was_trained_otherwise(
    workspace: Workspace, key: str, value: Any
) -> None:
    workspace.edit(**{key.replace(".", "__"): value})
    message = workspace.refusal()
    assert f"{key}={value}, but data/stage1/" in message
    assert "pretrained=null" in message


def test_check_config_takes_another_split_of_images_that_the_model_never_saw(
    workspace: Workspace,
) -> None:
    (workspace.params.parent / "mine").mkdir()
    workspace.edit(data__source="mine", data__split_seed=1)
    check_config.main()


def test_check_config_takes_any_process_where_nothing_is_imported(workspace: Workspace) -> None:
    workspace.edit(
        base__pretrained=None,
        derived__base_source=NO_MODEL,
        diffusion__prediction_type="epsilon",
    )
    check_config.main()


@pytest.mark.parametrize("text", ["", "[]", '{"params": {}}', '{"params": {"data": 1}}'])
def test_check_config_refuses_a_record_that_is_none(workspace: Workspace, text: str) -> None:
    folder = workspace.params.parent / "models"
    folder.mkdir()
    (folder / "stage1.json").write_text(text)
    (folder / "unet").mkdir()
    workspace.edit(base__pretrained="models/unet", derived__base_source="models/unet")
    with pytest.raises(UserError, match=r"models/stage1\.json: not a record"):
        check_config.main()

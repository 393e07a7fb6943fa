"""Stage check_config refuses, before anything runs, what a run cannot use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from composing import CONF, OBJECTIVES, compose
from conftest import REPO
from omegaconf import DictConfig, OmegaConf

import check_config
from advloop.core.errors import UserError
from advloop.params.imported import network_of
from hydra_plugins import advloop_derived


class Workspace:
    """A copy of conf/ and params.yaml in which check_config runs in this process."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.conf, self.params, self.out = root / "conf", root / "params.yaml", root / "out" / "ok"
        shutil.copytree(CONF, self.conf)
        shutil.copy(REPO / "params.yaml", self.params)
        (root / "data").symlink_to(REPO / "data")
        patch.chdir(root)
        patch.setattr("sys.argv", ["check_config.py", "--out", str(self.out)])
        patch.setattr(check_config, "CONF", self.conf)
        patch.setattr(advloop_derived, "CONF", self.conf)

    def edit(self, changes: dict[str, Any]) -> None:
        content = OmegaConf.load(self.params)
        assert isinstance(content, DictConfig)
        for key, value in changes.items():
            OmegaConf.update(content, key, value, force_add=True)
        OmegaConf.save(content, self.params)

    def refusal(self) -> str:
        with pytest.raises(UserError) as caught:
            check_config.main()
        assert not self.out.exists()
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        return message


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    return Workspace(tmp_path, monkeypatch)


def test_check_config_accepts_what_was_composed_in_one_line(workspace, capsys):
    check_config.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert "scale=demo objective=adversarial num_iterations=2" in line
    first = workspace.out.read_bytes()
    os.utime(workspace.params)
    check_config.main()
    assert workspace.out.read_bytes() == first


@pytest.mark.parametrize("installed", [True, False])
def test_check_config_asks_for_the_package_that_an_adapter_needs(workspace, monkeypatch, installed):
    asked = []
    monkeypatch.setattr(
        check_config, "find_spec", lambda name: asked.append(name) or installed or None
    )
    check_config.main()
    workspace.out.unlink()
    workspace.edit({"train_diffusion.lora_rank": 8})
    if installed:
        check_config.main()
    else:
        assert workspace.refusal() == (
            "params.yaml: train_diffusion.lora_rank needs the package peft, which is not "
            "installed; run `uv sync --extra lora`, or set train_diffusion.lora_rank=null"
        )
    assert asked == ["peft"]


def test_an_adapter_too_wide_for_an_imported_model_is_refused_before_anything_runs(workspace):
    workspace.edit({"train_diffusion.lora_rank": 129})
    assert "lora_rank=129 exceeds the 128 channels of the widest layer" in workspace.refusal()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"num_iterations": 3},
            ["num_iterations=3", "`make params`", "`dvc exp run -S num_iterations=3`"],
        ),
        ({"train_disc.replay_fraction": 0.0}, ["derived.iterations", "`make params`"]),
        ({"derived.conf_digest": "0" * 16}, ["conf/ has changed"]),
        ({"derived.leftover": 1}, ["derived.leftover", "`make params`"]),
    ],
)
def test_check_config_refuses_edits_that_derived_does_not_follow(workspace, changes, said):
    workspace.edit(changes)
    message = workspace.refusal()
    assert message.startswith("params.yaml: ")
    for text in said:
        assert text in message


def test_check_config_refuses_params_older_than_conf(workspace):
    with (workspace.conf / "config.yaml").open("a") as file:
        file.write("# changed\n")
    message = workspace.refusal()
    for text in ("conf/ has changed", "`make params`", "`dvc exp run`"):
        assert text in message


def test_check_config_names_what_differs_from_conf(workspace, capsys):
    workspace.edit({"generate.num_samples": 24, "seed": 3})
    check_config.main()
    printed = capsys.readouterr().out
    assert "seed=3 (conf/: 0)" in printed
    assert "generate.num_samples=24 (conf/: 600)" in printed
    assert "evaluate" not in printed
    workspace.edit({"scale": "full"})  # the values are still those of the demo
    check_config.main()
    printed = capsys.readouterr().out
    assert "num_iterations=2 (conf/: 3)" in printed
    assert " more" in printed


@pytest.mark.parametrize(
    ("key", "source"),
    [
        ("data.source", None),
        ("autoencoder.pretrained", "autoencoder_source"),
        ("base.pretrained", "base_source"),
        ("evaluate.feature_weights", "feature_source"),
    ],
)
def test_check_config_refuses_a_path_that_leads_nowhere(workspace, key, source):
    if source == "feature_source":  # lite0 takes none
        workspace.edit({"evaluate.features": "dinov2"})
    workspace.edit({key: "no/such"} | ({f"derived.{source}": "no/such"} if source else {}))
    assert f"{key}=no/such does not exist" in workspace.refusal()


@pytest.mark.parametrize("key", ["data.source", "autoencoder.pretrained", "base.pretrained"])
def test_path_that_a_temporary_copy_lacks_is_said_to_be_untracked(
    workspace, tmp_path, monkeypatch, key
):
    project = tmp_path / "theirs"
    (project / "mine").mkdir(parents=True)
    source = {"autoencoder.pretrained": "autoencoder", "base.pretrained": "base"}.get(key)
    workspace.edit({key: "mine"} | ({f"derived.{source}_source": "mine"} if source else {}))
    assert f"{key}=mine does not exist" in workspace.refusal()
    monkeypatch.setenv("DVC_ROOT", str(project))  # as `--temp` and `--queue` set it
    message = workspace.refusal()
    assert f"{key}=mine is not in this copy of the project" in message
    for way in (
        "`dvc add mine` and `git add mine.dvc .gitignore`",
        "`dvc exp run … --copy-paths mine`",
    ):
        assert way in message


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["objective.name=seed"],
            "but the values are those of adversarial; choose an objective as a whole, with",
        ),
        (["objective=none", "objective.name=x0"], "those of none;"),
        (["objective=seed", "objective.name=neon"], "those of seed;"),
        (["objective=neon", "objective.name=none"], "those of neon;"),
        (["objective=ddo", "objective.beta=0"], "objective.beta=0 must be greater than 0"),
        (["objective=ddo", "+objective.betta=1"], "did you mean objective.beta?"),
    ],
)
def test_objective_named_without_its_values_is_refused_with_the_way_to_choose_it(
    workspace, overrides, said
):
    compose(workspace.params, *overrides)
    message = workspace.refusal()
    assert said in message
    if "those of" in said:
        assert f"`dvc exp run -S objective={overrides[-1].partition('=')[2]}`" in message


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["denoiser=dit"], "null, as set by denoiser=dit: train_base trains a dit from scratch"),
        (["diffusion=flow"], "null, as set by diffusion=flow: train_base trains a unet"),
        (["diffusion=edm", "denoiser=dit"], "as set by diffusion=edm and denoiser=dit: train_base"),
        (["base.pretrained=null"], "base.pretrained=null: train_base trains a unet from scratch"),
        (
            ["denoiser=dit", "base.pretrained=data/stage1/unet"],
            "denoiser=dit counts for nothing: base.pretrained=data/stage1/unet is imported, a unet;"
            " `-S base.pretrained=null` trains a dit",
        ),
        (["objective=none"], None),
    ],
)
def test_what_a_choice_does_to_the_base_model_is_said_in_one_line(
    workspace, capsys, overrides, said
):
    compose(workspace.params, "objective=none", *overrides)
    check_config.main()
    lines = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("base.", "denoiser"))
    ]
    assert len(lines) == (said is not None)
    assert all(said in line for line in lines)


@pytest.mark.parametrize(
    ("files", "network"),
    [
        ({"config.json": '{"_class_name": "UNet2DModel"}'}, "unet"),
        ({"unet/config.json": '{"_class_name": "UNet2DModel"}', "vae/config.json": "{}"}, "unet"),
        ({"transformer/config.json": '{"_class_name": "DiTTransformer2DModel"}'}, "dit"),
        ({"config.json": '{"_class_name": "Transformer2DModel"}'}, "dit"),
        ({"config.json": '{"_class_name": "AutoencoderKL"}'}, None),
        ({"config.json": "{"}, None),
        ({"config.json": "[1]"}, None),
        ({"config.json": '{"_class_name": 5}'}, None),
        ({"weights.pt": ""}, None),
    ],
)
def test_network_of_a_folder_is_what_its_config_says(tmp_path, files, network):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert network_of(tmp_path) == network
    assert network_of(tmp_path / "config.json") is None


def test_check_config_replaces_its_marker_and_never_writes_into_it(workspace):
    check_config.main()
    cached = workspace.out.with_name("cached")
    os.link(workspace.out, cached)  # as DVC's cache holds it
    cached.chmod(0o444)
    check_config.main()
    assert workspace.out.stat().st_ino != cached.stat().st_ino


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_params_as_composed_for_an_objective_differ_from_conf_in_nothing(
    workspace, capsys, objective
):
    compose(workspace.params, f"objective={objective}")
    check_config.main()
    assert "differs from conf/" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["params.yaml", "extra.yaml", "config.yml", "scale/demo.yml"])
def test_file_that_hydra_never_reads_is_named_and_changes_no_digest(workspace, capsys, name):
    (workspace.conf / name).write_text("seed: 1\n")
    check_config.main()
    assert f"conf/{name}: not used" in capsys.readouterr().out


# --- Imported models ---


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("diffusion.prediction_type", "sample"),
        ("diffusion.num_train_timesteps", 500),
        ("data.split_seed", 1),
        ("data.val_fraction", 0.3),
        ("data.image_size", 128),
    ],
)
def test_imported_model_that_was_trained_otherwise_is_refused(workspace, key, value):
    workspace.edit({key: value})
    message = workspace.refusal()
    assert message.startswith("params.yaml: ")
    assert f"{key}={value}, but data/stage1/" in message
    assert "pretrained=null" in message


@pytest.mark.parametrize("model", ["mine/unet", "mine/unet.pt"])
def test_of_a_model_without_a_scheduler_the_user_says_what_it_was_trained_as(workspace, model):
    place = workspace.params.parent / "mine"
    (place / "unet").mkdir(parents=True)
    (place / "unet.pt").write_bytes(b"")
    (place / "unet/config.json").write_text('{"_diffusers_version": "0.42.1"}')
    workspace.edit({"base.pretrained": model, "derived.base_source": model})
    message = workspace.refusal()
    assert f"base.pretrained={model} has no scheduler_config.json beside it" in message
    assert "-S base.trained_as=vp" in message
    workspace.edit({"base.trained_as": "flow"})
    assert "base.trained_as=flow, but diffusion.process=vp; use `dvc" in workspace.refusal()
    workspace.edit({"base.trained_as": "vp"})
    check_config.main()
    workspace.out.unlink()
    (place / "scheduler").mkdir()
    file = place / "scheduler/scheduler_config.json"
    file.write_text('{"_class_name": "FlowMatchEulerDiscreteScheduler"}')
    assert f"but {model} was trained as flow" in workspace.refusal()


def test_imported_model_may_have_seen_another_split_of_other_images(workspace):
    (workspace.params.parent / "mine").mkdir()
    workspace.edit({"data.source": "mine", "data.split_seed": 1})
    check_config.main()


def test_any_process_is_accepted_if_no_model_is_imported(workspace):
    workspace.edit(
        {
            "base.pretrained": None,
            "derived.base_source": "outputs/latents",
            "diffusion.prediction_type": "epsilon",
            "diffusion.beta_schedule": "linear",
        }
    )
    check_config.main()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"params": {}}', '{"params": {"data": 1}}', "[" * 100_000]
)
def test_record_of_an_imported_model_that_is_none_is_refused(workspace, text):
    folder = workspace.params.parent / "models"
    (folder / "unet").mkdir(parents=True)
    (folder / "stage1.json").write_text(text)
    workspace.edit({"base.pretrained": "models/unet", "derived.base_source": "models/unet"})
    assert workspace.refusal().startswith("models/stage1.json: not a record")


# --- Networks of image features ---


@pytest.fixture
def dinov2(workspace) -> Path:
    """The config.json of a DINOv2 with patches of 14 pixels, which the workspace uses."""
    folder = workspace.params.parent / "models/dinov2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "dinov2", "patch_size": 14}')
    weights = "models/dinov2"
    keys = ("evaluate.feature_weights", "derived.feature_source")
    workspace.edit({"evaluate.features": "dinov2"} | dict.fromkeys(keys, weights))
    return folder / "config.json"


@pytest.mark.usefixtures("dinov2")
def test_dinov2_takes_a_size_that_its_patches_fill_and_no_other(workspace):
    check_config.main()
    workspace.out.unlink()
    for size, near in ((225, 224), (32, 42)):
        workspace.edit({"evaluate.feature_size": size})
        message = workspace.refusal()
        assert message.startswith(
            f"evaluate.feature_size={size} is not a multiple of 14, the patch"
        )
        assert message.endswith(f"of models/dinov2; use one, such as {near}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{", "Expecting"),
        ("[]", "model_type=None is not dinov2"),
        ('{"model_type": "bert"}', "model_type=bert is not dinov2"),
        ('{"model_type": "dinov2", "patch_size": [14, 14]}', "patch_size=[14, 14] is not a whole"),
        ('{"model_type": "dinov2", "patch_size": 0}', "patch_size=0 is not a whole number from 1"),
        ('{"model_type": "dinov2", "num_channels": 1}', "num_channels=1 is not the 3 of RGB"),
    ],
)
def test_folder_that_holds_no_dinov2_is_refused_before_anything_runs(workspace, dinov2, text, said):
    if text is None:
        dinov2.unlink()
    else:
        dinov2.write_text(text)
    message = workspace.refusal()
    assert message.startswith("evaluate.feature_weights=models/dinov2: not a DINOv2 (")
    assert said in message
    assert message.endswith("name the folder that transformers' Dinov2Model.save_pretrained wrote")

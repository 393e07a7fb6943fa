"""Low-rank adapters: what is trained, what is kept, and what is handed on."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from kept_snapshots import Memory, flat, load
from killed import Killed, die_after_snapshots
from objective_files import FILES
from refusal import refusal
from small_diffusion import copy_weights, equal, make_setup, run
from stage_folder import MODEL, ROUND, StageFolder
from test_every_model import PROCESSES, setup_of
from tiny_denoisers import DENOISERS, tiny_denoiser

import train_diffusion as stage
from advloop.models.denoiser import Denoiser, frozen_copy, load_checkpoint
from advloop.training.diffusion import train_diffusion

pytestmark = pytest.mark.xdist_group(
    "bad_input"
)  # one worker imports peft, and has the good folder

SHORT = (  # a round of two steps
    "train_diffusion.lora_rank=2",
    "train_diffusion.epochs=2",
    "train_diffusion.samples_per_epoch=8",
    "train_diffusion.batch_size=8",
    "train_diffusion.warmup_steps=0",
    "train_diffusion.learning_rate=0.01",
)
INPUT = (
    torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
    torch.tensor([3, 700, 90]),
)


def adapted(name: str, rank: int = 2, *key: int | str) -> Denoiser:
    model = tiny_denoiser(name)
    model.add_adapter(rank, 0, "adapter", *key)
    return model


def predicted(model: Denoiser) -> torch.Tensor:
    labels = torch.tensor([0, 1, 2]) if model.num_classes else None
    with torch.no_grad():
        return model.eval()(*INPUT, labels)


def moved(model: Denoiser) -> Denoiser:
    """With an adapter that does something."""
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=stream))
    return model


def held(*models: torch.nn.Module) -> int:
    """Values in memory that these models hold together."""
    tensors = [t for model in models for t in (*model.parameters(), *model.buffers())]
    return sum({t.data_ptr(): t.numel() for t in tensors}.values())


@pytest.mark.parametrize("name", DENOISERS)
def test_a_new_adapter_changes_nothing_and_its_weights_alone_are_trained(name):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model, plain = adapted(name), tiny_denoiser(name)
    assert torch.equal(torch.get_rng_state(), before), "its weights have a stream of their own"
    assert torch.equal(predicted(model), predicted(plain))
    assert equal(model.weights(), plain.weights())
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if ".lora_" in name} != set()
    assert equal(copy_weights(adapted(name)), copy_weights(model))
    assert not equal(copy_weights(adapted(name, 2, "other")), copy_weights(model))


@pytest.mark.parametrize("name", DENOISERS)
def test_merged_weights_have_the_names_of_the_class_and_predict_what_the_adapter_does(name):
    model, merged = moved(adapted(name)), tiny_denoiser(name)
    plain = predicted(merged)
    merged.load_weights(model.weights())
    torch.testing.assert_close(predicted(merged), predicted(model), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(predicted(model), plain, atol=1e-3)
    assert [*model.weights()] == [*merged.weights()]


# Each objective with another process and another denoiser.
CASES = [
    (file, list(PROCESSES)[k % len(PROCESSES)], list(DENOISERS)[k % len(DENOISERS)])
    for k, file in enumerate(FILES)
]


@pytest.mark.parametrize(("file", "process", "denoiser"), CASES)
def test_every_objective_trains_the_adapter_and_holds_one_copy_of_the_weights(
    file, process, denoiser
):
    model = tiny_denoiser(denoiser).requires_grad_(False)
    plain, size = copy_weights(model), held(model)
    setup = setup_of(file, process, model)
    model.add_adapter(2, 0, "adapter")
    adapter = held(model) - size
    before, kept = copy_weights(model), []
    starts = [setup.criterion.reference] if setup.criterion.reference else []
    starts += [setup.merge.args[-1]] if setup.merge else []
    (row,) = train_diffusion(
        setup, model, list, lambda _, model, ema: kept.extend([model, frozen_copy(ema)])
    )
    assert all(math.isfinite(value) for value in row.values())
    changed = {k for k, v in copy_weights(model).items() if not torch.equal(v, before[k])}
    assert changed, "nothing was learnt"
    assert all(".lora_" in name for name in changed)
    for start in starts:
        assert equal(copy_weights(start), plain)
    buffers = sum(b.numel() for one in (*starts, kept[-1]) for b in one.buffers())
    assert held(*kept, *starts) <= size + 2 * adapter + buffers
    assert [*kept[-1].weights()] == [*tiny_denoiser(denoiser).weights()]


def test_a_step_back_goes_as_far_from_the_start_as_the_weight_says():
    """Neon scales the adapter, where it would extrapolate all weights."""
    model = tiny_denoiser("dit").requires_grad_(False)
    merge = setup_of("neon", "flow", model).merge
    start = model.weights()
    model.add_adapter(2, 0, "adapter")
    tuned, back = moved(model).weights(), merge(model).weights()
    weight = merge.args[0].weight
    for name, theta in start.items():
        expected = theta - weight * (tuned[name] - theta)
        torch.testing.assert_close(back[name], expected, rtol=1e-5, atol=1e-6)


def test_a_training_resumed_after_any_epoch_ends_with_the_same_bytes_from_small_snapshots():
    def trained(start: bytes | None = None):
        model, memory, averages = adapted("dit"), Memory(start), []
        history = train_diffusion(
            make_setup(epochs=3), model, list, lambda *a: averages.append(a[-1].weights()), memory
        )
        return history, model.weights(), averages[-1], memory.taken

    history, model, average, taken = trained()
    for start in taken[:-1]:
        resumed = trained(start)
        assert resumed[0] == history
        assert equal(resumed[1], model)
        assert equal(resumed[2], average)
    assert not equal(model, average)
    frozen = {
        name for name, weight in adapted("dit").named_parameters() if not weight.requires_grad
    }
    kept = flat(load(taken[-1]))
    assert len([name for name in kept if ".lora_" in name]) >= 2 * 16
    assert not [name for name in kept if any(name.endswith(one) for one in frozen)]


def test_recomputed_activations_change_no_byte(monkeypatch):
    found = []
    for value in ("0", "1"):
        monkeypatch.setenv("ADVLOOP_GRADIENT_CHECKPOINTING", value)
        for name in ("dit", "unet"):
            found.append(run(make_setup(epochs=1), adapted(name))[1][0])
    assert equal(found[0], found[2])
    assert equal(found[1], found[3])


@pytest.mark.parametrize(("name", "most"), [("unet", 8), ("dit", 16)])
def test_a_rank_above_that_of_a_layer_is_refused(name, most):
    adapted(name, most)
    message = refusal(adapted, name, most + 1)
    assert f"lora_rank={most + 1} exceeds the rank {most} of a layer" in message


def test_without_peft_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert "`uv sync --extra lora`" in refusal(adapted, "dit")


# --- one round of the stage ---


def test_a_round_hands_on_plain_weights_and_the_same_bytes_after_it_was_killed(
    stages: StageFolder, monkeypatch: pytest.MonkeyPatch
):
    stages.compose(*SHORT, "objective=ddo_weighted")
    setups = []

    def watched(setup, denoiser, *more):
        setups.append((setup, denoiser))
        return train_diffusion(setup, denoiser, *more)

    monkeypatch.setattr(stage, "train_diffusion", watched)
    outcome = stages.must("train_diffusion")
    assert "adapter of rank 2 on " in outcome.out
    ((setup, denoiser),) = setups
    adapter = sum(weight.numel() for weight in denoiser.parameters() if weight.requires_grad)
    assert held(denoiser, setup.criterion.reference) == held(load_checkpoint(Path(MODEL))) + adapter
    whole = stages.made()
    names = [f"{ROUND}/model/checkpoint_{which}.pt" for which in ("best", "latest")]
    base = torch.load(MODEL, weights_only=True)
    for name in names:
        found = torch.load(f"made/{name}", weights_only=True)
        assert found["config"] == base["config"]
        assert {k: v.shape for k, v in found["ema"].items()} == {
            k: v.shape for k, v in base["ema"].items()
        }
        assert not equal(found["ema"], base["ema"])
    shutil.rmtree("made")
    monkeypatch.setenv("ADVLOOP_SNAPSHOT_SECONDS", "0")
    with monkeypatch.context() as patched:
        die_after_snapshots(patched)
        with pytest.raises(Killed):
            stages.run("train_diffusion")
    shutil.rmtree("made")  # as DVC does before it runs a stage
    stages.must("train_diffusion")
    assert stages.made() == whole

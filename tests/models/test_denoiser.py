"""The denoising network and its checkpoints: what comes back, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from objective_files import objective_params
from refusal import refusal
from small_diffusion import make_criterion
from small_params import UNET
from tiny_denoisers import DENOISERS, plain_network, tiny_denoiser

from advloop.models.denoiser import (
    build_denoiser,
    check_classes,
    check_guidance,
    check_latents,
    denoiser_config,
    frozen_copy,
    load_checkpoint,
    save_checkpoint,
    unet_config,
)
from advloop.objectives.neon import extrapolate
from advloop.params.diffusion import DiTParams, UNetParams
from advloop.training.weights import average_of

SHAPE = (4, 8, 8)
CONFIG = unet_config(UNET, channels=4, size=8)


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_the_seed_alone_decides_the_weights_and_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    first = build_denoiser(CONFIG, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert equal(first, build_denoiser(CONFIG, seed=0))
    assert not equal(first, build_denoiser(CONFIG, seed=1))


def test_attention_is_at_the_levels_that_were_asked_for():
    params = UNetParams(
        block_out_channels=[8, 8, 16], layers_per_block=1, attention_levels=[2], norm_num_groups=4
    )
    unet = build_denoiser(unet_config(params, channels=4, size=8), seed=0).network
    assert [hasattr(block, "attentions") for block in unet.down_blocks] == [False, False, True]
    assert [hasattr(block, "attentions") for block in unet.up_blocks] == [True, False, False]


def test_a_checkpoint_gives_back_the_ema_weights_and_keeps_the_raw_ones_if_it_has_them(tmp_path):
    ema, model = build_denoiser(CONFIG, seed=0), build_denoiser(CONFIG, seed=1)
    save_checkpoint(tmp_path / "latest.pt", ema, model)
    save_checkpoint(tmp_path / "best.pt", ema)
    for name in ("latest.pt", "best.pt"):
        loaded = load_checkpoint(tmp_path / name)
        assert equal(loaded, ema)
        assert loaded.config == ema.config
        assert loaded.latent_shape == SHAPE
    latest = torch.load(tmp_path / "latest.pt", weights_only=True)
    raw = model.network.state_dict()
    assert all(torch.equal(latest["model"][name], raw[name]) for name in raw)
    assert sorted(torch.load(tmp_path / "best.pt", weights_only=True)) == ["config", "ema"]


def test_equal_checkpoints_are_equal_bytes_whatever_the_file_is_called(tmp_path):
    save_checkpoint(tmp_path / "a.pt", build_denoiser(CONFIG, seed=0))
    save_checkpoint(tmp_path / "folder/another_and_longer_name.pt", build_denoiser(CONFIG, seed=0))
    save_checkpoint(tmp_path / "again.pt", load_checkpoint(tmp_path / "a.pt"))
    save_checkpoint(tmp_path / "other.pt", build_denoiser(CONFIG, seed=1))
    first = (tmp_path / "a.pt").read_bytes()
    assert (tmp_path / "folder/another_and_longer_name.pt").read_bytes() == first
    assert (tmp_path / "again.pt").read_bytes() == first
    assert (tmp_path / "other.pt").read_bytes() != first


def test_a_frozen_copy_takes_no_gradients_and_leaves_the_network_as_it_was():
    denoiser = build_denoiser(CONFIG, seed=0).train()
    copy = frozen_copy(denoiser)
    assert equal(copy, denoiser)
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert not any(module.training for module in copy.modules())
    assert all(parameter.requires_grad for parameter in denoiser.parameters())
    assert denoiser.training


WEIGHTS = build_denoiser(CONFIG, seed=0).network.state_dict()
WITHOUT = {name: value for name, value in WEIGHTS.items() if name != "conv_out.bias"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"config": CONFIG, "ema": WITHOUT}, "conv_out.bias"),
        ({"config": {"no_such_argument": 1}, "ema": {}}, "no_such_argument"),
        ({"config": None, "ema": None}, ""),
        ({}, "config"),
        (["ema"], "it holds a list"),
        (7, "it holds a int"),
    ],
    ids=["a layer less", "argument", "nulls", "empty", "list", "number"],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, content, says):
    torch.save(content, tmp_path / "a.pt")
    message = refusal(load_checkpoint, tmp_path / "a.pt")
    assert message.startswith(f"{tmp_path / 'a.pt'}: not a checkpoint that fits")
    assert says in message


def test_a_network_is_checked_against_the_latents_and_the_classes_of_the_run():
    path, denoiser = Path("model.pt"), build_denoiser(CONFIG | {"num_class_embeds": 2}, seed=0)
    check_latents(path, denoiser, SHAPE)
    check_classes(path, denoiser, 2)
    message = refusal(check_latents, path, denoiser, (4, 16, 16))
    assert message.startswith(
        "model.pt: denoises latents [4, 8, 8], but this run's are [4, 16, 16]"
    )
    message = refusal(check_classes, path, denoiser, 0)
    assert message.startswith("model.pt: knows 2 classes, but this run's images have 0")


# --- every kind ---

each_denoiser = pytest.mark.parametrize("name", DENOISERS)


@each_denoiser
def test_a_denoiser_predicts_what_diffusers_network_does_and_leaves_a_sigma_out(name):
    model, plain = tiny_denoiser(name).eval(), plain_network(name)
    noisy = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    times = (torch.tensor([1, 500, 999]), torch.tensor([0.5, 333.3, 1000.0]))
    labels = torch.tensor([0, 2, 1]) if model.num_classes else None
    null = torch.full((3,), DENOISERS[name].get("num_embeds_ada_norm", 0))
    given = [labels] if labels is None or model.null_label is None else [labels, None]
    if model.captions is not None:
        given = [labels, torch.full((3,), model.null_label)]
    for time in times:
        for own in given:
            used = null if own is None and model.null_label is not None else own
            used = model.captions(used) if model.captions else used
            with torch.no_grad():
                expected = plain(noisy, time, used).sample
            output = model(noisy, time, own)
            assert output.shape == noisy.shape
            torch.testing.assert_close(output, expected[:, :4], rtol=1e-4, atol=1e-5)


@each_denoiser
def test_all_weights_survive_a_checkpoint_with_those_of_a_learned_sigma(name, tmp_path):
    model = tiny_denoiser(name)
    save_checkpoint(tmp_path / "a.pt", model)
    again = load_checkpoint(tmp_path / "a.pt")
    assert again.config == DENOISERS[name]
    before, after = model.weights(), again.weights()
    assert before.keys() == after.keys() == plain_network(name).state_dict().keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_copies_of_a_network_of_texts_share_its_captions_which_no_checkpoint_holds(tmp_path):
    model = tiny_denoiser("text unet")
    assert (model.num_classes, model.null_label) == (3, 3)
    for copy in (frozen_copy(model), average_of(model, 0.9).module):
        assert copy.captions is model.captions
    save_checkpoint(tmp_path / "a.pt", model)
    assert load_checkpoint(tmp_path / "a.pt").captions is None


@pytest.mark.parametrize("name", ["unet with sigma", "dit with sigma"])
def test_training_averages_and_extrapolation_leave_a_learned_sigma_to_the_byte(name):
    model = tiny_denoiser(name)
    start = frozen_copy(model)
    average = average_of(model, 0.9)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, weight_decay=0.5)
    model(torch.randn(2, *SHAPE), torch.tensor([1, 2])).square().mean().backward()
    optimizer.step()
    average.update_parameters(model)
    merged = extrapolate(objective_params("neon"), start, average.module)
    rows = torch.tensor(model.architecture.predicted_rows(model.config))
    head = f"{model.architecture.head}.weight"
    before, after = start.weights()[head], merged.weights()[head]
    assert torch.equal(before[~rows], after[~rows])
    assert not torch.equal(before[rows], after[rows])


def test_guidance_needs_classes_and_a_class_for_none(tmp_path):
    for name, classes, says in (
        ("dit with classes", 0, "this run's images have no classes"),
        ("unet with classes", 3, "a UNet2DModel has no label for no class"),
    ):
        message = refusal(check_guidance, tmp_path, tiny_denoiser(name), classes, 4.0)
        assert f"guidance_scale=4.0, because {says}; use generate.guidance_scale=1.0" in message
        check_guidance(tmp_path, tiny_denoiser(name), classes, 1.0)
    check_guidance(tmp_path, tiny_denoiser("dit with classes"), 3, 4.0)


def test_a_model_with_a_class_for_none_is_used_without_classes(tmp_path):
    check_classes(tmp_path, tiny_denoiser("dit with classes"), 0)
    assert "knows 3 classes" in refusal(
        check_classes, tmp_path, tiny_denoiser("dit with classes"), 2
    )
    assert "knows 3 classes" in refusal(
        check_classes, tmp_path, tiny_denoiser("unet with classes"), 0
    )


def test_a_new_transformer_begins_by_predicting_zero():
    params = DiTParams(patch_size=2, num_layers=1, num_attention_heads=2, attention_head_dim=8)
    for classes in (0, 3):
        model = build_denoiser(denoiser_config(params, 4, 8, classes), seed=0)
        assert (model.num_classes, model.latent_shape) == (classes, SHAPE)
        assert not model(torch.randn(2, *SHAPE), torch.tensor([1, 2])).any()


def test_a_training_drops_a_tenth_of_the_labels_for_model_and_reference_alike():
    seen = []

    class Network(torch.nn.Module):
        def forward(self, noisy, _time, labels):
            seen.append(labels)
            return noisy

    model, labels = Network(), torch.arange(2000) % 3
    batch = torch.zeros(2000, 1, 1, 1), torch.zeros(2000, 1, 1, 1), torch.zeros(2000).long()
    criterion = replace(make_criterion(), reference=Network(), null_label=3)
    judged = []
    criterion.objective = lambda batch: judged.append(batch.labels) or (batch.output.sum(), {})
    criterion(model, *batch, labels)
    criterion(model.eval(), *batch, labels)
    assert torch.equal(seen[0], seen[1])
    assert 0.07 < float((seen[0] == 3).float().mean()) < 0.13
    assert torch.equal(seen[0][seen[0] != 3], labels[seen[0] != 3])
    assert all(torch.equal(one, labels) for one in (*seen[2:], *judged))

"""What holds for every objective: how it is found, its YAML, weight zero, and finite values."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import REPO
from objective_batches import PREDICTION_TYPES, PROCESS, gradient, make_batch
from objective_files import FILES, objective_params
from refusal import refusal
from small_params import diffusion_params

import advloop.objectives
from advloop.diffusion.batch import noise_only
from advloop.diffusion.processes import process_of
from advloop.diffusion.variance_preserving import VariancePreserving
from advloop.objectives import objective_names, read_objective, recipe_of
from advloop.params.loader import Params
from advloop.params.reading import read_mapping

# --- how an objective is found ---


def params_of(objective: dict[str, object]) -> Params:
    return Params({"objective": objective}, Path("params.yaml"))


@pytest.mark.parametrize("file", FILES)
def test_every_file_is_read_by_the_schema_of_the_objective_it_names(file):
    params = objective_params(file)
    assert read_objective(params_of(params.model_dump())) == params
    assert params.weight >= 0
    assert isinstance(params.uses_discriminator, bool)


def test_every_objective_has_a_file_of_its_name():
    assert set(objective_names()) <= set(FILES)
    assert {objective_params(file).name for file in FILES} == set(objective_names())


def test_parameters_are_read_without_torch():
    code = "import sys; from advloop.objectives import objective_names, recipe_of\n"
    code += "for name in objective_names(): recipe_of(name).params\n"
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPO / "src", check=True)


MODULE = """
from typing import Literal

from advloop.objectives import Recipe
from advloop.params.section import Section


class DoubleParams(Section):
    name: Literal["double"]
    uses_discriminator: Literal[False]
    weight: float


def make_double(params):
    def double(batch):
        loss = (1 + batch.weight) * batch.noise_loss()
        return loss, {"noise_loss": loss.detach()}

    return double


RECIPE = Recipe(
    DoubleParams,
    make_double,
    adaptive=None,
    against_reference=False,
    evaluations=4,
    trains_on="reals",
    merge=None,
    hands_on="best_epoch",
)
"""


def test_objective_that_is_one_module_and_one_yaml_is_found_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "double.py").write_text(MODULE)
    (tmp_path / "_shared.py").write_text("")  # a private module is no objective
    packages = [*advloop.objectives.__path__, str(tmp_path)]
    monkeypatch.setattr(advloop.objectives, "__path__", packages)
    names = objective_names()
    assert names == sorted({*names, "double"})
    assert "_shared" not in names
    (tmp_path / "double.yaml").write_text("name: double\nuses_discriminator: false\nweight: 1.0\n")
    params = read_objective(params_of(read_mapping(tmp_path / "double.yaml")))
    recipe = recipe_of(params.name)
    batch = make_batch(weight=params.weight)
    torch.testing.assert_close(recipe.make(params)(batch)[0], 2 * noise_only(batch)[0])
    assert recipe.evaluations == 4


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        ({}, "params.yaml: objective.name is missing; run `make params`"),
        ({"name": 3}, "objective.name=3 must be one of adversarial, ddo, neon, none, seed, x0"),
        (
            {"name": "sede"},
            "objective.name=sede must be one of adversarial, ddo, neon, none, seed, x0",
        ),
        (
            {"name": "../ddo"},
            "objective.name=../ddo must be one of adversarial, ddo, neon, none, seed, x0",
        ),
        ({"name": "none", "uses_discriminator": True}, "uses_discriminator=True must be false;"),
        (
            {"name": "seed", "uses_discriminator": False, "weight": 1.0},
            "params.yaml: objective.uses_discriminator=False must be true;",
        ),
        ({"name": "seed", "uses_discriminator": True, "weight": -1.0}, "objective.weight=-1.0"),
        ({"name": "seed", "uses_discriminator": True, "alpha": 1.0}, "objective.alpha is not"),
    ],
)
def test_objective_that_cannot_be_read_is_refused(objective, says):
    assert says in refusal(read_objective, params_of(objective))


# --- formulas ---


def batch_for(params, timesteps: tuple[int, ...] = (10, 200, 500, 800), **more):
    """With fakes and a reference if the objective needs them; without a weight of its own."""
    batch = make_batch(timesteps, **more)
    if recipe_of(params.name).against_reference:
        fake = make_batch(timesteps, seed=1, reference=torch.zeros_like(batch.x0), **more)
        batch = replace(batch, fake=fake, reference=torch.zeros_like(batch.x0))
    return batch


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_weight_zero_gives_loss_and_gradient_of_none_to_the_byte(file, prediction_type):
    params = objective_params(file)
    objective = recipe_of(params.name).make(params)
    options = {"weight": 0.0, "process": replace(PROCESS, prediction_type=prediction_type)}
    batch = batch_for(params, (0, 200, 500, 999), **options)
    assert torch.equal(objective(batch)[0], noise_only(batch)[0])
    assert torch.equal(gradient(objective, batch), gradient(noise_only, batch))
    if batch.fake is not None:
        loss, _ = objective(batch)
        assert not torch.autograd.grad(loss, batch.fake.output)[0].any()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_loss_terms_and_gradient_are_finite_at_both_ends_of_the_process(
    file, prediction_type, beta_schedule
):
    params = objective_params(file)
    objective = recipe_of(params.name).make(params)
    process = process_of(diffusion_params(prediction_type, beta_schedule))
    for timestep in (0, 999):
        batch = batch_for(params, (timestep,) * 4, process=process)
        loss, terms = objective(batch)
        assert all(bool(torch.isfinite(value)) for value in [loss, *terms.values()])
        assert bool(torch.isfinite(gradient(objective, batch)).all())


@pytest.mark.parametrize("file", FILES)
def test_terms_are_detached_scalars_by_their_names(file):
    params = objective_params(file)
    loss, terms = recipe_of(params.name).make(params)(batch_for(params))
    judged = ["noise_loss", "discriminator_loss", "viability_score"]
    names = {
        "adversarial": ["noise_loss"],  # of a batch; the other terms are of samples
        "none": ["noise_loss"],
        "neon": ["noise_loss"],
        "seed": judged,
        "x0": [*judged, "gradient_ratio"],
        "ddo": ["noise_loss", "ddo_loss"],
    }
    assert list(terms) == names.get(params.name, list(terms))
    assert "noise_loss" in terms
    assert loss.shape == ()
    assert loss.requires_grad
    assert all(value.shape == () and not value.requires_grad for value in terms.values())


# --- terms that objectives share ---


@pytest.mark.parametrize(
    ("prediction_type", "expected"),
    [
        ("epsilon", (1.0 - 2.0) ** 2),
        ("sample", (1.0 - 3.0) ** 2),
        # alpha_bar 0.64: v = 0.8 eps - 0.6 x0 = 1.6 - 1.8 = -0.2
        ("v_prediction", (1.0 + 0.2) ** 2),
    ],
)
def test_noise_loss_is_the_mean_squared_error_to_the_target(prediction_type, expected):
    one = torch.ones(4, 4, 8, 8)
    batch = replace(
        make_batch((1, 1, 1, 1), output=one),
        x0=3 * one,
        eps=2 * one,
        process=VariancePreserving(torch.tensor([0.9, 0.64]), prediction_type),
    )
    assert batch.noise_loss().item() == pytest.approx(expected, rel=1e-6)


def test_noise_loss_weighs_every_sample_of_the_batch_alike():
    batch = make_batch((0, 999), process=replace(PROCESS, prediction_type="epsilon"))
    output = batch.eps.clone()
    output[0] += 2.0  # a squared error of 4 in one sample, of 0 in the other
    assert float(replace(batch, output=output).noise_loss()) == pytest.approx(2.0)

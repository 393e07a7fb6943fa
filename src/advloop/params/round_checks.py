"""Whether what params.yaml says of a round's discriminator, fakes and objective agrees."""

from __future__ import annotations

from typing import Any

from advloop.params.loader import Params
from advloop.params.sections import Sections
from advloop.params.training import MAX_OTHER_FAKES


def check_rounds(params: Params, sections: Sections) -> None:
    """Raise UserError about the first value that contradicts another."""
    _check_fakes(params, sections)
    _check_gate(params, sections)
    _check_pairs(params, sections)
    _check_play(params, sections)
    _check_alpha_bars(params, sections)


def _check_fakes(params: Params, sections: Sections) -> None:
    predicted = sections.train_disc.predicted_fraction
    replayed = sections.train_disc.replay_fraction
    if predicted + replayed > MAX_OTHER_FAKES + 1e-9:  # 0.7 + 0.2 is rounded
        raise params.fail(
            "train_disc.replay_fraction",
            replayed,
            f"and train_disc.predicted_fraction={predicted} make more than {MAX_OTHER_FAKES} "
            "of the fakes together",
        )


def _check_gate(params: Params, sections: Sections) -> None:
    """Under x0, the discriminator judges predictions that are noised again down to the gate."""
    gate, bound = params.at("objective.min_alpha_bar"), sections.train_disc.renoise_min_alpha_bar
    if not sections.discriminator.noise_conditioned or not isinstance(gate, int | float):
        return  # another objective, or a value that read_objective refuses
    if gate < bound:
        raise params.fail(
            "objective.min_alpha_bar",
            gate,
            "has the discriminator judge latents noisier than it is trained on, down to train_disc."
            f"renoise_min_alpha_bar={bound}; use the same value for both",
        )


def _check_pairs(params: Params, sections: Sections) -> None:
    """What a discriminator of pairs cannot have, and what it alone has."""
    training, model = sections.train_disc, sections.discriminator
    if training.loss == "bce":
        if training.r2_weight:
            problem = "belongs to train_disc.loss=relativistic; use 0"
            raise params.fail("train_disc.r2_weight", training.r2_weight, problem)
        return
    if model.dropout:
        problem = "has no place in train_disc.loss=relativistic, whose penalties compare logits of "
        raise params.fail("discriminator.dropout", model.dropout, problem + "one network; use 0.0")
    if model.noise_conditioned:
        problem = "would pair latents of different noise; use train_disc.loss=bce"
        raise params.fail("discriminator.noise_conditioned", "true", problem)


def _check_play(params: Params, sections: Sections) -> None:
    """The numbers of objective adversarial that have to agree."""
    if params.at("objective.name") != "adversarial":
        return
    names = ["num_inference_steps", "gradient_steps", "min_accuracy", "max_accuracy"]
    names += [f"{bound}discriminator_steps" for bound in ("min_", "", "max_")]
    values = {name: params.at(f"objective.{name}") for name in names}
    if not all(isinstance(v, int | float) for k, v in values.items() if k != "gradient_steps"):
        return  # read_objective refuses it
    if sections.generate.guidance_scale != 1:
        problem = "has no place in objective=adversarial, which samples without guidance; use 1.0"
        raise params.fail("generate.guidance_scale", sections.generate.guidance_scale, problem)
    made, depth = sections.generate.num_inference_steps, values["gradient_steps"]
    most = values["num_inference_steps"]
    if most != made:
        problem = f"is not the generate.num_inference_steps={made} of the round's fakes"
        raise params.fail("objective.num_inference_steps", most, problem)
    if isinstance(depth, int) and depth > most:
        problem = f"exceeds objective.num_inference_steps={most}; null means all"
        raise params.fail("objective.gradient_steps", depth, problem)
    if values["min_accuracy"] >= values["max_accuracy"]:
        problem = f"must be below objective.max_accuracy={values['max_accuracy']}"
        raise params.fail("objective.min_accuracy", values["min_accuracy"], problem)
    fewest, most = values["min_discriminator_steps"], values["max_discriminator_steps"]
    if not fewest <= values["discriminator_steps"] <= most:
        problem = f"is not between its bounds {fewest} and {most}"
        raise params.fail("objective.discriminator_steps", values["discriminator_steps"], problem)


def _check_alpha_bars(params: Params, sections: Sections) -> None:
    """Those in use leave at least one timestep."""
    bounds: dict[str, Any] = {"objective.min_alpha_bar": params.at("objective.min_alpha_bar")}
    if sections.train_disc.predicted_fraction:
        key = "generate.predicted_min_alpha_bar"
        bounds[key] = sections.generate.predicted_min_alpha_bar
    if sections.discriminator.noise_conditioned:
        bounds["train_disc.renoise_min_alpha_bar"] = sections.train_disc.renoise_min_alpha_bar
    most = sections.diffusion.max_alpha_bar()
    for key, bound in bounds.items():
        if isinstance(bound, int | float) and bound > most * (1 + 1e-6):  # float32 rounds
            problem = f"leaves no timestep, the least noisy one has {most:.4f}"
            raise params.fail(key, bound, f"{problem}; use less")

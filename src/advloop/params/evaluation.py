"""Parameters of the evaluation on held-out images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from advloop.params.section import Section
from advloop.params.training import GuidanceScale

NEIGHBOURS = 5  # k of precision, recall, density and coverage
MIN_IMAGES = NEIGHBOURS + 1  # the smallest set in which every image has k others
MIN_SIZE = 32  # pixels a side that a network of features sees
DINOV2_FOLDER = "the folder that transformers' Dinov2Model.save_pretrained wrote"


class EvaluateParams(Section):
    features: Literal["lite0", "dinov2", "inception", "encoder"]  # network of the image features
    feature_size: Annotated[int, Field(ge=MIN_SIZE, le=512)]  # pixels a side for lite0 and dinov2
    feature_weights: str | None  # local folder of dinov2, file of inception, or None
    num_samples: Annotated[int, Field(ge=MIN_IMAGES)]  # for each sampling seed
    num_reals: Annotated[int, Field(ge=MIN_IMAGES)] | None  # of each split at most; None: all
    num_seeds: Annotated[int, Field(ge=3)]  # sampling seeds, and initialisations of the critics
    num_inference_steps: PositiveInt  # of the rounds' models
    base_num_inference_steps: PositiveInt  # of the base model, which they are compared with
    batch_size: PositiveInt
    critic_widths: list[PositiveInt]  # hidden layers of a fresh critic; [] is linear
    critic_epochs: PositiveInt  # one full batch each
    critic_learning_rate: PositiveFloat
    smallest_change: Annotated[float, Field(gt=0, le=1)]  # worth naming, see docs/metrics.md
    guidance_scale: GuidanceScale = 1.0  # of classifier-free guidance; 1: none

    def of_base(self) -> EvaluateParams:
        """The parameters with the base model's steps in place of the rounds'."""
        return self.model_copy(update={"num_inference_steps": self.base_num_inference_steps})

    def weights_problem(self) -> str | None:
        """Why ``feature_weights`` is wrong for ``features``, or None."""
        if self.feature_weights is None:
            if self.features == "dinov2":
                return f"leaves evaluate.features=dinov2 without weights; name {DINOV2_FOLDER}"
        elif self.features not in ("dinov2", "inception"):
            return f"is not used by evaluate.features={self.features}, which has its own; use null"
        return None

"""Parameters of the evaluation on held-out images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from advloop.params.section import Section

NEIGHBOURS = 5  # k of precision, recall, density and coverage
MIN_IMAGES = NEIGHBOURS + 1  # the smallest set in which every image has k others


class EvaluateParams(Section):
    features: Literal["lite0", "inception", "encoder"]  # network of the image features
    feature_size: Annotated[int, Field(ge=32, le=512)]  # pixels a side for lite0; others ignore it
    num_samples: Annotated[int, Field(ge=MIN_IMAGES)]  # for each sampling seed
    num_seeds: Annotated[int, Field(ge=3)]  # sampling seeds, and initialisations of the critics
    num_inference_steps: PositiveInt
    batch_size: PositiveInt
    critic_widths: list[PositiveInt]  # hidden layers of a fresh critic; [] is linear
    critic_epochs: PositiveInt  # one full batch each
    critic_learning_rate: PositiveFloat
    smallest_change: Annotated[float, Field(gt=0, le=1)]  # worth naming, see docs/metrics.md

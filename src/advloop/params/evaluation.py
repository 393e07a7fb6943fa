"""Parameters of the held-out evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from advloop.params.loader import number

NEIGHBOURS = 5  # k of precision, recall, density and coverage
MIN_IMAGES = NEIGHBOURS + 1  # a set in which every image has that many others


@dataclass
class EvaluateParams:
    feature_size: int = number(32, 512)  # pixels a side that the feature network sees
    num_samples: int = number(MIN_IMAGES)  # for each sampling seed
    num_seeds: int = number(2)  # the intervals need at least two
    num_inference_steps: int = number(1)
    batch_size: int = number(1)

"""Parameters of the held-out evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from advloop.params.loader import number


@dataclass
class EvaluateParams:
    feature_size: int = number(32, 512)  # pixels a side that the feature network sees
    num_samples: int = number(6)  # for each sampling seed; five neighbours need six
    num_seeds: int = number(2)  # the intervals need at least two
    num_inference_steps: int = number(1)
    batch_size: int = number(1)

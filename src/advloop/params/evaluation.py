"""Parameters of the held-out evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from advloop.params.loader import choice, number

NEIGHBOURS = 5  # k of precision, recall, density and coverage
MIN_IMAGES = NEIGHBOURS + 1  # a set in which every image has that many others


@dataclass
class EvaluateParams:
    features: str = choice("lite0", "inception", "encoder")  # network of the image features
    feature_size: int = number(32, 512)  # pixels a side that lite0 sees; the others need none
    num_samples: int = number(MIN_IMAGES)  # for each sampling seed
    num_seeds: int = number(3)  # sampling seeds, and as many initialisations of the critics
    num_inference_steps: int = number(1)
    batch_size: int = number(1)
    critic_widths: list[int] = number(1)  # hidden layers of a fresh critic; [] is linear
    critic_epochs: int = number(1)  # one full batch each
    critic_learning_rate: float = number(0, open_low=True)

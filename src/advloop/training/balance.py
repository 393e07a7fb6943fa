"""What keeps a discriminator useful to a generator: neither too weak, nor too strong, nor dead."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MEASURED = 4  # accuracies in a mean, after which the number of steps may change, as in ADA


@dataclass
class Band:
    """The discriminator's steps for one of the generator's, led by its held-out accuracy.

    A mean of MEASURED accuracies below ``min_accuracy`` adds a step, above ``max_accuracy`` takes
    one, within ``min_steps`` and ``max_steps``. ADA (Karras et al. 2020, section 3.1) steers its
    augmentation by such a signal, with such a slow and bounded rule.
    """

    steps: int
    min_steps: int
    max_steps: int
    min_accuracy: float
    max_accuracy: float
    total: float = 0.0
    count: int = 0

    def update(self, accuracy: float) -> None:
        """Take in one accuracy, in [0, 1], of rows that the discriminator has not learned from."""
        self.total, self.count = self.total + accuracy, self.count + 1
        if self.count < MEASURED:
            return
        mean = self.total / self.count
        self.total, self.count = 0.0, 0
        if mean < self.min_accuracy:
            self.steps = min(self.steps + 1, self.max_steps)
        elif mean > self.max_accuracy:
            self.steps = max(self.steps - 1, self.min_steps)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@dataclass
class Collapse:
    """Whether the discriminator has gone flat: it then tells the generator nothing any more.

    That is so after ``patience`` steps in a row whose gradient at a sample is below ``gradient``.
    """

    gradient: float
    patience: int
    flat_steps: int = 0  # in a row, up to the last one

    def update(self, gradient: float) -> None:
        """Take in the norm of one step's gradient at a sample, at least 0."""
        self.flat_steps = self.flat_steps + 1 if gradient < self.gradient else 0

    @property
    def begins(self) -> bool:
        """Whether the last step is the first flat one."""
        return self.flat_steps == 1

    @property
    def complete(self) -> bool:
        return self.flat_steps >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

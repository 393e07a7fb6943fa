"""Parameters of an evaluation that takes a moment."""

from __future__ import annotations

from typing import Any

from advloop.core.random import seeded
from advloop.models.codec import Codec
from advloop.models.patch_autoencoder import PatchAutoencoder
from advloop.params.evaluation import EvaluateParams


def evaluate_params(**changes: Any) -> EvaluateParams:
    values = {
        "features": "encoder",
        "feature_size": 32,
        "feature_weights": None,
        "num_samples": 6,
        "num_reals": None,
        "num_seeds": 3,
        "num_inference_steps": 3,
        "base_num_inference_steps": 3,
        "batch_size": 6,
        "critic_widths": [8],
        "critic_epochs": 2,
        "critic_learning_rate": 1e-2,
        "smallest_change": 0.1,
    }
    return EvaluateParams(**(values | changes))


def small_codec(scale: float = 1.0) -> Codec:
    """(3, 32, 32) pixels to latents (4, 8, 8)."""
    with seeded(0, "codec"):
        return Codec(PatchAutoencoder(4, 4, 8, 1, 1), scale)

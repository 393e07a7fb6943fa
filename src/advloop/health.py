"""The discriminator's useful band of accuracy, and what to change outside it."""

from __future__ import annotations

TOO_STRONG, TOO_WEAK = 0.9, 0.5


def health_warning(val_accuracy: float) -> str | None:
    """Advice where the validation accuracy (0-1) leaves the band, else None."""
    if val_accuracy > TOO_STRONG:
        return (
            f"discriminator too strong (validation accuracy {val_accuracy:.4f} > {TOO_STRONG}): "
            "its gradient teaches little; lower train_disc.epochs or discriminator.channels, "
            "raise discriminator.dropout or train_disc.r1_weight, or set train_disc.stop_accuracy"
        )
    if val_accuracy < TOO_WEAK:
        return (
            f"discriminator too weak (validation accuracy {val_accuracy:.4f} < {TOO_WEAK}): "
            "its gradient is noise; raise train_disc.epochs or generate.num_samples"
        )
    return None

"""The ``derived`` resolver: what dvc.yaml's templates need and YAML cannot compute.

Hydra imports every module of the ``hydra_plugins`` namespace, here inside DVC's
own process: import nothing heavy.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from advloop.core.naming import check_exp_name

CONF = Path(__file__).resolve().parents[2] / "conf"
NO_MODEL = "outputs/config.ok"  # what a stage depends on where it has no such input


def conf_digest(folder: Path = CONF) -> str:
    """Digest of every YAML file under conf/, by relative path and content."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.yaml")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value} must be a whole number of at least 1")
    return value


def derive(
    exp_name: Any,
    num_iterations: Any,
    epochs: Any,
    sample_interval: Any,
    autoencoder: Any,
    base: Any,
) -> dict[str, Any]:
    """Everything under ``derived`` in params.yaml.

    exp_name: names published files; num_iterations, epochs, sample_interval: whole
    numbers of at least 1; autoencoder, base: folders of imported models, or None.
    Raises ValueError on anything else.
    """
    name = check_exp_name(exp_name)
    count = _whole("num_iterations", num_iterations)
    last_epoch = _whole("train_diffusion.epochs", epochs)
    every = _whole("train_diffusion.sample_interval", sample_interval)
    sampled = sorted({*range(every, last_epoch, every), last_epoch})
    histories = [f"outputs/discriminator_iter_{i}/discriminator_history.csv" for i in range(count)]
    metrics = [f"outputs/{name}_metrics_iter_{i}.csv" for i in range(count)]

    def chart(files: list[str], *columns: str) -> dict[str, list[str]]:
        return {file: list(columns) for file in files}

    return {
        # The model that iteration i starts from: `generate@i` and `train_diffusion@i` read it.
        "iterations": {str(i): f"iter_{i - 1}" if i else "base" for i in range(count)},
        # The earlier fakes that `train_disc@i` may replay; the first iteration has none.
        "replays": {
            str(i): f"outputs/discriminator_iter_{i - 1}/replay_latents.pt" if i else NO_MODEL
            for i in range(count)
        },
        "indices": list(range(count)),
        "last": f"iter_{count - 1}",
        "sample_epochs": [f"{epoch:03d}" for epoch in sampled],
        "autoencoder_source": autoencoder or NO_MODEL,
        "base_source": base or NO_MODEL,
        "plots": {
            "discriminator_loss": chart(histories, "train_loss", "val_loss"),
            "discriminator_accuracy": chart(histories, "train_accuracy", "val_accuracy"),
            "diffusion_loss": chart(metrics, "noise_loss", "val_noise_loss"),
            "diffusion_discriminator_loss": chart(
                metrics, "discriminator_loss", "val_discriminator_loss"
            ),
            "viability": chart(metrics, "viability_score", "val_viability_score"),
        },
        "conf_digest": conf_digest(),
    }


def _resolve(*args: Any) -> DictConfig:
    return OmegaConf.create(derive(*args))


OmegaConf.register_new_resolver("derived", _resolve, replace=True)

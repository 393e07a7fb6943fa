"""What bf16 costs in quality: held-out metrics of the run's last model in either precision."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from advloop.autoencoder import Codec, load_autoencoder
from advloop.classes import load_classes
from advloop.core.errors import UserError
from advloop.criterion import Criterion
from advloop.evaluation.features import load_features
from advloop.evaluation.model import evaluate_model
from advloop.evaluation.reals import load_reals
from advloop.latent_files import load_latents, read_scale
from advloop.objectives.none import noise_only
from advloop.params.diffusion import DiffusionParams
from advloop.params.evaluation import EvaluateParams
from advloop.params.loader import Params
from advloop.params.run import PRECISIONS, read_seed
from advloop.unet import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Quality:
    """Of one precision; seconds: of samples and metrics, with half of 95 % intervals."""

    model: str
    precision: str
    seconds: float
    kid: float
    kid_ci95: float
    critic_gap: float
    critic_gap_ci95: float
    test_noise_loss: float


def qualities(where: torch.device, outputs: Path = ROOT / "outputs") -> list[Quality]:
    """Stage evaluate's measurement in each precision; UserError where there is no whole run."""
    params = Params.load(ROOT / "params.yaml")
    last = str(params.content.derived.last)
    model = outputs / f"diffusion_{last}/checkpoint_best.pt"
    if not model.exists():
        raise UserError("--only quality: there is no run here to judge; run `dvc repro` first")
    denoiser = load_checkpoint(model).placed(where)
    latents, shape = outputs / "latents", denoiser.latent_shape
    settings = params.section("evaluate", EvaluateParams)
    codec = Codec(
        load_autoencoder(outputs / "autoencoder").to(where), *read_scale(latents / "stats.json")
    )
    test = load_latents(latents / "test.pt", shape)
    found = []
    for precision in PRECISIONS:
        began = time.perf_counter()
        row, _ = evaluate_model(
            denoiser,
            Criterion(
                objective=noise_only,
                weight=0.0,
                discriminator=None,
                diffusion=params.section("diffusion", DiffusionParams),
                precision=precision,
                where=where,
            ),
            codec,
            load_features(settings.features, codec, settings.feature_size, where),
            load_latents(latents / "train.pt", shape),
            load_reals(outputs / "evaluation_reals/reals.pt", test),
            settings,
            read_seed(params),
            lambda seeds: seeds,
            load_classes(latents),
        )
        seconds = time.perf_counter() - began
        kid = f"kid_{settings.features}"
        found.append(
            Quality(
                last,
                precision,
                seconds,
                row[kid],
                row[f"{kid}_ci95"],
                row["critic_gap"],
                row["critic_gap_ci95"],
                row["test_noise_loss"],
            )
        )
        print(f"  {precision} done", flush=True)
    return found

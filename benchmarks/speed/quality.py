"""What bf16 costs in quality: held-out metrics of the run's last model in each precision."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from advloop.core.errors import UserError
from advloop.core.rounds import Round
from advloop.data.classes import load_classes
from advloop.data.latents import load_latents
from advloop.diffusion.criterion import noise_criterion
from advloop.diffusion.processes import process_of
from advloop.evaluation.features import load_features
from advloop.evaluation.model import Judge, evaluate_model
from advloop.evaluation.reals import FILE as REALS
from advloop.evaluation.reals import load_reals
from advloop.models.autoencoder import load_codec
from advloop.models.denoiser import load_checkpoint
from advloop.params.diffusion import read_diffusion
from advloop.params.evaluation import EvaluateParams
from advloop.params.loader import Params
from advloop.params.run import PRECISIONS, read_num_iterations, read_seed
from shapes import ROOT


@dataclass(frozen=True)
class Quality:
    """Metrics in one precision, with half their 95 % intervals, and the seconds that they took."""

    model: str
    precision: str
    seconds: float
    kid: float
    kid_ci95: float
    critic_gap: float
    critic_gap_ci95: float
    test_noise_loss: float


def qualities(device: torch.device, outputs: Path = ROOT / "outputs") -> list[Quality]:
    """What stage evaluate measures, in each precision; UserError if there is no whole run."""
    params = Params.load(ROOT / "params.yaml")
    last = Round(outputs / "rounds", read_num_iterations(params) - 1)
    if not last.checkpoint("best").exists():
        raise UserError("--only quality: no run in outputs/ to evaluate; run `dvc repro` first")
    denoiser = load_checkpoint(last.checkpoint("best")).to(device)
    latents, shape = outputs / "latents", denoiser.latent_shape
    settings = params.section("evaluate", EvaluateParams)
    codec = load_codec(outputs / "autoencoder", latents, device)
    reals, seed = load_reals(outputs / "reals" / REALS), read_seed(params)
    views = reals.views(settings, seed, device)
    found = []
    for precision in PRECISIONS:
        began = time.perf_counter()
        judge = Judge(
            noise_criterion(process_of(read_diffusion(params)), precision, device),
            codec,
            load_features(settings.features, codec, settings.feature_size, device),
            load_latents(latents / "train.pt", shape),
            reals,
            views,
            settings,
            seed,
            load_classes(latents),
        )
        scores = evaluate_model(last.name, denoiser, judge, lambda jobs: jobs).scores
        seconds = time.perf_counter() - began
        kid, gap = scores.get("kid"), scores.get("critic_gap")
        assert kid.half is not None
        assert gap.half is not None
        loss = scores.get("test_noise_loss").mean
        found.append(
            Quality(last.name, precision, seconds, kid.mean, kid.half, gap.mean, gap.half, loss)
        )
        print(f"  {precision} done", flush=True)
    return found

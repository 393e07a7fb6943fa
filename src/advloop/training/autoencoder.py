"""Train the patch autoencoder on pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from advloop.core.errors import UserError
from advloop.core.random import batches, generator, seeded
from advloop.data.augmentation import augment
from advloop.infra.snapshots import NoResume, Resume, Stateful, restore, states
from advloop.models.autoencoder import build_autoencoder
from advloop.models.codec import Codec, to_pixels
from advloop.models.patch_autoencoder import PatchAutoencoder
from advloop.params.data import VARIANTS, AutoencoderParams

Images = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
PCA_IMAGES = 2000  # at most: enough patches for a stable basis, and they fit any memory


def psnr(codec: Codec, images: Images, rows: Rows, batch: int) -> float:
    """Peak signal-to-noise ratio of reconstructions over all pixels of ``rows``, in dB."""
    squared, count = 0.0, 0
    for part in batches(len(rows), batch):
        chosen = images[rows[part.start : part.stop]]
        difference = codec.decode(codec.encode(chosen)).astype(np.float64) - chosen
        squared += float((difference**2).sum())
        count += difference.size
    return 10 * math.log10(255**2 * count / max(squared, 1e-12))


def _patches(images: Images, rows: Rows, factor: int, device: torch.device) -> torch.Tensor:
    pixels = to_pixels(images[rows[:: math.ceil(len(rows) / PCA_IMAGES)]], device)
    return F.pixel_unshuffle(pixels, factor).movedim(1, -1).flatten(0, 2)


def train_autoencoder(
    params: AutoencoderParams,
    augmentation: str,
    images: Images,
    rows: Rows,
    seed: int,
    device: torch.device,
    progress: Callable[[Iterable[int]], Iterable[int]],
    on_epoch: Callable[[int, float], None],
    resume: Resume | None = None,
) -> PatchAutoencoder:
    """Minimise MSE + l1_weight * L1 of the reconstruction, with noise on the latents.

    images: (N, H, W, 3); rows: those to train on. The noise, of latent_noise standard deviations
    of the latents, makes the decoder robust to the errors of a diffusion model.
    ``on_epoch(epoch, train_loss)`` is called after each epoch. Raises UserError on a non-finite
    loss. resume: takes a snapshot after each epoch, and gives the one to go on from.
    """
    resume = resume or NoResume()
    with seeded(seed, "train_autoencoder"):
        model = build_autoencoder(params).to(device)
    model.start_from_pca(_patches(images, rows, params.factor, device))
    steps = math.ceil(len(rows) / params.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), params.learning_rate, weight_decay=0.01)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.epochs * steps)
    history: list[float] = []
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "decay": decay}
    if content := resume.load():
        history = content["history"]
        restore(parts, content)
    for epoch in progress(range(len(history) + 1, params.epochs + 1)):
        stream = generator(seed, "train_autoencoder", epoch)
        order = rows[torch.randperm(len(rows), generator=stream).numpy()]
        losses = []
        for part in batches(len(order), params.batch_size):
            pixels = to_pixels(images[np.sort(order[part.start : part.stop])], device)
            variant = int(torch.randint(VARIANTS[augmentation], (1,), generator=stream))
            pixels = augment(pixels, variant).contiguous(memory_format=torch.channels_last)
            latents = model.encode(pixels)
            noise = torch.randn(latents.shape, generator=stream).to(device)
            noisy = latents + params.latent_noise * latents.detach().std() * noise
            error = model.decode(noisy).sample - pixels
            loss = error.square().mean() + params.l1_weight * error.abs().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            decay.step()
            losses.append(loss.detach())
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise UserError(
                f"train_autoencoder: loss is {mean} in epoch {epoch}; lower "
                f"autoencoder.learning_rate={params.learning_rate}"
            )
        history.append(mean)
        on_epoch(epoch, mean)
        resume.offer(lambda: {"history": history, **states(parts)})
    return model

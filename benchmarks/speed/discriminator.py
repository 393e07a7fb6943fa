"""An epoch of the discriminator: ours, a loop over a DataLoader, and the bare network."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from advloop.core.device import autocast
from advloop.core.random import batches
from advloop.models.discriminator import build_discriminator
from advloop.params.training import DiscriminatorParams, TrainDiscParams
from advloop.training.discriminator import DiscriminatorSetup, train_discriminator
from advloop.training.discriminator_data import DiscData
from race import Contender
from training import PROCESS


def contenders(
    model_params: DiscriminatorParams,
    params: TrainDiscParams,
    latents: torch.Tensor,
    precision: str,
    device: torch.device,
) -> list[Contender]:
    """Each trains one epoch on ``latents`` (N, C, H, W), whose first half is real."""
    count = len(latents)
    real = (torch.arange(count) < count // 2).float()
    data = DiscData(latents.to(device), real.to(device))
    few = DiscData(latents[[0, -1]].to(device), real[[0, -1]].to(device))

    def our_epoch() -> None:
        setup = DiscriminatorSetup(
            params, model_params, data, few, PROCESS, 0, 0, precision=precision
        )
        train_discriminator(setup, iter, lambda _: None)

    _, channels, size, _ = latents.shape
    shape = (channels, size, size)
    model = build_discriminator(model_params, shape, 0, 0).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), params.learning_rate)
    loader = DataLoader(TensorDataset(latents, real), batch_size=params.batch_size, shuffle=True)

    def loader_epoch() -> None:
        model.train()
        hits = 0
        for batch, labels in loader:
            logits = model(batch.to(device))
            loss = F.binary_cross_entropy_with_logits(logits, labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            hits += int(((logits > 0) == (labels.to(device) > 0.5)).sum())
            loss.item()

    bare = build_discriminator(model_params, shape, 0, 0).to(device)
    bare_optimizer = torch.optim.AdamW(bare.parameters(), params.learning_rate, fused=True)

    def bare_epoch() -> None:
        bare.train()
        for part in batches(count, params.batch_size):
            rows = slice(part.start, part.stop)
            with autocast(precision, device):
                logits = bare(data.latents[rows])
            F.binary_cross_entropy_with_logits(logits.float(), data.real[rows]).backward()
            bare_optimizer.step()
            bare_optimizer.zero_grad(set_to_none=True)

    return [
        Contender("advloop", our_epoch, count, ours=True),
        Contender("DataLoader over the tensors, fp32", loader_epoch, count, target=2.0),
        Contender(f"bare forward, backward, step, {precision}", bare_epoch, count),
    ]

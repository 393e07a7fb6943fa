"""An epoch of the discriminator: ours, and a DataLoader loop over the same tensors."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from advloop.disc.data import DiscData
from advloop.disc.training import train_discriminator
from advloop.discriminator import build_discriminator
from advloop.params.discriminator import DiscriminatorParams, TrainDiscParams
from advloop.schedule import make_alphas_cumprod
from race import Contender


def contenders(
    model_params: DiscriminatorParams,
    params: TrainDiscParams,
    latents: torch.Tensor,
    precision: str,
    where: torch.device,
) -> list[Contender]:
    """Each trains one epoch on ``latents`` (N, C, H, W), the first half of which is real."""
    count = len(latents)
    real = (torch.arange(count) < count // 2).float()
    data = DiscData(latents.to(where), real.to(where))
    few = DiscData(data.latents[[0, -1]], data.real[[0, -1]])
    alphas_cumprod = make_alphas_cumprod("squaredcos_cap_v2", 1000)

    def our_epoch() -> None:
        train_discriminator(
            params,
            model_params,
            data,
            few,
            alphas_cumprod,
            0,
            0,
            lambda _: None,
            precision=precision,
        )

    model = build_discriminator(model_params, latents.shape[1], 0, 0).to(where)
    optimizer = torch.optim.AdamW(model.parameters(), params.learning_rate)
    loader = DataLoader(TensorDataset(latents, real), batch_size=params.batch_size, shuffle=True)

    def loader_epoch() -> None:
        model.train()
        hits = 0
        for batch, labels in loader:
            logits = model(batch.to(where))
            loss = F.binary_cross_entropy_with_logits(logits, labels.to(where))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            hits += int(((logits > 0) == (labels.to(where) > 0.5)).sum())
            loss.item()

    return [
        Contender("advloop", our_epoch, count, ours=True),
        Contender("DataLoader over the tensors, fp32", loader_epoch, count, target=2.0),
    ]

"""Low-rank adapters: a large network is fine-tuned by small matrices beside its frozen weights.

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models". The weight W of a layer
becomes W + B A, with A of ``rank`` rows and B of as many columns. B starts at 0, so that a training
starts at the network itself. peft makes them, and is imported where an adapter is added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from advloop.core.errors import UserError
from advloop.core.random import seeded
from advloop.params.training import NEEDS_PEFT

NAME = "default"  # peft's, for the only adapter of a network


def adapted_layers(network: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The linear layers and convolutions of the network that end in one of ``names``."""
    endings = tuple(f".{name}" for name in names)
    return {name: part for name, part in network.named_modules() if name.endswith(endings)}


def count_adapter(layers: Sequence[nn.Module], rank: int) -> int:
    """How many weights an adapter of ``rank`` has on ``layers``; UserError if one has a lower rank.

    A layer of m outputs and n inputs (those of a convolution's whole window) gets rank (m + n).
    """
    sides = [(len(weight), weight[0].numel()) for weight in _weights(layers)]
    most = min(min(pair) for pair in sides)
    if rank > most:
        raise UserError(
            f"params.yaml: train_diffusion.lora_rank={rank} exceeds the rank {most} of a layer "
            f"that it adapts; use at most {most}, or null to train all weights"
        )
    return rank * sum(map(sum, sides))


def _weights(layers: Sequence[Any]) -> list[torch.Tensor]:
    return [layer.weight for layer in layers]


def add_adapter(network: nn.Module, names: Sequence[str], rank: int, *key: int | str) -> str:
    """Freeze ``network``, and put an adapter beside its layers of these ``names``, in place.

    key: of the random stream of its initial weights, the seed first. Returns what it is, in a line.
    UserError if peft is missing, or if the rank exceeds a layer's.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError(f"params.yaml: train_diffusion.lora_rank {NEEDS_PEFT}") from None
    layers = adapted_layers(network, names)
    size = count_adapter([*layers.values()], rank)
    everything = sum(weight.numel() for weight in network.parameters())
    seed, *rest = key
    assert isinstance(seed, int)
    with seeded(seed, *rest):  # peft draws from the global stream
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=[*layers])
        inject_adapter_in_model(config, network, NAME)
    return (
        f"adapter of rank {rank} on {len(layers)} layers: {size:,} weights are trained, beside "
        f"{everything:,} frozen ones"
    )


def adapters_of(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and module of each layer with an adapter."""
    return ((name, part) for name, part in network.named_modules() if hasattr(part, "lora_B"))


def merged_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of the network as it was without an adapter, with B A added to its weights."""
    state = network.state_dict()
    found = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in state.items()
        if ".lora_" not in name
    }
    with torch.no_grad():
        for name, layer in adapters_of(network):
            weight = f"{name}.weight"
            found[weight] = found[weight] + layer.get_delta_weight(NAME)
    return found


def scale_adapter(network: nn.Module, factor: float) -> None:
    """W + B A becomes W + ``factor`` B A, in place."""
    with torch.no_grad():
        for _, layer in adapters_of(network):
            layer.lora_B[NAME].weight.mul_(factor)

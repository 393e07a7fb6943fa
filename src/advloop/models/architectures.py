"""diffusers' networks that can be denoisers, and what this project needs to know of each class.

The rest of the code sees ``Denoiser`` alone. A network is described by its ``config``, the keyword
arguments of its class, with ``_class_name`` unless it is a UNet2DModel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from advloop.params.captions import TEXT_UNET, context_width, network_problem

Config = Mapping[str, Any]
UNET, DIT = "UNet2DModel", "DiTTransformer2DModel"


class GroupNorm32(nn.GroupNorm):
    """Group normalisation with float32 statistics; the output has the input's type.

    Under autocast, a GPU would return float32 and so double the memory of all later activations.
    The CPU's kernel already adds up in float32 and returns bfloat16.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu":
            return super().forward(x)
        return super().forward(x.float()).to(x.dtype)


def _normalise_in_float32(network: nn.Module) -> None:
    """Replace each group normalisation by a GroupNorm32; the names of weights stay."""
    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if type(norm) is nn.GroupNorm:
                norm32 = GroupNorm32(norm.num_groups, norm.num_channels, norm.eps, norm.affine)
                setattr(parent, name, norm32)


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # the projections of an attention


class Architecture(ABC):
    """One class of diffusers. Its last layer is ``head``; a folder calls it ``component``.

    adapted: how the names of the layers end that a low-rank adapter is put beside.
    """

    class_name: ClassVar[str]
    component: ClassVar[str]
    head: ClassVar[str]
    text: ClassVar[bool] = False  # whether it is conditioned on texts
    adapted: ClassVar[tuple[str, ...]] = ATTENTION

    @abstractmethod
    def build(self, config: Config) -> nn.Module:
        """The network, with the initial weights of its class."""

    def initialise(self, network: nn.Module) -> None:  # noqa: B027  # most classes do it themselves
        """Give it the weights that a training from scratch starts with."""

    @abstractmethod
    def predict(
        self, network: nn.Module, noisy: torch.Tensor, time: torch.Tensor, labels: Any
    ) -> torch.Tensor:
        """Its output (B, C, H, W). noisy: (B, C, H, W); time: (B,).

        labels: (B,) int, or None; of a network of texts, their embeddings (B, L, D).
        """

    @abstractmethod
    def num_classes(self, config: Config) -> int:
        """Number of classes that it is conditioned on; 0 if it is unconditional."""

    @abstractmethod
    def null_label(self, config: Config) -> int | None:
        """The label that stands for no class, or None if there is none."""

    @abstractmethod
    def predicted_rows(self, config: Config) -> list[bool]:
        """Which rows of the head's weight make the prediction; the others make a learned sigma."""

    @abstractmethod
    def problem(self, config: Config) -> str | None:
        """Why a network with this config cannot be used, or None."""

    def context_width(self, config: Config) -> int:
        """D of the embeddings that a network of texts takes."""
        raise NotImplementedError(f"{self.class_name} takes no text")


class UNet(Architecture):
    class_name, component, head = UNET, "unet", "conv_out"
    # Most of these networks attend at their lowest level alone: the rest is in convolutions.
    adapted: ClassVar[tuple[str, ...]] = (*ATTENTION, "conv1", "conv2")

    def build(self, config: Config) -> nn.Module:
        from advloop.models.library import diffusers

        network: Any = diffusers.UNet2DModel(**config)
        _normalise_in_float32(network)
        built: nn.Module = network
        return built

    def predict(
        self, network: nn.Module, noisy: torch.Tensor, time: torch.Tensor, labels: Any
    ) -> torch.Tensor:
        output: torch.Tensor = network(noisy, time, labels, return_dict=False)[0]
        return output

    def num_classes(self, config: Config) -> int:
        return config.get("num_class_embeds") or 0

    def null_label(self, config: Config) -> int | None:  # noqa: ARG002  # no U-Net has one
        return None

    def predicted_rows(self, config: Config) -> list[bool]:
        return [row < config["in_channels"] for row in range(config["out_channels"])]

    def problem(self, config: Config) -> str | None:
        if (kind := config.get("class_embed_type")) is not None:
            return f"it takes classes as {kind}, not as labels"
        if config.get("time_embedding_type") == "fourier":
            return "it takes noise levels (fourier), not timesteps"
        return None


class TextUNet(UNet):
    """The U-Net of Stable Diffusion (Rombach et al. 2022), which attends to a text's tokens."""

    class_name, text = TEXT_UNET, True
    adapted = ATTENTION  # as its adapters usually are

    def build(self, config: Config) -> nn.Module:
        from advloop.models.library import diffusers

        network: Any = diffusers.UNet2DConditionModel(**config)
        _normalise_in_float32(network)
        built: nn.Module = network
        return built

    def num_classes(self, config: Config) -> int:  # noqa: ARG002  # it knows texts instead
        return 0

    def problem(self, config: Config) -> str | None:
        return network_problem(config)

    def context_width(self, config: Config) -> int:
        return int(context_width(config))


class DiT(Architecture):
    """Peebles & Xie 2023, "Scalable Diffusion Models with Transformers"; SiT is one with a flow."""

    class_name, component, head = DIT, "transformer", "proj_out_2"

    def build(self, config: Config) -> nn.Module:
        from advloop.models.library import diffusers

        network: Any = diffusers.DiTTransformer2DModel(**config)
        for block in network.transformer_blocks:
            # Each block would drop labels by itself; the criterion drops them for all (Criterion).
            block.norm1.emb.class_embedder.dropout_prob = 0.0
        built: nn.Module = network
        return built

    def initialise(self, network: Any) -> None:
        """adaLN-Zero (section 3.2): each block starts as the identity, and the output as 0."""
        layers = [block.norm1.linear for block in network.transformer_blocks]
        for layer in (*layers, network.proj_out_1, network.proj_out_2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def predict(
        self, network: Any, noisy: torch.Tensor, time: torch.Tensor, labels: Any
    ) -> torch.Tensor:
        if labels is None:
            null = network.config["num_embeds_ada_norm"]
            labels = torch.full((len(noisy),), null, device=noisy.device)
        output: torch.Tensor = network(noisy, time, labels, return_dict=False)[0]
        return output

    def num_classes(self, config: Config) -> int:
        """A single class is that of a network without classes, which sees the null class alone."""
        classes: int = config["num_embeds_ada_norm"]
        return classes if classes > 1 else 0

    def null_label(self, config: Config) -> int | None:
        label: int = config["num_embeds_ada_norm"]
        return label

    def predicted_rows(self, config: Config) -> list[bool]:
        """Rows are by place in the patch, then by channel."""
        channels = [row < config["in_channels"] for row in range(config["out_channels"])]
        return channels * int(config["patch_size"] ** 2)

    def problem(self, config: Config) -> str | None:
        if (norm := config.get("norm_type", "ada_norm_zero")) != "ada_norm_zero":
            return f"its norm_type {norm} is that of no class-conditional transformer"
        return None


ARCHITECTURES: dict[str, Architecture] = {
    one.class_name: one for one in (UNet(), DiT(), TextUNet())
}


def architecture_of(config: Config) -> Architecture:
    """The architecture that a config names."""
    return ARCHITECTURES[config.get("_class_name", UNET)]

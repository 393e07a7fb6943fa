"""The pipeline of a latent diffusion model for which diffusers has none of its own.

Stage select puts this file into the folder that it writes, as ``pipeline.py``, for the model card's
code to import. So it needs diffusers, torch and, if this project trained the autoencoder, the
``patch_autoencoder.py`` beside it; nothing of the project.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # network's input and time: output


class LatentPipeline(DiffusionPipeline):
    """Samples images: denoises latents, undoes their scale, decodes them.

    scheduler: DDIMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler or
    FlowMatchHeunDiscreteScheduler. vqvae: any autoencoder with ``config`` and ``decode``;
    LDMPipeline, which this follows, calls it so. num_inference_steps, guidance_scale: those that
    the model was made for. classes: names in the order of their labels; empty if the model is
    unconditional. heun: second-order steps between the noise levels of an EDMEulerScheduler, for
    which diffusers has no scheduler.
    """

    _optional_components = ["unet", "transformer"]  # noqa: RUF012  # as diffusers declares it

    def __init__(
        self,
        scheduler: Any,
        vqvae: Any,
        unet: Any = None,
        transformer: Any = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        classes: Sequence[str] = (),
        heun: bool = False,
    ) -> None:
        super().__init__()
        register: Any = self  # diffusers' methods have no types
        register.register_modules(
            scheduler=scheduler, vqvae=vqvae, unet=unet, transformer=transformer
        )
        register.register_to_config(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            classes=list(classes),
            heun=heun,
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> LatentPipeline:  # type: ignore[override]
        """The pipeline in a local folder that stage select wrote."""
        folder = Path(folder)
        index = json.loads((folder / "model_index.json").read_text())
        quiet = {"low_cpu_mem_usage": False}  # otherwise diffusers warns if accelerate is missing
        parts: dict[str, Any] = {
            name: getattr(diffusers, index[name][1]).from_pretrained(folder / name, **quiet)
            for name in ("unet", "transformer", "vqvae")
            if name in index
        }
        if "vqvae" not in index:
            # No import statement: diffusers would take its name for that of a package to install.
            own = import_module("patch_autoencoder")
            parts["vqvae"] = own.PatchAutoencoder.from_pretrained(folder / "vqvae")
        scheduler = getattr(diffusers, index["scheduler"][1])
        names = ("num_inference_steps", "guidance_scale", "classes", "heun")
        values = {name: index[name] for name in names}
        return cls(scheduler.from_pretrained(folder / "scheduler"), **parts, **values)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        labels: Sequence[int | str] | None = None,
        generator: torch.Generator | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> ImagePipelineOutput:
        """``batch_size`` images as PIL images, in ``images`` of the result.

        labels: a class for each image, by name or number; None takes the classes in turn.
        num_inference_steps, guidance_scale: None takes those that the model was made for.
        """
        network: Any = self._network
        scheduler: Any = self.scheduler
        shape = (batch_size, network.config.in_channels, *[network.config.sample_size] * 2)
        latents = randn_tensor(shape, generator=generator, device=self.device, dtype=network.dtype)
        conditions = self._conditions(batch_size, labels)
        steps = num_inference_steps or self.config["num_inference_steps"]
        scale = self.config["guidance_scale"] if guidance_scale is None else guidance_scale
        if isinstance(self.scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
            # which would space them otherwise
            scheduler.set_timesteps(sigmas=[1 - k / steps for k in range(steps)])
        else:
            scheduler.set_timesteps(steps)
        flow = not hasattr(scheduler, "init_noise_sigma")  # starts with noise as it is
        latents = latents if flow else latents * scheduler.init_noise_sigma

        def predict(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            output = self._predict(noisy, t, conditions)
            if scale != 1:
                without = self._predict(noisy, t, None)
                output = without + scale * (output - without)
            return output

        if self.config["heun"]:
            latents = self._heun_steps(predict, latents)
        else:
            for t in self.progress_bar(scheduler.timesteps):
                noisy = latents if flow else scheduler.scale_model_input(latents, t)
                latents = scheduler.step(predict(noisy, t), t, latents).prev_sample
        pixels = self.vqvae.decode(self._unscaled(latents)).sample
        arrays = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
        images = [Image.fromarray(array) for array in arrays.cpu().numpy()]
        return ImagePipelineOutput(images=images)

    def _heun_steps(self, predict: Predict, latents: torch.Tensor) -> torch.Tensor:
        """Clean latents (B, C, H, W) by Algorithm 1 of Karras et al. 2022, without noise."""
        scheduler: Any = self.scheduler
        sigmas, last = scheduler.sigmas, len(scheduler.timesteps) - 1

        def slope(noisy: torch.Tensor, k: int) -> torch.Tensor:
            seen = scheduler.precondition_inputs(noisy, sigmas[k])
            output = predict(seen, scheduler.timesteps[k])
            x0 = scheduler.precondition_outputs(noisy, output, sigmas[k])
            found: torch.Tensor = (noisy - x0) / sigmas[k]
            return found

        for k in self.progress_bar(range(last + 1)):
            here, step = slope(latents, k), sigmas[k + 1] - sigmas[k]
            moved = latents + step * here
            latents = moved if k == last else latents + step * (here + slope(moved, k + 1)) / 2
        return latents

    @property
    def _network(self) -> Any:
        return self.transformer if self.unet is None else self.unet

    def _predict(
        self, noisy: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        """The network's prediction (B, C, H, W), without a learned sigma."""
        if labels is None and self.unet is None:  # the class of a transformer for no class
            null = self.transformer.config.num_embeds_ada_norm
            labels = torch.full((len(noisy),), null, device=noisy.device)
        output: torch.Tensor = self._network(noisy, t.expand(len(noisy)), labels).sample
        return output[:, : noisy.shape[1]]

    def _conditions(
        self, batch_size: int, labels: Sequence[int | str] | None
    ) -> torch.Tensor | None:
        classes = self.config["classes"]
        if labels is None:
            labels = [k % len(classes) for k in range(batch_size)] if classes else []
        numbers = [classes.index(one) if isinstance(one, str) else one for one in labels]
        if len(numbers) != (batch_size if classes else 0):
            raise ValueError(f"{len(numbers)} labels for {batch_size} images, {classes=}")
        return torch.tensor(numbers, device=self.device) if classes else None

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, H, W) as the autoencoder made them, before they were scaled."""
        config: dict[str, Any] = self.vqvae.config
        latents = latents / config["scaling_factor"]
        if config.get("latents_mean") is None:
            return latents + (config.get("shift_factor") or 0.0)
        mean, std = (latents.new_tensor(config[key]) for key in ("latents_mean", "latents_std"))
        return latents * std[:, None, None] + mean[:, None, None]

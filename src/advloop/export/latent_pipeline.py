"""The pipeline of a latent diffusion model for which diffusers has none of its own.

Stage select puts this file into the folder that it writes, as ``pipeline.py``, for the model card's
code to import. So it needs diffusers, torch and, if this project trained the autoencoder, the
``patch_autoencoder.py`` beside it, or for a model of texts ``encode_texts.py`` and transformers;
nothing of the project.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from importlib import import_module
from numbers import Integral
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # network's input and time: output


def _check_whole(name: str, value: Any, most: int | None = None) -> None:
    number = int(value) if isinstance(value, Integral) else 0
    if number < 1 or (most is not None and number > most):
        limits = "of at least 1" if most is None else f"from 1 to {most}"
        raise ValueError(f"{name}={value} must be a whole number {limits}")


def _class_number(label: Any, classes: Sequence[str]) -> int:
    """The number of a class that is given by name or number."""
    if label in classes:
        return classes.index(label)
    number = int(label) if isinstance(label, Integral) else -1
    if not 0 <= number < len(classes):
        named = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
        raise ValueError(f"label {label!r} must be one of {named}, or 0 to {len(classes) - 1}")
    return number


class LatentPipeline(DiffusionPipeline):
    """Samples images: denoises latents, undoes their scale, decodes them.

    scheduler: DDIMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler or
    FlowMatchHeunDiscreteScheduler. vqvae: any autoencoder with ``config`` and ``decode``;
    LDMPipeline, which this follows, calls it so. num_inference_steps, guidance_scale: those that
    the model was made for. classes: names in the order of their labels; empty if the model has
    none. text_encoder, tokenizer: of a model of texts. heun: second-order steps between the noise
    levels of an EDMEulerScheduler, for which diffusers has no scheduler.
    """

    _optional_components = ["unet", "transformer", "text_encoder", "tokenizer"]  # noqa: RUF012  # as diffusers declares it

    def __init__(
        self,
        scheduler: Any,
        vqvae: Any,
        unet: Any = None,
        transformer: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        classes: Sequence[str] = (),
        heun: bool = False,
    ) -> None:
        super().__init__()
        register: Any = self  # diffusers' methods have no types
        register.register_modules(
            scheduler=scheduler,
            vqvae=vqvae,
            unet=unet,
            transformer=transformer,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
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
        if "text_encoder" in index:
            transformers = import_module("transformers")
            for name in ("text_encoder", "tokenizer"):
                part = getattr(transformers, index[name][1])
                parts[name] = part.from_pretrained(folder / name, local_files_only=True)
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
        captions: Sequence[str] | None = None,
    ) -> ImagePipelineOutput:
        """``batch_size`` images as PIL images, in ``images`` of the result.

        labels: a class for each image, by name or number; None takes the classes in turn. captions:
        a text for each image, of a model of texts.
        num_inference_steps, guidance_scale: None takes those that the model was made for.
        Raises ValueError, before anything is sampled, where a number or a label has no meaning.
        """
        network: Any = self._network
        scheduler: Any = self.scheduler
        steps, scale = num_inference_steps, guidance_scale
        steps = self.config["num_inference_steps"] if steps is None else steps
        scale = self.config["guidance_scale"] if scale is None else scale
        _check_whole("batch_size", batch_size)
        _check_whole("num_inference_steps", steps, most=scheduler.config.num_train_timesteps)
        self._check_guidance(scale)
        shape = (batch_size, network.config.in_channels, *[network.config.sample_size] * 2)
        latents = randn_tensor(shape, generator=generator, device=self.device, dtype=network.dtype)
        conditions, none = self._conditions(batch_size, labels, captions)
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
                without = self._predict(noisy, t, none)
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
        self, noisy: torch.Tensor, t: torch.Tensor, conditions: torch.Tensor | None
    ) -> torch.Tensor:
        """The network's prediction (B, C, H, W), without a learned sigma."""
        output: torch.Tensor = self._network(noisy, t.expand(len(noisy)), conditions).sample
        return output[:, : noisy.shape[1]]

    def _conditions(
        self, batch_size: int, labels: Sequence[int | str] | None, captions: Sequence[str] | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """What the network is given for its images, and for none: classes, or embedded texts."""
        if self.text_encoder is not None:
            if labels is not None:
                raise ValueError(f"labels={labels}: the model knows no classes; leave them out")
            if isinstance(captions, str) or len(captions or ()) != batch_size:
                raise ValueError(f"captions={captions} must be a list with a text for each image")
            encode = import_module("encode_texts").encode_texts
            both = (captions, [""] * batch_size)
            given, none = (encode(self.tokenizer, self.text_encoder, texts) for texts in both)
            return given, none
        if captions is not None:
            raise ValueError(f"captions={captions}: the model knows no texts; leave them out")
        none = None
        if self.unet is None:  # a transformer has a class for none
            null = self.transformer.config.num_embeds_ada_norm
            none = torch.full((batch_size,), null, device=self.device)
        classes = self.config["classes"]
        if labels is None:
            labels = [k % len(classes) for k in range(batch_size)] if classes else []
        labels = labels.tolist() if isinstance(labels, torch.Tensor) else labels
        if len(labels) and not classes:
            raise ValueError(f"labels={labels}: the model knows no classes; leave them out")
        if isinstance(labels, str) or len(labels) != (batch_size if classes else 0):
            raise ValueError(f"labels={labels} must be a list with a class for each image")
        numbers = [_class_number(one, classes) for one in labels]
        return (torch.tensor(numbers, device=self.device) if classes else none), none

    def _check_guidance(self, scale: float) -> None:
        if not (isinstance(scale, int | float) and 0 <= scale < math.inf):
            raise ValueError(f"guidance_scale={scale} must be a number from 0 on")
        if scale != 1 and self.unet is not None and self.config["classes"]:
            raise ValueError(f"guidance_scale={scale}: the model has no class for none; use 1")

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, H, W) as the autoencoder made them, before they were scaled."""
        config: dict[str, Any] = self.vqvae.config
        latents = latents / config["scaling_factor"]
        if config.get("latents_mean") is None:
            return latents + (config.get("shift_factor") or 0.0)
        mean, std = (latents.new_tensor(config[key]) for key in ("latents_mean", "latents_std"))
        return latents * std[:, None, None] + mean[:, None, None]

"""README.md of an exported model: how to draw from it, what it is worth, where it comes from.

Values from outside (paths, names) stand in JSON alone, where they cannot end a line, a block of
code or the front matter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from advloop.export import AUTOENCODER, Export
from advloop.model_folder import CLASSES
from advloop.reporting.report import markdown_table, summary
from advloop.selection import Rows, kid_name, models_in_order, select, verdicts

UNCONDITIONAL = "unconditional-image-generation"  # a task by its name on the hub
DRAWN = 8  # images that the example draws


def sampling_code(model: Export, steps: int) -> str:
    """Python that draws DRAWN images, in the exported folder, with torch and diffusers alone."""
    name = model.autoencoder_class
    own = model.own_autoencoder
    classes = sorted(["DDIMScheduler", "UNet2DModel", *([] if own else [name])])
    lines = ["import torch", f"from diffusers import {', '.join(classes)}"]
    if own:
        lines += [f"from patch_autoencoder import {name}"]
    encoded = "latents / autoencoder.config['scaling_factor']"
    if not model.names_scale:
        encoded = f"latents / {model.scale!r}"
    if model.shift:
        encoded += " + autoencoder.config['shift_factor']"
    told = []
    if model.classes:
        told = [
            f"# {len(model.classes)} classes, named in {CLASSES} in this order",
            f"labels = torch.arange({DRAWN}) % {len(model.classes)}",
        ]
    call = "unet(latents, t, labels)" if told else "unet(latents, t)"
    channels, size = model.config["in_channels"], model.config["sample_size"]
    lines += [
        "",
        'unet = UNet2DModel.from_pretrained("unet")',
        f'autoencoder = {name}.from_pretrained("{AUTOENCODER}")',
        'scheduler = DDIMScheduler.from_pretrained("scheduler")',
        f"scheduler.set_timesteps({steps})",
        f"shape = ({DRAWN}, {channels}, {size}, {size})",
        "latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))",
        *told,
        "with torch.no_grad():",
        "    for t in scheduler.timesteps:",
        f"        latents = scheduler.step({call}.sample, t, latents).prev_sample",
        f"    pixels = autoencoder.decode({encoded}).sample",
        "images = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()",
    ]
    return "\n".join(lines)


def pipeline_code(model: Export, steps: int) -> str:
    """The same by diffusers' own pipeline, where it can."""
    lines, given = ["import torch", "from diffusers import LDMPipeline"], ""
    if model.own_autoencoder:
        lines += ["from patch_autoencoder import PatchAutoencoder"]
        given = f', vqvae=PatchAutoencoder.from_pretrained("{AUTOENCODER}")'
    lines += [
        "",
        f'pipeline = LDMPipeline.from_pretrained("."{given})',
        f"images = pipeline({DRAWN}, torch.manual_seed(0), num_inference_steps={steps}).images",
    ]
    return "\n".join(lines)


def lineage(rows: Rows, imported: bool) -> list[str]:
    """A line for each model of the run, in order, up to the last."""
    chosen, changes = select(rows), verdicts(rows)
    origin = "imported" if imported else "trained by the run"
    lines, before = [], ""
    for name in models_in_order(rows):
        if before:
            figures = ", ".join(
                f"{metric} {mean:+.4f} ± {half:.4f}"
                for metric, (mean, half) in changes[name].items()
            )
            origin = f"from `{before}`, against fakes of its own; change on test images: {figures}"
        lines.append(f"- `{name}`: {origin}" + (" — **this model**" if name == chosen else ""))
        before = name
    return lines


def _front_matter(rows: Rows, source: str, *, classes: bool) -> list[str]:
    row = rows[select(rows)]
    names = (kid_name(row), "critic_gap")
    metrics = [{"type": name, "value": row[name]} for name in names if name in row]
    task = "class-conditional-image-generation" if classes else UNCONDITIONAL
    results = {
        "task": {"type": task},
        "dataset": {"name": source, "type": "images"},
        "metrics": metrics,
    }
    return [
        "---",
        "library_name: diffusers",
        *([] if classes else [f"pipeline_tag: {UNCONDITIONAL}"]),
        "tags: [latent-diffusion, adversarial-fine-tuning, advloop]",
        f"model-index: {json.dumps([{'name': 'advloop', 'results': [results]}])}",
        "---",
    ]


def model_card(
    model: Export,
    params: Mapping[str, Any],
    rows: Rows,
    splits: list[str],
    hashes: Mapping[str, str],
) -> str:
    """The text, the same for the same run.

    params: the run's, by section; splits: of each prepared image; hashes: SHA-256 of what the
    model was made from, by the file's name.
    """
    steps = params["generate"]["num_inference_steps"]
    counts = Counter(splits)
    told = f"of {len(model.classes)} classes" if model.classes else "without conditions"
    lines = [
        *_front_matter(rows, params["data"]["source"], classes=bool(model.classes)),
        "",
        "# A latent diffusion model, fine-tuned against a discriminator",
        "",
        f"Draws images {told}. In this folder:",
        "",
    ]
    if model.has_pipeline:
        lines += [
            f"```python\n{pipeline_code(model, steps)}\n```",
            "",
            "or without a pipeline:",
            "",
        ]
    lines += [f"```python\n{sampling_code(model, steps)}\n```", ""]
    if not model.has_pipeline:
        lines += ["`LDMPipeline` refuses this folder: it would scale the latents otherwise.", ""]
    if model.own_autoencoder:
        lines += [
            "The autoencoder is no class of diffusers: `patch_autoencoder.py` defines it, in torch "
            "alone. diffusers by itself would run such a file only with `trust_remote_code=True`; "
            "read it, and import it yourself as above.",
            "",
        ]
    lines += [
        "## Figures",
        "",
        f"This model is `{select(rows)}`, of the lowest KID on images kept for that choice; "
        "the figures are of other images. ± half the 95 % interval over sampling seeds.",
        "",
        markdown_table(summary(rows)),
        "",
        "## Lineage",
        "",
        *lineage(rows, imported=bool(params["base"]["pretrained"])),
        "",
        "## Data",
        "",
        f"{len(splits)} images: {', '.join(f'{counts[name]} {name}' for name in sorted(counts))}. "
        "SHA-256 of the prepared images, of their list, and of the checkpoint that this is:",
        "",
        f"```json\n{json.dumps(dict(hashes), indent=2)}\n```",
        "",
        "## Parameters",
        "",
        f"```json\n{json.dumps(dict(params), indent=2, sort_keys=True)}\n```",
        "",
    ]
    return "\n".join(lines)

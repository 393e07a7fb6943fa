"""README.md of an exported model: how to sample from it, its scores, and where it comes from.

Paths and names from outside appear in JSON only, where they cannot end a line, a block of code or
the front matter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from advloop.evaluation.agreement import rounds, select
from advloop.evaluation.results import VIEWS, Results
from advloop.evaluation.scores import with_interval
from advloop.evaluation.summary import markdown_table
from advloop.export.pipeline import AUTOENCODER, Export
from advloop.export.schedulers import scheduler_config, set_timesteps
from advloop.models.architectures import DIT
from advloop.models.folders import CLASSES

UNCONDITIONAL = "unconditional-image-generation"  # a task on the hub
EXAMPLES = 8  # images that the code samples


def sampling_code(model: Export, steps: int) -> str:
    """Python code that samples EXAMPLES images in the exported folder, with torch and diffusers."""
    name = model.autoencoder_class
    own = model.own_autoencoder
    scheduler = scheduler_config(model.diffusion)["_class_name"]
    network = model.architecture
    classes = sorted([scheduler, network.class_name, *([] if own else [name])])
    lines = ["import torch", f"from diffusers import {', '.join(classes)}"]
    if own:
        lines += [f"from patch_autoencoder import {name}"]
    encoded = "latents / autoencoder.config['scaling_factor']"
    if not model.names_scale:
        encoded = f"latents / {model.scale!r}"
    if model.shift:
        encoded += " + autoencoder.config['shift_factor']"
    conditions = []
    if model.classes:
        conditions = [
            f"# {len(model.classes)} classes, named in {CLASSES} in this order",
            f"labels = torch.arange({EXAMPLES}) % {len(model.classes)}",
        ]
    start, noisy = "", "latents"
    if model.diffusion.process == "edm":
        start = " * scheduler.init_noise_sigma"
        noisy = "scheduler.scale_model_input(latents, t)"
    time, labels = "t", ", labels" if conditions else ""
    if network.class_name == DIT:
        time, labels = f"t.expand({EXAMPLES})", ", labels"
        if not conditions:
            null = model.config["num_embeds_ada_norm"]
            conditions = [f"labels = torch.full(({EXAMPLES},), {null})  # no class"]
    output = f"{network.component}({noisy}, {time}{labels}).sample"
    channels, size = model.config["in_channels"], model.config["sample_size"]
    if model.config["out_channels"] != channels:
        output += f"[:, :{channels}]"  # the rest is a learned sigma
    lines += [
        "",
        f'{network.component} = {network.class_name}.from_pretrained("{network.component}")',
        f'autoencoder = {name}.from_pretrained("{AUTOENCODER}")',
        f'scheduler = {scheduler}.from_pretrained("scheduler")',
        set_timesteps(model.diffusion, steps),
        f"shape = ({EXAMPLES}, {channels}, {size}, {size})",
        f"latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)){start}",
        *conditions,
        "with torch.no_grad():",
        "    for t in scheduler.timesteps:",
        f"        output = {output}",
        "        latents = scheduler.step(output, t, latents).prev_sample",
        f"    pixels = autoencoder.decode({encoded}).sample",
        "images = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()",
    ]
    return "\n".join(lines)


def pipeline_code(model: Export, steps: int) -> str:
    """The same with diffusers' own pipeline, for a model that ``has_pipeline``."""
    lines, given = ["import torch", "from diffusers import LDMPipeline"], ""
    if model.own_autoencoder:
        lines += ["from patch_autoencoder import PatchAutoencoder"]
        given = f', vqvae=PatchAutoencoder.from_pretrained("{AUTOENCODER}")'
    lines += [
        "",
        f'pipeline = LDMPipeline.from_pretrained("."{given})',
        f"images = pipeline({EXAMPLES}, torch.manual_seed(0), num_inference_steps={steps}).images",
    ]
    return "\n".join(lines)


def lineage(results: Results, imported: bool) -> list[str]:
    """A line for each model of the run, in order. imported: the base model was."""
    chosen, found = select(results), rounds(results)
    origin = "imported" if imported else "trained by the run"
    lines, before = [], ""
    for scores in results.models:
        name = scores.model
        if before:
            moved = ", ".join(
                f"{one.title} {with_interval(one.change, one.half)}" for one in found[name]
            )
            origin = f"a round from `{before}`, which changed test scores by {moved}"
        lines.append(f"- `{name}`: {origin}" + (" — **this model**" if name == chosen else ""))
        before = name
    return lines


def _chosen_by(results: Results) -> str:
    valid = [results.base.get(view).metric.title for view in results.exam.valid]
    return ", ".join(valid) or "default, since no view passed the exam of the run"


def _front_matter(results: Results, source: str, *, classes: bool) -> list[str]:
    scores = results.model(select(results))
    flat = scores.flat()
    metrics = [{"type": name, "value": flat[name]} for name in (scores.get(m).name for m in VIEWS)]
    task = "class-conditional-image-generation" if classes else UNCONDITIONAL
    entry = {
        "task": {"type": task},
        "dataset": {"name": source, "type": "images"},
        "metrics": metrics,
    }
    return [
        "---",
        "library_name: diffusers",
        *([] if classes else [f"pipeline_tag: {UNCONDITIONAL}"]),
        "tags: [latent-diffusion, adversarial-fine-tuning, advloop]",
        f"model-index: {json.dumps([{'name': 'advloop', 'results': [entry]}])}",
        "---",
    ]


def model_card(
    model: Export,
    params: Mapping[str, Any],
    results: Results,
    splits: list[str],
    hashes: Mapping[str, str],
) -> str:
    """The text of the card, the same for the same run.

    params: of the run, by section; splits: of each prepared image; hashes: SHA-256 of the files
    that the model was made from, by name.
    """
    steps = params["generate"]["num_inference_steps"]
    counts = Counter(splits)
    kind = f"Conditional on {len(model.classes)} classes" if model.classes else "Unconditional"
    lines = [
        *_front_matter(results, params["data"]["source"], classes=bool(model.classes)),
        "",
        "# A latent diffusion model from an adversarial loop",
        "",
        f"{kind}. To sample from it, run this in its folder:",
        "",
    ]
    if model.has_pipeline:
        lines += [
            f"```python\n{pipeline_code(model, steps)}\n```",
            "",
            "Or without a pipeline:",
            "",
        ]
    lines += [f"```python\n{sampling_code(model, steps)}\n```", ""]
    if not model.has_pipeline:
        lines += ["`LDMPipeline` refuses this folder, because it would sample other images.", ""]
    if model.own_autoencoder:
        lines += [
            "The autoencoder is not a class of diffusers: `patch_autoencoder.py` defines it, with "
            "torch only. diffusers would run such a file only with `trust_remote_code=True`; read "
            "the file, and import it yourself, as above.",
            "",
        ]
    lines += [
        "## Scores",
        "",
        f"This model is `{select(results)}`. It was chosen by {_chosen_by(results)}, on images and "
        "samples kept for that choice. The scores are on others; ± is half the 95 % interval over "
        "sampling seeds and over groups of the images.",
        "",
        markdown_table(results),
        "",
        "## Lineage",
        "",
        *lineage(results, imported=bool(params["base"]["pretrained"])),
        "",
        "## Data",
        "",
        f"{len(splits)} images: {', '.join(f'{counts[name]} {name}' for name in sorted(counts))}. "
        "SHA-256 of the prepared images, of their list, and of this model's checkpoint:",
        "",
        f"```json\n{json.dumps(dict(hashes), indent=2)}\n```",
        "",
        "## Parameters",
        "",
        f"```json\n{json.dumps(dict(params), indent=2, sort_keys=True)}\n```",
        "",
    ]
    return "\n".join(lines)

"""README.md of an exported model: how to sample from it, its scores, and where it comes from.

Paths and names from outside appear in JSON only, where they cannot end a line, a block of code or
the front matter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from advloop.core.errors import counted
from advloop.evaluation.agreement import rounds, select
from advloop.evaluation.results import VIEWS, Results
from advloop.evaluation.scores import with_interval
from advloop.evaluation.summary import markdown_table
from advloop.export.pipeline import CODE, PIPELINE, SAMPLES, Export, own_files
from advloop.export.plain import STABLE_DIFFUSION
from advloop.models.folders import CLASSES

UNCONDITIONAL, TEXTS = "unconditional-image-generation", "text-to-image"  # tasks on the hub
EXAMPLES = 8  # images that the code samples
UNKNOWN = "unknown"  # a licence on the hub
EMBEDDED = {"data/freedoom_plans.zip": "bsd-3-clause"}  # of the images that come with this project


def sampling_code(model: Export) -> str:
    """Python code that samples EXAMPLES images, to be run in the exported folder."""
    pipeline = model.plain or PIPELINE
    place = "diffusers" if model.plain else CODE.removesuffix(".py")
    caption = f"[{model.caption!a}] * {EXAMPLES}"  # one line of ASCII, whatever it holds
    steps = f"num_inference_steps={model.num_inference_steps}, "
    steps += f"guidance_scale={model.guidance_scale}, "
    if model.plain == STABLE_DIFFUSION:
        given = f"{caption}, {steps}"
    elif model.plain:
        given = f"{[k % len(model.classes) for k in range(EXAMPLES)]}, {steps}"
    else:
        given = f"{EXAMPLES}, " + f"captions={caption}, " * bool(model.text_encoder)
    return "\n".join(
        [
            "import torch",
            f"from {place} import {pipeline}",
            "",
            f'pipeline = {pipeline}.from_pretrained(".")',
            f"images = pipeline({given}generator=torch.Generator().manual_seed(0)).images",
        ]
    )


def _explained(model: Export) -> list[str]:
    """What else the code can do, and what it imports."""
    steps = f"It takes {counted(model.num_inference_steps, 'step')}"
    if model.plain:
        first = "a caption" if model.text_encoder else f"a number of `{CLASSES}`"
        return [
            f"{steps}, as here. Its first argument is {first} for each image, and the other values "
            f"are those that the model was made for. `{model.plain}` is of diffusers: no code of "
            "this folder is run.",
        ]
    files = [f"`{name}`" for name in (CODE, *own_files(model))]
    return [
        f"{steps}, unless `num_inference_steps=` says otherwise."
        + (f" `labels=` takes names of `{CLASSES}`, or numbers." if model.classes else "")
        + (" `captions=` takes a text for each image." if model.text_encoder else ""),
        "",
        f"diffusers has no pipeline for these parts, so that this runs {' and '.join(files)} of "
        "this folder; read them first.",
    ]


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


def licences(params: Mapping[str, Any]) -> dict[str, str | None]:
    """The licences of the images and of the model; None where none is stated."""
    stated = params["card"]
    images = stated["data_license"] or EMBEDDED.get(params["data"]["source"])
    return {"images": images, "model": stated["model_license"]}


def _front_matter(results: Results, params: Mapping[str, Any], model: Export) -> list[str]:
    scores = results.model(select(results))
    flat, valid = scores.flat(), results.exam.valid
    metrics = [{"type": name, "value": flat[name]} for name in (scores.get(m).name for m in valid)]
    tag = TEXTS if model.text_encoder else UNCONDITIONAL
    task = "class-conditional-image-generation" if model.classes else tag
    entry = {
        "task": {"type": task},
        "dataset": {"name": params["data"]["source"], "type": "images"},
        "metrics": metrics,
    }
    return [
        "---",
        "library_name: diffusers",
        *([] if model.classes else [f"pipeline_tag: {tag}"]),
        f"license: {json.dumps(licences(params)['model'] or UNKNOWN)}",
        "tags: [latent-diffusion, adversarial-fine-tuning, advloop]",
        f"model-index: {json.dumps([{'name': 'advloop', 'results': [entry]}])}",
        "---",
    ]


def _validity(results: Results) -> list[str]:
    """A row for each view: whether it passed the run's exam, and what fooled it."""
    exam = results.exam
    rows = ["| view | passed the exam | fooled by |", "|---|---|---|"]
    for view in VIEWS:
        fooled = ", ".join(map(str, exam.failures(view)))
        passed = "yes" if view in exam.valid else "no"
        rows.append(f"| {results.base.get(view).metric.title} | {passed} | {fooled} |")
    return rows


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
    counts = Counter(splits)
    kind = f"Conditional on {len(model.classes)} classes" if model.classes else "Unconditional"
    if model.text_encoder:
        kind = "Conditional on captions"
    lines = [
        *_front_matter(results, params, model),
        "",
        "# A latent diffusion model from an adversarial loop",
        "",
        f"![Samples of this model]({SAMPLES})",
        "",
        f"{kind}. To sample from it, run this in its folder:",
        "",
        f"```python\n{sampling_code(model)}\n```",
        "",
        *_explained(model),
        "",
        "## Scores",
        "",
        f"This model is `{select(results)}`. It was chosen by {_chosen_by(results)}, on images and "
        "samples kept for that choice. The scores are on others; ± is half the 95 % interval over "
        "sampling seeds and over groups of the images.",
        "",
        markdown_table(results),
        "",
        "A view counts if neither garbage nor damage fooled it in the exam of this run. Disregard "
        "the scores of one that did not pass.",
        "",
        *_validity(results),
        "",
        "## Lineage",
        "",
        *lineage(results, imported=bool(params["base"]["pretrained"])),
        "",
        "## Licences",
        "",
        "Of the images and of the model; null: none is stated.",
        "",
        f"```json\n{json.dumps(licences(params), indent=2)}\n```",
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

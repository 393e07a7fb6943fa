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
from advloop.export.pipeline import CODE, PIPELINE, SAMPLES, Export
from advloop.models.folders import CLASSES

UNCONDITIONAL = "unconditional-image-generation"  # a task on the hub
EXAMPLES = 8  # images that the code samples
UNKNOWN = "unknown"  # a licence on the hub
EMBEDDED = {"data/freedoom_plans.zip": "bsd-3-clause"}  # of the images that come with this project


def sampling_code() -> str:
    """Python code that samples EXAMPLES images, to be run in the exported folder."""
    return "\n".join(
        [
            "import torch",
            f"from {CODE.removesuffix('.py')} import {PIPELINE}",
            "",
            f'pipeline = {PIPELINE}.from_pretrained(".")',
            f"images = pipeline({EXAMPLES}, generator=torch.Generator().manual_seed(0)).images",
        ]
    )


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


def _front_matter(results: Results, params: Mapping[str, Any], *, classes: bool) -> list[str]:
    scores = results.model(select(results))
    flat, valid = scores.flat(), results.exam.valid
    metrics = [{"type": name, "value": flat[name]} for name in (scores.get(m).name for m in valid)]
    task = "class-conditional-image-generation" if classes else UNCONDITIONAL
    entry = {
        "task": {"type": task},
        "dataset": {"name": params["data"]["source"], "type": "images"},
        "metrics": metrics,
    }
    return [
        "---",
        "library_name: diffusers",
        *([] if classes else [f"pipeline_tag: {UNCONDITIONAL}"]),
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
    files = f"`{CODE}`, which is code of"
    if model.own_autoencoder:
        files = f"`{CODE}` and, for the autoencoder, `patch_autoencoder.py`, which are code of"
    lines = [
        *_front_matter(results, params, classes=bool(model.classes)),
        "",
        "# A latent diffusion model from an adversarial loop",
        "",
        f"![Samples of this model]({SAMPLES})",
        "",
        f"{kind}. To sample from it, run this in its folder:",
        "",
        f"```python\n{sampling_code()}\n```",
        "",
        f"It takes {counted(model.num_inference_steps, 'step')}, unless `num_inference_steps=` "
        "says otherwise."
        + (f" `labels=` takes names of `{CLASSES}`, or numbers." if model.classes else ""),
        "",
        f"diffusers has no pipeline for these parts, so that this imports {files} torch and "
        "diffusers. Nothing else runs it; read it first.",
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

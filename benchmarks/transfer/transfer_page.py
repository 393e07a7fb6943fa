"""docs/transfer.md: the page about runs of the default on other images and another network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advloop.core.rounds import BASE
from advloop.evaluation.results import VIEWS
from advloop.evaluation.summary import TITLES, markdown
from readme_table import HEADS, rows, table

NAMES = dict(
    zip(VIEWS, ("pixels", "layout", "KID", "latent critics", "image critics"), strict=True)
)
COMMITTED = "Floor plans, the demo's U-Net"
TEMPLATE = """# Other images and another network

Written by `make transfer` from [`transfer.json`](transfer.json); do not edit.

The default rounds (objective `adversarial`) were chosen on floor plans and the demo's U-Net. Here
they run with every one of their settings as it is, on images and a network that nobody tuned them
on. [`plan.yaml`](../benchmarks/transfer/plan.yaml) was committed before any run, and says what was
changed in it after the run on letters. Each run has one training seed, so nothing here is a claim
over seeds. Its base model is far from what its network could be. Letters and spheres are drawn by
[`rendered_images.py`](../benchmarks/transfer/rendered_images.py).

Nothing is concluded of a run in which garbage is ahead of the base model in any view
([the verdict's rule](metrics.md#the-verdict)), however many views pass its exam.

{verdicts}

Beside one another, with the [committed run](../README.md) of the demo's U-Net on floor plans first:

{overview}

The scores are of images that no model of the run was trained on, ± half the 95 % interval over
sampling seeds and groups; lower is better. Calls are those of the network for one sample. Sets of
other images have other floors and bounds, which the tables below give.

{runs}
"""

SECTION = """## {title}

{headline}

{notes}![Rows of images: real, base model, base model with few steps, rounds](transfer/{name}.png)

{table}

`make transfer RUNS={name}`, run at commit `{commit}` with {settings}.
"""


def page(runs: Mapping[str, Any], committed: Mapping[str, Any]) -> str:
    """The page; runs: the content of docs/transfer.json; committed: of reports/metrics.json."""
    verdicts = [
        [run["title"], run["headline"], ", ".join(_passed(run)) or "none"] for run in runs.values()
    ]
    overview = _first_and_last(COMMITTED, committed)
    for run in runs.values():
        overview += _first_and_last(run["title"], run)
    sections = [_section(name, run) for name, run in runs.items()]
    return TEMPLATE.format(
        verdicts=markdown(["run", "its own verdict", "views that passed its exam"], verdicts),
        overview=markdown(["run", *HEADS], overview),
        runs="\n".join(sections).rstrip(),
    )


def _first_and_last(title: str, metrics: Mapping[str, Any]) -> list[list[str]]:
    """The rows of the base model and of the last round."""
    found = rows(metrics)
    base = next(row for row in found if row[0] == TITLES[BASE])
    return [[title, *base], [title, *found[-1]]]


def _section(name: str, run: Mapping[str, Any]) -> str:
    notes = [*run["reasons"], *(f"Warning: {line}" for line in run["warnings"])]
    return SECTION.format(
        title=run["title"],
        headline=run["headline"],
        notes="".join(f"- {note}\n" for note in notes) + ("\n" if notes else ""),
        name=name,
        table=table(run),
        settings=", ".join(f"`{setting}`" for setting in run["settings"]),
        commit=run["commit"],
    )


def _passed(run: Mapping[str, Any]) -> list[str]:
    """The titles of the views that passed the exam of the run."""
    return [NAMES[view] for view in VIEWS if run["exam"][view]]

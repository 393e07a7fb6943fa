"""docs/results.md: the page about objectives compared over training seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advloop.evaluation.agreement import ENOUGH
from comparison import CONTROL, EQUAL_COMPUTE, Comparison
from result_tables import claims_table, cost_table, iterations_table, last_table, paired_table

TEMPLATE = """# Objectives compared

Written by `make compare` from [`results.json`](results.json); do not edit.

Made with `{command}` at commit `{commit}`: scale `{scale}`, {seeds} a
row, {iterations} iterations each, all from the same data, autoencoder and base model. {control}

{settings}

± is half the 95 % interval (Student's t) over training seeds, of one value a seed. {missing}

## What can be said

{claims}

An objective is better than `none` if at least {enough} views say so that passed the exam of every
run, and none says the opposite. A view says so if the interval of the difference over training
seeds excludes zero, and the difference exceeds {smallest:g} of the way from the base model to the
bound. Passed: {valid}. [`plan.yaml`](../benchmarks/compare/plan.yaml) fixed seeds, objectives and
this rule before the runs.

## The last iteration

{table}

Measured against images that no model of a run trained on, but D accuracy and viability: those
are of each run's own discriminator, on validation images. The first three rows do not depend on the
objective. ↓ lower is better, ↑ higher is better. †: garbage or damage fooled this view in the exam
of at least one run, so that nothing is claimed by it.

## Difference to `none`

{paired}

Of the last iteration, paired: the same training seed, so the same fakes in iteration 0.
**Bold**: the interval excludes zero. {intervals}

## Difference to `{costliest}`

{paired_costliest}

The same, with the costliest objective in the place of `none`. No rule for it was fixed before the
runs, so nothing is claimed by it.

## Iteration by iteration

{iterations_table}

Change: to the iteration before (iteration 0: to the base model), paired over training seeds.

## Cost

{cost}

A network evaluation is one forward pass of the U-Net over one batch; a backward pass counts as
two. Wall time is that of a cell as it ran, one at a time, from the end of the one before to its
experiment's commit, median over seeds (lowest to highest): it holds DVC's own work and
the evaluation, and not the stages that DVC took from its run-cache because another cell (or an
earlier run) had made them. So the first cell of a seed carries what the seed shares; each seed
begins with another row. Cells that were interrupted are left out.

## Samples

{pictures}

## What was tried and failed

{tried}
"""


def page(results: Mapping[str, Any], tried: str, pictures: Mapping[str, str]) -> str:
    """The page as Markdown; at least one cell must have finished.

    tried: Markdown that the page includes without its title. pictures: paths, relative to the
    page, by arm.
    """
    found = Comparison(results)
    arms: Mapping[str, Any] = results["arms"]
    control = ""
    if EQUAL_COMPUTE in arms:
        control = (
            f"`{EQUAL_COMPUTE}`\nis `none` with as many network evaluations as the costliest "
            "objective."
        )
    return TEMPLATE.format(
        command=results["command"],
        commit=results["commit"],
        scale=results["scale"],
        seeds=f"{len(found.seeds)} training seeds ({', '.join(map(str, found.seeds))})",
        iterations=len(found.iterations),
        control=control,
        settings=_settings(arms),
        missing=_missing(found),
        claims=claims_table(found),
        enough=ENOUGH,
        smallest=found.smallest,
        valid=", ".join(found.valid) or "none",
        table=last_table(found),
        paired=paired_table(found),
        costliest=(costliest := _costliest(arms)),
        paired_costliest=paired_table(found, costliest),
        intervals=_intervals(found),
        iterations_table=iterations_table(found),
        cost=cost_table(results, found),
        pictures=_pictures(found, pictures),
        tried="\n".join(tried.strip().splitlines()[1:]).strip(),
    )


def _costliest(arms: Mapping[str, Any]) -> str:
    """The objective that the control of equal compute is equal to."""
    names = [name for name in arms if name not in (CONTROL, EQUAL_COMPUTE)]
    cost = {name: (arms[name]["steps"] or 0) * arms[name]["evaluations"] for name in names}
    return max(cost, key=lambda name: cost[name], default=CONTROL)


def _settings(arms: Mapping[str, Any]) -> str:
    """What differs from the objectives' own files, as `-S` would take it."""
    of_all = [value for value in arms[CONTROL]["settings"] if _shared(value, arms)]
    parts = [f"All run with {_listed(of_all)}."] if of_all else []
    for name, arm in arms.items():
        if own := [value for value in arm["settings"] if value not in of_all]:
            parts.append(f"`{name}` runs with {_listed(own)}.")
    return "\n".join(parts) or "All run as their files in `conf/objective/` say."


def _shared(value: str, arms: Mapping[str, Any]) -> bool:
    return all(value in arm["settings"] for arm in arms.values())


def _listed(values: Sequence[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _missing(found: Comparison) -> str:
    missing = found.missing()
    if not missing:
        return "No cell is missing."
    names = ", ".join(f"`{arm}` of seed {seed}" for arm, seed in missing)
    return f"**Not finished, and left out: {names}.**"


def _intervals(found: Comparison) -> str:
    differences = [
        found.to_control(arm, name)
        for arm in found.arms
        for name in found.columns
        if arm != CONTROL
    ]
    count = sum(value is not None and value.half is not None for value in differences)
    if count == 0:
        return "None is drawn: an interval needs two seeds."
    return (
        f"{count} intervals are drawn in this table; of so many,\n"
        "about one in twenty excludes zero by chance alone."
    )


def _pictures(found: Comparison, pictures: Mapping[str, str]) -> str:
    rows = ", ".join(["base model", *(f"iteration {i}" for i in found.iterations)])
    parts = [
        f"Seed {found.seeds[0]}. From the top: real evaluation images, then samples of the same "
        f"noise: {rows}. In few colours, to keep the files small."
    ]
    for arm in found.arms:
        if arm in pictures:
            parts.append(f"### `{arm}`\n\n![Samples of {arm}]({pictures[arm]})")
    return "\n\n".join(parts)

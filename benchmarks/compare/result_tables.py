"""The tables of docs/results.md: arms beside one another, over training seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from advloop.evaluation.scores import with_interval
from advloop.evaluation.summary import markdown
from comparison import CONTROL, Comparison, Estimate
from scores import SHARED, model_of


def number(value: Estimate | None, sign: str = "") -> str:
    """``mean ± half``; empty if there is no value."""
    if value is None:
        return ""
    return ("+" if sign and value.mean > 0 else "") + with_interval(value.mean, value.half)


def change(value: Estimate | None) -> str:
    """A difference with its sign, bold if its interval excludes zero."""
    text = number(value, "+")
    return f"**{text}**" if value is not None and value.differs else text


def _headings(found: Comparison) -> list[str]:
    return [_heading(found, name) for name in found.columns]


def _heading(found: Comparison, name: str) -> str:
    view = found.view_of(name)
    failed = view is not None and view not in found.valid
    return found.columns[name].heading(name) + (" †" if failed else "")


def _arm(found: Comparison, arm: str) -> str:
    count = len(found.runs.get(arm, {}))
    partial = "" if count == len(found.seeds) else f" ({count} of {len(found.seeds)} seeds)"
    return f"`{arm}`{partial}"


def last_table(found: Comparison) -> str:
    lines = [
        [title, *(number(found.shared(model, name)) for name in found.columns)]
        for model, title in SHARED.items()
        if any(found.shared(model, name) for name in found.columns)  # few steps: not every run
    ]
    lines += [
        [_arm(found, arm), *(number(found.mean(arm, found.last, name)) for name in found.columns)]
        for arm in found.arms
    ]
    return markdown(["model", *_headings(found)], lines)


def claims_table(found: Comparison) -> str:
    """Each arm beside the control: what each view says, and what can be said."""
    names = [name for name in found.columns if found.view_of(name)]
    lines = [
        [_arm(found, arm), found.claim(arm), *(found.says(arm, name) for name in names)]
        for arm in found.arms
        if arm != CONTROL
    ]
    heads = ["against `none`", "conclusion", *(_heading(found, name) for name in names)]
    return markdown(heads, lines)


def paired_table(found: Comparison, other: str = CONTROL) -> str:
    """Each arm minus an ``other`` one, after the last iteration."""
    last = found.last
    lines = [
        [
            _arm(found, arm),
            *(change(found.difference((arm, last), (other, last), name)) for name in found.columns),
        ]
        for arm in found.arms
        if arm != other
    ]
    return markdown([f"minus `{other}`", *_headings(found)], lines)


def verdict(value: Estimate | None, better: str) -> str:
    """Whether a change is for the better, if its interval says so. better: "lower" or "higher"."""
    if value is None or value.half is None:
        return ""
    if not value.differs:
        return "no change shown"
    return "better" if (value.mean < 0) == (better == "lower") else "**worse**"


def iterations_table(found: Comparison) -> str:
    """Per arm and iteration: every view, and how it changed."""
    followed = {name: found.columns[name] for name in found.columns if found.view_of(name)}
    heads = ["objective", "iteration"]
    for name in followed:
        heads += [_heading(found, name), "change", ""]
    lines = []
    for arm in found.arms:
        for i in found.iterations:
            cells = [f"`{arm}`", str(i)]
            for name, metric in followed.items():
                step = found.difference((arm, model_of(i)), (arm, model_of(i - 1)), name)
                value = found.mean(arm, model_of(i), name)
                cells += [number(value), number(step, "+"), verdict(step, metric.better)]
            lines.append(cells)
    return markdown(heads, lines)


def cost_table(results: Mapping[str, Any], found: Comparison) -> str:
    lines = []
    for arm in found.arms:
        setting = results["arms"][arm]
        cells = results["cells"].get(arm, {}).values()
        seconds = [cell["seconds"] for cell in cells if cell["seconds"] is not None]
        total = ""
        if setting["steps"]:
            total = f"{setting['steps'] * setting['evaluations'] * len(found.iterations):,.0f}"
        lines.append(
            [
                f"`{arm}`",
                str(setting["epochs"]),
                str(setting["steps"] or ""),
                f"{setting['evaluations']:g}",
                total,
                _wall(seconds),
            ]
        )
    heads = ["objective", "epochs an iteration", "steps an iteration"]
    heads += ["network evaluations a step", "of a run's fine-tuning", "wall time, s"]
    return markdown(heads, lines)


def _wall(seconds: Sequence[float]) -> str:
    if not seconds:
        return ""
    return f"{statistics.median(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f})"

"""Fill in the templates, and put timings, the one part that is not a result, into a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from advloop.core.errors import UserError
from advloop.infra.timings import Timing

TEMPLATES = Path(__file__).with_name("templates")
BEGIN, END = "<!-- timings: begin -->", "<!-- timings: end -->"


def render(name: str, **values: Any) -> str:
    """The template with these values, all escaped; a missing value is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(values)


def with_timings(text: str, timings: Sequence[Timing], commit: str = "") -> str:
    """The page ``text`` with these timings, and the commit, in the block reserved for them.

    All other bytes stay the same. UserError if the page has no such block.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise UserError("the page has no place for timings; remake it with `dvc repro report`")
    rows = [
        (t.stage, f"{t.seconds:.1f}", f"{t.memory:.0f}", t.finished, t.machine) for t in timings
    ]
    total = f"{sum(t.seconds for t in timings):.0f}"
    block = render("timings.html", timings=rows, total=total, commit=commit)
    return f"{head}{begin}\n{block}{end}{tail}"

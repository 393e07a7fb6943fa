"""The report's page: whole, the same at every run, and safe to open whatever it shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from chromium import chromium, program
from stage_folder import StageFolder

from advloop.core.errors import UserError
from advloop.core.timings import Timing
from advloop.reporting.page import decimals
from advloop.reporting.template import BEGIN, END, TEMPLATES, render, with_timings

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once

FACTS = "evaluation/iter_0/iter_0/facts.json"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&.png"
VOID = {"meta", "link", "img", "br"}
CLOSED = {"line", "polyline", "circle", "path", "rect"}  # of SVG, written with />
TIMINGS = [Timing("generate@0", 12.5, 600.0, f"CPU {HOSTILE}", "2026-01-01 00:00:00")]


class Reader(HTMLParser):
    """Elements with their attributes, text by element; asserts that every one is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag}: an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in CLOSED, tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.replace("\u00a0", " "))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def make(stages: StageFolder) -> str:
    outcome = stages.run("report")
    assert outcome.status == 0, outcome
    return (stages.root / "made/report.html").read_text()


@pytest.fixture(scope="module")
def text(good_stages: Path) -> str:
    return (good_stages / "report.html").read_text()


@pytest.fixture(scope="module")
def found(text: str) -> Reader:
    return Reader(text)


def test_page_has_the_same_bytes_at_every_run(stages: StageFolder, text: str) -> None:
    assert make(stages) == text


def test_page_shows_each_part_of_a_run_with_the_verdict_first(found: Reader) -> None:
    assert found.texts["h2"] == [
        "Verdict",
        "Metrics by iteration",
        "Training curves",
        "Samples of the same noise",
        "Nearest training images",
        "Most and least viable samples",
        "Stages",
        "Parameters",
        "Time and hardware",
    ]
    assert [a["id"] for a in found.all("h2")] == [
        a["aria-labelledby"] for a in found.all("section")
    ]
    assert {"base model", "iter_0"} <= set(found.texts["h3"])
    assert "Selected: " in " ".join(found.texts["li"])
    assert len(found.all("img")) == 3 + 2 + 2  # grids; neighbours and viability of two models


def test_page_shows_every_figure_and_every_parameter(found: Reader, stages: StageFolder) -> None:
    rows = json.loads((stages.root / "evaluation/iter_0.json").read_text())
    cells = found.texts["td"]
    for name in ("reals", "base", "iter_0"):
        row = rows[name]
        assert f"{row['kid_encoder']:.4f} ± {row['kid_encoder_ci95']:.4f}" in cells
    assert f"{rows['iter_0']['diffusion_val_viability_score']:.4f}" in cells
    params = yaml.safe_load((stages.root / "params.yaml").read_text())
    for section, values in params.items():
        if section != "derived":
            named = values if isinstance(values, dict) else {section: values}
            assert set(named) <= set(found.texts["th"]), section


def test_page_shows_the_kid_of_classes_where_images_have_them(
    found: Reader, stages: StageFolder
) -> None:
    title = "class by class, KID ↓"
    assert title not in found.texts["th"]
    path = stages.root / "evaluation/iter_0.json"
    rows = json.loads(path.read_text())
    rows["iter_0"] |= {"class_kid_encoder": 12.3456, "class_kid_encoder_ci95": 0.789}
    path.write_text(json.dumps(rows))
    made = Reader(make(stages))
    assert title in made.texts["th"]
    assert "12.3456 ± 0.7890" in made.texts["td"]


def test_page_asks_for_nothing_and_runs_nothing(found: Reader, text: str) -> None:
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {
        name for name, _ in found.elements
    }
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "action", "srcset", "xlink:href"):
            address = attributes.get(name) or "data:"
            assert address.startswith(("data:", "#")), (tag, address)
    policy = next(a for a in found.all("meta") if "http-equiv" in a)["content"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "//" not in re.sub(r'base64,[^"]*', "", text)
    assert "url(" not in text.replace("url(#head)", "")
    assert "@import" not in text


def test_every_picture_says_what_it_shows_and_every_link_leads_somewhere(found: Reader) -> None:
    words = [a["alt"] for a in found.all("img")] + [a["aria-label"] for a in found.all("svg")]
    assert all(len((word or "").split()) >= 5 for word in words)
    assert all(a["role"] == "img" for a in found.all("svg"))
    names = [a["id"] for _, a in found.elements if "id" in a]
    assert len(set(names)) == len(names)
    wanted = {a["href"] for a in found.all("a")}
    assert wanted <= {f"#{name}" for name in names}
    for tag, attributes in found.elements:
        assert attributes.get("aria-labelledby", names[0]) in names, tag
    assert all(a.get("scope") in ("col", "row") for a in found.all("th"))


@pytest.mark.parametrize(
    ("half", "places"), [(0.0, 4), (250.0, 0), (2.02, 2), (0.0585, 4), (1e-9, 4)]
)
def test_a_change_is_shown_to_three_digits_of_its_interval(half: float, places: int) -> None:
    assert decimals(half) == places


def test_page_of_a_tiny_run_is_small(text: str) -> None:
    assert len(text.encode()) < 100_000


def test_names_of_images_and_of_the_run_are_shown_and_never_markup(
    stages: StageFolder, found: Reader
) -> None:
    path = stages.root / FACTS
    facts = json.loads(path.read_text())
    facts["neighbours"][0]["file"] = HOSTILE
    path.write_text(json.dumps(facts))
    stages.set({"exp_name": HOSTILE, "scale": f"{BEGIN}{HOSTILE}"})
    hostile = make(stages)
    again = Reader(hostile)
    assert [tag for tag, _ in again.elements] == [tag for tag, _ in found.elements]
    assert HOSTILE in again.texts["td"]
    assert f"{HOSTILE}: did the rounds help?" in again.texts["h1"]
    assert hostile.count(BEGIN) == 1
    assert "<script" not in hostile


def test_every_value_of_every_template_is_escaped() -> None:
    for path in TEMPLATES.iterdir():
        assert "|safe" not in path.read_text().replace(" ", "")
        assert "autoescape" not in path.read_text()
    timed = render("timings.html", timings=[(HOSTILE,) * 5], total=HOSTILE)
    assert timed.count("&lt;script&gt;") == 6
    assert "<script" not in timed


def test_timings_change_their_block_alone(text: str) -> None:
    timed = with_timings(text, TIMINGS)
    found = Reader(timed)
    assert {"12.5", "600", "2026-01-01 00:00:00", f"CPU {HOSTILE}"} <= set(found.texts["td"])

    def apart(page: str) -> list[str]:
        return [page.partition(BEGIN)[0], page.partition(END)[2]]

    assert apart(timed) == apart(text)
    assert with_timings(with_timings(text, TIMINGS), []) == with_timings(text, [])


def test_a_page_without_a_place_for_timings_is_refused() -> None:
    with pytest.raises(UserError, match="no place for timings"):
        with_timings("<html></html>", TIMINGS)


# --- Colours ---


def colours(text: str) -> dict[str, tuple[int, ...]]:
    found = re.findall(r"--(\w+): #([0-9a-f]{6})", text)
    return {name: tuple(bytes.fromhex(value)) for name, value in found}


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Ratio of WCAG 2.2, from 1 to 21."""

    def luminance(colour: tuple[int, ...]) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (value / 255 for value in colour)
        ]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_and_lines_stand_out_from_the_ground_in_every_theme(theme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", (TEMPLATES / "report.css").read_text(), re.S)
    assert len(blocks) == 3
    found = colours(blocks[theme])
    for ground in ("ground", "raised"):
        for name in ("ink", "soft", "first", "second", "better", "worse"):
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)


# --- A real browser ---


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if program() is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("width", [390, 1200])
def test_browser_shows_the_page_without_a_request_or_a_word_of_complaint(
    browser: Any, tmp_path: Path, text: str, width: int
) -> None:
    page = tmp_path / "report.html"
    page.write_text(with_timings(text, TIMINGS))
    grounds = set()
    for scheme in ("light", "dark"):
        browser.open(page, width, scheme)
        asked = [event["request"]["url"] for event in browser.of("Network.requestWillBeSent")]
        assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
        for kind in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            assert browser.of(kind) == []
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        broken = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length"
        assert browser.evaluate(broken) == 0
        grounds.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2  # light and dark


def test_browser_obeys_the_policy_that_lets_no_script_run(
    browser: Any, tmp_path: Path, text: str
) -> None:
    page = tmp_path / "report.html"
    planted = '<script>document.title = "ran"</script><img src="none.png" alt="">'
    page.write_text(text.replace("<main>", f"<main>{planted}"))
    browser.open(page, 1200)
    assert browser.evaluate("document.title") != "ran"
    assert len(browser.of("Log.entryAdded")) == 2  # both were refused, and said so

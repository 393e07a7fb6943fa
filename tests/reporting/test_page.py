"""The report's page: whole, the same for the same run, and safe to open whatever it shows."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from chromium import chromium, program
from small_results import (
    SMALLEST,
    TITLES,
    a_run,
    a_run_of_few_steps,
    results,
    scores,
    some_params,
    write_run,
)

from advloop.core.errors import UserError
from advloop.evaluation.results import VIEWS, read_results
from advloop.infra.timings import Timing
from advloop.reporting.page import page
from advloop.reporting.template import BEGIN, END, TEMPLATES, render, with_timings

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&.png"
VOID = {"meta", "link", "img", "br"}
CLOSED = {"line", "polyline", "circle", "path", "rect"}  # of SVG, written with />
TIMINGS = [Timing("generate@0", 12.5, 600.0, f"CPU {HOSTILE}", "2026-01-01 00:00:00")]


class Reader(HTMLParser):
    """Elements with their attributes, text by element; asserts that every one is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]):
        assert len(dict(attrs)) == len(attrs), f"{tag}: an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]):
        assert tag in CLOSED, tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str):
        assert self.open.pop() == tag

    def handle_data(self, data: str):
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.replace("\u00a0", " "))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(root, run=None, **params) -> str:
    folders = write_run(root, run or a_run())
    return page(read_results(*folders, SMALLEST), *folders, some_params(**params))


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    return page_of(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def found(text) -> Reader:
    return Reader(text)


def test_page_has_the_same_bytes_for_the_same_run(tmp_path, text):
    assert page_of(tmp_path) == text


def test_page_has_each_part_of_a_run_with_the_verdict_first(found):
    assert found.texts["h2"] == [
        "Verdict",
        "Exam of the views",
        "Metrics by iteration",
        "Training curves",
        "Samples of the same noise",
        "Nearest training images",
        "Most and least viable samples",
        "Parameters",
        "Time and hardware",
    ]
    sections = [a["aria-labelledby"] for a in found.all("section")]
    assert [a["id"] for a in found.all("h2")] == sections
    assert {"base model", "iter_0", "iter_1"} <= set(found.texts["h3"])
    assert "Handed on: " in " ".join(found.texts["p"])
    # the comparison, grids of reals and three models, neighbours of three, viability of two
    assert len(found.all("img")) == 1 + 4 + 3 + 2
    assert "ddo (the discriminator takes no part in the fine-tuning)" in found.texts["p"][0]


def test_each_term_of_an_objective_has_a_chart(tmp_path, found):
    charts = ["Samples of the same noise stand below one another."]
    charts += [
        f"Iter_{k} against the {model}" for k, model in ((0, "base model"), (0, "model before"))
    ]
    charts += ["Iter_1 against the model before", "Discriminator loss (BCE)"]
    charts += ["Discriminator accuracy", "Noise loss (MSE)", "DDO loss"]
    assert found.texts["figcaption"][: len(charts) + 1] == [*charts, "Real test images"]
    folders = write_run(tmp_path, a_run())
    for one in folders[2]:
        one.history.write_text(one.history.read_text().replace("ddo_loss", "own_term"))
    other = Reader(page(a_run(), *folders, some_params()))
    assert other.texts["figcaption"][:9] == [*charts[:7], "own_term", "Real test images"]


def test_play_has_charts_of_its_own_names_without_lines_that_nothing_measured(tmp_path):
    folders = write_run(tmp_path, a_run())
    for one in folders[2]:
        renamed = one.history.read_text().replace("val_ddo_loss", "viability_score")
        one.history.write_text(renamed.replace("ddo_loss", "generator_loss"))
    params = some_params(train_disc={"loss": "relativistic"})
    found = Reader(page(a_run(), *folders, params))
    titles = found.texts["figcaption"]
    assert "Discriminator loss (pairs)" in titles
    assert "Generator loss (pairs)" in titles
    assert "Viability score of samples" in titles


def test_page_has_every_score_and_every_parameter(found):
    titles = [f"{title} ↓" for title in TITLES]
    listed = [text for text in found.texts["th"] if text in titles]
    assert listed == titles * 2  # of the exam, and of the metrics
    assert {f"tune {title}" for title in titles} < set(found.texts["th"])
    assert "critic AUC, null error" not in found.texts["th"]  # for metrics.json alone
    cells = found.texts["td"]
    assert {"0.01 ± 0.00", "30.00 ± 0.25", "20.00 ± 0.25", "0.75"} <= set(cells)
    assert {"exp_name", "seed", "uses_discriminator", "pretrained"} <= set(found.texts["th"])
    assert {"plans", "false", "null"} <= set(cells)


@pytest.mark.parametrize(
    ("value", "valid", "tone"),
    [(5, VIEWS, "better"), (20, VIEWS, "worse"), (10.4, VIEWS, ""), (5, ("kid",), "")],
)
def test_colour_of_the_verdict_is_that_of_its_headline(tmp_path, value, valid, tone):
    run = results(scores("base", 10.4), scores("iter_0", value), valid=valid)
    assert f'<div class="verdict {tone}">' in page_of(tmp_path, run)


def test_exam_names_what_fools_each_view_and_why_nothing_is_concluded(tmp_path):
    run = results(scores("base", 10.4), scores("iter_0", 5), valid=("kid", "layout"), garbage=True)
    found = Reader(page_of(tmp_path, run))
    assert found.texts["td"].count("random pixels") == 3
    assert found.texts["td"].count("nothing") == 2
    reason = "the base model is behind garbage (random pixels) in pixels, latent critics and image"
    assert any(line.startswith(reason) for line in found.texts["li"])


def test_a_round_that_no_discriminator_judged_is_refused(tmp_path):
    folders = write_run(tmp_path, a_run())
    path = folders[2][1].evaluation / "facts.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"viability": None}))
    with pytest.raises(UserError, match=r"facts\.json: no discriminator judged iter_1; remake"):
        page(a_run(), *folders, some_params())


def test_page_asks_for_nothing_and_runs_nothing(found, text):
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
    assert "url(" not in text
    assert "@import" not in text


def test_every_picture_has_words_and_every_link_leads_somewhere(found):
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


def test_names_of_images_and_of_the_run_are_text_and_never_markup(tmp_path, found):
    folders = write_run(tmp_path, a_run())
    path = folders[2][0].evaluation / "facts.json"
    facts = json.loads(path.read_text())
    facts["neighbours"][0]["file"] = HOSTILE
    path.write_text(json.dumps(facts))
    names = {"exp_name": HOSTILE, "scale": f"{BEGIN}{HOSTILE}"}
    hostile = page(a_run(), *folders, some_params(**names))
    again = Reader(hostile)
    assert [tag for tag, _ in again.elements] == [tag for tag, _ in found.elements]
    assert HOSTILE in again.texts["td"]
    assert f"{HOSTILE}: did the rounds help?" in again.texts["h1"]
    assert hostile.count(BEGIN) == 1
    alone = Reader(page(a_run(), *folders, some_params(num_iterations=1)))
    assert "plans: did the round help?" in alone.texts["h1"]
    assert "<script" not in hostile


def test_every_value_of_every_template_is_escaped():
    for path in TEMPLATES.iterdir():
        assert "|safe" not in path.read_text().replace(" ", "")
        assert "autoescape" not in path.read_text()
    timed = render("timings.html", timings=[(HOSTILE,) * 5], total=HOSTILE, commit=HOSTILE)
    assert timed.count("&lt;script&gt;") == 7
    assert "<script" not in timed


def test_timings_change_their_block_alone(text):
    timed = with_timings(text, TIMINGS, "0123456789")
    found = Reader(timed)
    assert "Checked out at commit 0123456789." in found.texts["p"]
    assert {"12.5", "600", "2026-01-01 00:00:00", f"CPU {HOSTILE}"} <= set(found.texts["td"])

    def apart(page: str) -> list[str]:
        return [page.partition(BEGIN)[0], page.partition(END)[2]]

    assert apart(timed) == apart(text)
    assert with_timings(with_timings(text, TIMINGS), []) == with_timings(text, [])


def test_a_page_without_a_place_for_timings_is_refused():
    with pytest.raises(UserError, match="no place for timings"):
        with_timings("<html></html>", TIMINGS)


# --- Colours ---


def colours(text) -> dict[str, tuple[int, ...]]:
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
def test_text_and_lines_stand_out_from_the_ground_in_every_theme(theme: int):
    blocks = re.findall(r":root \{(.*?)\}", (TEMPLATES / "report.css").read_text(), re.S)
    assert len(blocks) == 3
    found = colours(blocks[theme])
    for ground in ("ground", "raised"):
        for name in ("ink", "soft", "first", "second", "better", "worse"):
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)


# --- A real browser ---


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if program() is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    with chromium(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.mark.parametrize("width", [390, 1200])
def test_browser_opens_the_page_without_a_request_or_a_complaint(browser, tmp_path, text, width):
    path = tmp_path / "report.html"
    path.write_text(with_timings(text, TIMINGS))
    grounds = set()
    for scheme in ("light", "dark"):
        browser.open(path, width, scheme)
        asked = [event["request"]["url"] for event in browser.of("Network.requestWillBeSent")]
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        for kind in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            assert browser.of(kind) == []
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        broken = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length"
        assert browser.evaluate(broken) == 0
        grounds.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2  # light and dark


def test_browser_obeys_the_policy_that_lets_no_script_run(browser, tmp_path, text):
    path = tmp_path / "report.html"
    planted = '<script>document.title = "ran"</script><img src="none.png" alt="">'
    path.write_text(text.replace("<main>", f"<main>{planted}"))
    browser.open(path, 1200)
    assert browser.evaluate("document.title") != "ran"
    assert len(browser.of("Log.entryAdded")) == 2  # both were refused, and said so


def test_base_model_with_few_steps_stands_beside_the_base_model_in_figures_and_pictures(tmp_path):
    with_few, without = (
        Reader(page_of(tmp_path / "few", a_run_of_few_steps())),
        Reader(page_of(tmp_path / "run")),
    )
    title = "base model, few steps"
    assert title not in without.texts["th"]
    heads = with_few.texts["th"]
    assert heads[heads.index(title) - 1] == "base model"
    assert len(with_few.all("img")) == len(without.all("img")) + 1
    assert any("60.00" in cell for cell in with_few.texts["td"])

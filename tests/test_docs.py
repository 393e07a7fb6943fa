"""Every command block of README, CONTRIBUTING and docs/ is run, here or by a test that is named.

A new command has to be added to CHEAP, which are run in a project of fake stages, or to
ELSEWHERE, with the place that runs it.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from conftest import REPO, command, must

PAGES = sorted(
    [REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").glob("*.md")],
    key=lambda path: path.as_posix(),
)
NO_COMMANDS = {"text", "mermaid", "json", "yaml", "csv"}  # what other fences may hold


class Place(NamedTuple):
    """file: of the project. function: a test in it, or '' for the whole file. holds: its words."""

    file: str
    function: str
    holds: tuple[str, ...]


def in_test(module: str, function: str, *holds: str) -> Place:
    return Place(f"tests/test_{module}.py", f"test_{function}", holds)


def in_ci(command: str) -> Place:
    return Place(".ci/run", "", (f"\n{command}\n",))


GROWING = "growing_runs_the_new_iteration_only_and_shrinking_the_report_only"
QUEUED = "experiments_queued_together_run_side_by_side_with_the_library_of_their_time"
PUSHED = "pushed_run_is_up_to_date_in_a_fresh_clone"
TRAVELLED = Place("tests/test_remotes.py", "travelled", ("block(title)",))
FOLDER = in_test("remotes", "folder_of_the_page_carries_latents_and_is_mended", "'A folder'")
MENDED = Place("tests/test_remotes.py", "check_and_mend", ("CHECK", "'--mend'"))
ELSEWHERE: dict[str, Place] = {
    "make demo": in_ci("make demo"),
    "make test": in_ci("make test"),
    "make lint": in_ci("make lint"),
    "make setup": Place("Makefile", "", ("\nlint: setup ", "\ndemo: setup ", "\ntest: setup ")),
    "make format": Place("Makefile", "", ("\n\truff check --fix .\n", "\n\truff format .\n")),
    "make doctor": in_test("doctor", "make_doctor_runs_without_any_installed_package", "doctor:"),
    "make docs": in_test("parameters", "page_is_the_one_that_conf_and_the_code_make", "page("),
    "make compare": Place("tests/test_compare.py", "", ('CALL = ("benchmarks/compare.py"',)),
    "dvc repro": in_test(
        "pipeline", "second_repro_runs_nothing_and_leaves_the_lock_alone", "dvc(fakes, 'repro')"
    ),
    "dvc exp run -S num_iterations=3": in_test(
        "pipeline", GROWING, "'exp', 'run', '-S', 'num_iterations=3'"
    ),
    "dvc exp run -S objective=none": in_test(
        "pipeline",
        "setting_reruns_what_depends_on_it",
        "'objective=none'",
        "'exp', 'run', '-S', override",
    ),
    "dvc queue start": in_test("pipeline", QUEUED, "'queue', 'start'"),
    "dvc push": in_test("storage", PUSHED, "dvc(fakes, 'push')"),
    "dvc pull": in_test("storage", PUSHED, "dvc(cloned, 'pull')"),
    "dvc remote modify storage url /PATH/TO/FOLDER": FOLDER,
    "dvc remote modify storage url s3://BUCKET/FOLDER": TRAVELLED,
    "dvc remote modify storage endpointurl https://HOST": TRAVELLED,
    "dvc remote modify --local storage access_key_id KEY_ID": TRAVELLED,
    "dvc remote modify --local storage secret_access_key SECRET_KEY": TRAVELLED,
    "dvc remote modify storage url ssh://USER@HOST/FOLDER": TRAVELLED,
    "dvc remote modify --local storage keyfile ~/.ssh/id_ed25519": TRAVELLED,
    "uv sync --extra gs": Place("uv.lock", "", ('name = "dvc-gs"', "extra == 'gs'")),
    "python tools/check_remote.py": MENDED,
    "python tools/check_remote.py --mend": MENDED,
}

# In this order, in a finished project of fake stages; each with words of what it prints.
CHEAP: dict[str, tuple[str, ...]] = {
    "dvc exp show --only-changed": ("Experiment", "workspace", "main"),
    "dvc exp show --drop '.*' --keep 'Experiment|seed$|objective.name|num_iterations|"
    "held_out.final.(kid_lite0|critic_gap|coverage_lite0)$' "
    "--sort-by reports/metrics.json:held_out.final.kid_lite0": (
        "Experiment",
        "held_out.final.kid_lite0",
        "objective.name",
        "num_iterations",
        "ddo",
    ),
    "dvc metrics diff": ("held_out.final.kid_lite0", "HEAD", "workspace", "0.125"),
    "dvc params diff": ("train_disc.epochs", "7"),
    "dvc plots show": ("dvc_plots/index.html",),
    "dvc plots diff": ("dvc_plots/index.html",),
    "dvc plots show outputs/diffusion_iter_0/metrics.csv -x epoch -y val_noise_loss": (
        "dvc_plots/index.html",
    ),
    "dvc plots show outputs/discriminator_iter_0/discriminator_history.csv -x epoch "
    "-y val_accuracy": ("dvc_plots/index.html",),
    "dvc exp run --queue -S objective=ddo,none -S seed=0,1": (
        "objective=none",
        "seed=1",
        "Queued experiment",
    ),
    "dvc remote modify storage url gs://BUCKET/FOLDER": (),
    "dvc remote modify --local storage credentialpath ~/service-account.json": (),
}


def fences(page: Path) -> list[tuple[str, str]]:
    """(language, content) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)


def commands(text: str) -> list[str]:
    """The commands of a block: without comments, `a && b` as two."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            code = re.split(r"\s+#\s", line)[0].strip()
            found += [part.strip() for part in code.split(" && ")]
    return found


@cache
def text_of(place: Place) -> str:
    """The words of a place; of a function with its decorators, in single quotes."""
    text = (REPO / place.file).read_text()
    if not place.function:
        return text
    (found,) = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == place.function
    ]
    return ast.unparse(found)


ALL = [(page, each) for page in PAGES for lang, b in fences(page) if lang == "bash"
       for each in commands(b)]  # fmt: skip


def test_every_fence_says_what_it_holds() -> None:
    for page in PAGES:
        text = page.read_text()
        languages = [language for language, _ in fences(page)]
        assert len(re.findall(r"^ *```", text, re.M)) == 2 * len(languages), page.name
        assert set(languages) <= NO_COMMANDS | {"bash"}, page.name


def test_every_command_of_the_pages_is_run() -> None:
    unknown = [f"{page.name}: {each}" for page, each in ALL if each not in {*ELSEWHERE, *CHEAP}]
    assert unknown == [], "add them to CHEAP or ELSEWHERE"
    said = {each for _, each in ALL}
    assert set(CHEAP) - said == set()
    assert set(ELSEWHERE) - said == set()


@pytest.mark.parametrize("each", ELSEWHERE)
def test_place_that_is_said_to_run_a_command_does(each: str) -> None:
    place = ELSEWHERE[each]
    text = text_of(place)
    for words in place.holds:
        assert words in text, f"{each}: {place.file} {place.function} does not hold {words}"
    target = re.fullmatch(r"make (\w+)", each)
    if target:
        assert re.search(rf"^{target[1]}:", (REPO / "Makefile").read_text(), re.M)


def test_make_compare_and_docs_run_what_their_tests_do() -> None:
    makefile = (REPO / "Makefile").read_text()
    assert re.search(r"^compare:.*\n\tpython benchmarks/compare\.py$", makefile, re.M)
    assert re.search(r"^docs:.*\n\tpython tools/parameters\.py$", makefile, re.M)


def test_commands_that_cost_little_say_what_the_pages_promise(fakes: Path) -> None:
    report = fakes / "reports/metrics.json"
    content = json.loads(report.read_text())
    content["held_out"]["final"]["kid_lite0"] = 0.125
    report.write_text(json.dumps(content))
    params, was = fakes / "params.yaml", "train_disc:\n  epochs: 2"
    params.write_text(params.read_text().replace(was, f"{was[:-1]}7"))
    for each, words in CHEAP.items():
        if "--queue" in each:  # of what is committed
            must(command(fakes, "git", "checkout", "--quiet", "."))
        done = must(command(fakes, "bash", "-c", f"export COLUMNS=400; {each}"))
        for word in words:
            assert word in done.stdout, f"{each}\n{done.stdout}"
    assert done.stdout == ""
    page = (fakes / "dvc_plots/index.html").read_text()
    assert "discriminator_history.csv" in page


def test_extension_of_vs_code_gets_every_chart_and_figure(fakes: Path, tmp_path: Path) -> None:
    """By the calls with which it asks DVC."""
    call = f"dvc plots diff HEAD workspace -o {tmp_path / 'plots'} --split --json"
    drawn = json.loads(must(command(fakes, "bash", "-c", f"{call} 2>/dev/null")).stdout)
    assert not drawn.get("errors")
    charts = {"discriminator_loss", "discriminator_accuracy", "diffusion_loss", "viability"}
    assert charts < set(drawn["data"])
    assert "reports/samples.png" in drawn["data"]
    shown = must(command(fakes, "bash", "-c", "dvc exp show --json 2>/dev/null")).stdout
    assert "held_out" in shown
    assert "num_iterations" in shown


STAGES = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]


def paths(stage: str, kind: str) -> set[str]:
    """Outputs or dependencies of a stage, as they are templated."""
    body = STAGES[stage].get("do", STAGES[stage])
    kinds = ("deps",) if kind == "deps" else ("outs", "plots", "metrics")
    rows = [row for name in kinds for row in body.get(name, [])]
    return {next(iter(row)) if isinstance(row, dict) else row for row in rows}


def test_diagram_of_an_iteration_draws_what_dvc_yaml_declares() -> None:
    ((_, diagram),) = [f for f in fences(REPO / "docs/concepts.md") if f[0] == "mermaid"]
    edges = re.findall(r"^ +(\w+) (?:-- .* )?-->(?:\|.*\|)? (\w+)", diagram, re.M)
    between = [(a, b) for a, b in edges if a in STAGES and b in STAGES]
    assert len(between) >= 7
    for maker, taker in between:
        if (maker, taker) == ("select", "export"):  # the last one's, by its name
            assert "outputs/selected/${derived.last}.pt" in paths(taker, "deps")
        else:
            assert paths(maker, "outs") & paths(taker, "deps"), (maker, taker)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("https://", "mailto:")):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            slugs = [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]
            assert heading in slugs, link

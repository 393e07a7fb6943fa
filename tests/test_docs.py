"""Every command block of README, CONTRIBUTING and docs/ is run, here or by a test that is named.

A new command has to be added to CHEAP, which are run in a project of fake stages, to ELSEWHERE,
with the place that runs it, or where no test can run it to UNRUN, with the reason and with what
shows that it would work.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from conftest import REPO, command, must, new_repository

PAGES = sorted(
    [REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").glob("*.md")],
    key=lambda path: path.as_posix(),
)
# What other fences may hold; test_export.py and test_end_to_end.py run the Python.
NO_COMMANDS = {"text", "mermaid", "json", "yaml", "csv", "python"}


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
    "make doctor": in_test(
        "doctor", "make_doctor_runs_without_any_installed_package", "make_doctor(tmp_path)"
    ),
    "make docs": in_test("parameters", "page_is_the_one_that_conf_and_the_code_make", "page("),
    "make compare": Place("tests/test_compare.py", "", ('CALL = ("benchmarks/compare.py"',)),
    "make experiments": in_test(
        "storage",
        "metrics_diff_and_the_table_of_experiments_name_what_one_changed",
        "'@(dvc exp show .*)'",
    ),
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
    "python tools/check_remote.py": MENDED,
    "python tools/check_remote.py --mend": MENDED,
}

# In this order, in a finished project of fake stages; each with words of what it prints.
CHEAP: dict[str, tuple[str, ...]] = {
    "dvc exp show --only-changed": ("Experiment", "workspace", "main"),
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
}


class Unrun(NamedTuple):
    """why: no test runs it. shown: the place whose words show that it would work."""

    why: str
    shown: Place


UNRUN: dict[str, Unrun] = {
    "make format": Unrun(
        "it would rewrite the checkout that is tested",
        Place("Makefile", "", ("\n\truff check --fix .\n", "\n\truff format .\n")),
    ),
    "make bench": Unrun(
        "it takes half an hour",
        Place("Makefile", "", ("\n\tpython benchmarks/bench.py $(if $(ONLY),--only $(ONLY))\n",)),
    ),
    "uv sync --extra gs": Unrun(
        "it needs the package index",
        Place("uv.lock", "", ('name = "dvc-gs"', "extra == 'gs'")),
    ),
    **{
        each: Unrun(
            "there is no server of Google's storage to test with",
            in_test(
                "docs",
                "settings_of_google_cloud_storage_are_those_that_dvc_takes",
                "UNRUN",
                "dvc_in_one_process",
            ),
        )
        for each in (
            "dvc remote modify storage url gs://BUCKET/FOLDER",
            "dvc remote modify --local storage credentialpath ~/service-account.json",
        )
    },
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


def dvc_in_one_process(project: Path, lines: list[str]) -> dict[str, str]:
    """What each `dvc …` line prints; most of what one costs alone is the start of DVC."""
    code = (
        "import shlex, sys\nfrom dvc.cli import main\n"
        "for line in sys.argv[1:]:\n"
        "    print(end='\\0', flush=True)\n"
        "    if main(shlex.split(line)[1:]):\n"
        "        sys.exit(f'failed: {line}')\n"
    )
    program = ["env", "COLUMNS=400", sys.executable, "-c", code]
    said = must(command(project, *program, *lines)).stdout.split("\0")
    assert len(said) == len(lines) + 1
    return dict(zip(lines, said[1:], strict=True))


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


# Pages whose blocks are run as they stand, one after the other, and the test that does.
FOLLOWED = {
    "your-own-data.md": in_test(
        "your_own_data",
        "the_page_followed_to_the_letter_ends_in_an_experiment_that_others_fetch",
        "PAGE",
        "subprocess.run(",
    ),
}
# Pages of recipes for machines that no test has: Slurm, several GPUs, a bucket.
RECIPES = {"scaling.md"}
ALL = [(page, each) for page in PAGES if page.name not in {*FOLLOWED, *RECIPES}
       for lang, b in fences(page) if lang == "bash" for each in commands(b)]  # fmt: skip


def test_every_fence_says_what_it_holds() -> None:
    for page in PAGES:
        text = page.read_text()
        languages = [language for language, _ in fences(page)]
        assert len(re.findall(r"^ *```", text, re.M)) == 2 * len(languages), page.name
        assert set(languages) <= NO_COMMANDS | {"bash"}, page.name


@pytest.mark.parametrize("page", sorted(RECIPES))
def test_recipes_are_sound_shell(page: str) -> None:
    for language, block in fences(REPO / "docs" / page):
        if language == "bash":
            must(command(REPO, "bash", "-n", "-c", block))


def test_every_command_of_the_pages_is_run() -> None:
    known = [*ELSEWHERE, *CHEAP, *UNRUN]
    unknown = [f"{page.name}: {each}" for page, each in ALL if each not in known]
    assert unknown == [], "add them to CHEAP, ELSEWHERE or UNRUN"
    assert set(known) == {each for _, each in ALL}
    assert len(known) == len(set(known))


PLACES = ELSEWHERE | {each: unrun.shown for each, unrun in UNRUN.items()} | FOLLOWED


@pytest.mark.parametrize("each", PLACES)
def test_place_that_is_said_to_run_a_command_does(each: str) -> None:
    place = PLACES[each]
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
    said = dvc_in_one_process(fakes, [each for each in CHEAP if "--queue" not in each])
    must(command(fakes, "git", "checkout", "--quiet", "."))  # experiments start from a commit
    said |= dvc_in_one_process(fakes, [each for each in CHEAP if "--queue" in each])
    for each, words in CHEAP.items():
        for word in words:
            assert word in said[each], f"{each}\n{said[each]}"
    page = (fakes / "dvc_plots/index.html").read_text()
    assert "discriminator_history.csv" in page


def test_settings_of_google_cloud_storage_are_those_that_dvc_takes(tmp_path: Path) -> None:
    """It knows them by the address, and refuses others."""
    project = tmp_path / "project"
    (project / ".dvc").mkdir(parents=True)
    shutil.copyfile(REPO / ".dvc/config", project / ".dvc/config")
    new_repository(project)
    settings = [each for each in UNRUN if each.startswith("dvc remote modify")]
    said = dvc_in_one_process(project, [*settings, "dvc remote list"])
    assert said["dvc remote list"].split()[:2] == ["storage", "gs://BUCKET/FOLDER"]
    assert "credentialpath = " in (project / ".dvc/config.local").read_text()


def test_extension_of_vs_code_gets_every_chart_and_figure(fakes: Path, tmp_path: Path) -> None:
    """By the calls with which it asks DVC."""
    plots = f"dvc plots diff HEAD workspace -o {tmp_path / 'plots'} --split --json"
    said = dvc_in_one_process(fakes, [plots, "dvc exp show --json"])
    drawn = json.loads(said[plots][said[plots].index("{") :])
    assert not drawn.get("errors")
    charts = {"discriminator_loss", "discriminator_accuracy", "diffusion_loss", "viability"}
    assert charts < set(drawn["data"])
    assert "reports/samples.png" in drawn["data"]
    assert "held_out" in said["dvc exp show --json"]
    assert "num_iterations" in said["dvc exp show --json"]


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
def test_every_parameter_that_a_page_names_exists(page: Path) -> None:
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    for file in (REPO / "conf/objective").glob("*.yaml"):
        content = yaml.safe_load(file.read_text())
        params["objective"] |= content.get("objective", content)
    named = re.findall(r"(?<![\w/.-])([a-z_]+)\.([a-z_0-9]+)(?![\w/.])", page.read_text())
    for section, key in named:
        if isinstance(params.get(section), dict) and key not in ("py", "pt"):  # names of files
            assert key in params[section], f"{page.name}: {section}.{key}"


def test_figures_that_the_page_of_metrics_explains_are_those_of_a_report() -> None:
    report = json.loads((REPO / "reports/metrics.json").read_text())
    have = set(report["held_out"]["iter_0"])
    text = (REPO / "docs/metrics.md").read_text()
    cells = re.findall(r"^\| (`.*?) \|", text, re.M)
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert len(named) > 10
    assert named - have == {"val_viability_score"}  # each round's training has it
    assert "diffusion_val_viability_score" in report["training"]["iter_0"]
    rows = {name for name in have if not name.endswith(("_ci95", "_null_se"))}
    explained = set(re.findall(r"`(\w+)`", text))
    assert rows - explained == set()


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

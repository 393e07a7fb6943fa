"""What the pages say is there: commands, parameters, files, figures."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest
import yaml
from conftest import REPO, command, must, new_repository
from warm_python import CLIENT

from advloop import evaluation
from advloop.evaluation.results import VIEWS
from advloop.evaluation.scores import Metric
from hydra_plugins.advloop_derived import derive

PAGES = sorted([*REPO.glob("*.md"), *(REPO / "docs").glob("*.md"), *(REPO / "data").rglob("*.md")])
LANGUAGES = {"bash", "sh", "text", "mermaid", "json", "python"}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(REPO).as_posix())


def fences(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


def commands(page: Path) -> set[str]:
    """The `make …`, `dvc …` and `python …` lines of a page's blocks, and those in its prose."""
    found = re.findall(r"`((?:make|dvc|python) [^`]*)`", page.read_text())
    for block in fences(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            found += re.split(" && ", re.split(r"(?:^|\s+)#\s", line)[0])
    known = (" ".join(each.split()) for each in found)
    return {each for each in known if re.match(r"(ADVLOOP_\w+=\S+ )?(make|dvc|python) ", each)}


@cache
def parameters() -> dict[str, object]:
    """params.yaml with the values of every objective and every process."""
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    for group in ("objective", "diffusion"):
        for file in (REPO / "conf" / group).glob("*.yaml"):
            content = yaml.safe_load(file.read_text())
            params[group] |= content.get(group, content)
    return params


@every_page
def test_blocks_name_their_language_and_commands_are_sound_shell(page: Path) -> None:
    named = re.findall(r"^ *```(\w*)\n.*?^ *```$", page.read_text(), re.M | re.S)
    assert set(named) <= LANGUAGES
    for block in fences(page, "bash"):
        must(command(REPO, "bash", "-n", "-c", block))


@every_page
def test_commands_name_targets_programs_and_options_that_exist(page: Path) -> None:
    from dvc.cli.parser import get_main_parser

    makefile = (REPO / "Makefile").read_text()
    for each in commands(page):
        program, *words = shlex.split(re.sub(r"^ADVLOOP_\w+=\S+ ", "", each), comments=True)
        if program == "make":
            assert re.search(rf"^{words[0]}:", makefile, re.M), each
        elif program == "python":
            assert (REPO / words[0]).is_file(), each
        else:
            get_main_parser().parse_args(words)  # exits if it is no command of DVC


@every_page
def test_parameters_that_a_page_names_exist(page: Path) -> None:
    params = parameters()
    for key in re.findall(r"-S ([a-z_]+)=", page.read_text()):
        assert key in params, key
    named = re.findall(r"(?<![\w/.-])([a-z_]+)\.([a-z_0-9]+)(?![\w/.])", page.read_text())
    for section, key in named:
        values = params.get(section)
        if isinstance(values, dict) and key not in ("py", "pt", "json", "csv", "md"):
            assert key in values, f"{section}.{key}"


@every_page
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            slugs = [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]
            assert heading in slugs, link


# --- Commands that only look: in a finished project of fake stages ---

LOOKS = {  # with words of what each prints
    "dvc stage list": ("train_diffusion@1",),
    "dvc dag train_diffusion@0": ("| train_base |",),
    "dvc dag --mermaid": ("flowchart TD",),
    "dvc exp show --only-changed": ("Experiment", "workspace", "main"),
    "dvc metrics diff": ("held_out.final.kid_lite0", "HEAD", "workspace", "0.125"),
    "dvc params diff": ("train_disc.epochs", "7"),
    "dvc plots show": ("dvc_plots/index.html",),
    "dvc plots diff": ("dvc_plots/index.html",),
    "dvc plots show outputs/rounds/iter_0/model/metrics.csv -x epoch -y val_noise_loss": (
        "dvc_plots/index.html",
    ),
    "dvc plots show outputs/rounds/iter_0/discriminator/discriminator_history.csv -x epoch "
    "-y val_accuracy": ("dvc_plots/index.html",),
}
QUEUE = "dvc exp run --queue -S objective=ddo,none -S seed=0,1"


def dvc_in_one_process(project: Path, *lines: str) -> dict[str, str]:
    """What each `dvc …` line prints; most of what one costs alone is the start of DVC."""
    code = (
        "import shlex, sys\nfrom dvc.cli import main\n"
        "for line in sys.argv[1:]:\n"
        "    print(end='\\0', flush=True)\n"
        "    if main(shlex.split(line)[1:]):\n"
        "        sys.exit(f'failed: {line}')\n"
    )
    script = project.parent / "look.py"
    script.write_text(code)
    said = must(command(project, *CLIENT, str(script), *lines, COLUMNS="400")).stdout.split("\0")
    return dict(zip(lines, said[1:], strict=True))


def test_commands_that_only_look_print_what_the_pages_promise(fakes: Path, tmp_path: Path) -> None:
    report, params = fakes / "reports/metrics.json", fakes / "params.yaml"
    content = json.loads(report.read_text())
    content["held_out"]["final"]["kid_lite0"] = 0.125
    report.write_text(json.dumps(content))
    was = "train_disc:\n  epochs: 2"
    params.write_text(params.read_text().replace(was, f"{was[:-1]}7"))
    editor = f"dvc plots diff HEAD workspace -o {tmp_path / 'plots'} --split --json"  # as VS Code's
    said = dvc_in_one_process(fakes, *LOOKS, editor)
    for each, words in LOOKS.items():
        for word in words:
            assert word in said[each], f"{each}\n{said[each]}"
    drawn = json.loads(said[editor][said[editor].index("{") :])
    assert not drawn.get("errors")
    graph = yaml.safe_load((REPO / "dvc.yaml").read_text())
    assert {next(iter(plot)) for plot in graph["plots"]} < set(drawn["data"])
    assert "reports/samples.png" in drawn["data"]
    must(command(fakes, "git", "checkout", "--quiet", "."))  # experiments start from a commit
    queued = dvc_in_one_process(fakes, QUEUE)[QUEUE]
    assert queued.count("Queued experiment") == 4
    pages = set().union(*map(commands, PAGES))
    assert {*LOOKS, QUEUE} <= pages


def test_settings_of_google_cloud_storage_are_those_that_dvc_takes(tmp_path: Path) -> None:
    """There is no server to test with, but DVC knows the settings by the address."""
    project = tmp_path / "project"
    (project / ".dvc").mkdir(parents=True)
    shutil.copyfile(REPO / ".dvc/config", project / ".dvc/config")
    new_repository(project)
    (block,) = [b for b in fences(REPO / "docs/remotes.md", "bash") if "gs://" in b]
    settings = [line for line in block.splitlines() if line.startswith("dvc ")]
    said = dvc_in_one_process(project, *settings, "dvc remote list")
    assert said["dvc remote list"].split()[:2] == ["storage", "gs://BUCKET/FOLDER"]
    assert "credentialpath = " in (project / ".dvc/config.local").read_text()


# --- Concepts and metrics ---

STAGES = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
CONCEPTS = REPO / "docs/concepts.md"


def paths(stage: str, kinds: tuple[str, ...], item: dict[str, str]) -> list[Path]:
    """Outputs or dependencies of a stage, those of iteration 1 for one of a round."""
    body = STAGES[stage].get("do", STAGES[stage])
    rows = [row for kind in kinds for row in body.get(kind, [])]
    texts = [next(iter(row)) if isinstance(row, dict) else row for row in rows]
    values = {"${key}": "1", "${derived.captions}": item["captions"]}
    values |= {f"${{item.{name}}}": text for name, text in item.items()}
    for old, new in values.items():
        texts = [text.replace(old, new) for text in texts]
    return [Path(text) for text in texts]


def feeds(maker: str, taker: str, uses_all: bool) -> bool:
    """Whether the taker depends on an output of the maker; uses_all: where all settings ask so."""
    fraction = 0.5 if uses_all else 0.0
    encoder = "encoder" if uses_all else None
    made = derive("name", 2, uses_all, fraction, fraction, None, None, None, encoder)
    item = made["iterations"]["1"] | {"captions": made["captions"]}
    outs = paths(maker, ("outs", "plots", "metrics"), item)
    deps = paths(taker, ("deps",), item)
    return any(a == b or a.is_relative_to(b) or b.is_relative_to(a) for a in outs for b in deps)


def test_graph_of_concepts_draws_every_stage_and_what_dvc_yaml_declares() -> None:
    (graph,) = fences(CONCEPTS, "mermaid")
    arrows = re.findall(r"^ *(\w+)(?:\[.*?\])? (-->|-- .* -->|-\. .* \.->) (\w+)$", graph, re.M)
    assert set(STAGES) <= {name for start, _, end in arrows for name in (start, end)}
    drawn = [(a, arrow, b) for a, arrow, b in arrows if a in STAGES and b in STAGES]
    assert len(drawn) > 15
    for maker, arrow, taker in drawn:
        assert feeds(maker, taker, uses_all=True), (maker, taker)
        assert feeds(maker, taker, uses_all=False) == ("." not in arrow), (maker, taker)


def test_tree_of_concepts_names_every_output() -> None:
    (tree,) = fences(CONCEPTS, "text")
    expanded = re.sub(r"(\w+)_\{(\w+),(\w+)\}", r"\1_\2 \1_\3", tree)
    for stage in STAGES.values():
        for out in stage.get("do", stage).get("outs", []):
            name = Path(out if isinstance(out, str) else next(iter(out))).stem
            if name != "config":  # a mark that the parameters are fine
                assert re.search(rf"\b{name}\b", expanded), name


def test_concepts_name_the_stages_that_each_parameter_runs_again() -> None:
    declared = {
        (section.split(".")[0], name)
        for name, stage in STAGES.items()
        for section in stage.get("do", stage).get("params", [])
        if name not in ("select", "report")  # which the page says of them
    }
    page = CONCEPTS.read_text().partition("## What a change runs again")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*`.*) \| (.*) \|$", page, re.M)
    named = {
        (section, name)
        for first, second in rows
        for section in re.findall(r"`(\w+)`", first)
        for name in re.findall(r"`(\w+)`", second)
        if name in STAGES
    }
    everywhere = {"seed", "precision"}
    assert named == {pair for pair in declared if pair[0] not in everywhere}


def test_page_of_metrics_explains_every_metric_and_no_other() -> None:
    names = [found.name for found in pkgutil.iter_modules(evaluation.__path__)]
    modules = [importlib.import_module(f"{evaluation.__name__}.{name}") for name in names]
    found = {m.name for module in modules for m in vars(module).values() if isinstance(m, Metric)}
    text = (REPO / "docs/metrics.md").read_text()
    explained = {name.removesuffix("_lite0") for name in re.findall(r"`([a-z_0-9]+)`", text)}
    assert found - explained == set()
    cells = re.findall(r"^\| (`.*?) \|", text, re.M)
    named = {name.removesuffix("_lite0") for c in cells for name in re.findall(r"`(\w+)`", c)}
    own = {"disc_val_accuracy", "diffusion_collapsed", *(f"change_{view}" for view in VIEWS)}
    assert named - found == own

"""Says in one line what is wrong in a file of conf/, before Hydra stumbles over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from advloop.core.errors import printable
from advloop.params.reading import read_yaml
from hydra_plugins.conf_files import ROOT_CONFIG, composed


def check_files(conf: Path) -> None:
    """Exit with one line if a file that Hydra can compose is no YAML, names a key twice, or names
    an option that is not there; also if config.yaml has no defaults list.
    """
    for path in composed(conf):
        try:
            content = read_yaml(path)
            problem = next(_missing_options(content, path, conf), None)
            if path == conf / ROOT_CONFIG and not _defaults(content):
                problem = "has no defaults list, which chooses scale, process and objective"
        except ValueError as error:
            problem = str(error)
        if problem:
            name = f"{conf.name}/{path.relative_to(conf).as_posix()}"
            # OmegaConf and DVC would make several lines of any Exception.
            raise SystemExit(f"error: {printable(f'{name}: {problem}; correct the file')}")


def _defaults(content: Any) -> list[Any]:
    found = content.get("defaults") if isinstance(content, dict) else None
    return found if isinstance(found, list) else []


def _missing_options(content: Any, path: Path, conf: Path) -> Iterator[str]:
    """What is wrong with the entries ``group: option`` of a file's defaults list.

    What Hydra fills in or finds elsewhere is left to it: optional, missing (``???``) and computed
    options, its own groups, and any group that is no folder of ``conf``.
    """
    for entry in _defaults(content):
        for key, option in entry.items() if isinstance(entry, dict) else ():
            *words, group = str(key).split() or [""]
            group = group.partition("@")[0]
            folder = conf / group[1:] if group.startswith("/") else path.parent / group
            options = sorted(
                one.relative_to(folder).with_suffix("").as_posix() for one in folder.rglob("*.yaml")
            )
            if not group or not options or "optional" in words:
                continue
            for name in option if isinstance(option, list) else [option]:
                text = "???" if name is None else str(name).removesuffix(".yaml")
                if text not in options and "???" not in text and "${" not in text:
                    yield f"{key}={name} must be one of {', '.join(options)}"


class ConfYaml(SearchPathPlugin):
    """Hydra calls it before it composes; it leaves the search path alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for element in search_path.get_path():
            if element.provider == "main":
                check_files(Path(element.path.removeprefix("file://")))

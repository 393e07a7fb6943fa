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
    """What is wrong with the entries ``group: option`` of a file's defaults list."""
    for entry in _defaults(content):
        for key, option in entry.items() if isinstance(entry, dict) else ():
            *words, group = str(key).split() or [""]
            if "optional" in words or option is None or isinstance(option, list):
                continue
            group = group.partition("@")[0]
            folder = conf / group[1:] if group.startswith("/") else path.parent / group
            if not (folder / f"{str(option).removesuffix('.yaml')}.yaml").exists():
                options = sorted(one.stem for one in folder.glob("*.yaml"))
                yield f"{key}={option} must be one of {', '.join(options) or 'none'}"


class ConfYaml(SearchPathPlugin):
    """Hydra calls it before it composes; it leaves the search path alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for element in search_path.get_path():
            if element.provider == "main":
                check_files(Path(element.path.removeprefix("file://")))

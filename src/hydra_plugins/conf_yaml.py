"""Says in one line which file of conf/ is no YAML, before Hydra stumbles over it."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from advloop.core.errors import printable
from advloop.params.reading import yaml_problem
from hydra_plugins.conf_files import composed


def check_files(conf: Path) -> None:
    """Exit with one line if a file that Hydra can compose is no YAML, or names a key twice."""
    for path in composed(conf):
        if problem := yaml_problem(path):
            name = f"{conf.name}/{path.relative_to(conf).as_posix()}"
            # OmegaConf and DVC would make several lines of any Exception.
            raise SystemExit(f"error: {printable(f'{name}: {problem}; correct the file')}")


class ConfYaml(SearchPathPlugin):
    """Hydra calls it before it composes; it leaves the search path alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for element in search_path.get_path():
            if element.provider == "main":
                check_files(Path(element.path.removeprefix("file://")))

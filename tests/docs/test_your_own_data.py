"""docs/your-own-data.md, followed to the letter, on pictures that this test draws."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import BIN, OWN, REPO, command, environment, git, must, new_repository
from omegaconf import OmegaConf
from PIL import Image, ImageDraw
from warm_python import warm_python, write_shim

from advloop.params.training import BaseParams

pytestmark = pytest.mark.xdist_group("your_own_data")

PAGE = (REPO / "docs/your-own-data.md").read_text()
GROUPS, EACH = 10, 6
MODES = ("RGB", "L", "RGBA", "P", "I;16", "RGB")
SIZES = ((80, 80), (120, 70), (64, 100), (300, 60), (40, 40), (96, 66))


def draw_pictures(folder: Path) -> None:
    """Discs on stripes, in nested sub-folders, of many sizes and modes."""
    stream = np.random.default_rng(5)
    for group in range(GROUPS):
        place = folder / f"shelf_{group % 2}/box_{group}"
        place.mkdir(parents=True)
        for k, (size, mode) in enumerate(zip(SIZES, MODES, strict=True)):
            image = Image.new("RGB", size, (20 * group, 120, 200 - 15 * group))
            pen = ImageDraw.Draw(image)
            for x in range(0, size[0], 9):
                pen.line((x, 0, x, size[1]), fill=tuple(stream.integers(256, size=3).tolist()))
            x, y, r = stream.integers(8, 30, size=3).tolist()
            pen.ellipse((x, y, x + r, y + r), fill=(255, 255, 0))
            grey = image.convert("L")
            if mode == "I;16":
                image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
            else:
                image = image.convert(mode)
            image.save(place / f"{k}.png")
    (folder / "notes.txt").write_text("not a picture")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A clone with an environment, as `make setup` leaves it, an origin, and pictures."""
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    more = ("Makefile", "pyproject.toml", "uv.lock", "params.yaml", "tools", "docs")
    for name in (*OWN, *more):
        if (REPO / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "results")
            shutil.copytree(REPO / name, folder / name, ignore=ignored)
        else:
            shutil.copyfile(REPO / name, folder / name)
    new_repository(folder)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Clone")
    git(folder, "init", "--quiet", "--bare", "--initial-branch", "main", str(tmp_path / "origin"))
    git(folder, "remote", "add", "origin", str(tmp_path / "origin"))
    place = folder / ".venv/bin"
    place.mkdir(parents=True)
    write_shim(place / "python")
    write_shim(place / "dvc", str(BIN / "dvc"))
    (place / "uv").symlink_to("/bin/true")
    (folder / ".venv/.ready").touch()
    draw_pictures(folder / "pictures")
    return folder


@pytest.mark.parametrize("scale", ["demo", "full"])
def test_the_warm_up_of_the_page_fits_any_number_of_pictures(scale: str) -> None:
    (block,) = re.findall(r"^base: (\{.*warmup.*\})$", PAGE, re.M)
    (option,) = re.findall(r"-S base\.pretrained=null\s-S base\.warmup_steps=(\d+)`", PAGE)
    values = yaml.safe_load(block)
    assert values == {"pretrained": None, "warmup_steps": int(option)}
    base = OmegaConf.to_container(OmegaConf.load(REPO / f"conf/scale/{scale}.yaml").base)
    training = BaseParams(**base | values)
    assert [rows for rows in (1, 40, 600, 10**6) if training.warmup_problem(rows)] == []


def test_the_page_followed_to_the_letter_ends_in_an_experiment_that_others_fetch(
    project: Path,
) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.S | re.M)
    env = {
        "PATH": f"{project / '.venv/bin'}:{environment(project)['PATH']}",
        "OMP_NUM_THREADS": "1",
        "ADVLOOP_DEVICE": "cpu",
        "WARM_PYTHON": warm_python("dvc", "stages"),
    }
    done = must(command(project, "bash", "-euo", "pipefail", "-c", "\n".join(blocks), **env))
    assert f"pictures: {GROUPS * EACH} images in {GROUPS} groups, by sub-folder" in done.stdout
    assert "not used: 1 .txt" in done.stdout
    assert re.search(
        r"more than half of the area is lost .*: 10 images, .*/3\.png most", done.stdout
    )
    assert "data.source=pictures" not in git(project, "log", "--format=%s"), "conf/ holds it"

    elsewhere = project.parent / "elsewhere"
    lock = yaml.safe_load((elsewhere / "dvc.lock").read_text())["stages"]
    pictures = yaml.safe_load((elsewhere / "pictures.dvc").read_text())["outs"][0]
    (used,) = [dep for dep in lock["prepare"]["deps"] if dep["path"] == "pictures"]
    assert used["md5"] == pictures["md5"]
    manifest = (elsewhere / "outputs/data/manifest.csv").read_text().splitlines()
    assert len(manifest) == 1 + GROUPS * EACH
    card = (elsewhere / "outputs/final/README.md").read_text()
    digest = hashlib.sha256((elsewhere / "outputs/data/images.npy").read_bytes()).hexdigest()
    assert digest in card
    assert '"source": "pictures"' in card
    for path in ("outputs/final/unet", "outputs/final/vqvae", "reports/samples.png"):
        assert (elsewhere / path).exists(), path

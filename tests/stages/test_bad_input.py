"""Bad input ends its stage in one line and changes nothing; odd but valid input works.

The bad files are in bad_source.py (parameters, images, manifests, archives), bad_artefacts.py
(latents and scores that stages hand on) and bad_models.py (checkpoints, imported models).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import bad_artefacts
import bad_models
import bad_source
import numpy as np
import pytest
from bad_files import Plant, both, encoded, param, put
from bad_source import FILES, MANIFEST, SMALL, Bad, index, packed, rows
from diffusers import AutoencoderKL, UNet2DModel
from PIL import Image
from stage_folder import STAGES, StageFolder

from advloop.data.dataset import load_dataset

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once

BAD = [*bad_source.ALL, *bad_artefacts.ALL, *bad_models.ALL]
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def earlier_outputs(stage: str, good: Path, root: Path) -> None:
    """Put what the stage made in the good folder where it will write again."""
    for value in map(str, STAGES[stage].values()):
        if value.startswith("made/"):
            source, target = good / value.removeprefix("made/"), root / value
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, target)


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_bad_input_is_one_line_and_spares_earlier_outputs_and_runs_once_mended(
    case: Bad, good_stages: Path, stages: StageFolder
) -> None:
    settings = both(*(param(*setting) for setting in case.params.items()))
    settings(stages.root)
    case.plant(stages.root)
    earlier_outputs(case.stage, good_stages, stages.root)
    before = stages.made()
    outcome = stages.run(case.stage)
    assert outcome.status == 1, outcome
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert [part for part in case.says if part not in line] == [], line
    assert ";" in line, "no fix is named"
    assert stages.made() == before
    assert not (stages.root / "executed").exists()

    stages.mend(good_stages)
    settings(stages.root)
    shutil.rmtree(stages.root / "made")
    stages.must(case.stage)
    assert stages.made().keys() == before.keys() or case.params


def flat(mode: str, colour: Any, side: int = 24) -> Image.Image:
    return Image.new(mode, (side, side), colour)


def clear_palette() -> bytes:
    """A blue palette image whose upper half is an entry that is transparent."""
    image = flat("P", 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 24, 12))
    return encoded(image, transparency=0)


def two_values(top: int) -> Image.Image:
    """A 16-bit image, white below."""
    image = flat("I;16", 65535)
    image.paste(top, (0, 0, 24, 12))
    return image


ANIMATED = encoded(flat("RGB", RED), "GIF", save_all=True, append_images=[flat("RGB", BLUE)])
CMYK = encoded(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=95)


@pytest.mark.parametrize(
    ("file", "content", "top", "bottom"),
    [
        ("more/1.png", encoded(flat("RGB", RED, 1)), RED, RED),
        ("more/1.jpg", CMYK, RED, RED),
        ("more/1.png", encoded(two_values(32896)), (128, 128, 128), WHITE),
        ("more/1.tif", encoded(two_values(0), "TIFF"), (0, 0, 0), WHITE),
        ("more/1.png", clear_palette(), WHITE, BLUE),
        ("more/1.gif", ANIMATED, RED, RED),
        ("more/1.jpg", encoded(flat("RGB", BLUE)), BLUE, BLUE),
        ("more/0.png", encoded(flat("RGB", BLUE)), BLUE, BLUE),
        ("more/1.png/2.png", encoded(flat("RGB", BLUE)), BLUE, BLUE),
        ("größe, 1\u202fPM.png", encoded(flat("RGB", BLUE)), BLUE, BLUE),
    ],
    ids=[
        "1×1",
        "CMYK",
        "16 bits",
        "16-bit TIFF",
        "palette with alpha",
        "first frame of an animation",
        "PNG that is called .jpg",
        "name that another folder has too",
        "folder that is called .png",
        "name that is no ASCII",
    ],
)
def test_unusual_image_is_prepared(
    stages: StageFolder, file: str, content: bytes, top: Any, bottom: Any
) -> None:
    put(f"images/{file}", content)(stages.root)
    outcome = stages.run("prepare")
    assert (outcome.status, outcome.err) == (0, "")
    dataset = load_dataset(stages.root / "made/data")
    assert len(dataset.files) == len(FILES) + 1
    image = dataset.images[dataset.files.index(file)].astype(int)
    np.testing.assert_allclose(image[0], np.tile(top, (16, 1)), atol=12)
    np.testing.assert_allclose(image[-1], np.tile(bottom, (16, 1)), atol=12)


@pytest.mark.parametrize(
    "plant",
    [
        put(MANIFEST, b"\xef\xbb\xbf" + rows().encode()),
        put(MANIFEST, rows().replace("\n", "\r\n")),
        put(MANIFEST, rows(header="file,group,split", row="{},{},")),
        put(MANIFEST, rows(row='{},"{}, large"')),
        put("images/index.json", index()),
        put("images/index.json", index(split=None, width=3)),
        both(put("images.zip", packed({})), param("data.source", "images.zip")),
        both(put("images.ZIP", packed({".a.png": b"?"})), param("data.source", "images.ZIP")),
        put("images/index.json", '{"images": []}'),
        put("images/__MACOSX/1.png", "hidden"),
        put("images/notes.txt", SMALL),
    ],
    ids=[
        "BOM",
        "CRLF",
        "split left empty",
        "quoted commas",
        "index",
        "index with more keys",
        "index of somebody else",
        "archive",
        "archive with hidden members",
        "what an operating system leaves behind",
        "file of another kind",
    ],
)
def test_unusual_source_is_prepared(stages: StageFolder, plant: Plant) -> None:
    plant(stages.root)
    outcome = stages.run("prepare")
    assert (outcome.status, outcome.err) == (0, "")
    assert load_dataset(stages.root / "made/data").files == sorted(FILES)


@pytest.mark.parametrize(
    ("key", "folder", "stage", "kind"),
    [
        ("base.pretrained", "unet", "train_base", UNet2DModel),
        ("autoencoder.pretrained", "vae", "train_autoencoder", AutoencoderKL),
    ],
)
def test_imported_model_may_have_16_bits(
    stages: StageFolder, key: str, folder: str, stage: str, kind: Any
) -> None:
    kind.from_pretrained(folder, low_cpu_mem_usage=False).half().save_pretrained(folder)
    param(key, folder)(stages.root)
    outcome = stages.run(stage)
    assert outcome.status == 0, outcome

"""Publish the pipeline's autoencoder and base model as data/stage1, with how they came about.

`make stage1` calls this after `dvc exp run` has trained both from scratch.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from advloop.core.device import device_name, pick_device  # noqa: E402  # found on the path set above
from advloop.core.files import read_json, write_json  # noqa: E402  # as above
from advloop.models.denoiser import load_checkpoint  # noqa: E402
from advloop.params.loader import Params  # noqa: E402

SECTIONS = ("data", "autoencoder", "encode_dataset", "diffusion", "unet", "base")


def main(root: Path = ROOT) -> None:
    here, outputs = root / "data" / "stage1", root / "outputs"
    content = Params.load(root / "params.yaml").content
    if content["autoencoder"]["pretrained"] or content["base"]["pretrained"]:
        sys.exit("params.yaml: imports pretrained models; run `make stage1`, which trains them")
    shutil.copytree(
        outputs / "autoencoder",
        here / "autoencoder",
        dirs_exist_ok=True,
        copy_function=shutil.copyfile,  # without the modes: DVC's outputs are read-only
    )
    denoiser = load_checkpoint(outputs / "base" / "checkpoint_best.pt")
    denoiser.network.save_pretrained(here / "unet")
    source = root / content["data"]["source"]
    write_json(
        here / "stage1.json",
        {
            "command": "make stage1",
            "data_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            "figures": read_json(outputs / "autoencoder.json")
            | read_json(outputs / "base" / "metrics.json"),
            "machine": device_name(pick_device()),
            "params": {name: content[name] for name in ("seed", "precision", *SECTIONS)},
        },
    )


if __name__ == "__main__":
    main()

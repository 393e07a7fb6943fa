"""A stage that loads a network does not wait for packages that diffusers would load beside it."""

import sys

from conftest import REPO, command, must

CODE = """
import importlib, sys
from advloop.models.library import UNUSED, diffusers
diffusers.UNet2DModel, diffusers.DiTTransformer2DModel, diffusers.AutoencoderKL, diffusers.VQModel
print(*(name for name in UNUSED if name in sys.modules))
print(*(importlib.import_module(name).__name__ for name in UNUSED))
"""


def test_networks_of_diffusers_load_no_package_for_text_or_adapters_and_hide_none():
    printed = must(command(REPO, sys.executable, "-c", CODE, PYTHONPATH=str(REPO / "src")))
    assert printed.stdout.splitlines() == ["", "peft transformers"]

"""How a stage computes: device, precision, determinism.

The device is not a parameter. The machine decides, and ``ADVLOOP_DEVICE`` may overrule it.
Results are reproducible to the byte on one kind of device with one number of CPU threads
(``OMP_NUM_THREADS``). Other numbers of threads round differently, and a GPU draws the noise of
trainings itself: a training there is another draw of the same run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from advloop.core.errors import UserError
from advloop.core.processes import local_rank


def pick_device() -> torch.device:
    """``ADVLOOP_DEVICE`` if it is set, else the GPU if there is one, else the CPU.

    If several processes share a machine, each gets its own GPU: the one numbered like its local
    rank. UserError if the device cannot be used.
    """
    name = os.environ.get("ADVLOOP_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda":
        name += f":{local_rank()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"ADVLOOP_DEVICE={name}: not usable ({reason}); unset it") from None
    return device


def device_name(device: torch.device) -> str:
    """The GPU's model, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 if ``precision`` is ``bf16``; no change if it is ``fp32``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def spare_memory(network: torch.nn.Module) -> None:
    """Let diffusers' parts of ``network`` compute activations again if the environment asks for it.

    With ``ADVLOOP_GRADIENT_CHECKPOINTING=1``, a training keeps the inputs of blocks alone, and
    computes the rest again in the backward pass (Chen et al. 2016, arXiv 1604.06174): less memory
    for a third more time. It changes no value but for rounding, so that it is no parameter.
    UserError if the variable has another value, or if a part cannot do it.
    """
    name = "ADVLOOP_GRADIENT_CHECKPOINTING"
    wanted = os.environ.get(name) or "0"
    if wanted not in ("0", "1"):
        raise UserError(f"{name}={wanted}: must be 0 or 1; unset it")
    if wanted == "0":
        return
    for part in network.modules():
        enable = getattr(part, "enable_gradient_checkpointing", None)
        try:
            if enable:
                enable()
        except ValueError:
            raise UserError(f"{name}=1: {type(part).__name__} cannot do it; unset it") from None


def deterministic() -> None:
    """Use the kernels that give the same bytes in every run on this machine."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A debugging aid that costs time: we read no memory before we have written it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # untyped
    torch.backends.cudnn.benchmark = False


@contextmanager
def eval_mode(*modules: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every submodule has its old mode again."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in before:
            part.training = training

"""Whether a GPU computes what the tests ask of a CPU; parts of gpu.py.

In most figures 1 means yes. The tolerances are those of tests/training/test_precision.py.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch.multiprocessing.spawn import start_processes

from advloop.core.device import autocast, deterministic, eval_mode
from advloop.core.distributed import leave, map_across_processes
from advloop.core.files import load_torch, save_torch
from advloop.core.processes import free_port, is_main_process, launch_variables
from advloop.core.random import batches, noise_for
from advloop.diffusion.sampling import sample
from advloop.infra.snapshots import Resume, Snapshots
from advloop.models.autoencoder import load_autoencoder
from advloop.models.base_model import import_network
from advloop.models.codec import Codec
from advloop.models.denoiser import Denoiser, build_denoiser
from advloop.training.autoencoder import psnr
from advloop.training.diffusion import Setup, train_diffusion
from gpu_bench import Bench
from shapes import ROOT, shape_params, shape_unet
from training import PROCESS, epoch_of

STEPS = 6


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Root mean square of the difference, over that of ``exact``."""
    found, exact = found.double().cpu(), exact.double().cpu()
    return float((found - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def draw(model: Denoiser, rows: range, precision: str, device: torch.device) -> torch.Tensor:
    """DDIM samples of ten steps."""
    noise = noise_for(rows, model.latent_shape, 0, "check").to(device)
    with eval_mode(model), autocast(precision, device):
        return sample(PROCESS, model, noise, 10)


def precision(bench: Bench) -> None:
    """The committed demo networks in bf16 against fp32, on the GPU and on the CPU."""
    deterministic()
    data = ROOT / "data/stage1"
    config = shape_unet(shape_params("demo"))
    shape = (config["in_channels"], config["sample_size"], config["sample_size"])
    cpu, rows = torch.device("cpu"), range(8)
    host = draw(import_network(data / "unet", shape).to(cpu), rows, "fp32", cpu)
    network = import_network(data / "unet", shape).to(bench.device)
    torch.backends.cudnn.allow_tf32 = False
    exact = draw(network, rows, "fp32", bench.device)
    torch.backends.cudnn.allow_tf32 = True  # as torch has it
    single, half = (draw(network, rows, one, bench.device) for one in ("fp32", "bf16"))
    within(bench, "samples, GPU without TF32 against CPU", error(exact, host), 1e-3)
    within(bench, "samples, fp32 with TF32 against without", error(single, exact), 0.02)
    within(bench, "samples, bf16 against fp32", error(half, exact), 0.02)
    ratio = abs(float(half.std() / exact.std()) - 1)
    within(bench, "samples, standard deviation of bf16", ratio, 0.01)
    model = load_autoencoder(data / "autoencoder").to(bench.device)
    images, plain, quick = plans(40), Codec(model), Codec(model, precision="bf16")
    off = error(quick.encode(images), plain.encode(images))
    within(bench, "latents, bf16 against fp32", off, 0.01)
    numbers = np.arange(len(images))
    change = abs(psnr(quick, images, numbers, 40) - psnr(plain, images, numbers, 40))
    within(bench, "decoded latents of bf16, dB", change, 0.02)
    losses = [train(bench, one)[0] for one in ("fp32", "bf16")]
    off = max(abs(b / a - 1) for a, b in zip(*losses, strict=True))
    within(bench, f"noise loss of {STEPS} steps, bf16 against fp32", off, 0.01)


def within(bench: Bench, name: str, value: float, most: float) -> None:
    bench.add(f"{name} (at most {most:g})", value, "yes" if value <= most else "NO")


def plans(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Pictures of the embedded archive at 64 px."""
    with zipfile.ZipFile(ROOT / "data/freedoom_plans.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".png"))[::40][:count]
        pictures = [Image.open(archive.open(n)).convert("RGB").resize((64, 64)) for n in names]
    return np.stack([np.asarray(picture) for picture in pictures])


def setup_of(bench: Bench, kind: str, epochs: int = 1) -> Setup:
    """Trainings of STEPS steps, always the same."""
    batch = bench.few(64)
    latents = bench.latents(batch * STEPS)
    setup = epoch_of(latents, batch, kind, bench.device, epochs)
    return replace(setup, params=setup.params.model_copy(update={"warmup_steps": 1}))


def train(
    bench: Bench,
    kind: str,
    epochs: int = 1,
    resume: Resume | None = None,
    stop: int | None = None,
) -> tuple[list[float], str]:
    """(noise losses by epoch, digest of the weights and the averages). stop: fail after it."""
    network, averages = bench.unet(), []

    def on_epoch(history: Sequence[object], _: Denoiser, ema: Denoiser) -> None:
        averages.append(digest(ema))
        if len(history) == stop:
            raise InterruptedError

    setup = setup_of(bench, kind, epochs)
    deterministic()
    history = train_diffusion(setup, network, lambda items: items, on_epoch, resume)
    return [float(row["noise_loss"]) for row in history], digest(network) + averages[-1]


def digest(model: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for weight in model.state_dict().values():
        found.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def repeats(bench: Bench) -> None:
    """The same training gives the same bytes, at once and resumed from a snapshot."""
    for kind in ("bf16", "fp32"):
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            first, second = train(bench, kind), train(bench, kind)
        bench.add(f"{kind}: the same training, the same bytes", float(first == second), "", 1.0)
        for text in sorted({str(w.message) for w in raised if "deterministic" in str(w.message)}):
            bench.note(f"  {text[:200]}")
    whole = train(bench, "bf16", epochs=3)
    with tempfile.TemporaryDirectory() as folder:
        snapshots = Snapshots(Path(folder) / "state", [], 0.0)
        try:
            # after the second epoch's call, so the snapshot is the first's
            train(bench, "bf16", epochs=3, resume=snapshots, stop=2)
        except InterruptedError:
            bench.add("a snapshot was taken", float(snapshots.found), "", 1.0)
        resumed = train(bench, "bf16", epochs=3, resume=snapshots)
    bench.add("resumed from a snapshot: the same bytes", float(resumed == whole), "", 1.0)


def batch_sizes(bench: Bench) -> None:
    """Samples in batches of 64 and of 256 are the same up to rounding."""
    deterministic()
    network = bench.unet()
    count, small = bench.few(256), max(1, bench.few(256) // 4)
    for kind in ("fp32", "bf16"):
        one, other = (
            torch.cat([draw(network, part, kind, bench.device) for part in batches(count, size)])
            for size in (count, small)
        )
        worst = float((one - other).abs().max() / one.abs().max())
        bench.add(
            f"{kind}: batches of {small} and {count}, root mean square", error(other, one), ""
        )
        bench.add(f"{kind}: … worst, over the largest entry", worst, "")


def _share(index: int, port: int, bench: Bench, out: Path) -> None:
    """What each of two processes does, with gloo: nccl refuses two processes on one GPU."""
    os.environ |= launch_variables(index, 2, port)
    dist.init_process_group("gloo")
    found = shared_work(bench)
    if is_main_process():
        save_torch(out, found)
    leave()


def shared_work(bench: Bench) -> dict[str, torch.Tensor]:
    """A training in fp32 and some samples, split across the processes if there are several."""
    deterministic()
    network = build_denoiser(bench.config, seed=0).to(bench.device)
    size = bench.few(64)
    drawn = map_across_processes(
        lambda part: draw(network, part, "fp32", bench.device), batches(2 * size, size)
    )
    samples = torch.cat([rows.cpu() for rows in drawn])
    train_diffusion(setup_of(bench, "fp32"), network, lambda items: items, lambda *_: None)
    weights = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    return {"samples": samples, **weights}


def two_processes(bench: Bench) -> None:
    """Two processes on one GPU against one."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "shared.pt"
        quiet = replace(bench, figures=[], notes={})
        start_processes(_share, (free_port(), quiet, out), 2, start_method="spawn")
        shared = load_torch(out)
    alone = shared_work(bench)
    same = torch.equal(shared.pop("samples"), alone.pop("samples"))
    bench.add("two processes draw the samples of one, to the byte", float(same), "", 1.0)
    apart = max(float((shared[k] - alone[k]).abs().max()) for k in alone)
    start = build_denoiser(bench.config, seed=0).state_dict()
    moved = max(float((alone[k] - start[k]).abs().max()) for k in alone)
    bench.add("… and train its weights: largest difference", apart, "")
    bench.add("… largest change by the training itself", moved, "")


PARTS: dict[str, tuple[Callable[[Bench], None], float]] = {
    "precision": (precision, 10),
    "repeats": (repeats, 15),
    "batch sizes": (batch_sizes, 5),
}

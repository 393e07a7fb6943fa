"""Files are written whole or not at all, and what is read from them is never executed."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from advloop.core.errors import UserError

if TYPE_CHECKING:
    import torch


Model = TypeVar("Model")
UNWRITABLE = {"ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM"}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into a UserError that names ``path``."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason: BaseException | None = error
        while reason and errno.errorcode.get(getattr(reason, "errno", None) or 0) not in UNWRITABLE:
            reason = reason.__cause__ or reason.__context__  # torch.save raises its own
        if not isinstance(reason, OSError):
            raise
        raise UserError(
            f"{path}: cannot be written ({reason.strerror}), and was left as it was; free some "
            "disk space or fix the permissions, then run `dvc repro`"
        ) from None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and rename it to ``path`` at the end.

    A file in a DVC workspace may be a hard link into the cache, so nothing is ever written in
    place. On an exception the temporary file is removed and ``path`` is left as it was.
    UserError if the disk is full or cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def reserve(path: Path, size: int) -> None:
    """Allocate ``size`` bytes on the disk for a file; OSError if there is no room.

    Without this, writing through a memory mapping on a full disk ends in SIGBUS.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(handle, 0, size)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut; fsync of a file covers only its bytes."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """UTF-8, with the line ends of ``text`` on every system."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Sorted and indented, so that equal values make equal bytes; ValueError for NaN."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def read_json(path: Path) -> Any:
    """The value in a JSON file; UserError if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: not found; make it with `dvc repro`") from None
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(
            f"{path}: not valid JSON ({error}); remove it and run `dvc repro`"
        ) from None


def save_torch(path: Path, content: Any) -> None:
    """``torch.save``, with bytes that depend on the content and not on the file's name."""
    import torch

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def load_torch(path: Path, *, mmap: bool = False) -> Any:
    """Tensors, numbers, strings and containers of them; UserError for anything else.

    mmap: leave tensors on the disk until they are used.
    """
    import torch

    try:
        return torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; make it with `dvc repro`") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused, since it holds more than tensors or is damaged; remove it and run "
            "`dvc repro`"
        ) from None
    except Exception as error:  # a damaged file can fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path}: damaged ({reason}); remove it and run `dvc repro` or `dvc checkout`"
        ) from None


def all_finite(content: Any) -> bool:
    """Whether every tensor in nested dicts and lists is free of NaN and infinity."""
    import torch

    if isinstance(content, torch.Tensor):
        return bool(torch.isfinite(content).all())
    if isinstance(content, dict | list | tuple):
        values = content.values() if isinstance(content, dict) else content
        return all(map(all_finite, values))
    return True


def load_model(path: Path, kind: str, build: Callable[[dict[str, Any]], Model]) -> Model:
    """``build(content)`` of a checkpoint; UserError if ``build`` fails or a value is not finite.

    kind: what the user calls the model, for the message.
    """
    content = load_torch(path)
    try:
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        if not all_finite(content):
            raise ValueError("it holds NaN or infinity")
        return build(content)
    except Exception as error:  # a foreign file can be wrong in any way; each is bad input
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: not a {kind} that fits ({reason}); make it with `dvc repro`"
        ) from None


def load_tensor(path: Path) -> torch.Tensor:
    """A memory-mapped float32 tensor (N, C, H, W) of finite values; UserError otherwise."""
    import torch

    tensor = load_torch(path, mmap=True)
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 4:
        raise UserError(f"{path}: must hold one tensor (N, C, H, W); make it with `dvc repro`")
    if tensor.dtype != torch.float32:
        raise UserError(f"{path}: dtype {tensor.dtype} must be float32; make it with `dvc repro`")
    if not bool(torch.isfinite(tensor.sum())):
        raise UserError(f"{path}: holds NaN or infinity; remove it and run `dvc repro`")
    return tensor


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes; UserError if ``source`` is missing."""
    if not source.is_file():
        raise UserError(f"{source}: not found; make it with `dvc repro`")
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)

"""Latents on disk: one global scale, rows in order, whole files or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from advloop.augment import VARIANTS, augment
from advloop.autoencoder import Codec, PatchAutoencoder, to_images, to_pixels
from advloop.core.errors import UserError
from advloop.core.io import load_torch, save_torch
from advloop.core.runtime import seeded
from advloop.latent_files import load_latents, read_scale
from advloop.latents import encode_rows, latent_scale
from advloop.tensor_writer import TensorWriter

CPU = torch.device("cpu")
Images = npt.NDArray[np.uint8]


@pytest.fixture
def images() -> Images:
    return np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3)).astype(np.uint8)


@pytest.fixture
def codec() -> Codec:
    with seeded(0, "test"):
        return Codec(PatchAutoencoder(4, 4, 8, 1, 1), 1.5)


@pytest.fixture
def tensor() -> torch.Tensor:
    with seeded(0, "test"):
        return torch.randn(5, 2, 3, 3)


def write(path: Path, codec: Codec, images: Images, rows: list[int], **options: Any) -> Any:
    settings = {"batch": 3, "augmentation": "none", **options}
    shape = encode_rows(
        codec, images, np.array(rows), path=path, progress=lambda jobs: jobs, **settings
    )
    latents = load_torch(path)
    assert latents.shape == shape
    return latents


# --- scale ---


def test_scaled_latents_have_mean_square_one(codec: Codec, images: Images) -> None:
    codec.scale = latent_scale(Codec(codec.model), images, np.arange(7), 3)
    latents = codec.encode(images)
    assert float(latents.square().mean()) == pytest.approx(1, rel=1e-5)


def test_scale_is_one_number_so_that_channels_keep_their_ratios(
    codec: Codec, images: Images
) -> None:
    with torch.no_grad():
        codec.model.project.weight[0] *= 20
    codec.scale = 1.0
    before = codec.encode(images).var((0, 2, 3))
    codec.scale = latent_scale(codec, images, np.arange(7), 7)
    assert isinstance(codec.scale, float)
    after = codec.encode(images).var((0, 2, 3))
    torch.testing.assert_close(after / after[1], before / before[1])
    assert after[0] > 50 * after[1]


def test_scale_does_not_depend_on_the_batch_and_sees_only_its_rows(
    codec: Codec, images: Images
) -> None:
    scales = [latent_scale(codec, images, np.arange(4), batch) for batch in (1, 3, 100)]
    assert scales == pytest.approx([scales[0]] * 3, rel=1e-6)
    images[4:] = 0
    assert latent_scale(codec, images, np.arange(4), 4) == scales[2]


def test_autoencoder_that_encodes_everything_to_zero_is_refused(images: Images) -> None:
    model = PatchAutoencoder(4, 4, 8, 0, 0)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    with pytest.raises(UserError, match="encodes every image to zero"):
        latent_scale(Codec(model), images, np.arange(7), 3)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"latent_scale": 0.0}',
        '{"latent_scale": -1.0}',
        '{"latent_scale": "1.0"}',
        '{"latent_scale": null}',
        '{"latent_scale": true}',
        '{"latent_scale": [1.0]}',
        '{"latent_scale": NaN}',
        '{"latent_scale": Infinity}',
        "[]",
        "null",
        "1.0",
        "{",
    ],
)
def test_scale_that_is_no_positive_number_is_refused_in_one_line(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "stats.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_scale(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    assert "dvc repro" in message


def test_scale_comes_back(tmp_path: Path) -> None:
    (tmp_path / "stats.json").write_text(
        '{"latent_scale": 0.125, "latent_shift": -0.5, "train": 3}'
    )
    assert read_scale(tmp_path / "stats.json") == (0.125, -0.5)


# --- rows ---


def test_rows_are_encoded_in_the_order_in_which_they_are_named(
    tmp_path: Path, codec: Codec, images: Images
) -> None:
    latents = write(tmp_path / "a.pt", codec, images, [5, 0, 3, 3])
    torch.testing.assert_close(latents, codec.encode(images[[5, 0, 3, 3]]))
    assert latents.dtype == torch.float32


def test_variants_follow_each_other_as_whole_sets_of_rows(
    tmp_path: Path, codec: Codec, images: Images
) -> None:
    rows = [6, 1, 2, 4]
    latents = write(tmp_path / "a.pt", codec, images, rows, augmentation="dihedral")
    assert len(latents) == 8 * len(rows)
    for variant in range(8):
        for place, row in enumerate(rows):
            turned = to_images(augment(to_pixels(images[[row]], CPU), variant))
            torch.testing.assert_close(
                latents[variant * len(rows) + place], codec.encode(turned)[0]
            )


@pytest.mark.parametrize("augmentation", ["none", "hflip"])
def test_batch_size_changes_no_latent(
    tmp_path: Path, codec: Codec, images: Images, augmentation: str
) -> None:
    results = [
        write(
            tmp_path / f"{batch}.pt",
            codec,
            images,
            list(range(7)),
            batch=batch,
            augmentation=augmentation,
        )
        for batch in (1, 3, 7, 50)
    ]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-5, atol=1e-5)


def test_encoding_twice_gives_the_same_bytes(tmp_path: Path, codec: Codec, images: Images) -> None:
    for name in ("a", "other_name"):
        write(tmp_path / name, codec, images, [0, 1, 2, 3])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "other_name").read_bytes()


def test_progress_sees_every_batch_of_every_variant(
    tmp_path: Path, codec: Codec, images: Images
) -> None:
    seen = []

    def progress(jobs: Any) -> Iterator[range]:
        for job in jobs:
            seen.append(job)
            yield job

    encode_rows(codec, images, np.arange(7), 3, tmp_path / "a.pt", progress, "hflip")
    assert seen == [range(0, 3), range(3, 6), range(6, 7)] * 2


# --- augmentation ---


def test_dihedral_variants_are_all_eight_symmetries_of_the_square() -> None:
    square = torch.arange(16.0).view(1, 1, 4, 4)
    found = {tuple(augment(square, v).flatten().tolist()) for v in range(VARIANTS["dihedral"])}
    grid = np.arange(16.0).reshape(4, 4)
    expected = {
        tuple(np.rot90(side, turns).flatten().tolist())
        for turns in range(4)
        for side in (grid, grid.T)
    }
    assert found == expected
    assert len(found) == 8


def test_no_augmentation_is_the_identity_and_hflip_adds_the_mirror_image() -> None:
    pixels = torch.arange(24.0).view(2, 3, 2, 2)
    assert VARIANTS["none"] == 1
    assert torch.equal(augment(pixels, 0), pixels)
    assert VARIANTS["hflip"] == 2
    assert torch.equal(augment(pixels, 1), pixels.flip(3))


# --- writing ---


def test_rows_written_batch_by_batch_equal_the_whole(tmp_path: Path, tensor: torch.Tensor) -> None:
    path = tmp_path / "deep" / "a.pt"
    with TensorWriter(path, tuple(tensor.shape)) as writer:
        for part in (tensor[:2], tensor[2:3], tensor[3:]):
            writer.append(part)
    assert torch.equal(load_latents(path), tensor)
    assert [file.name for file in path.parent.iterdir()] == ["a.pt"]
    save_torch(tmp_path / "whole.pt", tensor)
    assert path.read_bytes() == (tmp_path / "whole.pt").read_bytes()


def test_rows_are_kept_in_a_file_until_they_are_saved(tmp_path: Path, tensor: torch.Tensor) -> None:
    writer = TensorWriter(tmp_path / "a.pt", tuple(tensor.shape))
    (scratch,) = tmp_path.iterdir()
    writer.append(tensor[:3])
    values = np.fromfile(scratch, np.float32)
    assert values[: 3 * 18].tolist() == tensor[:3].flatten().tolist()
    assert not values[3 * 18 :].any()
    with writer:
        writer.append(tensor[3:])
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_writer_takes_other_types_and_gradients_as_plain_float32(tmp_path: Path) -> None:
    with TensorWriter(tmp_path / "a.pt", (2, 1, 1, 1)) as writer:
        writer.append(torch.ones(1, 1, 1, 1, dtype=torch.bfloat16))
        writer.append(torch.full((1, 1, 1, 1), 2.0, requires_grad=True))
    latents = load_latents(tmp_path / "a.pt")
    assert latents.flatten().tolist() == [1, 2]
    assert not latents.requires_grad


def stop_halfway(path: Path, tensor: torch.Tensor) -> None:
    with TensorWriter(path, tuple(tensor.shape)) as writer:
        writer.append(tensor[:2])
        raise RuntimeError("stopped")


def leave_rows_out(path: Path, tensor: torch.Tensor) -> None:
    with TensorWriter(path, tuple(tensor.shape)) as writer:
        writer.append(tensor[:2])


def write_too_many(path: Path, tensor: torch.Tensor) -> None:
    with TensorWriter(path, tuple(tensor.shape)) as writer:
        writer.append(tensor)
        writer.append(tensor)


@pytest.mark.parametrize("failure", [stop_halfway, leave_rows_out, write_too_many])
@pytest.mark.parametrize("existing", [False, True])
def test_writer_that_fails_leaves_the_old_file_and_no_scratch_file(
    tmp_path: Path, tensor: torch.Tensor, failure: Any, existing: bool
) -> None:
    path = tmp_path / "a.pt"
    if existing:
        path.write_text("old")
    with pytest.raises((RuntimeError, AssertionError)):
        failure(path, tensor)
    assert [file.name for file in tmp_path.iterdir()] == (["a.pt"] if existing else [])
    assert not existing or path.read_text() == "old"


# --- reading ---


def refusal(path: Path, shape: tuple[int, int, int] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_latents(path, shape)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    assert "dvc repro" in message
    return message


def test_latents_come_back_mapped_from_the_file(tmp_path: Path, tensor: torch.Tensor) -> None:
    path = tmp_path / "a.pt"
    save_torch(path, tensor)
    assert torch.equal(load_latents(path), tensor)
    assert torch.equal(load_latents(path, (2, 3, 3)), tensor)


def test_latents_of_another_shape_are_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    save_torch(tmp_path / "a.pt", tensor)
    message = refusal(tmp_path / "a.pt", (2, 4, 4))
    assert "[2, 3, 3]" in message
    assert "[2, 4, 4]" in message


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_latents_of_another_type_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    save_torch(tmp_path / "a.pt", torch.ones(2, 2, 3, 3, dtype=dtype))
    assert f"{dtype} must be float32" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_latents_with_one_value_that_is_no_number_are_refused(
    tmp_path: Path, tensor: torch.Tensor, value: float
) -> None:
    tensor[3, 1, 2, 0] = value
    save_torch(tmp_path / "a.pt", tensor)
    assert "NaN or infinity" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "content",
    [torch.ones(3, 3), torch.ones(1, 2, 2, 3, 3), {"a": torch.ones(1)}, [1, 2], "text", None],
    ids=["two-dimensional", "five-dimensional", "dict", "list", "text", "none"],
)
def test_file_that_holds_no_batch_of_latents_is_refused(tmp_path: Path, content: Any) -> None:
    save_torch(tmp_path / "a.pt", content)
    assert "must hold one tensor (N, C, H, W)" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_truncated_latents_are_refused(tmp_path: Path, tensor: torch.Tensor, share: float) -> None:
    path = tmp_path / "a.pt"
    save_torch(path, tensor)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refusal(path)


def test_missing_latents_are_refused(tmp_path: Path) -> None:
    assert "not found" in refusal(tmp_path / "a.pt")

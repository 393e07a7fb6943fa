"""Each network of image features: what it sees, and what a user reads if it is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from urllib.error import URLError

import numpy as np
import pytest
import torch
from bad_files import Code, pickled
from PIL import Image
from small_evaluation import small_codec

from advloop.core.errors import UserError
from advloop.evaluation.features import NETWORKS, load_features
from advloop.evaluation.lite0 import load_network
from advloop.params.evaluation import EvaluateParams

CPU = torch.device("cpu")
PACKAGE = "torch_fidelity"
MODULE = "feature_extractor_inceptionv3"
ADDRESS = "https://example.invalid/weights-inception-6726825d.pth"


def some_images(count: int = 3, size: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(count, size, size, 3), dtype=np.uint8)


def test_every_choice_of_the_parameter_has_its_network():
    assert set(get_args(EvaluateParams.model_fields["features"].annotation)) == set(NETWORKS)


def test_lite0_features_are_a_row_an_image_and_follow_its_content_alone():
    features = load_features("lite0", small_codec(), 32, CPU)
    whole = features(some_images())
    assert features.name == "lite0"
    assert (whole.shape, whole.dtype) == ((3, 1280), torch.float32)
    alone = features(some_images()[1:2])
    torch.testing.assert_close(alone[0], whole[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)


def test_lite0_features_are_those_of_the_network_as_it_was_published():
    network = load_network()
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    pixels = torch.from_numpy(some_images(size=64)).permute(0, 3, 1, 2).float()
    published = network.extract_features((pixels - 127) / 128).mean((2, 3))
    found = load_features("lite0", small_codec(), 64, CPU)(some_images(size=64))
    torch.testing.assert_close(found, published, rtol=1e-4, atol=1e-5)


def test_lite0_features_are_those_that_were_published_with_the_first_runs():
    """Recorded sums; another number of threads or CPU rounds in the sixth digit."""
    features = load_features("lite0", small_codec(), 32, CPU)(some_images())
    recorded = torch.tensor([4.1761888, 7.3418044, 15.1865095], dtype=torch.float64)
    torch.testing.assert_close(features.double().sum(1), recorded, rtol=1e-4, atol=0)


def test_encoder_features_are_the_scaled_latents_in_any_batch(monkeypatch):
    images, own = some_images(), small_codec(0.5)
    features = load_features("encoder", own, 32, CPU)
    assert features.name == "encoder"
    assert torch.equal(features(images), own.encode(images).flatten(1))
    monkeypatch.setattr("advloop.evaluation.features.BATCH", 2)
    torch.testing.assert_close(features(images), own.encode(images).flatten(1))


@pytest.fixture
def package(monkeypatch):
    """A torch-fidelity whose network's one feature is the mean of the pixels."""

    class Network(torch.nn.Module):
        def __init__(self, name, wanted, feature_extractor_weights_path):
            super().__init__()
            assert (name, wanted) == ("inception-v3-compat", ["2048"])
            self.weight = torch.nn.Parameter(torch.zeros(1))
            # The real one unpickles whatever it is given, so it must never be given a user's file.
            assert not isinstance(feature_extractor_weights_path, str | Path)
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))

        def forward(self, pixels):
            assert pixels.dtype == torch.uint8
            assert pixels.shape[1] == 3
            assert not self.training
            return ((self.weight * pixels.float()).mean((2, 3)),)

    module = SimpleNamespace(URL_INCEPTION_V3=ADDRESS, FeatureExtractorInceptionV3=Network)
    monkeypatch.setitem(sys.modules, PACKAGE, SimpleNamespace(**{MODULE: module}))
    monkeypatch.setitem(sys.modules, f"{PACKAGE}.{MODULE}", module)


@pytest.mark.usefixtures("package")
def test_inception_sees_the_pixels_as_they_are_in_any_batch(monkeypatch):
    asked = []

    def download(address, **options):
        asked.append((address, options["check_hash"], options["weights_only"]))
        return {"weight": torch.ones(1)}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    monkeypatch.setattr("advloop.evaluation.feature_batches.CPU_BATCH", 2)
    features = load_features("inception", small_codec(), 32, CPU)
    found = features(some_images())
    assert features.name == "inception"
    expected = torch.from_numpy(some_images()).float().mean((1, 2))
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert asked == [(ADDRESS, True, True)]


def test_inception_that_is_not_installed_is_one_line_that_says_how(monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(UserError, match=r"run `uv sync --extra inception`") as caught:
        load_features("inception", small_codec(), 32, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    "error", [URLError("Name or service not known"), RuntimeError("invalid hash value\n(…)")]
)
def test_weights_that_cannot_be_downloaded_are_one_line_that_says_where_they_go(
    monkeypatch, tmp_path, error
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    place = tmp_path / "checkpoints/weights-inception-6726825d.pth"
    with pytest.raises(UserError, match=f"put {ADDRESS} at {place}") as caught:
        load_features("inception", small_codec(), 32, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("package")
def test_inception_of_a_local_file_asks_nobody_for_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)  # a call would fail
    torch.save({"weight": torch.full((1,), 2.0)}, tmp_path / "a.pt")
    features = load_features("inception", small_codec(), 32, CPU, f"{tmp_path}/a.pt")
    expected = 2 * torch.from_numpy(some_images()).float().mean((1, 2))
    torch.testing.assert_close(features(some_images()), expected)


NO_WEIGHTS: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "No such file"),
    "empty": (b"", "it holds more than tensors or is damaged"),
    "code": (pickled({"weight": Code()}), "it holds more than tensors or is damaged"),
    "truncated": (pickled({"weight": torch.ones(1)})[:-300], "zip"),
    "another shape": (pickled({"weight": torch.ones(2)}), "size mismatch"),
    "another name": (pickled({"other": torch.ones(1)}), "Missing key"),
    "no names": (pickled(torch.ones(1)), "dict"),
    "NaN": (pickled({"weight": torch.full((1,), torch.nan)}), "it holds NaN or infinity"),
}


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_file_without_the_weights_of_inception_is_one_line_that_names_it(
    tmp_path, monkeypatch, case
):
    content, reason = NO_WEIGHTS[case]
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("a.pt").write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        load_features("inception", small_codec(), 32, CPU, "a.pt")
    message = str(caught.value)
    assert message.startswith("evaluate.feature_weights=a.pt: no weights of Inception-v3 (")
    assert f"; put {ADDRESS} at a.pt, or set evaluate.features=lite0" in message
    assert "\n" not in message
    assert not Path("executed").exists()


# --- DINOv2 ---

FITS = {kind: set[str]() for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}


class Transformers:
    """A package whose DINOv2's class token is the mean of the pixels that it is given."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.report, self.weight = FITS, 1.0
        self.silenced: set[str] = set()

    def from_pretrained(self, folder: Path, **options: Any) -> tuple[torch.nn.Module, Any]:
        self.options = options | {"folder": folder}
        return Means(self.weight), self.report


class Means(torch.nn.Module):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([weight]))

    def forward(self, pixels: torch.Tensor) -> SimpleNamespace:
        assert pixels.shape[1:] == (3, 56, 56)
        assert not self.training
        return SimpleNamespace(pooler_output=(self.weight * pixels).mean((2, 3)))


@pytest.fixture
def transformers(monkeypatch) -> Transformers:
    fake = Transformers()
    logging = SimpleNamespace(
        set_verbosity_error=lambda: fake.silenced.add("log"),
        disable_progress_bar=lambda: fake.silenced.add("bar"),
    )
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(Dinov2Model=fake))
    monkeypatch.setitem(sys.modules, "transformers.utils", SimpleNamespace(logging=logging))
    return fake


@pytest.fixture
def folder(tmp_path, monkeypatch) -> str:
    """A DINOv2's folder without its weights."""
    monkeypatch.chdir(tmp_path)
    Path("dinov2").mkdir()
    config = {"model_type": "dinov2", "patch_size": 14}
    Path("dinov2/config.json").write_text(json.dumps(config))
    return "dinov2"


def imagenet(images: np.ndarray, size: int) -> torch.Tensor:
    """Pixels as DINOv2's own preparation makes them: Pillow's bicubic, then mean and deviation."""
    bicubic = Image.Resampling.BICUBIC
    sized = [Image.fromarray(image).resize((size, size), bicubic) for image in images]
    pixels = np.stack([np.array(image) for image in sized]) / 255
    normal = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.from_numpy(normal).float().permute(0, 3, 1, 2)


def test_dinov2_sees_resized_and_normalised_pixels_in_any_batch(monkeypatch, transformers, folder):
    monkeypatch.setattr("advloop.evaluation.feature_batches.CPU_BATCH", 2)
    features = load_features("dinov2", small_codec(), 56, CPU, folder)
    found = features(some_images())
    assert features.name == "dinov2"
    # Pillow rounds to whole levels of 255.
    torch.testing.assert_close(found, imagenet(some_images(), 56).mean((2, 3)), rtol=0, atol=2e-3)
    assert not found.requires_grad
    assert transformers.silenced == {"log", "bar"}


def test_dinov2_is_read_from_the_disk_and_from_safetensors_alone(transformers, folder):
    load_features("dinov2", small_codec(), 56, CPU, folder)
    options = transformers.options
    assert options["folder"] == Path(folder)
    assert options["local_files_only"] is True
    assert options["use_safetensors"] is True
    assert options["dtype"] == torch.float32
    assert options["attn_implementation"] == "sdpa"  # config.json could name code of a hub


def refused(folder: str | None, size: int = 56) -> str:
    with pytest.raises(UserError) as caught:
        load_features("dinov2", small_codec(), size, CPU, folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.usefixtures("transformers")
def test_dinov2_without_weights_is_one_line_that_says_what_to_set():
    assert "set evaluate.feature_weights to the folder that transformers'" in refused(None)


@pytest.mark.usefixtures("transformers")
def test_size_that_the_patches_of_dinov2_do_not_fill_is_one_line(folder):
    assert refused(folder, 50).startswith("evaluate.feature_size=50 is not a multiple of 14")


def test_dinov2_that_does_not_fit_its_config_or_is_not_finite_is_refused(transformers, folder):
    for kind in FITS:
        transformers.report = FITS | {kind: {"layernorm.bias"}}
        assert "dinov2: not a DINOv2 (its weights do not match its config.json)" in refused(folder)
    transformers.report, transformers.weight = FITS, float("inf")
    assert "dinov2: not a DINOv2 (its weights hold NaN or infinity)" in refused(folder)


def test_transformers_that_is_not_installed_is_one_line_that_says_how(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "run `uv sync --extra dinov2`, or set evaluate.features=lite0" in refused(folder)


def test_dinov2_of_transformers_itself_gives_its_class_token_and_never_unpickles(
    tmp_path, monkeypatch
):
    """Runs where the extra dinov2 is installed."""
    package = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = package.Dinov2Config(image_size=28, patch_size=14, **shape)
    network = package.Dinov2Model(config).eval()
    network.save_pretrained("dinov2")
    found = load_features("dinov2", small_codec(), 56, CPU, "dinov2")(some_images())
    with torch.no_grad():
        tokens = network(imagenet(some_images(), 56)).last_hidden_state[:, 0]
    torch.testing.assert_close(found, tokens, rtol=0, atol=5e-3)
    assert found.std(0).mean() > 0.05
    file = Path("dinov2/config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_size": 32}))
    assert "its weights do not match its config.json" in refused("dinov2")
    weights = Path("dinov2/model.safetensors")
    weights.write_bytes(pickled({"a": Code()}))
    assert refused("dinov2").startswith("evaluate.feature_weights=dinov2: not a DINOv2 (")
    weights.rename("dinov2/pytorch_model.bin")
    assert refused("dinov2").startswith("evaluate.feature_weights=dinov2: not a DINOv2 (")
    assert not Path("executed").exists()

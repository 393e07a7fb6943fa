"""Each network of image features: what it sees, and what a user reads if it is missing."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import get_args
from urllib.error import URLError

import numpy as np
import pytest
import torch
from small_evaluation import small_codec

from advloop.core.errors import UserError
from advloop.evaluation.features import NETWORKS, image_features, load_features, load_network
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
    network = load_network(CPU)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    alone = image_features(network, some_images()[1:2], 32, CPU)
    torch.testing.assert_close(alone[0], whole[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)


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
        def __init__(self, name, wanted):
            super().__init__()
            assert (name, wanted) == ("inception-v3-compat", ["2048"])
            self.weight = torch.nn.Parameter(torch.ones(1))

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

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    monkeypatch.setattr("advloop.evaluation.features.BATCH", 2)
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

"""Class conditions: every part of a round heeds the labels of its images."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from refusal import refusal
from small_diffusion import make_criterion, make_setup, run
from small_params import UNET, diffusion_params
from tiny_unet import CONFIG

from advloop.diffusion.criterion import held_out
from advloop.diffusion.predictions import predict_latents
from advloop.diffusion.processes import process_of
from advloop.evaluation.metrics import measure_classes
from advloop.models.base_model import import_base
from advloop.models.denoiser import Denoiser, build_denoiser
from advloop.models.discriminator import Discriminator
from advloop.params.training import GenerateParams
from advloop.training.batches import Side

CPU = torch.device("cpu")
PROCESS = process_of(diffusion_params())


# --- Fakes ---


def test_predictions_start_from_training_latents_of_their_class():
    """Network and latents both say the class, so that one that is mixed up stands out."""
    train_labels = torch.tensor([0, 1, 2] * 8)
    train = train_labels.float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    samples = torch.tensor([2, 2, 0, 1] * 5)
    process = process_of(diffusion_params("sample"))

    def network(noisy, _, labels):
        return 10.0 * labels.view(-1, 1, 1, 1) + noisy.mean((1, 2, 3), keepdim=True).round()

    settings = GenerateParams(  # alpha_bar of 0.999: hardly noised
        num_samples=20, num_inference_steps=1, batch_size=6, predicted_min_alpha_bar=0.999
    )
    parts = predict_latents(
        network, train, settings, process, 0, 0, "fp32", CPU, list, labels=(train_labels, samples)
    )
    assert torch.cat(list(parts)).flatten().tolist() == (11.0 * samples).tolist()


def test_logit_of_a_class_is_the_common_one_plus_the_product_with_its_vector():
    torch.manual_seed(0)
    model = Discriminator(4, [8], 0.0, num_classes=3).eval()
    plain = Discriminator(4, [8], 0.0).eval()
    latents, labels = torch.randn(5, 4, 8, 8), torch.tensor([0, 1, 2, 1, 0])
    state = {k: v for k, v in model.state_dict().items() if k != "class_vectors.weight"}
    plain.load_state_dict(state)
    torch.testing.assert_close(model(latents, None, labels), plain(latents))
    torch.nn.init.normal_(model.class_vectors.weight)
    pooled = model.features(latents).mean((2, 3))
    expected = plain(latents) + (pooled * model.class_vectors.weight[labels]).sum(1)
    torch.testing.assert_close(model(latents, None, labels), expected)
    with pytest.raises(ValueError, match="labels"):
        model(latents)
    assert torch.equal(plain(latents, None, labels), plain(latents)), "labels of captions"


# --- The diffusion model ---


def test_network_learns_what_its_classes_look_like():
    labels = torch.tensor([0, 1] * 16)
    latents = torch.where(labels > 0, 1.0, -1.0).view(-1, 1, 1, 1).expand(-1, 4, 8, 8).clone()
    criterion = make_criterion(prediction_type="sample")
    setup = make_setup(criterion, epochs=12, learning_rate=1e-2, samples_per_epoch=32)
    setup = replace(setup, train=Side(latents, labels), val=Side(latents, labels))
    denoiser = build_denoiser(CONFIG | {"num_class_embeds": 2}, seed=0)
    run(setup, denoiser)
    right, wrong = (
        held_out(criterion, denoiser, latents, 0, 16, labels=conditions)["loss"]
        for conditions in (labels, 1 - labels)
    )
    assert right < 0.8 * wrong


def test_class_conditional_network_is_imported_if_the_images_have_its_classes(tmp_path):
    saved = Denoiser(CONFIG | {"num_class_embeds": 2})
    saved.network.save_pretrained(tmp_path / "classes")
    Denoiser(CONFIG).network.save_pretrained(tmp_path / "plain")
    torch.save(saved.network.state_dict(), tmp_path / "classes.pt")
    for path in (tmp_path / "classes", tmp_path / "classes.pt"):
        made = import_base(path, (4, 8, 8), UNET, PROCESS, ("day", "night"))
        assert torch.equal(
            made.network.class_embedding.weight, saved.network.class_embedding.weight
        )
    for name, classes in (("classes", ()), ("classes", ("a", "b", "c")), ("plain", ("a", "b"))):
        message = refusal(import_base, tmp_path / name, (4, 8, 8), UNET, PROCESS, classes)
        assert f"knows {2 * (name == 'classes')} classes" in message
        assert f"have {len(classes)};" in message


def test_exported_model_starts_no_run_whose_classes_have_other_names(tmp_path):
    folder = tmp_path / "final/unet"
    Denoiser(CONFIG | {"num_class_embeds": 2}).network.save_pretrained(folder)
    (tmp_path / "final/classes.json").write_text(json.dumps(["day", "night"]))
    for path in (folder, folder.parent):
        import_base(path, (4, 8, 8), UNET, PROCESS, ("day", "night"))
        message = refusal(import_base, path, (4, 8, 8), UNET, PROCESS, ("dusk", "night"))
        assert "dusk, night" in message
        assert str(tmp_path / "final/classes.json") in message


# --- The metric ---


def test_kid_of_each_class_sees_labels_that_are_not_heeded():
    stream = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1] * 20)
    centre = torch.where(labels > 0, 3.0, -3.0)[:, None]
    real, heeding = (torch.randn(40, 8, generator=stream) + centre for _ in range(2))

    def kid_of(samples):
        (score,) = measure_classes([samples], [labels], real, labels, "net")
        return score.values[0]

    assert abs(kid_of(heeding)) < 0.1 * kid_of(heeding.roll(1, 0))
    alone = measure_classes([heeding[:2]], [labels[:2]], real, labels, "net")
    assert alone == [], "one sample of a class has no KID"

"""The base model that a user brings: what is taken from its folder or file, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_project
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DModel
from omegaconf import OmegaConf
from refusal import refusal
from small_params import EDM, FLOW, UNET, diffusion_params
from stage_runner import ROUND, START, run_stage
from tiny_autoencoders import UNET_LIKE
from tiny_denoisers import TINY_TEXT_UNET, plain_network
from tiny_unet import CONFIG

from advloop.diffusion.processes import process_of
from advloop.diffusion.sampling import condition_on_labels, sample
from advloop.export.schedulers import scheduler_config
from advloop.models.autoencoder import load_codec
from advloop.models.base_model import import_base, read_config
from advloop.models.codec import Codec
from advloop.models.denoiser import Denoiser, build_denoiser, load_checkpoint, save_checkpoint
from advloop.models.discriminator import load_discriminator
from advloop.params.diffusion import DiffusionParams, UNetParams
from advloop.params.schedulers import check_scheduler, find_scheduler

SHAPE = (4, 8, 8)
V = diffusion_params("v_prediction")
LINEAR = diffusion_params("epsilon", "linear")
PROCESSES = [
    V,
    LINEAR,
    diffusion_params("sample", "scaled_linear", num_train_timesteps=200),
    diffusion_params("epsilon", "scaled_linear", beta_start=0.0015, beta_end=0.0195),
]


def scheduler_of(process: DiffusionParams) -> DDIMScheduler:
    start, end = process.betas() or (1e-4, 0.02)
    return DDIMScheduler(
        num_train_timesteps=process.num_train_timesteps,
        beta_schedule=process.beta_schedule,
        prediction_type=process.prediction_type,
        beta_start=start,
        beta_end=end,
        rescale_betas_zero_snr=process.zero_terminal_snr,
        clip_sample=False,
        timestep_spacing="trailing",
    )


@pytest.fixture
def unet() -> UNet2DModel:
    return build_denoiser(CONFIG, seed=3).network


@pytest.fixture
def pipeline(tmp_path, unet) -> Path:
    """The folder of a diffusers pipeline with v-prediction and the cosine schedule."""
    unet.save_pretrained(tmp_path / "unet")
    scheduler_of(V).save_pretrained(tmp_path / "scheduler")
    return tmp_path


def load(path: Path, process: DiffusionParams = V, unet: UNetParams = UNET) -> Denoiser:
    return import_base(path, SHAPE, unet, process)


def same_weights(denoiser: Denoiser, unet: UNet2DModel) -> bool:
    ours = denoiser.network.state_dict()
    return all(torch.equal(value, ours[name]) for name, value in unet.state_dict().items())


# --- The diffusion process ---


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: f"{p.prediction_type}-{p.betas()}")
def test_an_imported_unet_samples_what_diffusers_samples_with_its_own_scheduler(process, pipeline):
    scheduler_of(process).save_pretrained(pipeline / "scheduler")
    noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    ours = sample(process_of(process), load(pipeline, process).eval(), noise, 4)
    unet = UNet2DModel.from_pretrained(pipeline / "unet", low_cpu_mem_usage=False).eval()
    scheduler = DDIMScheduler.from_pretrained(pipeline / "scheduler")
    scheduler.set_timesteps(4)
    theirs = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            theirs = scheduler.step(unet(theirs, t).sample, t, theirs).prev_sample
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3 * float(theirs.abs().max()))


@pytest.mark.parametrize(
    ("theirs", "ours", "fix"),
    [
        (diffusion_params("sample"), V, "prediction_type=sample"),
        (LINEAR, diffusion_params(beta_schedule="linear"), "prediction_type=epsilon"),
        (diffusion_params(num_train_timesteps=500), V, "num_train_timesteps=500"),
        (diffusion_params(beta_schedule="linear"), V, "beta_schedule=linear"),
        (diffusion_params(beta_schedule="scaled_linear"), V, "beta_schedule=scaled_linear"),
        (diffusion_params("epsilon", "linear", beta_start=0.01), LINEAR, "beta_start=0.01"),
        (diffusion_params("epsilon", "linear", beta_end=0.01), LINEAR, "beta_end=0.01"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_scheduler_of_another_process_is_refused_with_the_parameter_to_set(
    pipeline, theirs, ours, fix
):
    scheduler_of(theirs).save_pretrained(pipeline / "scheduler")
    message = refusal(load, pipeline, ours)
    assert f"set diffusion.{fix} in conf/config.yaml" in message
    assert f"{pipeline / 'scheduler/scheduler_config.json'}" in message
    load(pipeline, theirs)


PIPELINES = {  # what else diffusers' schedulers of today's models say
    "sd3": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    "heun": {"_class_name": "FlowMatchHeunDiscreteScheduler"},
    "sana": {
        "_class_name": "DPMSolverMultistepScheduler",
        "beta_schedule": "linear",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 3.0,
    },
    "edm": {"_class_name": "EDMEulerScheduler", "sigma_data": 0.5},
    "edm multistep": {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5},
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_flow_or_edm_is_never_taken_for_a_variance_preserving_process(pipeline, name):
    file = pipeline / "scheduler/scheduler_config.json"
    file.write_text(json.dumps(PIPELINES[name]))
    message = refusal(load, pipeline)
    process, ours = ("edm", EDM) if "edm" in name else ("flow", FLOW)
    assert f"diffusion.process=vp, but {pipeline} was trained as {process} ({file})" in message
    assert f"-S diffusion={process} -S base.pretrained={pipeline} -S diffusion." in message
    load(pipeline, ours)
    scheduler_of(V).save_pretrained(pipeline / "scheduler")
    message = refusal(load, pipeline, ours)
    assert "-S diffusion=vp " in message
    assert "beta_start" not in message
    scheduler_of(LINEAR).save_pretrained(pipeline / "scheduler")
    assert "-S diffusion.beta_start=0.0001" in refusal(load, pipeline, ours)


def test_all_contradictions_of_a_scheduler_are_named_at_once(pipeline):
    theirs = diffusion_params("sample", "linear", num_train_timesteps=500, zero_terminal_snr=True)
    scheduler_of(theirs).save_pretrained(pipeline / "scheduler")
    message = refusal(load, pipeline)
    for name in ("num_train_timesteps=1000", "beta_schedule=squaredcos_cap_v2"):
        assert f"diffusion.{name}" in message
    for name in ("num_train_timesteps=500", "beta_schedule=linear", "prediction_type=sample"):
        assert f"-S diffusion.{name}" in message
    assert "-S diffusion.zero_terminal_snr=true" in message
    load(pipeline, theirs)


@pytest.mark.parametrize("ours", [V, diffusion_params("epsilon"), LINEAR])
def test_a_unet_that_predicts_epsilon_on_the_cosine_schedule_is_refused_by_any_run(pipeline, ours):
    scheduler_of(diffusion_params("epsilon")).save_pretrained(pipeline / "scheduler")
    message = refusal(load, pipeline, ours)
    assert message.startswith(f"{pipeline / 'scheduler/scheduler_config.json'}: ")
    assert "predicts epsilon with beta_schedule=squaredcos_cap_v2" in message
    assert "set base.pretrained to another model, or to null" in message


@pytest.mark.parametrize("betas", [{}, {"beta_start": 1e-4, "beta_end": 0.02}, {"beta_end": 0.02}])
def test_the_usual_betas_are_the_same_named_or_not(pipeline, betas):
    scheduler_of(LINEAR).save_pretrained(pipeline / "scheduler")
    check_scheduler(pipeline, diffusion_params("epsilon", "linear", **betas))


@pytest.mark.parametrize("place", ["pipeline", "unet", "state dict", "beside the unet"])
def test_the_scheduler_is_found_wherever_the_model_is_named(pipeline, unet, place):
    model = pipeline if place == "pipeline" else pipeline / "unet"
    if place == "state dict":
        model = pipeline / "unet.pt"
        torch.save(unet.state_dict(), model)
    elif place == "beside the unet":
        (pipeline / "scheduler/scheduler_config.json").rename(model / "scheduler_config.json")
        (pipeline / "scheduler").rmdir()
    assert find_scheduler(model) is not None
    load(model)
    message = refusal(load, model, diffusion_params("sample"))
    assert "set diffusion.prediction_type=v_prediction" in message


def test_a_model_without_a_scheduler_is_accepted_for_any_process(tmp_path, unet):
    unet.save_pretrained(tmp_path / "unet")
    for process in PROCESSES:
        load(tmp_path / "unet", process)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", ""),
        ("[]", "it holds no settings"),
        ('{"_class_name": "ScoreSdeVeScheduler"}', "ScoreSdeVeScheduler has no beta_schedule"),
        ("{}", "it has no beta_schedule and is neither a flow nor EDM"),
        ('{"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": true}', "invert_si"),
        ('{"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}', "sample is none of"),
        ('{"beta_schedule": "sigmoid"}', "beta_schedule=sigmoid"),
        ('{"beta_schedule": ["linear"]}', "beta_schedule="),
        ('{"beta_schedule": "linear", "prediction_type": "score"}', "prediction_type=score"),
        ('{"beta_schedule": "linear", "trained_betas": [0.1, 0.2]}', "trained_betas"),
        ('{"beta_schedule": "linear", "rescale_betas_zero_snr": true}', "with rescale_betas_zero_"),
        ("[" * 100_000, ""),
        ("\udcff", ""),
    ],
    ids=lambda text: text[:50].encode(errors="replace"),
)
def test_a_scheduler_that_no_parameter_expresses_is_refused(tmp_path, content, says):
    file = tmp_path / "scheduler_config.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    message = refusal(check_scheduler, tmp_path, V)
    assert message.startswith(f"{file}: ")
    assert says in message


def test_values_that_a_scheduler_leaves_out_are_those_of_diffusers(tmp_path):
    (tmp_path / "scheduler_config.json").write_text('{"beta_schedule": "linear"}')
    default = DDPMScheduler().config
    check_scheduler(
        tmp_path,
        diffusion_params(
            default.prediction_type, "linear", num_train_timesteps=default.num_train_timesteps
        ),
    )


# --- Folders ---


@pytest.mark.parametrize("sample_size", [None, 8, [8, 8]])
def test_a_unet_fits_the_run_however_it_names_its_size_and_survives_a_checkpoint(
    tmp_path, sample_size
):
    unet = UNet2DModel(**CONFIG | {"sample_size": sample_size})
    unet.save_pretrained(tmp_path / "unet")
    denoiser = load(tmp_path / "unet")
    assert denoiser.latent_shape == SHAPE
    save_checkpoint(tmp_path / "base.pt", denoiser)
    assert same_weights(load_checkpoint(tmp_path / "base.pt"), unet)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sample_size": 16}, "[4, 16, 16]"),
        ({"in_channels": 16, "out_channels": 16}, "[16, 8, 8]"),
        ({"out_channels": 6}, "its 6 out_channels are neither its 4 in_channels nor"),
        ({"num_class_embeds": 10, "class_embed_type": "timestep"}, "takes classes as timestep"),
        ({"time_embedding_type": "fourier"}, "takes noise levels (fourier), not timesteps"),
    ],
    ids=str,
)
def test_a_unet_for_other_inputs_or_outputs_is_refused(tmp_path, changes, says):
    UNet2DModel(**CONFIG | changes).save_pretrained(tmp_path)
    message = refusal(load, tmp_path)
    assert message.startswith(f"base.pretrained={tmp_path}: ")
    assert says in message


def test_a_unet_that_was_trained_on_other_timesteps_is_refused(tmp_path):
    unet = UNet2DModel(**CONFIG, time_embedding_type="learned", num_train_timesteps=50)
    unet.save_pretrained(tmp_path)
    assert "diffusion.num_train_timesteps" in refusal(load, tmp_path)
    load(tmp_path, diffusion_params(num_train_timesteps=50))


@pytest.mark.parametrize(
    "changes",
    [
        {"block_out_channels": [8, 32]},  # other shapes
        {"layers_per_block": 2},
        {"norm_num_groups": 3},  # does not divide the channels
        {"down_block_types": ["NoSuchBlock", "DownBlock2D"]},
        None,  # no folder at all
    ],
    ids=str,
)
def test_a_folder_whose_weights_do_not_match_its_configuration_is_refused(pipeline, changes):
    file = pipeline / "unet/config.json"
    if changes is None:
        shutil.rmtree(pipeline / "unet")
    else:
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    message = refusal(load, pipeline / "unet")
    assert message.startswith(f"base.pretrained={pipeline / 'unet'}: cannot be loaded")


@pytest.mark.parametrize("process", [LINEAR, FLOW, EDM], ids=lambda p: p.process)
@pytest.mark.parametrize("name", ["dit with classes", "dit with sigma"])
def test_a_transformer_of_diffusers_samples_as_its_own_scheduler_does(tmp_path, name, process):
    plain = plain_network(name)
    plain.save_pretrained(tmp_path / "transformer")
    config = scheduler_config(process)
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text(json.dumps(config))
    model = import_base(tmp_path, SHAPE, UNET, process, ("a", "b", "c")).eval()
    assert all(torch.equal(v, model.weights()[k]) for k, v in plain.state_dict().items())
    labels = torch.tensor([0, 2])
    noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    ours = sample(process_of(process), condition_on_labels(model, labels), noise, 3)
    import diffusers

    scheduler = getattr(diffusers, config["_class_name"]).from_pretrained(tmp_path / "scheduler")
    more = {"sigmas": [1, 2 / 3, 1 / 3]} if process is FLOW else {"num_inference_steps": 3}
    scheduler.set_timesteps(**more)
    theirs = noise * (scheduler.init_noise_sigma if process is EDM else 1)
    with torch.no_grad():
        for t in scheduler.timesteps:
            seen = scheduler.scale_model_input(theirs, t) if process is EDM else theirs
            output = plain(seen, t.expand(2), labels).sample[:, :4]
            theirs = scheduler.step(output, t, theirs).prev_sample
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3 * float(theirs.abs().max()))


def test_a_transformer_that_diffusers_once_saved_under_another_name_is_one(tmp_path):
    plain_network("dit with classes").save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"_class_name": "Transformer2DModel"}))
    assert import_base(tmp_path, SHAPE, UNET, V).config["_class_name"] == content["_class_name"]
    file.write_text(json.dumps(content | {"_class_name": "Transformer2DModel", "norm_type": "x"}))
    assert "its class is Transformer2DModel, not UNet2DModel or DiT" in refusal(load, tmp_path)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("Transformer2DModel", {"cross_attention_dim": 8}),
        ("PixArtTransformer2DModel", {"caption_channels": 8}),
        ("SD3Transformer2DModel", {"joint_attention_dim": 8}),
    ],
)
def test_a_model_of_texts_is_refused_with_its_class_and_the_reason(tmp_path, name, config):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": name, **config}))
    message = refusal(load, tmp_path)
    known = "UNet2DModel or DiTTransformer2DModel or UNet2DConditionModel"
    assert f"its class is {name}, not {known}" in message
    assert "it is conditioned on text, as which this project knows" in message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"addition_embed_type": "text_time"}, "addition_embed_type=text_time asks for conditions"),
        ({"class_embed_type": "projection"}, "class_embed_type=projection asks for"),
        ({"num_class_embeds": 3}, "num_class_embeds=3 asks for"),
        ({"time_cond_proj_dim": 8}, "time_cond_proj_dim=8 asks for"),
        ({"encoder_hid_dim_type": "image_proj"}, "encoder_hid_dim_type=image_proj asks for"),
        ({"attention_type": "gated"}, "attention_type=gated asks for"),
        ({"time_embedding_type": "fourier"}, "takes the time as fourier"),
        ({"cross_attention_dim": [8, 16]}, "cross_attention_dim=[8, 16] is not one number"),
        ({"in_channels": 9}, "4 out_channels are neither its 9 in_channels nor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_network_of_texts_that_asks_for_more_is_refused_with_the_setting(tmp_path, changes, says):
    (tmp_path / "config.json").write_text(json.dumps(TINY_TEXT_UNET | changes))
    assert says in refusal(read_config, tmp_path)


def test_a_network_of_texts_keeps_its_weights_and_its_embeddings_have_one_width(tmp_path):
    plain = plain_network("text unet")
    plain.save_pretrained(tmp_path / "unet")
    model = import_base(tmp_path, SHAPE, UNET, V)
    assert all(torch.equal(v, model.weights()[k]) for k, v in plain.state_dict().items())
    architecture = model.architecture
    for changes in ({}, {"cross_attention_dim": [8, 8]}, {"encoder_hid_dim": 8}):
        assert architecture.context_width(model.config | changes) == 8


def test_a_flow_needs_a_network_that_takes_any_time(tmp_path):
    unet = UNet2DModel(**CONFIG, time_embedding_type="learned", num_train_timesteps=1000)
    unet.save_pretrained(tmp_path)
    assert "learned time_embedding_type knows whole timesteps alone" in refusal(
        load, tmp_path, FLOW
    )


# --- Files ---


def test_a_state_dict_is_the_network_that_the_params_describe(tmp_path, unet):
    torch.save(unet.state_dict(), tmp_path / "unet.pt")
    assert same_weights(load(tmp_path / "unet.pt"), unet)


def test_a_checkpoint_of_this_project_is_a_base_model_whatever_the_params_say(tmp_path):
    path, denoiser = tmp_path / "best.pt", build_denoiser(CONFIG, seed=3)
    save_checkpoint(path, denoiser)
    other = UNetParams(
        block_out_channels=[32], layers_per_block=1, attention_levels=[], norm_num_groups=4
    )
    assert same_weights(load(path, unet=other), denoiser.network)
    assert "[4, 16, 16]" in refusal(import_base, path, (4, 16, 16), UNET, V)


# --- A run ---


def test_a_round_starts_from_a_pipeline_of_three_channels_with_a_scale_and_a_shift_of_each(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(make_project(tmp_path))
    monkeypatch.setenv("ADVLOOP_DEVICE", "cpu")
    mean, std = [0.125, 0.0, -0.5], [0.5, 1.0, 2.0]
    autoencoder = UNET_LIKE | {"latent_channels": 3, "scaling_factor": 0.01}
    autoencoder |= {"latents_mean": mean, "latents_std": std}
    AutoencoderKL(**autoencoder).save_pretrained("mine/vae")
    unet = UNet2DModel(**CONFIG | {"in_channels": 3, "out_channels": 3})
    unet.save_pretrained("mine/unet")
    scheduler_of(LINEAR).save_pretrained("mine/scheduler")
    content = OmegaConf.load("params.yaml")
    content.autoencoder.update(pretrained="mine", latent_channels=3, factor=2)
    content.base.pretrained = "mine"
    content.diffusion.update(beta_schedule="linear", prediction_type="epsilon")
    OmegaConf.save(content, "params.yaml")
    for stage, options in (START | ROUND).items():
        run_stage(stage, options, monkeypatch)
    assert "root mean square of 0.0" in capsys.readouterr().err
    stats = json.loads(Path("latents/stats.json").read_text())
    assert (stats["latent_scale"], stats["latent_shift"]) == ([0.02, 0.01, 0.005], mean)
    assert stats["latent_shape"] == [3, 8, 8]
    assert same_weights(load_checkpoint(Path("base/checkpoint_best.pt")), unet)
    latents = torch.load("latents/train.pt", weights_only=True)
    splits = [line.split(",")[-1] for line in Path("data/manifest.csv").read_text().split()[1:]]
    first = np.load("data/images.npy")[splits.index("train")][None]
    codec = load_codec(Path("autoencoder"), Path("latents"), torch.device("cpu"))
    torch.testing.assert_close(latents[:1], codec.encode(first))
    plain = Codec(codec.model).encode(first)
    expected = (plain - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None] * 0.01
    torch.testing.assert_close(latents[:1], expected)
    discriminator = load_discriminator(Path("discriminator/discriminator_best.pt"), 3)
    assert discriminator.config["in_channels"] == 3

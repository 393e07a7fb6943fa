"""The smallest models of texts, as diffusers and transformers themselves save them."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_denoisers import tiny_denoiser

TOKENS, WIDTH = 12, 8
ENCODERS = {"clip": ("CLIPTextModel", "CLIPTokenizer"), "t5": ("T5EncoderModel", "T5Tokenizer")}


def clip() -> tuple[Any, Any]:
    """A tokenizer whose tokens are letters, and an encoder of it."""
    transformers = pytest.importorskip("transformers")
    letters = [*string.ascii_lowercase, *string.digits]
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {name: index for index, name in enumerate(names)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=TOKENS)
    config = transformers.CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=len(vocab) - 2,
        eos_token_id=len(vocab) - 1,
        pad_token_id=len(vocab) - 1,
    )
    return tokenizer, transformers.CLIPTextModel(config)


def t5() -> tuple[Any, Any]:
    transformers = pytest.importorskip("transformers")
    pieces = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_lowercase]
    vocab = [(piece, -float(index)) for index, piece in enumerate(pieces)]
    tokenizer = transformers.T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=TOKENS)
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=4, d_ff=8, num_layers=2, num_heads=2
    )
    return tokenizer, transformers.T5EncoderModel(config)


def save_encoder(folder: Path, kind: str = "clip") -> Path:
    """``folder`` with text_encoder/ and tokenizer/, as a pipeline has them."""
    torch.manual_seed(1)
    tokenizer, encoder = {"clip": clip, "t5": t5}[kind]()
    for weight in encoder.parameters():  # the initial ones hardly tell two texts apart
        torch.nn.init.normal_(weight, std=0.5)
    encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def save_text_unet(folder: Path, **changes: Any) -> Path:
    """``folder`` with the tiny text-conditional U-Net in unet/."""
    import diffusers

    denoiser = tiny_denoiser("text unet")
    config = {k: v for k, v in (denoiser.config | changes).items() if k != "_class_name"}
    network = diffusers.UNet2DConditionModel(**config)
    if not changes.keys() - {"sample_size"}:
        network.load_state_dict(denoiser.weights())
    network.save_pretrained(folder / "unet")
    return folder

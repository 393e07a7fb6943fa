"""From texts to what a text-conditional denoiser is given, as diffusers' pipelines do it.

Stage select puts this file beside a pipeline that needs it: it needs torch, and nothing of the
project.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

T5_TOKENS = 77  # as in DeepFloyd IF; a T5 itself has no limit


def token_limit(tokenizer: Any, encoder: Any) -> int:
    """The number of tokens to which every text is cut or filled up."""
    limit = int(tokenizer.model_max_length)
    return min(limit, T5_TOKENS) if encoder.config.model_type == "t5" else limit


@torch.no_grad()
def encode_texts(tokenizer: Any, encoder: Any, texts: Sequence[str]) -> torch.Tensor:
    """The encoder's last hidden states (B, L, D) of B texts, each of ``token_limit`` L tokens.

    A T5 looks at the tokens of the text alone, a CLIP at all, as both were trained.
    """
    tokens = tokenizer(
        list(texts),
        padding="max_length",
        max_length=token_limit(tokenizer, encoder),
        truncation=True,
        return_tensors="pt",
    )
    masked = encoder.config.model_type == "t5" or getattr(
        encoder.config, "use_attention_mask", False
    )
    mask = tokens.attention_mask.to(encoder.device) if masked else None
    states: torch.Tensor = encoder(tokens.input_ids.to(encoder.device), attention_mask=mask)[0]
    return states

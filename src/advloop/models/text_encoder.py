"""The user's text encoder (``data.text_encoder``): a CLIP or T5 of transformers, and its tokenizer.

Nothing is asked of a hub, and no code in the folder is run. transformers, which takes seconds to
import and may be missing, is imported where a text is encoded alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from advloop.core.errors import UserError
from advloop.core.files import all_finite, copy_file, write_bytes, write_json
from advloop.core.random import batches
from advloop.models.encode_texts import encode_texts, token_limit
from advloop.models.weight_files import WeightFiles, find_weights, read_tensors
from advloop.params.captions import (
    encoder_folder,
    read_encoder,
    tokenizer_folder,
    unusable_encoder,
)

CLASSES = {  # of transformers, by model_type: encoder and tokenizer
    "clip_text_model": ("CLIPTextModel", "CLIPTokenizer"),
    "t5": ("T5EncoderModel", "T5Tokenizer"),
}
STEM = "model"  # of a weights file's name
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "spiece.model"),
    *("special_tokens_map.json", "added_tokens.json"),
)


def load_text_encoder(folder: Path) -> tuple[Any, Any]:
    """(tokenizer, encoder) in the folder, the encoder frozen and in float32; UserError if unusable.

    The folder is as ``params.captions`` describes it.
    """
    kind, _ = read_encoder(folder)
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f"data.captions: transformers, which reads text encoders, is not usable ({error}); run "
            "`uv sync --extra text`, or set data.captions=null and data.text_encoder=null"
        ) from None
    transformers.utils.logging.set_verbosity_error()  # else it lists tensors and long texts
    transformers.utils.logging.disable_progress_bar()
    encoder_class, tokenizer_class = (getattr(transformers, name) for name in CLASSES[kind])
    try:
        weights = _weights(folder)
        encoder, report = encoder_class.from_pretrained(
            encoder_folder(folder),
            local_files_only=True,
            use_safetensors=True,
            variant=weights.variant,
            ignore_mismatched_sizes=True,  # to name them below
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation="eager",  # else config.json may ask for code from a hub
        )
        if report["missing_keys"] or report["mismatched_keys"]:
            raise ValueError("its weights do not match its config.json")
        if not all_finite(encoder.state_dict()):
            raise ValueError("its weights hold NaN or infinity")
        place = tokenizer_folder(folder)
        if not any((place / name).is_file() for name in TOKENIZER_FILES):
            raise ValueError(f"{place} holds no tokenizer")
        tokenizer = tokenizer_class.from_pretrained(place, local_files_only=True)
        _check_tokenizer(tokenizer, encoder)
    except Exception as error:  # a foreign folder can fail in any way
        raise unusable_encoder(folder, " ".join(str(error).split())[:250]) from None
    return tokenizer, encoder.requires_grad_(False).eval()


def _weights(folder: Path) -> WeightFiles:
    weights = find_weights(encoder_folder(folder), STEM)
    if weights.kind != "safetensors":
        raise ValueError(f"{weights.file.name} is a pickle; save the encoder as safetensors")
    return weights


def _check_tokenizer(tokenizer: Any, encoder: Any) -> None:
    """Raise ValueError unless the encoder knows every token, and as many as a text may have."""
    if (tokens := len(tokenizer)) > (known := encoder.config.vocab_size):
        raise ValueError(f"its tokenizer has {tokens} tokens, its encoder knows {known}")
    limit = token_limit(tokenizer, encoder)
    places = getattr(encoder.config, "max_position_embeddings", None)
    if places is not None and limit > places:
        raise ValueError(f"its tokenizer gives up to {limit} tokens, its encoder takes {places}")


def embed_captions(
    tokenizer: Any,
    encoder: Any,
    captions: Sequence[str],
    batch_size: int,
    progress: Callable[[Iterable[range]], Iterable[range]],
) -> tuple[torch.Tensor, int]:
    """Embeddings (K + 1, L, D) float32 of captions and, last, of the empty one.

    Also the number of captions that have more than L tokens, and were cut.
    """
    texts, limit, cut = [*captions, ""], token_limit(tokenizer, encoder), 0
    parts = []
    for part in progress(batches(len(texts), batch_size)):
        own = texts[part.start : part.stop]
        cut += sum(len(ids) > limit for ids in tokenizer(own)["input_ids"])
        parts.append(encode_texts(tokenizer, encoder, own).float().cpu())
    return torch.cat(parts), cut


def export_text_encoder(folder: Path, target: Path) -> dict[str, list[str]]:
    """Write text_encoder/ and tokenizer/ of the folder into ``target``, the encoder in float32.

    So a pipeline has it as this project had, whatever the files hold and config.json says. Returns
    their entries of model_index.json. UserError if a file is missing or damaged.
    """
    from safetensors.torch import save

    kind, _ = read_encoder(folder)
    source, place = encoder_folder(folder), tokenizer_folder(folder)
    try:
        tensors = read_tensors(_weights(folder))
    except (ValueError, OSError) as error:
        raise unusable_encoder(folder, error) from None
    config = json.loads((source / "config.json").read_text())
    config = {k: v for k, v in config.items() if k not in ("dtype", "torch_dtype", "auto_map")}
    write_json(target / "text_encoder" / "config.json", config | {"dtype": "float32"})
    floats = {k: v.float() if v.is_floating_point() else v for k, v in sorted(tensors.items())}
    content = save(floats, metadata={"format": "pt"})
    write_bytes(target / "text_encoder" / f"{STEM}.safetensors", content)
    for name in TOKENIZER_FILES:
        if (place / name).is_file():
            copy_file(place / name, target / "tokenizer" / name)
    parts = zip(("text_encoder", "tokenizer"), CLASSES[kind], strict=True)
    return {part: ["transformers", name] for part, name in parts}

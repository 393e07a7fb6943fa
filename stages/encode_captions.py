"""Stage encode_captions: embed each distinct caption of the images, and the empty one, once."""

from __future__ import annotations

import sys
from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.errors import run_stage

from advloop.core.device import deterministic, pick_device
from advloop.core.errors import UserError, counted
from advloop.data.classes import names_of
from advloop.data.dataset import read_captions
from advloop.infra.progress import bar
from advloop.models.caption_table import save_captions
from advloop.models.text_encoder import embed_captions, load_text_encoder
from advloop.params.data import DataParams, EncodeDatasetParams


def main() -> None:
    args = parse_args(__doc__, captions=Path, out=Path)
    params = load_params("encode_captions")
    folder = params.section("data", DataParams).text_encoder
    if folder is None:
        raise UserError("params.yaml: data.text_encoder is missing; run `make params`")
    captions = names_of(read_captions(args.captions))
    deterministic()
    tokenizer, encoder = load_text_encoder(Path(folder))
    size = params.section("encode_dataset", EncodeDatasetParams).batch_size
    embeddings, cut = embed_captions(
        tokenizer, encoder.to(pick_device()), captions, size, bar("encode_captions")
    )
    save_captions(args.out, embeddings, captions)
    _, tokens, width = embeddings.shape
    print(f"{counted(len(captions), 'caption')} and the empty one, [{tokens}, {width}] each")
    if cut:
        print(
            f"warning: {counted(cut, 'caption')} of more than {tokens} tokens; the rest is unread",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_stage(main, memory="encode_dataset.batch_size")

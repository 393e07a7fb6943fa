"""Stage train_autoencoder: train the autoencoder, or check and import the user's own."""

from __future__ import annotations

from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.errors import run_stage
from _runtime.snapshots import resumable

from advloop.core.device import deterministic, pick_device
from advloop.core.files import write_json
from advloop.data.dataset import load_dataset
from advloop.infra.progress import bar, say
from advloop.models.autoencoder import check_autoencoder, import_autoencoder, save_autoencoder
from advloop.models.codec import Codec
from advloop.params.data import AutoencoderParams, DataParams, EncodeDatasetParams
from advloop.params.run import read_seed
from advloop.training.autoencoder import psnr, train_autoencoder


def main() -> None:
    args = parse_args(__doc__, data=Path, out=Path, metrics=Path)
    params = load_params("train_autoencoder")
    settings = params.section("autoencoder", AutoencoderParams)
    size = params.section("data", DataParams).image_size
    dataset = load_dataset(args.data)
    deterministic()
    if settings.pretrained:
        path = Path(settings.pretrained)
        model, scale, shift = import_autoencoder(path, settings)
        check_autoencoder(path, model.to(pick_device()), settings, size)
    else:
        augmentation = params.section("encode_dataset", EncodeDatasetParams).augment
        seed, scale, shift = read_seed(params), None, 0.0
        with resumable(args, params, "out", "metrics") as resume:
            model = train_autoencoder(
                settings,
                augmentation,
                dataset.images,
                dataset.rows("train"),
                seed,
                pick_device(),
                bar("train_autoencoder"),
                lambda epoch, loss: say(f"Epoch {epoch}/{settings.epochs}: Train Loss={loss:.6f}"),
                resume,
            )
    quality = psnr(Codec(model), dataset.images, dataset.rows("val"), settings.batch_size)
    print(f"Held-out PSNR: {quality:.2f} dB")
    save_autoencoder(args.out, model, scale, shift)
    write_json(args.metrics, {"val_psnr_db": round(quality, 4)})


if __name__ == "__main__":
    run_stage(main, memory="autoencoder.batch_size")

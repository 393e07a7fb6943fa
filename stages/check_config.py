"""Stage check_config: refuse a params.yaml that is stale, contradictory or out of range."""

from __future__ import annotations

from pathlib import Path

from common import load_params, parse_args, run_stage

from advloop.errors import UserError
from advloop.params.loader import Params
from advloop.params.schema import check_params
from hydra_plugins.advloop_derived import derive


def check_derived(params: Params) -> None:
    """Raise UserError where ``derived`` is not what the other values imply."""
    from omegaconf import OmegaConf

    content = params.content
    try:
        expected = derive(
            content.exp_name,
            content.num_iterations,
            content.train_diffusion.epochs,
            content.train_diffusion.sample_interval,
            content.autoencoder.pretrained,
            content.base.pretrained,
        )
    except ValueError as error:
        raise UserError(f"{params.path}: {error}") from None
    found = OmegaConf.to_container(params.section_node("derived"))
    assert isinstance(found, dict)
    if found == expected:
        return
    if found.get("conf_digest") != expected["conf_digest"]:
        raise UserError(
            f"{params.path}: conf/ has changed since it was composed; run `make params` "
            "(or `dvc exp run`, which composes by itself)"
        )
    stale = sorted(k for k in {*expected, *found} if found.get(k) != expected.get(k))
    raise UserError(
        f"{params.path}: derived.{stale[0]} does not follow from exp_name={content.exp_name}, "
        f"num_iterations={content.num_iterations}; edit conf/ instead and run `make params`, "
        f"or run `dvc exp run -S num_iterations={content.num_iterations}`"
    )


def main() -> None:
    args = parse_args(__doc__, out=Path)
    params = load_params("check_config")
    check_params(params)
    check_derived(params)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("params.yaml follows from conf/\n")


if __name__ == "__main__":
    run_stage(main)

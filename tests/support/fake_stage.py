"""What stands in for ``python`` in a project of fake stages.

check_config runs for real. Any other stage writes each of its declared outputs with
contents that follow from the stage's name, the contents of its dependencies and the
values of its parameters, as a deterministic stage would. A stage that is named in the
file ``fail`` beside this program fails.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import shutil
import sys
from pathlib import Path

import yaml


def main() -> None:
    if sys.argv[1:2] == ["stages/check_config.py"]:
        sys.path[0] = "stages"
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
        return
    stage = os.environ["DVC_STAGE"]
    failing = Path(__file__).with_name("fail")
    if failing.exists() and stage in failing.read_text().split():
        sys.exit(1)
    params = yaml.load(Path("params.yaml").read_text(), yaml.CSafeLoader)
    stages = yaml.load(Path("dvc.yaml").read_text(), yaml.CSafeLoader)["stages"]

    def lookup(key, scope):
        for part in key.strip().split("."):
            scope = scope[part]
        return scope

    def fill(value, scope):
        if isinstance(value, str):
            return re.sub(r"\$\{(.*?)\}", lambda found: str(lookup(found[1], scope)), value)
        if isinstance(value, list):
            return [fill(element, scope) for element in value]
        if isinstance(value, dict):
            return {fill(k, scope): fill(v, scope) for k, v in value.items()}
        return value

    name, _, item = stage.partition("@")
    body, scope = stages[name], dict(params)
    if "foreach" in body:
        walked = lookup(body["foreach"][2:-1], params)
        scope |= {"key": item, "item": walked[item]}
        body = body["do"]
    body = fill(body, scope)
    assert " ".join(sys.argv[1:]) in body["cmd"], (sys.argv, body["cmd"])

    if name in ("select", "publish", "report"):  # as core.rounds.prune_rounds does
        for folder in Path("outputs/rounds").iterdir():
            if int(folder.name.removeprefix("iter_")) >= params["num_iterations"]:
                shutil.rmtree(folder)
    digest = hashlib.sha256(stage.encode())
    for dependency in map(Path, body["deps"]):
        files = [dependency]
        if dependency.is_dir():
            found = sorted(dependency.rglob("*"))
            files = [f for f in found if f.is_file() and "__pycache__" not in f.parts]
        for file in files:
            digest.update(file.as_posix().encode() + b"\0" + file.read_bytes())
    for key in body.get("params", []):
        digest.update(f"{key}={lookup(key, params)}".encode())
    text, figure = digest.hexdigest(), int(digest.hexdigest()[:6], 16) / 16**6
    views = ("pixels", "layout", "kid", "critic_gap", "image_critic_gap")
    exam = dict.fromkeys(views, 1)
    columns = ["epoch", "iteration", *(f"{view}{end}" for view in views for end in ("", "_floor"))]
    columns += ["viability_score", "loss"]
    columns += ["train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    columns += ["noise_loss", "val_noise_loss"]
    for kind in ("outs", "metrics", "plots"):
        for out in body.get(kind, []):
            path = Path(next(iter(out)) if isinstance(out, dict) else out)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".json":
                rows = {k: {"kid_lite0": figure} for k in ("final", "base", "iter_0", "iter_1")}
                content = {"figure": figure, "held_out": rows, "training": {}, "exam": exam}
                path.write_text(json.dumps(content))
            elif path.name == "samples.png":
                path.write_bytes(b"P2 1 1 255 " + str(int(figure * 255)).encode())
            elif path.suffix == ".csv":
                values = [[k] + [figure / k] * (len(columns) - 1) for k in (1, 2)]
                rows = [",".join(map(str, row)) for row in values]
                path.write_text("\n".join([",".join(columns), *rows, ""]))
            elif path.suffix:
                path.write_text(text)
            else:
                path.mkdir()
                (path / "content.txt").write_text(text)
                (path / "manifest.csv").write_text(text)
                (path / "stats.json").write_text(json.dumps({"figure": figure}))
                (path / "reals.json").write_text(json.dumps({"figure": figure}))


if __name__ == "__main__":
    main()

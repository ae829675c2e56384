"""Take trainings that were made elsewhere into reports/: weights, compact records, one table.

    python benchmarks/import_trainings.py FOLDER

FOLDER holds ``records/NAME-seedK.npz`` (key ``record``: (steps, 6), columns as in
``training.COLUMNS``) with a ``.json`` beside each (configuration, steps, device, torch,
photographs, seconds), and ``weights/NAME-seedK-epochNNN.safetensors``. Kept are the last weights of
every training and the snapshots that tables compare; of all snapshots a list with their
fingerprints. The tensors are taken as they are; a header's fields that no network has any more, all
of them off, are left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
from safetensors import safe_open

from zdce.study import experiments


def without_old_fields(file: Path, home: Path) -> Path:
    """A copy of ``file`` in ``home`` whose header lacks fields that are null."""
    with safe_open(file, framework="pt") as opened:
        header = json.loads(opened.metadata()["zdce"])
    for net in (header["net"], header["train"]["net"]):
        for key in [key for key, value in net.items() if value is None]:
            del net[key]
    tensors = safetensors.torch.load_file(file)
    copy = home / file.name
    copy.write_bytes(safetensors.torch.save(tensors, {"zdce": json.dumps(header, sort_keys=True)}))
    return copy


def steps_in(file: Path) -> int:
    with safe_open(file, framework="pt") as opened:
        return json.loads(opened.metadata()["zdce"])["train"]["steps"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for file in sorted((folder / "records").glob("*.json")):
        about = json.loads(file.read_text("utf-8"))
        config, found = (
            about["config"],
            (folder / "weights").glob(f"{file.stem}-epoch*.safetensors"),
        )
        row = {
            "experiment": config["name"],
            **{key: config[key] for key in ("seed", "steps", "batch", "size", "data", "precision")},
            **{key: about[key] for key in ("photographs", "device", "torch")},
            "hours": round(about["seconds_beside_other_runs"] / 3600, 3),
        }
        with np.load(file.with_suffix(".npz")) as stored, tempfile.TemporaryDirectory() as home:
            weights = {steps_in(each): without_old_fields(each, Path(home)) for each in found}
            experiments.keep("study", row, stored["record"], weights)
        print(f"{file.stem}: {len(weights)} files of weights", flush=True)


if __name__ == "__main__":
    main()

"""Where scores are kept: by the weights' hash, gamma, photograph and ``metrics.VERSION``.

The study's own are committed (``reports/study/scores``: ``SET.csv.gz``, ``SET-noise.csv.gz`` for
bursts, ``SET-agreement.csv.gz``, and ``weights.csv``, which names the weights), so that its tables
need neither photographs nor weights nor time. What a reader computes lies under ``runs/scores``.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from zdce import auto, checkpoints, metrics, paths
from zdce.files import atomic_write

KEY = ["weights", "before", "gamma", "photograph"]
DIGITS = 6  # significant, of every kept score


def committed() -> Path:
    """Folder of the study's committed scores."""
    return paths.reports("study") / "scores"


def own() -> Path:
    """Folder of scores computed here and not committed."""
    return paths.runs() / "scores"


@cache
def kept(group: str) -> pd.DataFrame:
    """All scores of a group, a file name without ending, indexed by :data:`KEY`."""
    files = [committed() / f"{group}.csv.gz", *sorted((own() / group).glob("*.csv"))]
    tables = [pd.read_csv(file, dtype={"photograph": str}) for file in files if file.is_file()]
    if not tables:
        return pd.DataFrame(columns=[*KEY, "version"]).set_index(KEY)
    table = pd.concat(tables, ignore_index=True)
    table = table[table["version"] == metrics.VERSION].drop(columns="version")
    return table.drop_duplicates(KEY, keep="last").set_index(KEY)


def write(group: str, rows: list[dict]) -> None:
    """Keep rows, each with :data:`KEY` and figures, in a file of their own under :func:`own`."""
    table = pd.DataFrame(rows)
    table.insert(len(KEY), "version", metrics.VERSION)
    text = table.to_csv(index=False, float_format=f"%.{DIGITS}g")
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    (own() / group).mkdir(parents=True, exist_ok=True)
    with atomic_write(own() / group / f"{name}.csv") as partial:
        partial.write_text(text)
    kept.cache_clear()


def commit() -> None:
    """Move the scores under :func:`own` into :func:`committed`, one file a group, and the names of
    their weights into ``weights.csv``."""
    for folder in sorted(own().glob("*")):
        parts = sorted(folder.glob("*.csv"))
        if not parts:
            continue
        file = committed() / f"{folder.name}.csv.gz"
        every = [*([file] if file.is_file() else []), *parts]
        table = pd.concat([pd.read_csv(part, dtype={"photograph": str}) for part in every])
        table = table.drop_duplicates([*KEY, "version"], keep="last")
        table = table[table["version"] == metrics.VERSION].sort_values(KEY)
        with atomic_write(file) as partial:
            table.to_csv(partial, index=False, compression={"method": "gzip", "mtime": 0})
        for part in parts:
            part.unlink()
    added, file = own() / "names.csv", committed() / "weights.csv"
    if added.is_file():
        every = [pd.read_csv(added, names=["name", "weights"])]
        every = [pd.read_csv(file), *every] if file.is_file() else every
        with atomic_write(file) as partial:
            table = pd.concat(every).drop_duplicates("name", keep="last").sort_values("name")
            table.to_csv(partial, index=False)
        added.unlink()
    names.cache_clear()
    kept.cache_clear()


# --- what scores are kept by ----------------------------------------------------------------------


def weights_key(model: str | None, at_hand: bool = True) -> str:
    """What scores of a model are kept by: the first 16 digits of the sha256 of its tensors,
    ``input`` for None, or ``auto-N``.

    at_hand: whether its file is there; else its name is looked up. Raises FileNotFoundError or
    CheckpointError where that says nothing either.
    """
    known = known_key(model)
    if known is not None and (model in (None, "auto") or not at_hand):
        return known
    return fingerprint(str(model))


def known_key(model: str | None) -> str | None:
    """Key of a model by its name alone; None where the name says nothing."""
    if model is None:
        return "input"
    return f"auto-{auto.VERSION}" if model == "auto" else names().get(stem(model))


def name_weights(model: str) -> None:
    """Note under which name a model's weights are known, so that its scores are found without."""
    own().mkdir(parents=True, exist_ok=True)
    with (own() / "names.csv").open("a") as file:
        file.write(f"{stem(model)},{fingerprint(model)}\n")


def stem(model: str) -> str:
    """A file's name without ending; a model's name as it is."""
    return Path(model).stem if Path(model).suffix in (".safetensors", ".pth", ".pt") else model


@cache
def names() -> dict[str, str]:
    """Name of weights → their key."""
    file = committed() / "weights.csv"
    return dict(pd.read_csv(file).itertuples(index=False)) if file.is_file() else {}


@cache
def fingerprint(model: str) -> str:
    """First 16 digits of the sha256 of a model's tensors, sorted by name; and its scale, if any."""
    net, digest = checkpoints.load(model).net, hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode() + str(tuple(tensor.shape)).encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    scale = getattr(getattr(net, "config", None), "scale", 1.0)
    return digest.hexdigest()[:16] + (f"-{scale:g}x" if scale != 1 else "")

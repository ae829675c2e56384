"""Where scores are kept: by the weights' hash, gamma, photograph and ``metrics.VERSION``.

The study's own are committed (``reports/study/scores``: ``SET.csv.gz``, ``SET-noise.csv.gz`` for
bursts, ``SET-agreement.csv.gz``, and ``weights.csv``, which names the weights), so that its tables
need neither photographs nor weights nor time. What a reader computes lies under ``runs/scores``;
``benchmarks/scores.py`` moves it to the committed ones.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

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
        return pd.DataFrame(columns=KEY).set_index(KEY)
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


def key(model: str | None, at_hand: bool = True) -> str | None:
    """What scores of a model are kept by: a hash of its tensors, ``input`` for None, or ``auto-N``.

    at_hand: whether its file is there; else its name is looked up among the committed ones, and
    None says that it is not among them. Raises CheckpointError for a file that cannot be read.
    """
    if model is None or model == "auto":
        return "input" if model is None else f"auto-{auto.VERSION}"
    return _fingerprint(model) if at_hand else _names().get(stem(model))


def stem(model: str) -> str:
    """A file's name without ending; a model's name as it is."""
    return Path(model).stem if Path(model).suffix in (".safetensors", ".pth", ".pt") else model


@cache
def _names() -> dict[str, str]:
    """Name of weights → their key."""
    file = committed() / "weights.csv"
    return dict(pd.read_csv(file).itertuples(index=False)) if file.is_file() else {}


@cache
def _fingerprint(model: str) -> str:
    """Hash of a model's tensors; and its scale, if any."""
    net = checkpoints.load(model).net
    scale = getattr(getattr(net, "config", None), "scale", 1.0)
    return checkpoints.fingerprint(net.state_dict()) + (f"-{scale:g}x" if scale != 1 else "")

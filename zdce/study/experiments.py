"""Every training of the study in one table, how long each lasts, and what came of it.

An experiment is a training configuration, one change away from a reference. A profile says on which
photographs, at which size, for how many steps and from which seeds its experiments are trained.
What a finished training leaves for the reports, its weights and a compact record, is kept in the
repository and read from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from zdce import checkpoints, datasets, paths
from zdce.checkpoints import fingerprint
from zdce.files import atomic_write
from zdce.losses import IMPROVED, PAPER, LossConfig
from zdce.model import ZERO_DCE_IMPROVED
from zdce.training import COLUMNS, TrainConfig, weights_name

# --- the experiments ------------------------------------------------------------------------------

EXPERIMENTS: dict[str, TrainConfig] = {}
REFERENCES: dict[str, str] = {}  # experiment → the one that it differs from in one thing


def _experiment(
    name: str,
    reference: str,
    net: dict | None = None,
    loss: dict | LossConfig | None = None,
    **fields,
) -> None:
    """Add ``reference`` with fields of its network, of its losses or of the training changed."""
    base = EXPERIMENTS[reference]
    losses = loss if isinstance(loss, LossConfig) else replace(base.loss, **(loss or {}))
    EXPERIMENTS[name] = replace(
        base, name=name, net=replace(base.net, **(net or {})), loss=losses, **fields
    )
    REFERENCES[name] = reference


# The paper's network as its released code trains it, and the improved study's: 200 epochs of 2,002
# photographs, in batches of 8 and of 4.
EXPERIMENTS["zero-dce"] = TrainConfig("zero-dce")
EXPERIMENTS["zero-dce-improved"] = TrainConfig(
    "zero-dce-improved",
    net=ZERO_DCE_IMPROVED,
    loss=IMPROVED,
    batch=4,
    steps=100_200,
    gamma=checkpoints.IMPROVED_GAMMA,
)
MAIN = tuple(EXPERIMENTS)
REFERENCE = "zero-dce-improved"  # of the ablation tables
# Channels, with and without the pool (claims N1, N5).
_experiment("channels-8", REFERENCE, net={"width": 8})
_experiment("channels-32", REFERENCE, net={"width": 32})
_experiment("no-pool", REFERENCE, net={"pooling": "none"})
_experiment("channels-8-no-pool", "no-pool", net={"width": 8})
_experiment("channels-32-no-pool", "no-pool", net={"width": 32})
# Shrinking the feature maps (N4), several poolings (N6).
_experiment("stride2-bilinear", REFERENCE, net={"pooling": "stride2"})
_experiment("stride2-transposed", "stride2-bilinear", net={"upsampling": "transposed"})
_experiment("pools-2", REFERENCE, net={"pools": 2})
_experiment("pools-3", REFERENCE, net={"pools": 3})
# Weight of the TV term (L1), each loss left out, the exposure target, the paper's own losses.
for _weight in (100, 200, 600, 1600):
    _experiment(f"tv-{_weight}", REFERENCE, loss={"smoothness": float(_weight)})
for _term in ("spatial", "exposure", "color", "smoothness"):
    _experiment(f"no-{_term}", REFERENCE, loss={_term: 0.0})
for _target in (0.5, 0.7):
    _experiment(f"exposure-{_target}", REFERENCE, loss={"exposure_target": _target})
# The TV weight is raised by half here too, as the improved study raises the released code's.
_experiment("paper-losses", REFERENCE, loss=replace(PAPER, smoothness=1.5 * PAPER.smoothness))
# Training photographs, and the precision of the convolutions.
_experiment("not-over-exposed", REFERENCE, data=f"sice-train{datasets.NOT_OVER}")
_experiment("float32", REFERENCE, precision="float32")

# --- how long they last ---------------------------------------------------------------------------

PHOTOGRAPHS = 2002  # of sice-train


def steps_of(name: str, epochs: float) -> int:
    """Optimiser steps of ``epochs`` passes over sice-train, in the experiment's batches."""
    return round(epochs * -(-PHOTOGRAPHS // EXPERIMENTS[name].batch))


@dataclass(frozen=True)
class Budget:
    """What a profile trains, on which photographs, for how long.

    data, size: as in :class:`~zdce.training.TrainConfig`. steps: optimiser steps of each experiment
    that the profile has. seeds: of each; more: other seeds for some. named: epochs of an experiment
    that is trained only where it is named; 0 allows none. snapshots: the steps after
    which an experiment's weights are kept on the way. compared: those snapshots that a table of
    experiments reads, because its other rows end there.
    """

    data: str
    size: int
    steps: dict[str, int]
    seeds: tuple[int, ...] = (0,)
    more: dict[str, tuple[int, ...]] = field(default_factory=dict)
    named: float = 0
    snapshots: dict[str, tuple[int, ...]] = field(default_factory=dict)
    compared: dict[str, int] = field(default_factory=dict)


SEEDS = (0, 1, 2)
ABLATED = ("no-pool", "pools-2", "pools-3", "stride2-bilinear", "stride2-transposed", "tv-200")
ABLATION_EPOCHS = 60
SNAPSHOT_EPOCHS = (1, 2, 5, 10, *range(20, 181, 20), 190, 195, 198, 199, 200)
BUDGETS = {
    "quick": Budget(
        "bundled",
        64,
        {name: 20 if name in MAIN else 10 for name in EXPERIMENTS},
        snapshots={REFERENCE: (10,)},
        compared={REFERENCE: 10},
    ),
    # The published budget. zero-dce-improved was stopped by the clock after 181.8 of 200 epochs.
    "study": Budget(
        "sice-train",
        256,
        {
            "zero-dce": steps_of("zero-dce", 200),
            REFERENCE: 91_100,
            **{name: steps_of(name, ABLATION_EPOCHS) for name in ABLATED},
        },
        seeds=SEEDS,
        named=ABLATION_EPOCHS,
        snapshots={
            name: tuple(steps_of(name, epochs) for epochs in SNAPSHOT_EPOCHS) for name in MAIN
        },
        compared={REFERENCE: steps_of(REFERENCE, ABLATION_EPOCHS)},
    ),
    # Four epochs at a quarter of the pixels: for what no long training was made of, and to show
    # what so short a training gets wrong.
    "short": Budget(
        "sice-train",
        128,
        {name: 2000 for name in EXPERIMENTS if name != "zero-dce"},
        more={REFERENCE: SEEDS},
    ),
}


def plan(
    profile: str, seeds: Sequence[int] | None = None, names: Sequence[str] | None = None
) -> list[TrainConfig]:
    """Every training of a profile, the main experiments first.

    seeds: in place of the profile's own. names: only those experiments. Raises ValueError for a
    profile that is not there and for an experiment that it does not train.
    """
    if profile not in BUDGETS:
        raise ValueError(f"profile={profile!r}: choose one of {', '.join(BUDGETS)}")
    budget = BUDGETS[profile]
    known = EXPERIMENTS if budget.named else budget.steps
    if unknown := [name for name in names or () if name not in known]:
        known = ", ".join(known)
        raise ValueError(f"experiment {unknown[0]!r} in profile {profile}: choose one of {known}")
    return [
        replace(
            EXPERIMENTS[name],
            data=EXPERIMENTS[name].data.replace("sice-train", budget.data),
            size=budget.size,
            steps=budget.steps.get(name) or steps_of(name, budget.named),
            seed=seed,
        )
        for name in (names or budget.steps)
        for seed in seeds or budget.more.get(name, budget.seeds)
    ]


# --- what is kept of them -------------------------------------------------------------------------

STATISTICS = {"mean": np.mean, "std": np.std, "low": np.min, "high": np.max}  # of an epoch's steps
RUN_COLUMNS = {  # of trainings.csv
    "experiment": str,
    "seed": int,
    "steps": int,
    "batch": int,
    "size": int,
    "data": str,
    "photographs": int,
    "precision": str,
    "device": str,
    "torch": str,
    "hours": float,
}
SNAPSHOT_COLUMNS = {  # of snapshots.csv
    "experiment": str,
    "seed": int,
    "epochs": float,
    "steps": int,
    "fingerprint": str,
}


def training_folder(profile: str = "study") -> Path:
    """Where the weights and records of a profile's finished trainings are kept."""
    if profile == "short":
        return paths.reports("study") / "training" / "short"
    return paths.reports(profile) / "training"


def compact_record(record: np.ndarray, per_epoch: int, every_step: bool) -> dict[str, np.ndarray]:
    """The record of a training in small: statistics of each epoch, and the loss of every step.

    record: (steps, 6), columns as in ``training.COLUMNS``. per_epoch: steps of an epoch; the last
    epoch may be cut short. every_step: keep ``loss`` as well, (steps,) float16, which is a record's
    value to 1 in 2,000. Gives for each of ``STATISTICS`` (epochs, 6) float32, ``columns`` (6,), and
    ``steps`` (epochs,), the steps done when the epoch ended.
    """
    ends = [*range(per_epoch, len(record), per_epoch), len(record)]
    parts = np.split(record.astype(np.float64), ends[:-1])
    small = {"columns": np.array(COLUMNS), "steps": np.array(ends)}
    for name, statistic in STATISTICS.items():
        small[name] = np.stack([statistic(part, axis=0) for part in parts]).astype(np.float32)
    if every_step:
        small["loss"] = record[:, COLUMNS.index("loss")].astype(np.float16)
    return small


def keep_training(config: TrainConfig, profile: str = "study") -> None:
    """Keep what the finished run of ``config`` in ``runs/`` left: weights, compact record, a row.

    Equal runs give equal files. Raises FileNotFoundError where the run is not finished.
    """
    run = paths.runs() / config.run_name()
    about = json.loads((run / "run.json").read_text("utf-8"))
    record = pd.read_csv(run / "record.csv")[list(COLUMNS)].to_numpy(np.float32)
    per_epoch = -(-about["photographs"] // config.batch)
    weights = {config.steps: run / "model.safetensors"}
    for steps in BUDGETS[profile].snapshots.get(config.name, ()):
        name = weights_name(config.name, config.seed, steps / per_epoch)
        if steps < config.steps:
            weights[steps] = run / "snapshots" / name
    row = {
        "experiment": config.name,
        **{key: getattr(config, key) for key in ("seed", "steps", "batch", "size", "data")},
        **{key: about[key] for key in ("photographs", "precision", "device", "torch")},
        "hours": round(about["seconds"] / 3600, 3),
    }
    keep(profile, row, record, weights)


def keep(profile: str, row: dict, record: np.ndarray, weights: dict[int, Path]) -> None:
    """Write what a profile keeps of one training.

    row: by ``RUN_COLUMNS``. record: (steps, 6), every step. weights: steps → file; the last ones
    and those that tables compare are copied, of all the fingerprints are listed.
    """
    home, name, seed = training_folder(profile), row["experiment"], row["seed"]
    per_epoch, listed = -(-row["photographs"] // row["batch"]), []
    for steps, file in sorted(weights.items()):
        known = {"experiment": name, "seed": seed, "epochs": round(steps / per_epoch, 3)}
        listed.append(known | {"steps": steps, "fingerprint": fingerprint(file)})
        if steps in (row["steps"], BUDGETS[profile].compared.get(name)):
            with atomic_write(home / weights_name(name, seed, steps / per_epoch)) as partial:
                partial.write_bytes(file.read_bytes())
    with atomic_write(home / f"{name}-seed{seed}.npz") as partial, partial.open("wb") as file:
        np.savez_compressed(file, **compact_record(record, per_epoch, name in MAIN))
    _exchange(home / "trainings.csv", [row], RUN_COLUMNS)
    _exchange(home / "snapshots.csv", listed, SNAPSHOT_COLUMNS)


def _exchange(file: Path, rows: list[dict], columns: dict[str, type]) -> None:
    """Put ``rows`` into a table in place of those of the same experiment and seed."""
    table, new = _read(file, columns), pd.DataFrame(rows)[list(columns)]
    same = (table["experiment"] == new["experiment"][0]) & (table["seed"] == new["seed"][0])
    table = pd.concat([table[~same], new], ignore_index=True)
    place = table["experiment"].map(list(EXPERIMENTS).index)
    table = table.assign(place=place).sort_values(["place", "seed", "steps"]).drop(columns="place")
    with atomic_write(file) as partial:
        table.to_csv(partial, index=False)


def _read(file: Path, columns: dict[str, type]) -> pd.DataFrame:
    if file.is_file():
        return pd.read_csv(file, dtype=columns)
    return pd.DataFrame({key: pd.Series(dtype=kind) for key, kind in columns.items()})


def trainings(profile: str = "study") -> pd.DataFrame:
    """The profile's trainings that were kept, one row for each file of weights.

    Columns: experiment, seed, epochs, steps, batch, size, data, photographs, precision, device,
    torch, hours (of the whole training), record and weights (paths). A training of which a snapshot
    is compared with other experiments has a row for that too, with fewer steps.
    """
    home = training_folder(profile)
    table = _read(home / "trainings.csv", RUN_COLUMNS)
    earlier = table.assign(steps=table["experiment"].map(BUDGETS[profile].compared))
    earlier = earlier.dropna(subset="steps").astype({"steps": int})
    table = pd.concat([table, earlier]).sort_index(kind="stable", ignore_index=True)
    table.insert(2, "epochs", table["steps"] / -(-table["photographs"] // table["batch"]))
    seeds = table["experiment"] + "-seed" + table["seed"].astype(str)
    names = map(weights_name, table["experiment"], table["seed"], table["epochs"])
    table["record"] = [home / f"{name}.npz" for name in seeds]
    table["weights"] = [home / name for name in names]
    there = [
        all(file.is_file() for file in files)
        for files in zip(table["record"], table["weights"], strict=True)
    ]
    return table[there].reset_index(drop=True)


# Of records that were kept before they named their columns.
PUBLISHED_COLUMNS = ("spatial", "exposure", "color", "smoothness", "loss", "gradient_norm")


def records(name: str, profile: str = "study") -> pd.DataFrame:
    """How an experiment's training went, one row for each seed and epoch; empty if not kept.

    Columns: experiment, seed, epoch (at its end; the last may be a fraction), steps, and of each
    column of ``training.COLUMNS`` the mean over the epoch's steps under its own name, its standard
    deviation as ``loss_std``, and the smallest and largest as ``loss_low`` and ``loss_high``.
    """
    tables = []
    for about, per_epoch, small in _kept_records(name, profile):
        table = pd.DataFrame(about | {"epoch": small["steps"] / per_epoch, "steps": small["steps"]})
        columns = small.get("columns", PUBLISHED_COLUMNS)
        for statistic in STATISTICS:
            end = "" if statistic == "mean" else f"_{statistic}"
            names = [f"{column}{end}" for column in columns]
            table = table.join(pd.DataFrame(small[statistic], columns=names))
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def losses(name: str, profile: str = "study") -> pd.DataFrame:
    """The loss of every step of a main experiment's trainings: experiment, seed, step, epoch, loss.

    Empty if no training was kept; ``loss`` is exact to 1 in 2,000.
    """
    tables = []
    for about, per_epoch, small in _kept_records(name, profile):
        if "loss" in small:
            step = np.arange(1, len(small["loss"]) + 1)
            loss = {"step": step, "epoch": step / per_epoch, "loss": small["loss"].astype("f4")}
            tables.append(pd.DataFrame(about | loss))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _kept_records(name: str, profile: str) -> Iterable[tuple[dict, int, dict[str, np.ndarray]]]:
    """Experiment and seed, steps an epoch and compact record of each kept training of ``name``."""
    kept = trainings(profile)
    for row in kept[kept["experiment"] == name].drop_duplicates("record").itertuples():
        with np.load(row.record) as small:
            about = {"experiment": name, "seed": row.seed}
            yield about, -(-row.photographs // row.batch), dict(small)


# --- weights on the way ---------------------------------------------------------------------------


def snapshots(name: str, profile: str = "study") -> pd.DataFrame:
    """The weights of an experiment on its way: experiment, seed, epochs, steps, fingerprint,
    weights.

    weights: the file below ``runs/`` (``ZDCE_RUNS``), or None. The repository keeps the list and
    the scores, not the files; ``zdce sweep`` makes them again.
    """
    table = _read(training_folder(profile) / "snapshots.csv", SNAPSHOT_COLUMNS)
    table = table[table["experiment"] == name].reset_index(drop=True)
    there = {file.name: file for file in paths.runs().rglob(f"{name}-seed*.safetensors")}
    names = map(weights_name, table["experiment"], table["seed"], table["epochs"])
    return table.assign(weights=[there.get(file) for file in names])

"""Every training of the study in one table, how long each lasts, and what came of it.

An experiment is a training configuration, one change away from a reference. What a finished
training leaves for the reports, its weights and a compact record, is kept in the repository.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from zdce import checkpoints, datasets, paths
from zdce.files import atomic_write
from zdce.losses import IMPROVED, PAPER
from zdce.model import ZERO_DCE_IMPROVED
from zdce.training import COLUMNS, MODEL, TrainConfig, weights_name

EXPERIMENTS: dict[str, TrainConfig] = {}
REFERENCES: dict[str, str] = {}  # experiment → the one that it differs from in one thing


def _experiment(name: str, reference: str, net: dict | None = None, **fields) -> None:
    """Add ``reference`` with fields of its network, or of the training, changed."""
    base = EXPERIMENTS[reference]
    EXPERIMENTS[name] = replace(base, name=name, net=replace(base.net, **(net or {})), **fields)
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
    _experiment(f"tv-{_weight}", REFERENCE, loss=replace(IMPROVED, smoothness=float(_weight)))
for _term in ("spatial", "exposure", "color", "smoothness"):
    _experiment(f"no-{_term}", REFERENCE, loss=replace(IMPROVED, **{_term: 0.0}))
for _target in (0.5, 0.7):
    _experiment(f"exposure-{_target}", REFERENCE, loss=replace(IMPROVED, exposure_target=_target))
# The TV weight is raised by half here too, as the improved study raises the released code's.
_experiment("paper-losses", REFERENCE, loss=replace(PAPER, smoothness=1.5 * PAPER.smoothness))
# Training photographs, and the precision of the convolutions.
_experiment("not-over-exposed", REFERENCE, data=f"sice-train{datasets.NOT_OVER}")
_experiment("float32", REFERENCE, precision="float32")

PHOTOGRAPHS = 2002  # of sice-train


def steps_of(name: str, epochs: float) -> int:
    """Optimiser steps of ``epochs`` passes over sice-train, in the experiment's batches."""
    return round(epochs * -(-PHOTOGRAPHS // EXPERIMENTS[name].batch))


@dataclass(frozen=True)
class Budget:
    """What a profile trains, on which photographs, for how long.

    steps: of each experiment that the profile trains. seeds: of each, but for those that ``more``
    has. named: epochs of every further experiment, trained only when requested by name; 0 forbids
    them. snapshots: steps after which an experiment's weights are kept on the way. compared: the
    snapshot that stands in a table beside experiments that end there.
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
        {"zero-dce": steps_of("zero-dce", 200), REFERENCE: 91_100}
        | {name: steps_of(name, ABLATION_EPOCHS) for name in ABLATED},
        seeds=SEEDS,
        named=ABLATION_EPOCHS,
        snapshots={n: tuple(steps_of(n, epochs) for epochs in SNAPSHOT_EPOCHS) for n in MAIN},
        compared={REFERENCE: steps_of(REFERENCE, ABLATION_EPOCHS)},
    ),
    # Four epochs at a quarter of the pixels: to show what so short a training gets wrong.
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
    """Every training of a profile, the main experiments first. seeds: in place of the profile's
    own. names: only those experiments. Raises ValueError for a profile or experiment without one.
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


STATISTICS = {"mean": np.mean, "std": np.std, "low": np.min, "high": np.max}  # of an epoch's steps
# Columns of the committed records, which do not name them; each new loss adds one to COLUMNS.
COMMITTED_COLUMNS = ("spatial", "exposure", "color", "smoothness", "loss", "gradient_norm")
TABLES = {
    "trainings": "experiment seed steps batch size data photographs precision device torch hours",
    "snapshots": "experiment seed epochs steps fingerprint",
}


def training_folder(profile: str = "study") -> Path:
    """Where the weights and records of a profile's finished trainings are kept."""
    if profile == "short":
        return paths.reports("study") / "training" / "short"
    return paths.reports(profile) / "training"


def _table(name: str, profile: str) -> pd.DataFrame:
    """One of ``TABLES``; empty where nothing was kept."""
    file = training_folder(profile) / f"{name}.csv"
    return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=TABLES[name].split())


def compact_record(record: np.ndarray, per_epoch: int, every_step: bool) -> dict[str, np.ndarray]:
    """A record (steps, len(COLUMNS)) in small: for each of ``STATISTICS`` (epochs, len(COLUMNS)),
    ``columns``, the ``steps`` done when an epoch ended, and on request ``loss`` of every step as
    float16, exact to 1 in 2,000.
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
    """Keep what the finished run of ``config`` in ``runs/`` left: the weights of its end and of the
    snapshot that tables compare, a list of all snapshots, the compact record, a row.
    """
    run, home, budget = paths.runs() / config.run_name(), training_folder(profile), BUDGETS[profile]
    about = json.loads((run / "run.json").read_text("utf-8"))
    per_epoch, listed = -(-about["photographs"] // config.batch), []
    own = {"experiment": config.name, "seed": config.seed}
    for steps in sorted({*budget.snapshots.get(config.name, ()), config.steps}):
        if steps <= config.steps:
            name = weights_name(config.name, config.seed, steps / per_epoch)
            file = run / (MODEL if steps == config.steps else f"snapshots/{name}")
            known = {"epochs": round(steps / per_epoch, 3), "steps": steps}
            listed.append(own | known | {"fingerprint": checkpoints.fingerprint(file)})
            if steps in (config.steps, budget.compared.get(config.name)):
                with atomic_write(home / name) as partial:
                    partial.write_bytes(file.read_bytes())
    record = pd.read_csv(run / "record.csv")[list(COLUMNS)].to_numpy(np.float32)
    small = compact_record(record, per_epoch, config.name in MAIN)
    place = home / f"{config.name}-seed{config.seed}.npz"
    with atomic_write(place) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **small)
    row = config.header() | about | own | {"hours": round(about["seconds"] / 3600, 3)}
    for name, rows in (("trainings", [row]), ("snapshots", listed)):
        table = _table(name, profile)
        others = table[(table["experiment"] != config.name) | (table["seed"] != config.seed)]
        table = pd.concat([others, pd.DataFrame(rows)], ignore_index=True)
        table["place"] = table["experiment"].map(list(EXPERIMENTS).index)
        table = table.sort_values(["place", "seed", "steps"])
        with atomic_write(home / f"{name}.csv") as partial:
            table[TABLES[name].split()].to_csv(partial, index=False)


def trainings(profile: str = "study") -> pd.DataFrame:
    """The profile's trainings that were kept, one row for each file of weights: the columns of
    trainings.csv, epochs, and the paths record and weights. A training of which a snapshot is
    compared with other experiments has a row for that too, with fewer steps.
    """
    home, table = training_folder(profile), _table("trainings", profile)
    earlier = table.assign(steps=table["experiment"].map(BUDGETS[profile].compared))
    earlier = earlier.dropna(subset="steps").astype({"steps": int})
    table = pd.concat([table, earlier]).sort_index(kind="stable", ignore_index=True)
    table.insert(2, "epochs", table["steps"] / -(-table["photographs"] // table["batch"]))
    seeds = table["experiment"] + "-seed" + table["seed"].astype(str)
    names = map(weights_name, table["experiment"], table["seed"], table["epochs"])
    table["record"] = [home / f"{name}.npz" for name in seeds]
    table["weights"] = [home / name for name in names]
    return table


def records(name: str, profile: str = "study") -> pd.DataFrame:
    """How an experiment's training went, one row for each seed and epoch; empty if not kept.

    Columns: experiment, seed, epoch (at its end; the last may be a fraction), steps, and of each of
    ``training.COLUMNS`` the mean over the epoch under its own name, and its standard deviation and
    extremes, such as ``loss_std``, ``loss_low`` and ``loss_high``.
    """
    kept, tables = trainings(profile), []
    for row in kept[kept["experiment"] == name].drop_duplicates("record").itertuples():
        with np.load(row.record) as small:
            epoch = small["steps"] / -(-row.photographs // row.batch)
            table = {"experiment": name, "seed": row.seed, "epoch": epoch, "steps": small["steps"]}
            columns = small.get("columns", COMMITTED_COLUMNS)
            for key in STATISTICS:
                names = [column + f"_{key}" * (key != "mean") for column in columns]
                table |= dict(zip(names, small[key].T, strict=True))
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

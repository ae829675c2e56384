"""The study itself: the trainings that it compares, the methods that it scores, and the scores.

An arm is a training configuration, one change away from a reference row. A method is what a photograph goes through
to be scored: a model, and the gamma after it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from zdce import checkpoints, datasets, paths
from zdce.files import atomic_write
from zdce.losses import IMPROVED, PAPER, TERMS, LossConfig
from zdce.model import ZERO_DCE_IMPROVED, NetConfig
from zdce.study.claims import verdict  # noqa: F401  for the notebooks' modules
from zdce.training import TrainConfig

NIQE_FILE = "data/niqe_modelparameters.mat"

# --- trainings ------------------------------------------------------------------------------------------------

ARMS: dict[str, TrainConfig] = {}
REFERENCES: dict[
    str, str
] = {}  # arm → the arm that it differs from in one thing; the two main arms have none


def _arm(
    name: str,
    reference: str,
    net: dict | None = None,
    loss: dict | LossConfig | None = None,
    **fields,
) -> None:
    """Add an arm: ``reference`` with fields of its network, its losses, or the training itself changed."""
    base = ARMS[reference]
    losses = loss if isinstance(loss, LossConfig) else replace(base.loss, **(loss or {}))
    ARMS[name] = replace(
        base, name=name, net=replace(base.net, **(net or {})), loss=losses, **fields
    )
    REFERENCES[name] = reference


# The paper's network as its released code trains it, and the improved study's; both with their convolutions in
# bfloat16, which the arm "float32" tests.
ARMS["zero-dce"] = TrainConfig("zero-dce", precision="bfloat16")
ARMS["zero-dce-improved"] = TrainConfig(
    "zero-dce-improved",
    net=ZERO_DCE_IMPROVED,
    loss=IMPROVED,
    batch=4,
    steps=100_200,  # 200 epochs of 2,002 photographs in batches of 4
    gamma=checkpoints.IMPROVED_GAMMA,
    precision="bfloat16",
)
MAIN = tuple(ARMS)
# Channels, with and without the pool (claims N1, N5).
_arm("channels-8", "zero-dce-improved", net={"width": 8})
_arm("channels-32", "zero-dce-improved", net={"width": 32})
_arm("no-pool", "zero-dce-improved", net={"pooling": "none"})
_arm("channels-8-no-pool", "no-pool", net={"width": 8})
_arm("channels-32-no-pool", "no-pool", net={"width": 32})
# Shrinking the feature maps (N4), several poolings (N6).
_arm("stride2-bilinear", "zero-dce-improved", net={"pooling": "stride2"})
_arm("stride2-transposed", "stride2-bilinear", net={"upsampling": "transposed"})
_arm("pools-2", "zero-dce-improved", net={"pools": 2})
_arm("pools-3", "zero-dce-improved", net={"pools": 3})
# Weight of the TV term (L1), each loss left out, exposure target, the paper's own losses, training photographs.
for _weight in (100, 200, 600, 1600):
    _arm(f"tv-{_weight}", "zero-dce-improved", loss={"smoothness": float(_weight)})
for _term in TERMS:
    _arm(f"no-{_term}", "zero-dce-improved", loss={_term: 0.0})
for _target in (0.5, 0.7):
    _arm(f"exposure-{_target}", "zero-dce-improved", loss={"exposure_target": _target})
# Its TV weight is raised by half as well, as the improved study raises the released code's.
_arm("paper-losses", "zero-dce-improved", loss=replace(PAPER, smoothness=1.5 * PAPER.smoothness))
_arm("not-over-exposed", "zero-dce-improved", data=f"sice-train{datasets.NOT_OVER}")
# Precision of the convolutions: whether the study's own choice shows in its results.
_arm("float32", "zero-dce-improved", precision="float32")


# Beyond the study (notebook 08): a network that sees the whole photograph, and what each of its ideas is worth. Not in
# ARMS, since another size, budget and learning rate than theirs would compare with nothing there.
CONTEXT = TrainConfig(
    "zero-dce-context",
    net=NetConfig(width=16, fixed_size=32, statistics=True, grey_curves=True, denoise=3.0),
    loss=LossConfig(
        spatial=0.1,
        exposure=40.0,
        color=0.0,
        smoothness=100.0,
        exposure_target=0.46,
        exposure_of="photograph",
    ),
    size=64,
    steps=2000,
    learning_rate=2e-3,
    weight_decay=0.0,
    clip=1.0,
    darkened=0.5,
    decay=True,
)


# The same, asked for what a photograph's light allows, so that night stays night; it reads where that light is.
NIGHT = replace(
    CONTEXT,
    name="zero-dce-night",
    net=replace(CONTEXT.net, light=True),
    loss=replace(CONTEXT.loss, exposure_of="light", exposure_target=0.45),
)


# The same, with one curve for the whole photograph, which brings every dark photograph of a day to one mean and spares
# what is bright, and with a filter for the noise that is there. Training leaves all four out: its weights are those of
# NIGHT.
LEVEL = replace(
    NIGHT,
    name="zero-dce-level",
    net=replace(NIGHT.net, level=0.44, one_curve=True, spared=True, denoise=5.0, measured=True),
)


def _beyond() -> dict[str, TrainConfig]:
    """Arms of notebook 08: the reference row, then rows that leave out one idea each and ideas that were tried; the
    same of NIGHT and of LEVEL."""
    net, loss = CONTEXT.net, CONTEXT.loss
    without = {
        "no-context": {"net": replace(net, fixed_size=None, statistics=False)},
        "no-statistics": {"net": replace(net, statistics=False)},
        "three-curves": {"net": replace(net, grey_curves=False)},
        "no-denoising": {"net": replace(net, denoise=0.0)},
        "exposure-of-regions": {"loss": replace(loss, exposure_of="regions")},
        "not-darkened": {"darkened": 0.0},
        "target-50": {"loss": replace(loss, exposure_target=0.5)},
        "highlights-95": {"loss": replace(loss, highlights=0.95)},
        "highlights-98": {"loss": replace(loss, highlights=0.98)},
    }
    arms = {
        f"context-{name}": replace(CONTEXT, name=f"context-{name}", **change)
        for name, change in without.items()
    }
    arms = {CONTEXT.name: CONTEXT} | arms
    without = {
        "no-figures": {"net": replace(NIGHT.net, light=False)},
        "exposure-of-photograph": {"loss": replace(NIGHT.loss, exposure_of="photograph")},
        "target-46": {"loss": replace(NIGHT.loss, exposure_target=0.46)},
    }
    rows = {
        f"night-{name}": replace(NIGHT, name=f"night-{name}", **change)
        for name, change in without.items()
    }
    arms |= {NIGHT.name: NIGHT} | rows
    without = {
        "not-levelled": {"net": replace(LEVEL.net, level=0.0)},
        "mean-46": {"net": replace(LEVEL.net, level=0.46)},
        "many-curves": {"net": replace(LEVEL.net, one_curve=False)},
        "not-spared": {"net": replace(LEVEL.net, spared=False)},
        "denoise-4": {"net": replace(LEVEL.net, denoise=4.0, measured=False)},
        "denoise-1": {"net": replace(LEVEL.net, denoise=1.0, measured=False)},
    }
    rows = {
        f"level-{name}": replace(LEVEL, name=f"level-{name}", **change)
        for name, change in without.items()
    }
    return arms | {LEVEL.name: LEVEL} | rows


BEYOND = _beyond()
BEYOND_SEEDS = (0, 1, 2)  # of the reference rows; the others have seed 0


@dataclass(frozen=True)
class Budget:
    """How long every training of a sweep lasts; one for all arms of a table, so that they compare.

    data, size: as in :class:`TrainConfig`. main_steps, main_seeds: of the two main arms. steps, seeds: of every arm in
    the ablation tables, ``zero-dce-improved`` as their reference row included; that row has the main arms' seeds as
    well, which pass it on their way. precision: in place of the arms' own.
    """

    data: str
    size: int
    main_steps: int
    steps: int
    main_seeds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    precision: str | None = None


BUDGETS = {
    "quick": Budget(
        "bundled", 64, main_steps=20, steps=10, precision="float32"
    ),  # emulated on many processors
    # 128 × 128 in place of 256 × 256 makes four times as many steps of the same time: two processor cores, a day.
    "study": Budget("sice-train", 128, main_steps=5000, steps=2000, main_seeds=(0, 1, 2)),
}


def plan(
    profile: str, seeds: Sequence[int] | None = None, arms: Sequence[str] | None = None
) -> list[TrainConfig]:
    """Every training of a profile's sweep, in the order in which to run them.

    seeds: in place of the profile's own. arms: only those. Raises ValueError for a name that is not there.
    """
    if profile not in BUDGETS:
        raise ValueError(f"profile={profile!r}: choose one of {', '.join(BUDGETS)}")
    if unknown := [arm for arm in arms or () if arm not in ARMS]:
        raise ValueError(f"arm {unknown[0]!r}: choose one of {', '.join(ARMS)}")
    budget = BUDGETS[profile]

    def training(arm: str, steps: int, seed: int) -> TrainConfig:
        data = ARMS[arm].data.replace("sice-train", budget.data)
        precision = budget.precision or ARMS[arm].precision
        return replace(
            ARMS[arm], data=data, size=budget.size, steps=steps, seed=seed, precision=precision
        )

    main_seeds, other_seeds = (seeds or budget.main_seeds), (seeds or budget.seeds)
    # The reference row first: the long trainings of the same arm then go on from it.
    passed = dict.fromkeys((*other_seeds, *main_seeds))
    reference = [training("zero-dce-improved", budget.steps, seed) for seed in passed]
    main = [training(arm, budget.main_steps, seed) for seed in main_seeds for arm in MAIN]
    others = [
        training(arm, budget.steps, seed) for seed in other_seeds for arm in ARMS if arm not in MAIN
    ]
    return [config for config in (*reference, *main, *others) if not arms or config.name in arms]


def training_folder(profile: str = "study") -> Path:
    """Where a profile's finished trainings are kept: configuration, record and weights of each."""
    return paths.reports(profile) / "training"


def keep_training(config: TrainConfig, profile: str = "study") -> None:
    """Copy the finished run of ``config`` from ``runs/`` to :func:`training_folder`, its record compressed.

    Equal runs give equal files: the record is rounded to six digits, the archive carries no time.
    """
    run, home = paths.runs() / config.run_name(), training_folder(profile)
    kept = {
        "csv.gz": gzip.compress((run / "record.csv").read_bytes(), mtime=0),
        "json": (run / "run.json").read_bytes(),
        "safetensors": (run / "model.safetensors").read_bytes(),
    }
    for suffix, content in kept.items():
        with atomic_write(home / f"{config.run_name()}.{suffix}") as partial:
            partial.write_bytes(content)


def trainings(profile: str = "study") -> pd.DataFrame:
    """The profile's planned trainings that were kept, one row each: arm, seed, steps, batch, size, photographs (seen),
    hours, device, threads, torch, and the files of its record and weights."""
    home, rows = training_folder(profile), []
    for config in plan(profile):
        record, weights = (
            home / f"{config.run_name()}.{suffix}" for suffix in ("csv.gz", "safetensors")
        )
        if not (record.is_file() and weights.is_file()):
            continue
        run = json.loads((home / f"{config.run_name()}.json").read_text("utf-8"))
        rows.append(
            {
                "arm": config.name,
                "seed": config.seed,
                "steps": config.steps,
                "batch": config.batch,
                "size": config.size,
                "photographs": config.steps * config.batch,
                "hours": run["seconds"] / 3600,
                **{key: run[key] for key in ("device", "threads", "torch")},
                "record": record,
                "weights": weights,
            }
        )
    return pd.DataFrame(rows)


def training_records(name: str, profile: str = "study") -> pd.DataFrame | None:
    """Every step of an arm's kept trainings of most steps, one seed after another: seed, step, four weighted terms,
    loss, gradient_norm. None where no training of that arm was kept."""
    kept = trainings(profile)
    kept = kept[kept["arm"] == name] if len(kept) else kept
    if not len(kept):
        return None
    longest = kept[kept["steps"] == kept["steps"].max()]
    return pd.concat(
        [pd.read_csv(row.record).assign(seed=row.seed) for row in longest.itertuples()],
        ignore_index=True,
    )


def shipped_records(name: str) -> pd.DataFrame | None:
    """Every step of the training behind a shipped network, and of its repetitions with other seeds: columns as in
    :func:`training_records`. None where they were not kept."""

    def but_seed(config: dict) -> dict:
        return {key: value for key, value in config.items() if key != "seed"}

    shipped, found = checkpoints.load(name).header["train"], []
    for file in sorted(training_folder().glob(f"{name}-seed*.json")):
        config = json.loads(file.read_text("utf-8"))["config"]
        if but_seed(config) == but_seed(shipped):
            found.append(pd.read_csv(file.with_suffix(".csv.gz")).assign(seed=config["seed"]))
    return pd.concat(found, ignore_index=True) if found else None


def training_record(name: str, seed: int = 0, profile: str = "study") -> pd.DataFrame | None:
    """:func:`training_records` of one seed; None where it was not kept."""
    records = training_records(name, profile)
    mine = records[records["seed"] == seed] if records is not None else ()
    return mine.drop(columns="seed").reset_index(drop=True) if len(mine) else None


def budget(config: TrainConfig | dict) -> str:
    """In words, for tables: ``5,000 steps × 4 at 128 px, seed 0``. config: also the header of a weights file."""
    known = config if isinstance(config, dict) else config.header()
    return (
        f"{known['steps']:,} steps × {known['batch']} at {known['size']} px, seed {known['seed']}"
    )

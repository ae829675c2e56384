"""Training without references: photographs and four losses in, weights and a record of every step
out.

The loop is the released code's (Adam, clipped gradients, one pass over shuffled photographs an
epoch), on photographs that were decoded and resized once. All randomness comes from the seed and
the epoch, so that a training stopped at any instant goes on bit for bit as if it had not been. On a
GPU the same step is compiled, captured once and replayed, with all that it reads on the device.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from zdce import checkpoints, datasets, memory, paths
from zdce.datasets import TrainingSet, exposure_warning, training_set
from zdce.files import atomic_write, lock
from zdce.losses import TERMS
from zdce.model import CurveNet
from zdce.step import (
    COLUMNS,
    Captured,
    State,
    TrainConfig,
    TrainingError,
    native_bfloat16,
)

LOOKED_AT = 500  # steps on a GPU between two looks at whether the losses are finite


def weights_name(name: str, seed: int, epochs: float) -> str:
    """File name of weights, such as ``zero-dce-seed0-epoch200.safetensors``; whole epochs."""
    return f"{name}-seed{seed}-epoch{int(epochs):03d}.safetensors"


@dataclass(frozen=True)
class Saving:
    """What is written while a training runs.

    seconds: between two checkpoints. snapshots: steps after which the weights are kept in the run's
    folder ``snapshots``. tensorboard: every step's record, for ``tensorboard --logdir runs``.
    """

    seconds: float = 60.0
    snapshots: tuple[int, ...] = ()
    tensorboard: bool = False


@dataclass
class Run:
    """A training's outcome.

    record: one row a step, columns :data:`COLUMNS`, weighted terms. seconds: that the training
    took, the parts before interruptions included. precision: that the convolutions had.
    """

    config: TrainConfig
    folder: Path
    net: CurveNet
    record: pd.DataFrame
    seconds: float
    precision: str

    @property
    def weights(self) -> Path:
        """The trained network, ``.safetensors``."""
        return self.folder / "model.safetensors"

    @property
    def picture(self) -> Path | None:
        """The loss over the steps, ``.png``; None where the photographs are a named data set."""
        return None if _is_named(self.config.data) else self.folder / "loss.png"


def train(
    config: TrainConfig,
    out: str | Path | None = None,
    *,
    weights: str | Path | None = None,
    resume: bool = False,
    photographs: TrainingSet | None = None,
    device: str = "cpu",
    progress: bool = True,
    saving: Saving = Saving(),
) -> Run:
    """Train ``config`` into the folder ``out``, by default one of ``runs/`` named after ``config``.

    weights: a file to start from, in place of random values. resume: go on from the folder's last
    checkpoint; without one it starts anew and says so. A finished run is returned as it is, and
    goes on when ``steps`` was raised. photographs: in place of the set that ``config`` names.
    device: ``cpu`` or ``cuda``. A second process that trains into the same folder waits for the
    first.

    Raises :class:`TrainingError` for a loss that is not finite (the last good checkpoint stays),
    for a checkpoint that is damaged or of another configuration and for weights of another network,
    and ValueError for a folder without photographs or photographs of another size.
    """
    memory.keep_freed()
    job = Job(config, out, weights, resume, photographs, device, progress, saving)
    with lock(job.folder, "trains"):
        for _ in job.steps():
            pass
    return job.run


@dataclass
class Job:
    """One training as a series of steps, so that several can take turns; fields: :func:`train`.

    The caller holds the lock of ``folder``. ``run`` is there when :meth:`steps` has ended.
    """

    config: TrainConfig
    out: str | Path | None = None
    weights: str | Path | None = None
    resume: bool = False
    photographs: TrainingSet | None = None
    device: str = "cpu"
    progress: bool = False
    saving: Saving = Saving()
    run: Run | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.weights:
            self.start = _starting_weights(self.config, self.weights)
            self.config = replace(self.config, start=checkpoints.fingerprint(self.start))
        self.folder = Path(self.out) if self.out else paths.runs() / self.config.run_name()

    def steps(self) -> Iterator[None]:
        """Train to the end; gives way after every step."""
        config, device, header, tensors = self.config, torch.device(self.device), {}, {}
        kept = self.folder / "checkpoint.safetensors"
        if self.resume and kept.exists():
            header, tensors = _read_checkpoint(kept, config)
        elif self.resume and self.progress:
            print(f"{self.folder}: no checkpoint to go on from; starts anew", flush=True)
        precision = header.get("precision", config.precision)
        if precision == "auto":
            precision = "bfloat16" if native_bfloat16(device) else "float32"
        done = header.get("step") == config.steps and finished(config, self.folder)
        if self.photographs is None and not done:
            self.photographs = training_set(config.data, config.size, self.progress)
        kind = Captured if device.type == "cuda" and not done else State
        state = kind(config, device, precision, self.photographs)
        if self.weights:
            state.put(self.start)
        if tensors:
            state.restore(tensors, _seconds(self.folder))
        if state.step < config.steps:
            self._check(self.photographs)
            yield from self._loop(state)
        self.run = self._finish(state)

    def _check(self, photographs: TrainingSet) -> None:
        shape, size = photographs.images.shape[1:], self.config.size
        if shape != (size, size, 3):
            raise ValueError(f"photographs are {shape}: size={size} needs another set")
        if self.progress and (warning := exposure_warning(photographs.images)):
            print(f"warning: {warning}", flush=True)

    def _loop(self, state: State) -> Iterator[None]:
        """Steps until the configured number, with checkpoints and snapshots on the way."""
        config, saving = self.config, self.saving
        stops = {config.steps, *saving.snapshots}
        saved, began = time.monotonic(), time.perf_counter() - state.seconds
        board = _board(self.folder, state.step) if saving.tensorboard else nullcontext()
        how = {"unit": "step", "mininterval": 5, "file": sys.stdout, "disable": not self.progress}
        with tqdm(total=config.steps, initial=state.step, **how) as bar, board as writer:
            while state.step < config.steps:
                state.advance()
                bar.update()
                yield
                epoch = state.step % state.per_epoch == 0
                due = time.monotonic() - saved > saving.seconds
                if not (epoch or due or state.step in stops or state.step % LOOKED_AT == 0):
                    continue
                rows = state.settle()
                if writer is not None:
                    _write_rows(writer, rows, state.step)
                if self.progress and (epoch or state.step == config.steps):
                    bar.write(_epoch_line(state))
                if state.step in saving.snapshots:
                    name = weights_name(config.name, config.seed, state.step / state.per_epoch)
                    self._save_weights(state, self.folder / "snapshots" / name)
                if due or state.step == config.steps:
                    state.seconds = time.perf_counter() - began
                    state.save(self.folder / "checkpoint.safetensors")
                    saved = time.monotonic()

    def _save_weights(self, state: State, file: Path) -> None:
        config = replace(self.config, steps=state.step)
        about = {"train": config.header(), "precision": state.precision}
        checkpoints.save(file, state.net, config.name, config.gamma, **about)

    def _finish(self, state: State) -> Run:
        config, frame = self.config, pd.DataFrame(state.record, columns=list(COLUMNS))
        run = Run(config, self.folder, state.net.eval(), frame, state.seconds, state.precision)
        if self.resume and finished(config, self.folder):
            return run
        with atomic_write(self.folder / "record.csv") as partial:
            frame.to_csv(partial, index_label="step", float_format="%.6g")
        if run.picture:
            _draw(frame, state.per_epoch, run.picture)
        self._save_weights(state, run.weights)
        return run


def finished(config: TrainConfig, folder: Path) -> bool:
    """Whether ``folder`` holds the finished model of just this training."""
    try:
        header = checkpoints.read(folder / "model.safetensors").header
    except checkpoints.CheckpointError:
        return False
    return header.get("train") == config.header()


# --- files ----------------------------------------------------------------------------------------


def _is_named(data: str) -> bool:
    return data.removesuffix(datasets.NOT_OVER) in datasets.DATASETS


def _starting_weights(config: TrainConfig, file: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file, ours or published, that fits the experiment's network."""
    net = checkpoints.read(file).net
    if getattr(net, "config", None) != config.net:
        raise TrainingError(f"{file}: holds another network than {config.name}'s; choose --arm")
    return net.state_dict()


def _read_checkpoint(file: Path, config: TrainConfig) -> tuple[dict, dict[str, Tensor]]:
    """Header and tensors of a checkpoint that ``config`` can go on from."""
    try:
        tensors, header = checkpoints.read_tensors(file)
        step, theirs, _ = int(header["step"]), dict(header["train"]), tensors["record"]
    except (KeyError, TypeError, ValueError):
        raise TrainingError(
            f"{file}: damaged, or no checkpoint of a training; remove it or start anew"
        ) from None
    ours = config.header()
    if different := [key for key in ours if key != "steps" and ours[key] != theirs.get(key)]:
        raise TrainingError(
            f"{file}: was trained with another {', '.join(different)}; choose another folder"
        )
    if step > config.steps:
        raise TrainingError(f"{file}: already at step {step}, beyond steps={config.steps}")
    return header, tensors


def _seconds(folder: Path) -> float:
    """What a run took so far; 0 where nobody knows any more, which does a training no harm."""
    try:
        return float(json.loads((folder / "run.json").read_text("utf-8"))["seconds"])
    except (OSError, KeyError, TypeError, ValueError):
        return 0.0


def _board(folder: Path, step: int):
    """TensorBoard's writer; what an interrupted run had written after ``step`` is shown no more."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError(
            'TensorBoard is not installed: pip install "zdce[tensorboard]"'
        ) from None
    return SummaryWriter(str(folder), purge_step=step)


def _write_rows(writer, rows: np.ndarray, step: int) -> None:
    """The last ``rows`` of the record, of which the last belongs to step ``step`` − 1."""
    for number, row in enumerate(rows, step - len(rows)):
        for column, value in zip(COLUMNS, row.tolist(), strict=True):
            writer.add_scalar(column, value, number)


def _epoch_line(state: State) -> str:
    means = zip(COLUMNS, state.record[-state.per_epoch :].mean(axis=0), strict=True)
    values = ", ".join(f"{column} {value:.4f}" for column, value in means)
    return f"epoch {state.step / state.per_epoch:.4g}: {values}"


def _draw(record: pd.DataFrame, per_epoch: int, file: Path) -> None:
    """The loss of every step and the mean of every epoch as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, len(record) + 1)
    axes.plot(steps, record["loss"], color="0.75", linewidth=0.8, label="loss of each step")
    epochs = record.groupby((steps - 1) // per_epoch)
    ends = np.minimum((np.arange(len(epochs)) + 1) * per_epoch, len(record))
    for column, width in (("loss", 2.0), *((term, 1.0) for term in TERMS)):
        axes.plot(ends, epochs[column].mean(), linewidth=width, label=f"{column}, mean of epochs")
    axes.set(xlabel="step", ylabel="weighted loss", ylim=(0, None))
    axes.legend(fontsize="small")
    with atomic_write(file) as partial:
        figure.savefig(partial, format="png", dpi=120)

"""Training without references: photographs and losses in, weights and a record of every step out.

The loop is the released code's (Adam, clipped gradients, one pass over shuffled photographs an
epoch), on photographs that were decoded and resized once. All randomness comes from the seed and
the epoch, so that an interrupted training resumes bit for bit.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from zdce import checkpoints, memory, paths
from zdce.datasets import TrainingSet, exposure_warning, training_set
from zdce.files import atomic_write, lock
from zdce.losses import TERMS
from zdce.model import CurveNet
from zdce.step import COLUMNS, State, TrainConfig, TrainingError, device_of

CHECKPOINT, MODEL = "checkpoint.safetensors", "model.safetensors"  # of a run's folder


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
    """A training's outcome. record: one row a step, columns :data:`COLUMNS`, weighted terms."""

    config: TrainConfig
    folder: Path
    net: CurveNet
    record: pd.DataFrame

    @property
    def weights(self) -> Path:
        """The trained network, ``.safetensors``."""
        return self.folder / MODEL

    @property
    def picture(self) -> Path:
        """The loss over the steps, ``.png``."""
        return self.folder / "loss.png"


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
    device: ``cpu``, ``cuda`` or ``auto``. A second process that trains into the same folder waits
    for the first.

    Raises :class:`TrainingError` for a loss that is not finite (the last good checkpoint stays),
    for a checkpoint that is damaged or of another configuration and for weights of another network,
    and ValueError for a folder without photographs or photographs of another size.
    """
    memory.keep_freed()
    start = _starting_weights(config, weights) if weights else {}
    if start:
        config = replace(config, start=checkpoints.fingerprint(start))
    folder = Path(out) if out else paths.runs() / config.run_name()
    with lock(folder, "trains"):
        header, tensors = _read_checkpoint(folder / CHECKPOINT, config) if resume else ({}, {})
        if resume and not header and progress:
            print(f"{folder}: no checkpoint to go on from; starts anew", flush=True)
        if header.get("step") == config.steps and finished(config, folder):
            net = checkpoints.read(folder / MODEL).net
            return Run(config, folder, net, _table(tensors["record"].numpy()))
        if photographs is None:
            photographs = training_set(config.data, config.size, progress)
        _check(config, photographs, progress)
        precision = header.get("precision", config.precision)
        state = State(config, device_of(device), precision, photographs)
        if start:
            state.net.load_state_dict(start)
        if header:
            state.restore(tensors)
        _steps(state, folder, progress, saving)
        return _finish(state, folder)


def finished(config: TrainConfig, folder: Path) -> bool:
    """Whether ``folder`` holds the finished model of just this training."""
    try:
        header = checkpoints.read(folder / MODEL).header
    except checkpoints.CheckpointError:
        return False
    return header.get("train") == config.header()


def _check(config: TrainConfig, photographs: TrainingSet, progress: bool) -> None:
    shape, size = photographs.images.shape[1:], config.size
    if shape != (size, size, 3):
        raise ValueError(f"photographs are {shape}: size={size} needs another set")
    if progress and (warning := exposure_warning(photographs.images)):
        print(f"warning: {warning}", flush=True)


def _steps(state: State, folder: Path, progress: bool, saving: Saving) -> None:
    """Steps until the configured number, with checkpoints and snapshots on the way."""
    config, about = state.config, folder / "run.json"
    before = json.loads(about.read_text("utf-8"))["seconds"] if state.step else 0.0
    saved = began = time.monotonic()
    board = _board(folder, state.step) if saving.tensorboard else nullcontext()
    how = {"unit": "step", "mininterval": 5, "file": sys.stdout, "disable": not progress}
    with tqdm(total=config.steps, initial=state.step, **how) as bar, board as writer:
        while state.step < config.steps:
            state.advance()
            bar.update()
            for column, value in zip(COLUMNS, state.record[-1], strict=True) if writer else ():
                writer.add_scalar(column, value, state.step - 1)
            last = state.step == config.steps
            if progress and (last or state.step % state.per_epoch == 0):
                means = zip(COLUMNS, np.mean(state.record[-state.per_epoch :], axis=0), strict=True)
                values = ", ".join(f"{column} {value:.4f}" for column, value in means)
                bar.write(f"epoch {state.step / state.per_epoch:.4g}: {values}")
            if state.step in saving.snapshots:
                name = weights_name(config.name, config.seed, state.step / state.per_epoch)
                _save_weights(state, folder / "snapshots" / name)
            if last or time.monotonic() - saved > saving.seconds:
                saved = time.monotonic()
                _save_checkpoint(state, folder, before + saved - began)


def _board(folder: Path, step: int):
    """TensorBoard's writer; what an interrupted run had written after ``step`` is shown no more."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError(
            'TensorBoard is not installed: pip install "zdce[tensorboard]"'
        ) from None
    return SummaryWriter(str(folder), purge_step=step)


# --- files ----------------------------------------------------------------------------------------


def _starting_weights(config: TrainConfig, file: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file, ours or published, that fits the experiment's network."""
    net = checkpoints.read(file).net
    if getattr(net, "config", None) != config.net:
        raise TrainingError(f"{file}: holds another network than {config.name}'s; choose --arm")
    return net.state_dict()


def _read_checkpoint(file: Path, config: TrainConfig) -> tuple[dict, dict[str, Tensor]]:
    """Header and tensors of a checkpoint that ``config`` can go on from; empty without a file."""
    if not file.exists():
        return {}, {}
    try:
        tensors, header = checkpoints.read_tensors(file)
        step, theirs, _ = header["step"], header["train"], tensors["record"]
    except (KeyError, ValueError):
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


def _save_checkpoint(state: State, folder: Path, seconds: float) -> None:
    """``run.json``, in which stands what differs between trainings of equal configuration, and all
    that this one goes on from.
    """
    config, gpu = state.config.header(), state.device.type == "cuda"
    about = {
        "config": config,
        "seconds": round(seconds, 1),
        "precision": state.precision,
        "device": torch.cuda.get_device_name(state.device) if gpu else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "photographs": len(state.photographs),
    }
    with atomic_write(folder / "run.json") as partial:
        partial.write_text(json.dumps(about, indent=1, sort_keys=True), "utf-8")
    header = {"step": state.step, "precision": state.precision, "train": config}
    checkpoints.write_tensors(folder / CHECKPOINT, state.tensors(), header)


def _save_weights(state: State, file: Path) -> None:
    config = replace(state.config, steps=state.step)
    about = {"train": config.header(), "precision": state.precision}
    checkpoints.save(file, state.net, config.name, config.gamma, **about)


def _finish(state: State, folder: Path) -> Run:
    """The record, the picture and last the weights."""
    table = _table(np.array(state.record, np.float32))
    run = Run(state.config, folder, state.net.eval(), table)
    with atomic_write(folder / "record.csv") as partial:
        table.to_csv(partial, index_label="step", float_format="%.6g")
    _draw(table, state.per_epoch, run.picture)
    _save_weights(state, run.weights)
    return run


def _table(record: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(record, columns=list(COLUMNS))


def _draw(record: pd.DataFrame, per_epoch: int, file: Path) -> None:
    """The loss of every step and the mean of every epoch as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(record.index + 1, record["loss"], color="0.75", label="loss of each step")
    epochs = record.groupby(record.index // per_epoch)
    ends = epochs.size().cumsum()
    for column in ("loss", *TERMS):
        axes.plot(ends, epochs[column].mean(), label=f"{column}, mean of epochs")
    axes.set(xlabel="step", ylabel="weighted loss", ylim=(0, None))
    axes.legend(fontsize="small")
    with atomic_write(file) as partial:
        figure.savefig(partial, format="png", dpi=120)

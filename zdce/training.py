"""Training without references: photographs and losses in, weights and a record of every step out.

The loop is the released code's (losses, clipped gradients, Adam), on photographs that were decoded
and resized once. All randomness comes from the seed and the epoch, so that an interrupted training
resumes bit for bit.
"""

import hashlib
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from zdce import checkpoints, memory, paths
from zdce.datasets import TrainingSet, exposure_warning, training_set
from zdce.files import atomic_write, lock
from zdce.losses import RELEASED, TERMS, LossConfig, loss_terms
from zdce.model import ZERO_DCE, CurveNet, NetConfig, device_of

PRECISIONS = ("auto", "float32", "bfloat16")
CHECKPOINT, MODEL = "checkpoint.safetensors", "model.safetensors"  # of a run's folder
# Of the record: the weighted terms, their sum, and the gradient's norm before clipping.
COLUMNS = [*TERMS, "loss", "gradient_norm"]
MOMENTS = ("exp_avg", "exp_avg_sq")  # what Adam remembers of each parameter


class TrainingError(RuntimeError):
    """Training that cannot go on; one line that says at which step and why."""


@dataclass(frozen=True)
class TrainConfig:
    """One training, whole: equal ones give equal weights on one processor with equal threads.

    data: name of a data set or a folder of photographs. size: side of the square that photographs
    are resized to, pixels. steps: optimiser steps in all. precision: of the convolutions alone;
    ``auto`` takes bfloat16 where the device computes with it, never where it is only emulated.
    start: fingerprint of the weights to start from; empty for random ones of the seed.
    """

    name: str = "zero-dce"
    net: NetConfig = ZERO_DCE
    loss: LossConfig = RELEASED
    data: str = "sice-train"
    size: int = 256  # released code
    batch: int = 8  # released code; the improved study takes 4
    steps: int = 50_200  # released code: 200 epochs of 2,002 photographs in batches of 8
    learning_rate: float = 1e-4  # released code
    weight_decay: float = 1e-4  # released code
    clip: float = 0.1  # released code: largest gradient norm
    gamma: float = 1.0  # post-processing that goes with the weights
    precision: str = "auto"  # released code: float32
    seed: int = 0
    start: str = ""

    def __post_init__(self) -> None:
        for key, least in (("size", 16), ("batch", 1), ("steps", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"{key}={getattr(self, key)}: must be {least} or more")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}: choose one of {', '.join(PRECISIONS)}")

    def header(self) -> dict:
        """Plain values, as they read in a checkpoint's header."""
        return json.loads(json.dumps(asdict(self)))

    def run_name(self) -> str:
        """Folder name: experiment, seed, and a hash of it all, so that nothing stale is read."""
        digest = hashlib.sha256(json.dumps(self.header(), sort_keys=True).encode()).hexdigest()
        return f"{self.name}-seed{self.seed}-{digest[:10]}"


def batches(count: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of photograph numbers; an epoch is a fresh permutation drawn from (seed,
    epoch), its last batch may be smaller (released code).
    """
    epoch = 0
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(count)
        yield from (np.sort(order[k : k + batch]) for k in range(0, count, batch))
        epoch += 1


def native_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` computes with bfloat16 numbers; elsewhere they are emulated, slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)


class State:
    """All that changes while a network trains, and the step.

    record: a row for each step done, columns :data:`COLUMNS`.
    """

    def __init__(
        self, config: TrainConfig, device: torch.device, precision: str, photographs: TrainingSet
    ) -> None:
        if precision == "auto":
            precision = "bfloat16" if native_bfloat16(device) else "float32"
        self.config, self.device, self.precision = config, device, precision
        self.photographs = photographs
        self.per_epoch = -(-len(photographs) // config.batch)
        self.images = torch.from_numpy(photographs.images).to(device)  # 394 MB of sice-train
        self.order = batches(len(photographs), config.batch, config.seed)
        self.record: list[list[float]] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.net = CurveNet(config.net)
        layout = torch.channels_last if precision == "bfloat16" else torch.contiguous_format
        self.net.to(device, memory_format=layout).train()
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        for parameter in self.net.parameters():  # as Adam would, but before its first step
            moments = {key: torch.zeros_like(parameter) for key in MOMENTS}
            self.optimizer.state[parameter] = {"step": torch.zeros(()), **moments}
        if device.type == "cuda":  # launched as one CUDA graph for each size of batch
            self.values = torch.compile(self.values, mode="reduce-overhead", dynamic=False)

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.record)

    def values(self, image: Tensor) -> Tensor:
        """The weighted terms for photographs (N, 3, H, W) in [0, 1], in the order of
        ``losses.TERMS``, and their sum.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            enhanced, curves = self.net(image)
        terms = list(loss_terms(enhanced, image, curves, self.config.loss).values())
        return torch.stack([*terms, sum(terms)])

    def advance(self) -> None:
        """The next step. Raises :class:`TrainingError`, which names the photographs, for a loss or
        gradient that is not finite.
        """
        numbers = next(self.order)
        pixels = self.images[torch.from_numpy(numbers).to(self.device)]  # (N, H, W, 3)
        self.optimizer.zero_grad()
        values = self.values(pixels.permute(0, 3, 1, 2).float().div_(255))
        values[-1].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        self.optimizer.step()
        self.record.append([*values.tolist(), norm.item()])
        for column, value in zip(COLUMNS, self.record[-1], strict=True):
            if not math.isfinite(value):
                names = ", ".join(self.photographs.names[k] for k in numbers)
                term = column.replace("_", " ")
                raise TrainingError(f"step {self.step - 1}: {term} is {value}, photographs {names}")

    def tensors(self) -> dict[str, Tensor]:
        """All that a training goes on from, by name."""
        found = {"record": torch.tensor(self.record)}
        for name, parameter in self.net.named_parameters():
            every = {"net": parameter, **self.optimizer.state[parameter]}
            found |= {f"{kind}.{name}": every[kind] for kind in ("net", *MOMENTS)}
        return found

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from :meth:`tensors`."""
        for name, tensor in self.tensors().items():
            if name != "record":
                tensor.copy_(tensors[name])
        self.record = tensors["record"].tolist()
        for state in self.optimizer.state.values():
            state["step"].fill_(self.step)
        self.order = itertools.islice(self.order, self.step, None)


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
    and ValueError for a folder without photographs.
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
            record = pd.DataFrame(tensors["record"].numpy(), columns=COLUMNS)
            return Run(config, folder, checkpoints.read(folder / MODEL).net, record)
        if photographs is None:
            photographs = training_set(config.data, config.size, progress)
        if progress and (warning := exposure_warning(photographs.images)):
            print(f"warning: {warning}", flush=True)
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
            bar.set_postfix(loss=state.record[-1][COLUMNS.index("loss")], refresh=False)
            bar.update()
            for column, value in zip(COLUMNS, state.record[-1], strict=True) if writer else ():
                writer.add_scalar(column, value, state.step - 1)
            if state.step in saving.snapshots:
                name = weights_name(config.name, config.seed, state.step / state.per_epoch)
                _save_weights(state, folder / "snapshots" / name)
            if state.step == config.steps or time.monotonic() - saved > saving.seconds:
                saved = time.monotonic()
                _save_checkpoint(state, folder, before + saved - began)


def _board(folder: Path, step: int):
    """TensorBoard's writer; what an interrupted run had written after ``step`` is shown no more."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError('--tensorboard needs: pip install "zdce[tensorboard]"') from None
    return SummaryWriter(str(folder), purge_step=step)


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
        raise TrainingError(f"{file}: damaged, or no checkpoint; remove it or start anew") from None
    ours = config.header()
    if different := [key for key in ours if key != "steps" and ours[key] != theirs.get(key)]:
        what = ", ".join(different)
        raise TrainingError(f"{file}: was trained with another {what}; choose another folder")
    if step > config.steps:
        raise TrainingError(f"{file}: already at step {step}, beyond steps={config.steps}")
    return header, tensors


def _save_checkpoint(state: State, folder: Path, seconds: float) -> None:
    """All that a training goes on from, and ``run.json``: where and how long it ran."""
    gpu = state.device.type == "cuda"
    about = {
        "seconds": round(seconds, 1),
        "precision": state.precision,
        "device": torch.cuda.get_device_name(state.device) if gpu else "cpu",
        "torch": torch.__version__,
        "photographs": len(state.photographs),
    }
    with atomic_write(folder / "run.json") as partial:
        partial.write_text(json.dumps(about, indent=1, sort_keys=True), "utf-8")
    header = {"step": state.step, "precision": state.precision, "train": state.config.header()}
    checkpoints.write_tensors(folder / CHECKPOINT, state.tensors(), header)


def _save_weights(state: State, file: Path) -> None:
    config = replace(state.config, steps=state.step)
    about = {"train": config.header(), "precision": state.precision}
    checkpoints.save(file, state.net, config.name, config.gamma, **about)


def _finish(state: State, folder: Path) -> Run:
    """The record, the loss as a picture, and last the weights."""
    from matplotlib.figure import Figure

    record = pd.DataFrame(np.array(state.record, np.float32), columns=COLUMNS)
    with atomic_write(folder / "record.csv") as partial:
        record.to_csv(partial, index_label="step", float_format="%.6g")
    figure, shown = Figure(figsize=(7, 4), layout="constrained"), ["loss", *TERMS]
    axes = figure.subplots()
    axes.plot(record["loss"], color="0.75")
    means = record[shown].rolling(state.per_epoch, min_periods=1).mean()
    axes.plot(means, label=shown)
    axes.set(xlabel="step", ylabel="weighted loss, mean of an epoch", ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=len(shown))
    with atomic_write(folder / "loss.png") as partial:
        figure.savefig(partial, format="png", dpi=120)
    _save_weights(state, folder / MODEL)
    return Run(state.config, folder, state.net.eval(), record)

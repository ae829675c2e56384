"""Training without references: photographs and four losses in, weights and a record of every step out.

The loop is the released code's (Adam, clipped gradients, one pass over shuffled photographs an epoch), on photographs
that were decoded and resized once. All randomness comes from the seed and the epoch, so that a training stopped at
any instant goes on bit for bit as if it had not been.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from zdce import checkpoints, memory, paths
from zdce.datasets import CAMERA, TrainingSet, exposure_warning, training_set
from zdce.files import atomic_write, lock
from zdce.losses import RELEASED, TERMS, LossConfig, loss_terms
from zdce.model import ZERO_DCE, CurveNet, NetConfig

PRECISIONS = ("float32", "bfloat16")
COLUMNS = (
    *TERMS,
    "loss",
    "gradient_norm",
)  # of the record: four weighted terms, their sum, norm before clipping


# Fields that joined the configurations after the first trainings, and their defaults.
LATER = {"darkened": 0.0, "decay": False}
LATER_LOSS = {}
STOPS = 4.0  # ours: the most light that is taken from a darkened photograph


def weights_name(name: str, seed: int, epochs: float) -> str:
    """File name of weights, such as ``zero-dce-seed0-epoch200.safetensors``; whole epochs."""
    return f"{name}-seed{seed}-epoch{int(epochs):03d}.safetensors"


class TrainingError(RuntimeError):
    """Training that cannot go on; one line that says at which step and why."""


@dataclass(frozen=True)
class TrainConfig:
    """One training, whole: equal configurations give equal weights on one machine's CPU with as many threads.

    data: name of a data set or a folder of photographs. size: side of the square that photographs are resized to,
    pixels. steps: optimiser steps in all. darkened: share of each batch that is taken again with up to four stops less
    light, noise of a camera included. decay: the learning rate falls along a half cosine, to 0 at the last step;
    another number of steps is then another training from the start.
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
    precision: str = (
        "float32"  # released code; of the convolutions alone, the rest is float32 always
    )
    seed: int = 0
    darkened: float = 0.0  # ours
    decay: bool = False  # ours

    def __post_init__(self) -> None:
        for key, least in (("size", 16), ("batch", 1), ("steps", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"{key}={getattr(self, key)}: must be {least} or more")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}: choose one of {', '.join(PRECISIONS)}")
        if not 0 <= self.darkened <= 1:
            raise ValueError(f"darkened={self.darkened}: a share, must lie in [0, 1]")

    def header(self) -> dict:
        """Plain values, for a checkpoint's header.

        Fields that joined later are left out where they hold their defaults, so that earlier trainings keep their
        names.
        """
        header = asdict(self) | {"net": self.net.header()}
        for part, defaults in ((header, LATER), (header["loss"], LATER_LOSS)):
            for key, default in defaults.items():
                if part[key] == default:
                    del part[key]
        return header

    def run_name(self) -> str:
        """Folder name: the arm, the seed, and a hash of everything else, so that nothing stale is ever read."""
        digest = hashlib.sha256(json.dumps(self.header(), sort_keys=True).encode()).hexdigest()
        return f"{self.name}-seed{self.seed}-{digest[:10]}"


@dataclass
class Run:
    """A training's outcome. record: one row a step, columns :data:`COLUMNS`, weighted terms."""

    config: TrainConfig
    folder: Path
    net: CurveNet
    record: pd.DataFrame
    seconds: float  # that the training took, the parts before interruptions included

    @property
    def weights(self) -> Path:
        """The trained network, ``.safetensors``."""
        return self.folder / "model.safetensors"


def hash_of(seed: int, step: int) -> int:
    """A seed for the draws of one step, 0 … 2^63 − 1: neighbouring steps and seeds share nothing."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def batches(count: int, batch: int, seed: int, start: int = 0) -> Iterator[np.ndarray]:
    """Endless batches of photograph numbers, from step ``start`` on.

    Each epoch is a fresh permutation drawn from (seed, epoch); its last batch may be smaller (released code).
    """
    per_epoch = -(-count // batch)
    epoch, first = divmod(start, per_epoch)
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(count)
        for k in range(first, per_epoch):
            yield order[k * batch : (k + 1) * batch]
        epoch, first = epoch + 1, 0


def train(
    config: TrainConfig,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    photographs: TrainingSet | None = None,
    device: str = "cpu",
    progress: bool = True,
    checkpoint_seconds: float = 60.0,
    tensorboard: bool = False,
) -> Run:
    """Train ``config`` into the folder ``out`` (default: ``runs/`` and the configuration's own name).

    resume: go on from the folder's last checkpoint if it has one; a finished run is then returned as it is. A run
    without a checkpoint goes on from a shorter run of the same training beside it, if there is one. Without
    ``resume`` the run starts anew. A finished run goes on when ``steps`` was raised. tensorboard: write every step's
    record there as well, for ``tensorboard --logdir runs``. A second process that trains into the same folder waits
    for the first.

    Raises :class:`TrainingError` for a loss that is not finite (the last good checkpoint stays) and for a checkpoint
    that is damaged or of another configuration, and ValueError for a folder without photographs or photographs of
    another size.
    """
    memory.keep_freed()
    folder = Path(out) if out else paths.runs() / config.run_name()
    with lock(folder, "trains"):
        return _train(
            config, folder, resume, photographs, device, progress, checkpoint_seconds, tensorboard
        )


def _train(
    config: TrainConfig,
    folder: Path,
    resume: bool,
    photographs: TrainingSet | None,
    device: str,
    progress: bool,
    checkpoint_seconds: float,
    tensorboard: bool,
) -> Run:
    state = _State(config, torch.device(device))
    if resume:
        state.load(_last_checkpoint(config, folder))
    if state.step < config.steps:
        if photographs is None:
            photographs = training_set(config.data, config.size)
        if photographs.images.shape[1:] != (config.size, config.size, 3):
            raise ValueError(
                f"photographs are {photographs.images.shape[1:]}: size={config.size} needs another set"
            )
        state.photographs = len(photographs)
        warning = exposure_warning(photographs.images)
        if warning and progress:
            print(f"warning: {warning}", flush=True)
        with _board(folder, state.step) if tensorboard else nullcontext() as board:
            _loop(
                state,
                photographs,
                folder / "checkpoint.safetensors",
                progress,
                checkpoint_seconds,
                board,
            )
    run = Run(config, folder, state.net.eval(), state.frame(), state.seconds)
    if not (resume and finished(config, folder)):
        with atomic_write(folder / "record.csv") as partial:
            run.record.to_csv(partial, index_label="step", float_format="%.6g")
        checkpoints.save(run.weights, state.net, config.name, config.gamma, train=config.header())
    return run


def _last_checkpoint(config: TrainConfig, folder: Path) -> Path:
    """The folder's own checkpoint; where it has none, that of the longest run beside it that differs in ``steps``
    alone and has gone no further: the learning rate is constant, so it is this very training's beginning."""
    own = folder / "checkpoint.safetensors"
    if own.exists() or config.decay:
        return own
    ours, best, furthest = {**_plain(config.header()), "steps": None}, own, 0
    for other in sorted(
        folder.parent.glob(f"{config.name}-seed{config.seed}-*/checkpoint.safetensors")
    ):
        try:
            with safe_open(other, framework="pt") as file:
                header = json.loads(file.metadata()["zdce"])
            if {**header["train"], "steps": None} == ours and furthest < header[
                "step"
            ] <= config.steps:
                best, furthest = other, header["step"]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue  # damaged, or no checkpoint of a training: no help, no harm
    return best


@contextmanager
def _board(folder: Path, step: int) -> Iterator:
    """TensorBoard's writer; what an interrupted run had written from ``step`` on is shown no more."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError(
            'TensorBoard is not installed: pip install "zdce[tensorboard]"'
        ) from None
    with SummaryWriter(str(folder), purge_step=step) as writer:
        yield writer


def finished(config: TrainConfig, folder: Path) -> bool:
    """Whether ``folder`` holds the finished model of just this training."""
    try:
        return checkpoints.read(folder / "model.safetensors").header.get("train") == _plain(
            config.header()
        )
    except checkpoints.CheckpointError:
        return False


def _plain(header: dict) -> dict:
    """``header`` as it reads after a journey through JSON."""
    return json.loads(json.dumps(header))


def _loop(
    state: _State, photographs: TrainingSet, checkpoint: Path, progress: bool, every: float, board
) -> None:
    """Steps until the configured number, saving every ``every`` seconds and at the end."""
    config, images = state.config, photographs.images
    if state.device.type != "cpu":  # all photographs resident: 394 MB at 256×256
        images = torch.from_numpy(np.array(images)).to(state.device)
    per_epoch = -(-len(images) // config.batch)
    saved = time.monotonic()
    started = time.perf_counter() - state.seconds
    with tqdm(
        total=config.steps,
        initial=state.step,
        unit="step",
        disable=not progress,
        mininterval=5,
        file=sys.stdout,
    ) as bar:
        for numbers in batches(len(images), config.batch, config.seed, state.step):
            numbers = np.sort(numbers)
            state.advance(images[numbers], [photographs.names[k] for k in numbers])
            bar.update()
            if board is not None:
                for column, value in zip(COLUMNS, state.record[-1], strict=True):
                    board.add_scalar(column, value, state.step - 1)
            done = state.step >= config.steps
            if progress and (state.step % per_epoch == 0 or done):
                means = zip(COLUMNS, state.record[-per_epoch:].mean(axis=0), strict=True)
                bar.write(
                    f"epoch {state.step / per_epoch:.4g}: "
                    + ", ".join(f"{c} {v:.4f}" for c, v in means)
                )
            if done or time.monotonic() - saved > every:
                state.seconds = time.perf_counter() - started
                state.save(checkpoint)
                saved = time.monotonic()
            if done:
                break


class _State:
    """Everything that changes while training: weights, optimiser, record; one file holds it all.

    Convolutions in bfloat16 run channels-last, where that pays; in float32 neither that nor ``torch.compile`` does
    (``benchmarks/training_speed.py``).
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.net = CurveNet(config.net)
        half = config.precision == "bfloat16"
        self.net.to(
            device, memory_format=torch.channels_last if half else torch.contiguous_format
        ).train()
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._record = np.zeros((config.steps, len(COLUMNS)), np.float32)
        self.step, self.seconds, self.photographs = 0, 0.0, 0

    @property
    def record(self) -> np.ndarray:
        return self._record[: self.step]

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self.record, columns=list(COLUMNS))

    def advance(self, pixels: np.ndarray, names: list[str]) -> None:
        """One optimiser step on ``pixels`` (N, size, size, 3) uint8, array or tensor: the photographs ``names``."""
        image = (
            torch.as_tensor(pixels, device=self.device)
            .permute(0, 3, 1, 2)
            .contiguous()
            .float()
            .div_(255)
        )
        if self.config.darkened:
            image = self._darkened(image)
        if self.config.decay:
            rate = (
                self.config.learning_rate
                * (1 + math.cos(math.pi * self.step / self.config.steps))
                / 2
            )
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"
        ):
            enhanced, curves = self.net(image)
        terms = loss_terms(enhanced, image, curves, self.config.loss)
        loss = sum(terms.values())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        values = torch.stack([*terms.values(), loss, norm]).tolist()  # one wait for the device
        for column, value in zip(COLUMNS, values, strict=True):
            if not np.isfinite(value):
                column = column.replace("_", " ")
                raise TrainingError(
                    f"step {self.step}: {column} is {value}, photographs {', '.join(names)}"
                )
        self.optimizer.step()
        self._record[self.step] = values
        self.step += 1

    def _darkened(self, image: Tensor) -> Tensor:
        """As many photographs of a batch as ``darkened`` says, any of them, with 0 – 4 stops less light.

        As :func:`zdce.datasets.expose`, with a normal distribution in place of the Poisson one. The draw comes from the
        seed and the step alone.
        """
        count = round(self.config.darkened * len(image))
        rng = torch.Generator().manual_seed(hash_of(self.config.seed, self.step))
        order = torch.randperm(len(image), generator=rng)
        light = 2.0 ** (-STOPS * torch.rand(count, 1, 1, 1, generator=rng))
        noise = torch.randn(count, *image.shape[1:], generator=rng)
        light, noise, part = (
            light.to(image.device),
            noise.to(image.device),
            image[order[:count].to(image.device)],
        )
        linear = torch.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        electrons = CAMERA.white * light * linear
        electrons = electrons + noise * (electrons + CAMERA.read_noise**2).sqrt()
        linear = (electrons / CAMERA.white).clamp(0, 1)
        part = torch.where(
            linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055
        )
        return image.index_copy(0, order[:count].to(image.device), (255 * part).round() / 255)

    def save(self, path: Path) -> None:
        if not all(torch.isfinite(parameter).all() for parameter in self.net.parameters()):
            raise TrainingError(
                f"step {self.step}: weights are not finite; {path.name} is left as it was"
            )
        tensors = {"record": torch.from_numpy(self.record.copy())}
        for name, parameter in self.net.named_parameters():
            moments = self.optimizer.state[parameter]
            tensors[f"net.{name}"] = parameter.detach().cpu().contiguous()
            for moment in ("exp_avg", "exp_avg_sq"):
                tensors[f"{moment}.{name}"] = moments[moment].cpu().contiguous()
        header = {"step": self.step, "train": self.config.header()}
        checkpoints.write_atomically(path, tensors, {"zdce": json.dumps(header, sort_keys=True)})
        # Beside the checkpoint, not in it: what differs between two trainings of equal configuration.
        run = {"config": self.config.header(), "step": self.step, "seconds": round(self.seconds, 1)}
        run |= {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "photographs": self.photographs,
            "precision": self.config.precision,
        }
        with atomic_write(path.with_name("run.json")) as partial:
            partial.write_text(json.dumps(run, indent=1, sort_keys=True), "utf-8")

    def load(self, path: Path) -> None:
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads(file.metadata()["zdce"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header["step"], header["train"], tensors["record"]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            raise TrainingError(
                f"{path}: damaged, or no checkpoint of a training; remove it or start anew"
            ) from None
        ours = _plain(self.config.header())
        may_differ = () if self.config.decay else ("steps",)
        if different := [
            k for k in ours if k not in may_differ and ours[k] != header["train"].get(k)
        ]:
            raise TrainingError(
                f"{path}: was trained with another {', '.join(different)}; choose another folder"
            )
        if header["step"] > self.config.steps:
            raise TrainingError(
                f"{path}: already at step {header['step']}, beyond steps={self.config.steps}"
            )
        self.step = header["step"]
        try:
            self.seconds = float(
                json.loads(path.with_name("run.json").read_text("utf-8"))["seconds"]
            )
        except (OSError, KeyError, TypeError, ValueError):
            self.seconds = 0.0  # unknown: of no consequence for the training
        self._record[: self.step] = tensors["record"].numpy()
        for name, parameter in self.net.named_parameters():
            parameter.data.copy_(tensors[f"net.{name}"])
            moments = {
                m: tensors[f"{m}.{name}"].to(parameter).clone() for m in ("exp_avg", "exp_avg_sq")
            }
            for moment in moments:
                moments[moment] = torch.empty_like(parameter).copy_(moments[moment])
            self.optimizer.state[parameter] = {"step": torch.tensor(float(self.step)), **moments}

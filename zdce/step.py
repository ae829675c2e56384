"""One training step, and all that changes while a network trains.

The step is the released code's: losses, clipped gradients, Adam.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from zdce.datasets import TrainingSet
from zdce.losses import RELEASED, TERMS, LossConfig, loss_terms
from zdce.model import ZERO_DCE, CurveNet, NetConfig

PRECISIONS = ("auto", "float32", "bfloat16")
# Of the record: the weighted terms, their sum, and the gradient's norm before clipping.
COLUMNS = (*TERMS, "loss", "gradient_norm")
MOMENTS = ("exp_avg", "exp_avg_sq")  # what Adam remembers of each parameter


class TrainingError(RuntimeError):
    """Training that cannot go on; one line that says at which step and why."""


@dataclass(frozen=True)
class TrainConfig:
    """One training, whole: equal configurations give equal weights on one machine's processor.

    data: name of a data set or a folder of photographs. size: side of the square that photographs
    are resized to, pixels. steps: optimiser steps in all. precision: of the convolutions alone;
    ``auto`` takes bfloat16 where the device computes with it, never where it is only emulated.
    start: fingerprint of the weights to start from; empty for random ones that belong to the seed.
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


def device_of(name: str) -> torch.device:
    """``cpu``, ``cuda``, or for ``auto`` the best there is."""
    gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if gpu else "cpu")


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

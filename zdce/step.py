"""One training step, and all that changes while a network trains.

The step is the released code's: losses, clipped gradients, Adam. A processor launches it as it
stands; for a GPU it is compiled, captured once as a CUDA graph and replayed.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from zdce.datasets import TrainingSet
from zdce.losses import RELEASED, TERMS, LossConfig, loss_terms
from zdce.model import ZERO_DCE, CurveNet, NetConfig

PRECISIONS = ("auto", "float32", "bfloat16")
# Of the record: the weighted terms, their sum, and the gradient's norm before clipping.
COLUMNS = (*TERMS, "loss", "gradient_norm")
WARM_UP = 3  # steps before one is captured
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


@functools.cache
def loss_function(
    net: NetConfig, loss: LossConfig, precision: str, device: torch.device
) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """The training loss as a pure function of a network's parameters, by name, and photographs
    (N, 3, H, W) in [0, 1]: the weighted terms in the order of ``losses.TERMS``, and their sum.

    Compiled for a GPU, once for all trainings that have it.
    """
    with torch.random.fork_rng(devices=[]):
        network = CurveNet(net).to(device).train()

    def values(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            enhanced, curves = functional_call(network, parameters, (image,))
        terms = loss_terms(enhanced, image, curves, loss)
        return torch.stack([*terms.values(), sum(terms.values())])

    if device.type == "cpu":
        return values
    torch._dynamo.config.cache_size_limit = 256  # one entry for each network, its losses, a size
    return torch.compile(values, dynamic=False)


@functools.lru_cache(maxsize=2)
def _resident(photographs: TrainingSet, device: torch.device) -> Tensor:
    """Photographs on the device (394 MB at 256×256): once, however many trainings read them."""
    return torch.from_numpy(photographs.images).to(device)


class State:
    """Everything that changes while training, and the step. All that a step reads and writes stays
    on the device: photographs, the order of the batches, the number of the step, the record.
    """

    def __init__(
        self, config: TrainConfig, device: torch.device, precision: str, photographs: TrainingSet
    ) -> None:
        self.config, self.device, self.precision = config, device, precision
        self.photographs, gpu = photographs, device.type == "cuda"
        self.per_epoch = -(-len(photographs) // config.batch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.net = CurveNet(config.net)
        layout = torch.channels_last if precision == "bfloat16" else torch.contiguous_format
        self.net.to(device, memory_format=layout).train()
        self.parameters = dict(self.net.named_parameters())
        self.values = loss_function(config.net, config.loss, precision, device)
        self.optimizer = torch.optim.Adam(
            self.parameters.values(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            capturable=gpu,
            fused=gpu or None,
        )
        self.held = {}  # by name, with the record, what a checkpoint holds
        for name, parameter in self.parameters.items():
            moments = {moment: torch.zeros_like(parameter) for moment in MOMENTS}
            self.optimizer.state[parameter] = {"step": torch.zeros((), device=device), **moments}
            every = {"net": parameter, **moments}.items()
            self.held |= {f"{kind}.{name}": tensor for kind, tensor in every}
        order = np.zeros((config.steps, config.batch), np.int64)
        source = batches(len(photographs), config.batch, config.seed)
        for row, numbers in zip(order, source, strict=False):
            row[: len(numbers)] = numbers
        self.images = _resident(photographs, device)
        self.order = torch.from_numpy(order).to(device)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self.rows = torch.zeros(config.steps, len(COLUMNS), device=device)
        self.step, self.settled, self.seconds = 0, 0, 0.0
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}

    @property
    def record(self) -> np.ndarray:
        """(steps done, len(COLUMNS)) float32, columns :data:`COLUMNS`."""
        return self.rows[: self.step].cpu().numpy()

    def _count(self, step: int) -> int:
        """Photographs of a step's batch: fewer at the end of an epoch."""
        place = step % self.per_epoch * self.config.batch
        return min(self.config.batch, len(self.photographs) - place)

    def launch(self, count: int) -> None:
        """One step on the next ``count`` photographs; nothing waits for the device."""
        numbers = self.order.index_select(0, self.cursor).view(-1)[:count]
        pixels = self.images.index_select(0, numbers)  # (N, H, W, 3): colours stay together
        values = self.values(self.parameters, pixels.permute(0, 3, 1, 2).float().div_(255))
        self.optimizer.zero_grad(set_to_none=False)
        values[-1].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        self.optimizer.step()
        row = torch.cat([values.detach(), norm.view(1)])
        self.rows.index_copy_(0, self.cursor, row[None])
        self.cursor.add_(1)

    def advance(self) -> None:
        """The next step, launched or replayed; on a processor it is settled at once."""
        count = self._count(self.step)
        if self.graphs:
            with torch.cuda.stream(self.stream):
                self.graphs[count].replay()
        else:
            self.launch(count)
        self.step += 1
        if self.device.type == "cpu":
            self.settle()

    def settle(self) -> None:
        """Wait until every step is done; :class:`TrainingError`, which names the photographs, for
        one since the last time that is not finite.
        """
        if self.graphs:
            self.stream.synchronize()
        rows = self.rows[self.settled : self.step].cpu().numpy()
        for row, column in np.argwhere(~np.isfinite(rows))[:1]:
            step, term = self.settled + int(row), COLUMNS[column].replace("_", " ")
            names = [self.photographs.names[k] for k in self.order[step, : self._count(step)]]
            said = f"step {step}: {term} is {rows[row, column]}, photographs {', '.join(names)}"
            raise TrainingError(said)
        self.settled = self.step

    def tensors(self) -> dict[str, Tensor]:
        """All that a training goes on from, by name."""
        return {"record": self.rows[: self.step], **self.held}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from :meth:`tensors`."""
        self.step = self.settled = len(tensors["record"])
        self.cursor.fill_(self.step)
        self.rows[: self.step] = tensors["record"]
        with torch.no_grad():
            for name, tensor in self.held.items():
                tensor.copy_(tensors[name])
            for state in self.optimizer.state.values():
                state["step"].fill_(self.step)

    def capture(self) -> None:
        """From now on replay the step, captured once for each size of batch, on a stream of its
        own.
        """
        before = {name: tensor.clone() for name, tensor in self.tensors().items()}
        counts = sorted({self._count(step) for step in range(self.per_epoch)}, reverse=True)
        torch.backends.cudnn.benchmark = True
        self.stream, graphs, pool = torch.cuda.Stream(self.device), {}, None
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            for count in counts:
                for _ in range(WARM_UP):
                    self.cursor.zero_()  # the first row each time, however few there are
                    self.launch(count)
        self.stream.synchronize()
        for count in counts:
            graphs[count] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graphs[count], pool=pool, stream=self.stream):
                self.launch(count)
            pool = graphs[count].pool()
        self.restore(before)
        torch.cuda.synchronize(self.device)
        self.graphs = graphs

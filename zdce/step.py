"""One training step, and all that changes while a network trains.

The step is the released code's: four losses, clipped gradients, Adam. On a processor it runs as it
stands; on a GPU it is compiled, captured once and replayed, with all that it reads on the device.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from zdce import checkpoints
from zdce.datasets import TrainingSet
from zdce.files import atomic_write
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
    are resized to, pixels. steps: optimiser steps in all. precision: of the convolutions alone, the
    rest is float32 always; ``auto`` takes bfloat16 where the device computes with it, never where
    it would be emulated. start: fingerprint of the weights that the training starts from, empty for
    the random ones that belong to the seed.
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


def batches(count: int, batch: int, seed: int, start: int = 0) -> Iterator[np.ndarray]:
    """Endless batches of photograph numbers, from step ``start`` on.

    Each epoch is a fresh permutation drawn from (seed, epoch); its last batch may be smaller
    (released code).
    """
    per_epoch = -(-count // batch)
    epoch, first = divmod(start, per_epoch)
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(count)
        for k in range(first, per_epoch):
            yield np.sort(order[k * batch : (k + 1) * batch])
        epoch, first = epoch + 1, 0


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
    """The training loss as a pure function of a network's parameters and a batch of photographs.

    It takes parameters by name and (N, 3, H, W) in [0, 1] and gives the weighted terms in the order
    of ``losses.TERMS``, and their sum, as one tensor.
    """
    with torch.random.fork_rng(devices=[]):
        network = CurveNet(net).to(device).train()

    def values(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            enhanced, curves = functional_call(network, parameters, (image,))
        terms = loss_terms(enhanced, image, curves, loss)
        return torch.stack([*terms.values(), sum(terms.values())])

    return values


class State:
    """Everything that changes while training: weights, optimiser, record; one file holds it all."""

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        precision: str,
        photographs: TrainingSet | None,
    ) -> None:
        self.config, self.device, self.precision = config, device, precision
        self.photographs = photographs
        self.per_epoch = -(-len(photographs) // config.batch) if photographs else 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.net = CurveNet(config.net)
        on_gpu = device.type == "cuda"
        layout = torch.channels_last if precision == "bfloat16" else torch.contiguous_format
        self.net.to(device, memory_format=layout).train()
        self.parameters = dict(self.net.named_parameters())
        self.values = loss_function(config.net, config.loss, precision, device)
        self.optimizer = torch.optim.Adam(
            self.parameters.values(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            capturable=on_gpu,
            fused=on_gpu or None,
        )
        for parameter in self.parameters.values():
            zeros = {moment: torch.zeros_like(parameter) for moment in MOMENTS}
            self.optimizer.state[parameter] = {"step": torch.zeros((), device=device), **zeros}
        self._record = np.zeros((config.steps, len(COLUMNS)), np.float32)
        self.step, self.seconds, self._settled = 0, 0.0, 0
        self._batches: Iterator[np.ndarray] | None = None

    @property
    def record(self) -> np.ndarray:
        """(steps done, 6) float32, columns :data:`COLUMNS`."""
        return self._record[: self.step]

    def advance(self) -> None:
        """The next step; raises TrainingError before the weights would be spoiled."""
        if self._batches is None:
            count, c = len(self.photographs), self.config
            self._batches = batches(count, c.batch, c.seed, self.step)
        numbers = next(self._batches)
        image = _image(torch.as_tensor(self.photographs.images[numbers]).to(self.device))
        row = self.gradients(image)
        self._record[self.step] = row.tolist()
        self.check(self.step, numbers)
        self.optimizer.step()
        self.step += 1

    def gradients(self, image: Tensor) -> Tensor:
        """Clipped gradients of a batch (N, 3, H, W) in [0, 1]; gives the record's row, (6,)."""
        values = self.values(self.parameters, image)
        self.optimizer.zero_grad(set_to_none=self.device.type == "cpu")
        values[-1].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        return torch.cat([values.detach(), norm.view(1)])

    def check(self, step: int, numbers: np.ndarray) -> None:
        """TrainingError if the record of ``step``, of photographs ``numbers``, is not finite."""
        for column, value in zip(COLUMNS, self._record[step].tolist(), strict=True):
            if not np.isfinite(value):
                names = ", ".join(self.photographs.names[k] for k in numbers)
                column = column.replace("_", " ")
                raise TrainingError(f"step {step}: {column} is {value}, photographs {names}")

    def settle(self) -> np.ndarray:
        """Wait until every step is done; the record's rows since the last time, (n, 6)."""
        rows, self._settled = self._record[self._settled : self.step], self.step
        return rows

    def put(self, weights: dict[str, Tensor]) -> None:
        """Take over the network's weights, by name."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])

    def restore(self, tensors: dict[str, Tensor], seconds: float = 0.0) -> None:
        """Take over the tensors of a checkpoint, after ``seconds`` of training."""
        self.put({name: tensors[f"net.{name}"] for name in self.parameters})
        self.step = self._settled = len(tensors["record"])
        self.seconds = seconds
        for name, parameter in self.parameters.items():
            held = self.optimizer.state[parameter]
            held["step"].fill_(self.step)
            for moment in MOMENTS:
                held[moment].copy_(tensors[f"{moment}.{name}"])
        self._record[: self.step] = tensors["record"].numpy()

    def save(self, file: Path) -> None:
        """Everything into the checkpoint ``file``, and ``run.json`` beside it."""
        if not all(torch.isfinite(parameter).all() for parameter in self.parameters.values()):
            raise TrainingError(
                f"step {self.step}: weights are not finite; {file.name} is left as it was"
            )
        tensors = {"record": torch.from_numpy(self.record)}
        for name, parameter in self.parameters.items():
            held = {"net": parameter} | self.optimizer.state[parameter]
            tensors |= {f"{key}.{name}": held[key] for key in ("net", *MOMENTS)}
        about = {"step": self.step, "precision": self.precision}
        checkpoints.write_tensors(file, tensors, about | {"train": self.config.header()})
        # Beside the checkpoint, not in it: what differs between trainings of equal configuration.
        gpu = self.device.type == "cuda"
        about |= {
            "config": self.config.header(),
            "seconds": round(self.seconds, 1),
            "device": torch.cuda.get_device_name(self.device) if gpu else str(self.device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "photographs": len(self.photographs),
        }
        with atomic_write(file.with_name("run.json")) as partial:
            partial.write_text(json.dumps(about, indent=1, sort_keys=True), "utf-8")


class Captured(State):
    """The same, with all that a step reads on the device, so that the host only replays it.

    The photographs (394 MB at 256×256), the order of the batches, the number of the step and the
    record lie there. A step is captured once for whole batches, compiled, and once for the smaller
    batch that ends an epoch; several trainings replay theirs on streams of their own. Without
    ``capture`` every step is launched one by one: what a processor can test.
    """

    def __init__(self, *about, capture: bool = True) -> None:
        super().__init__(*about)
        config, count = self.config, len(self.photographs)
        room = max(config.steps, 2 * WARM_UP)  # so that what warms up stays inside as well
        order = np.zeros((room, config.batch), np.int64)
        source = batches(count, config.batch, config.seed)
        for row, numbers in zip(order[: config.steps], source, strict=False):
            row[: len(numbers)] = numbers
        self.images = _resident(self.photographs, self.device)
        self.order = torch.from_numpy(order).to(self.device)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.rows = torch.zeros(room, len(COLUMNS), device=self.device)
        self.rest = count - (self.per_epoch - 1) * config.batch
        self.graphs = self._capture() if capture else {}

    def launch(self, count: int) -> None:
        """One step on the next ``count`` photographs; nothing waits for the device."""
        numbers = self.order.index_select(0, self.cursor).view(-1)[:count]
        row = self.gradients(_image(self.images.index_select(0, numbers)))
        self.optimizer.step()
        self.rows.index_copy_(0, self.cursor, row[None])
        self.cursor.add_(1)

    def advance(self) -> None:
        last = (self.step + 1) % self.per_epoch == 0
        count = self.rest if last else self.config.batch
        if self.graphs:
            with torch.cuda.stream(self.stream):
                self.graphs[count].replay()
        else:
            self.launch(count)
        self.step += 1

    def settle(self) -> np.ndarray:
        if self.graphs:
            self.stream.synchronize()
        since = self._settled
        self._record[since : self.step] = self.rows[since : self.step].cpu().numpy()
        rows = super().settle()
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            step, c = since + int(bad[0]), self.config
            self.check(step, next(batches(len(self.photographs), c.batch, c.seed, step)))
        return rows

    def restore(self, tensors: dict[str, Tensor], seconds: float = 0.0) -> None:
        super().restore(tensors, seconds)
        self.cursor.fill_(self.step)
        self.rows[: self.step] = tensors["record"].to(self.device)

    def _capture(self) -> dict[int, torch.cuda.CUDAGraph]:
        """A graph for each size of batch; weights and optimiser are afterwards as before."""
        graphs, pool, plain = {}, None, self.values
        before = {name: p.detach().clone() for name, p in self.parameters.items()}
        counts = sorted({self.rest, min(self.config.batch, len(self.photographs))}, reverse=True)
        ways = {count: _compiled(plain) if count == counts[0] else plain for count in counts}
        self.stream = torch.cuda.Stream(self.device)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        torch.backends.cudnn.benchmark = True
        for count, self.values in ways.items():
            with torch.cuda.stream(self.stream):
                for _ in range(WARM_UP):
                    self.launch(count)
        self.stream.synchronize()
        for count, self.values in ways.items():
            graphs[count] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graphs[count], pool=pool, stream=self.stream):
                self.launch(count)
            pool = graphs[count].pool()
        torch.cuda.synchronize(self.device)
        self.put(before)
        for held in self.optimizer.state.values():
            for tensor in held.values():
                tensor.zero_()
        self.cursor.zero_()
        self.rows.zero_()
        torch.cuda.synchronize(self.device)
        return graphs


@functools.cache
def _compiled(values: Callable) -> Callable:
    """Machine code for one loss function, shared by all trainings that have it."""
    torch._dynamo.config.cache_size_limit = 256  # one entry for each network and its losses
    return torch.compile(values, dynamic=False)


@functools.lru_cache(maxsize=2)
def _resident(photographs: TrainingSet, device: torch.device) -> Tensor:
    """Photographs on the device: once, however many trainings read them."""
    return torch.from_numpy(np.array(photographs.images)).to(device)


def _image(pixels: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 → (N, 3, H, W) in [0, 1]; a pixel's colours stay together in memory."""
    return pixels.permute(0, 3, 1, 2).float().div_(255)

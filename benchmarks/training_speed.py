"""Training throughput: this project's loop beside the released code's, in turn on the same machine.

    python benchmarks/training_speed.py [--rounds 3] [--tried] [--csv reports/study/training/speed.csv]

Needs the data set sice-train and a machine with nothing else to do. Every measurement is a process of its own, the
variants take turns, and all see the same photographs in the same order, so that their losses can be compared.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from zdce import datasets, losses, memory, training
from zdce.losses import loss_terms
from zdce.study.experiments import ARMS

CORES = os.cpu_count()
# variant → what it is, trainings at a time, threads of each
# variant → what it is, trainings at a time, threads of each, precision of the convolutions
VARIANTS = {
    "released loop": (
        "decodes and resizes at every access, 4 loader processes",
        1,
        CORES,
        "float32",
    ),
    "float32": (
        "photographs decoded once, freed memory kept, TV gradient by hand",
        1,
        CORES,
        "float32",
    ),
    "bfloat16": ("the same, convolutions in bfloat16 and channels-last", 1, CORES, "bfloat16"),
    "packed": (
        "the same, as many trainings at once as there are cores: zdce sweep",
        CORES,
        1,
        "bfloat16",
    ),
    "packed at 128": ("the same, photographs at 128×128: the study's budget", CORES, 1, "bfloat16"),
}
TRIED = {
    "memory returned": ("float32, freed memory goes back to the kernel", 1, CORES, "float32"),
    "channels-last": ("float32, a pixel's channels side by side in memory", 1, CORES, "float32"),
    "torch.compile": ("float32, the step compiled", 1, CORES, "float32"),
}
NETS = ("zero-dce", "zero-dce-improved")


class ReleasedFiles(Dataset):
    """Photographs as the released loader gives them: opened, resized (Lanczos) and divided by 255 at each access."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.files = [datasets.find(sample.path) for sample in datasets.samples("sice-train")]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        image = Image.open(self.files[number]).resize(
            (self.size, self.size), Image.Resampling.LANCZOS
        )
        return torch.from_numpy(np.asarray(image) / 255.0).float().permute(2, 0, 1)


def released_smoothness(curves: torch.Tensor, form: str) -> torch.Tensor:
    """The TV term as the released code lets PyTorch differentiate it: slices, their difference, squares, sums."""
    height, width = curves.shape[-2:]
    rows = torch.pow(curves[:, :, 1:, :] - curves[:, :, :-1, :], 2).sum()
    columns = torch.pow(curves[:, :, :, 1:] - curves[:, :, :, :-1], 2).sum()
    return 2 * (rows / ((height - 1) * width) + columns / (height * (width - 1))) / len(curves)


def plain_steps(state, images, layout=torch.contiguous_format, compiled=False):
    """The released loop's step on batches of (N, 3, H, W) in [0, 1], one after another."""
    net, optimizer, config = state.net.to(memory_format=layout), state.optimizer, state.config

    def loss_of(image):
        enhanced, curves = net(image)
        return sum(loss_terms(enhanced, image, curves, config.loss).values())

    step = torch.compile(loss_of) if compiled else loss_of
    for image in images:
        loss = step(image.contiguous(memory_format=layout))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip)
        optimizer.step()
        yield loss.item()


def our_steps(state, photographs):
    """Steps of :mod:`zdce.training`, one after another."""
    for numbers in training.batches(len(photographs), state.config.batch, state.config.seed):
        numbers = np.sort(numbers)
        state.advance(photographs.images[numbers], [photographs.names[k] for k in numbers])
        yield


@torch.no_grad()
def loss_at_256(state) -> float:
    """Mean loss of 16 photographs at 256×256: one yardstick for all variants."""
    images = datasets.training_set("sice-train", 256, progress=False).images[:: 2002 // 16][:16]
    losses = []
    for image in torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255).split(4):
        enhanced, curves = state.net(image)
        losses.append(sum(loss_terms(enhanced, image, curves, state.config.loss).values()))
    return torch.stack(losses).mean().item()


def child(variant: str, net: str, steps: int, seed: int) -> None:
    """One measurement: prints seconds a step, the first (a warm-up) left out, and the loss after all of them."""
    size = 128 if variant == "packed at 128" else 256
    precision = (VARIANTS | TRIED)[variant][3]
    config = replace(ARMS[net], steps=steps + 1, seed=seed, size=size, precision=precision)
    state = training._State(config, torch.device("cpu"))
    order = training.batches(2002, config.batch, seed)
    photographs = datasets.training_set("sice-train", size, progress=False)
    if variant not in ("released loop", "memory returned"):
        memory.keep_freed()
    if variant == "released loop":
        losses.illumination_smoothness = released_smoothness
        batches = [np.sort(numbers).tolist() for numbers in itertools.islice(order, steps + 1)]
        walk = plain_steps(
            state, DataLoader(ReleasedFiles(size), batch_sampler=batches, num_workers=4)
        )
    elif variant in VARIANTS:
        walk = our_steps(state, photographs)
    else:
        images = (
            torch.from_numpy(photographs.images[np.sort(numbers)])
            .permute(0, 3, 1, 2)
            .float()
            .div_(255)
            for numbers in order
        )
        changes = {
            "channels-last": {"layout": torch.channels_last},
            "torch.compile": {"compiled": True},
        }
        walk = plain_steps(state, images, **changes.get(variant, {}))
    next(walk)
    started = time.perf_counter()
    for _ in range(steps):
        next(walk)
    seconds = (time.perf_counter() - started) / steps
    print(json.dumps({"seconds": seconds, "loss": loss_at_256(state)}))


def measure(variant: str, net: str, steps: int) -> tuple[float, float]:
    """Photographs a second on all cores, and the loss afterwards."""
    _, trainings, threads, _ = (VARIANTS | TRIED)[variant]
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))
    }
    environment |= {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    words = [sys.executable, __file__, "--child", variant, net, str(steps)]
    children = [
        subprocess.Popen([*words, str(seed)], env=environment, stdout=subprocess.PIPE)
        for seed in range(trainings)
    ]
    results = [json.loads(process.communicate()[0].splitlines()[-1]) for process in children]
    return sum(ARMS[net].batch / result["seconds"] for result in results), results[0]["loss"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each variant is measured")
    parser.add_argument(
        "--steps",
        type=int,
        default=6,
        help="steps of the paper's network a measurement; others twice",
    )
    parser.add_argument(
        "--tried", action="store_true", help="also what was tried and left out, one round"
    )
    parser.add_argument("--csv", help="write the table")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        variant, net, steps, seed = arguments.child
        return child(variant, net, int(steps), int(seed))
    datasets.training_set("sice-train", 256)
    plan = [(net, variant) for _ in range(arguments.rounds) for net in NETS for variant in VARIANTS]
    if arguments.tried:
        plan += [(NETS[0], variant) for variant in TRIED]
    rows = []
    for net, variant in plan:
        steps = arguments.steps if net == "zero-dce" else 2 * arguments.steps
        rate, loss = measure(variant, net, steps)
        rows.append({"net": net, "variant": variant, "rate": rate, "steps": steps, "loss": loss})
        print(
            f"{net:18} {variant:16} {rate:7.2f} photographs/s, loss {loss:.6f} after {steps + 1} steps",
            flush=True,
        )
    table = summary(pd.DataFrame(rows))
    print(
        table[["photographs_per_second", "ratio", "lowest", "highest", "loss"]].to_string(
            float_format="%.4f"
        )
    )
    if arguments.csv:
        table.to_csv(arguments.csv, float_format="%.6g")


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a network and variant, from one a measurement: net, variant, rate (photographs a second), steps, loss."""
    table = rows.groupby(["net", "variant"], sort=False).agg(
        photographs_per_second=("rate", "median"),
        lowest=("rate", "min"),
        highest=("rate", "max"),
        rounds=("rate", "size"),
        steps=("steps", "first"),
        loss=("loss", "first"),
    )
    released = table["photographs_per_second"].xs("released loop", level="variant")
    table.insert(
        1,
        "ratio",
        table["photographs_per_second"] / table.index.get_level_values("net").map(released),
    )
    table["what"] = [(VARIANTS | TRIED)[variant][0] for _, variant in table.index]
    table["trainings"] = [(VARIANTS | TRIED)[variant][1] for _, variant in table.index]
    table["threads"] = [(VARIANTS | TRIED)[variant][2] for _, variant in table.index]
    table["precision"] = [(VARIANTS | TRIED)[variant][3] for _, variant in table.index]
    table["device"], table["torch"] = f"{CORES} cores {platform.machine()}", torch.__version__
    return table


if __name__ == "__main__":
    main()

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

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from zdce import datasets, memory, training
from zdce.losses import loss_terms
from zdce.study import ARMS

CORES = os.cpu_count()
# variant → what it is, trainings at a time, threads of each
VARIANTS = {
    "released loop": ("decodes and resizes at every access, 4 loader processes", 1, CORES),
    "one training": ("photographs decoded once, freed memory kept", 1, CORES),
    "packed": ("the same, as many trainings at once as there are cores: zdce sweep", CORES, 1),
}
TRIED = {
    "memory returned": ("freed memory goes back to the kernel", 1, CORES),
    "channels-last": ("pixels' channels side by side in memory", 1, CORES),
    "torch.compile": ("the step compiled", 1, CORES),
    "bf16 autocast": ("convolutions in bfloat16", 1, CORES),
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
        image = Image.open(self.files[number]).resize((self.size, self.size), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.asarray(image) / 255.0).float().permute(2, 0, 1)


def plain_steps(config, images, layout=torch.contiguous_format, compiled=False, bf16=False):
    """The released loop's step on batches of (N, 3, H, W) in [0, 1]: yields each one's loss."""
    state = training._State(config, torch.device("cpu"))
    net, optimizer = state.net.to(memory_format=layout), state.optimizer

    def loss_of(image):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            enhanced, curves = net(image)
        return sum(loss_terms(enhanced.float(), image, curves.float(), config.loss).values())

    step = torch.compile(loss_of) if compiled else loss_of
    for image in images:
        loss = step(image.contiguous(memory_format=layout))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip)
        optimizer.step()
        yield loss.item()


def our_steps(config, photographs):
    """Steps of :mod:`zdce.training`: yields each one's loss."""
    state = training._State(config, torch.device("cpu"))
    for numbers in training.batches(len(photographs), config.batch, config.seed):
        numbers = np.sort(numbers)
        state.advance(photographs.images[numbers], [photographs.names[k] for k in numbers])
        yield float(state.record[-1][training.COLUMNS.index("loss")])


def child(variant: str, net: str, steps: int, seed: int) -> None:
    """One measurement: prints seconds a step, the first (a warm-up) left out, and every step's loss."""
    from dataclasses import replace

    config = replace(ARMS[net], steps=steps + 1, seed=seed)
    order = training.batches(2002, config.batch, seed)
    photographs = datasets.training_set("sice-train", config.size, progress=False)
    if variant == "released loop":
        batches = [np.sort(numbers).tolist() for numbers in itertools.islice(order, steps + 1)]
        losses = plain_steps(config, DataLoader(ReleasedFiles(config.size), batch_sampler=batches, num_workers=4))
    elif variant in ("one training", "packed"):
        memory.keep_freed()
        losses = our_steps(config, photographs)
    else:
        if variant != "memory returned":
            memory.keep_freed()
        images = (
            torch.from_numpy(photographs.images[np.sort(numbers)]).permute(0, 3, 1, 2).float().div_(255)
            for numbers in order
        )
        changes = {
            "channels-last": {"layout": torch.channels_last},
            "torch.compile": {"compiled": True},
            "bf16 autocast": {"bf16": True},
        }
        losses = plain_steps(config, images, **changes.get(variant, {}))
    values = [next(losses)]
    started = time.perf_counter()
    values += itertools.islice(losses, steps)
    print(json.dumps({"seconds": (time.perf_counter() - started) / steps, "losses": values}))


def measure(variant: str, net: str, steps: int) -> tuple[float, float]:
    """Photographs a second on all cores, and the loss after ``steps`` steps."""
    _, trainings, threads = (VARIANTS | TRIED)[variant]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    environment |= {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    words = [sys.executable, __file__, "--child", variant, net, str(steps)]
    children = [
        subprocess.Popen([*words, str(seed)], env=environment, stdout=subprocess.PIPE) for seed in range(trainings)
    ]
    results = [json.loads(process.communicate()[0].splitlines()[-1]) for process in children]
    return sum(ARMS[net].batch / result["seconds"] for result in results), results[0]["losses"][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each variant is measured")
    parser.add_argument("--steps", type=int, default=6, help="steps of the paper's network a measurement; others twice")
    parser.add_argument("--tried", action="store_true", help="also what was tried and left out, one round")
    parser.add_argument("--csv", help="write the table")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        variant, net, steps, seed = arguments.child
        return child(variant, net, int(steps), int(seed))
    datasets.training_set("sice-train", 256)
    plan = [(net, variant) for _ in range(arguments.rounds) for net in NETS for variant in VARIANTS]
    if arguments.tried:
        plan += [(net, variant) for net in NETS for variant in TRIED]
    rows = []
    for net, variant in plan:
        steps = arguments.steps if net == "zero-dce" else 2 * arguments.steps
        steps = 2 if variant == "bf16 autocast" else steps  # emulated on processors without it: minutes
        rate, loss = measure(variant, net, steps)
        rows.append({"net": net, "variant": variant, "rate": rate, "steps": steps, "loss": loss})
        print(f"{net:18} {variant:16} {rate:7.2f} photographs/s, loss {loss:.6f} after {steps + 1} steps", flush=True)
    table = (
        pd.DataFrame(rows)
        .groupby(["net", "variant"], sort=False)
        .agg(
            photographs_per_second=("rate", "median"),
            lowest=("rate", "min"),
            highest=("rate", "max"),
            rounds=("rate", "size"),
            steps=("steps", "first"),
            loss=("loss", "first"),
        )
    )
    released = table["photographs_per_second"].xs("released loop", level="variant")
    table.insert(1, "ratio", table["photographs_per_second"] / table.index.get_level_values("net").map(released))
    table["what"] = [(VARIANTS | TRIED)[variant][0] for _, variant in table.index]
    table["trainings"] = [(VARIANTS | TRIED)[variant][1] for _, variant in table.index]
    table["threads"] = [(VARIANTS | TRIED)[variant][2] for _, variant in table.index]
    table["device"], table["torch"] = f"{CORES} cores {platform.machine()}", torch.__version__
    print(table[["photographs_per_second", "ratio", "lowest", "highest", "loss"]].to_string(float_format="%.4f"))
    if arguments.csv:
        table.to_csv(arguments.csv, float_format="%.6g")


if __name__ == "__main__":
    main()

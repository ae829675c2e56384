"""Training throughput: this project's loop beside the released code's, in turn on one machine.

    python benchmarks/training_speed.py [--device cuda] [--csv reports/study/speed/training.csv]

Needs the data set sice-train and a machine with nothing else to do. Every measurement is a process
of its own, the variants take turns, and all see the same photographs in the same order, at 256×256.
Three minutes.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from zdce import datasets, losses, memory, paths
from zdce.model import CurveNet
from zdce.study import timing
from zdce.study.experiments import EXPERIMENTS, MAIN
from zdce.training import COLUMNS, State, TrainConfig, batches

CORES = os.cpu_count()
RELEASED = "released loop"
# device → variant → what it is, trainings at a time, threads of each, precision
VARIANTS = {
    "cpu": {
        RELEASED: ("decodes and resizes at every access, 4 loader processes", 1, CORES, "float32"),
        "float32": ("photographs decoded once", 1, CORES, "float32"),
        "auto": ("the same, convolutions in what the processor has", 1, CORES, "auto"),
        "packed": ("the same, a training for each core: zdce sweep", CORES, 1, "auto"),
    },
    "cuda": {
        RELEASED: ("decodes and resizes at every access, 4 loader processes", 1, CORES, "float32"),
        "compiled": ("step compiled, CUDA graphs, photographs resident", 1, 1, "bfloat16"),
    },
}


class ReleasedFiles(Dataset):
    """Photographs as the released loader gives them: opened and resized at each access."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.files = [datasets.find(sample.path) for sample in datasets.samples("sice-train")]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        opened = Image.open(self.files[number])
        image = opened.resize((self.size, self.size), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.asarray(image) / 255.0).float().permute(2, 0, 1)


def released_steps(config: TrainConfig, device: torch.device) -> Iterator[float]:
    """The released loop, one step after another; gives the loss."""
    order = itertools.islice(batches(2002, config.batch, config.seed), config.steps)
    numbered = [each.tolist() for each in order]
    loader = DataLoader(ReleasedFiles(config.size), batch_sampler=numbered, num_workers=4)
    torch.manual_seed(config.seed)
    net = CurveNet(config.net).to(device)
    adam = torch.optim.Adam(net.parameters(), config.learning_rate, weight_decay=1e-4)
    for image in loader:
        image = image.to(device)
        enhanced, curves = net(image)
        loss = sum(losses.loss_terms(enhanced, image, curves, config.loss).values())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip)
        adam.step()
        yield loss.item()


def our_steps(config: TrainConfig, device: torch.device) -> Iterator[float]:
    """One step after another of ours; gives the loss."""
    photographs = datasets.training_set("sice-train", config.size, progress=False)
    state = State(config, device, config.precision, photographs)
    for _ in range(config.steps):
        state.advance()
        yield state.record[-1][COLUMNS.index("loss")]


def child(name: str, variant: str, net: str, steps: int, seed: int) -> None:
    """One measurement: prints seconds a step, the first (a warm-up) left out, and the last loss."""
    device = torch.device(name)
    precision = VARIANTS[name][variant][3]
    config = replace(EXPERIMENTS[net], steps=steps + 1, seed=seed, precision=precision)
    if variant == RELEASED:
        walk = released_steps(config, device)
    else:
        memory.keep_freed()
        walk = our_steps(config, device)
    next(walk)
    started = time.perf_counter()
    loss = list(walk)[-1]
    print(json.dumps({"seconds": (time.perf_counter() - started) / steps, "loss": loss}))


def measure(device: str, variant: str, net: str, steps: int) -> tuple[float, float]:
    """Photographs a second on the whole device, and the last loss."""
    _, trainings, threads, _ = VARIANTS[device][variant]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    words = [sys.executable, __file__, "--child", device, variant, net, str(steps)]
    pipes = {"env": environment, "stdout": subprocess.PIPE}
    children = [subprocess.Popen([*words, str(seed)], **pipes) for seed in range(trainings)]
    results = [json.loads(each.communicate()[0].splitlines()[-1]) for each in children]
    batch = EXPERIMENTS[net].batch
    return sum(batch / result["seconds"] for result in results), results[0]["loss"]


def summary(rows: pd.DataFrame, device: str) -> pd.DataFrame:
    """A row a network and variant, from one a measurement: photographs a second, and ratios."""
    rates = rows.groupby(["net", "variant"], sort=False)["rate"]
    table = rates.agg(photographs_per_second="median", lowest="min", highest="max", rounds="size")
    table = table.join(rows.groupby(["net", "variant"], sort=False)[["steps", "loss"]].first())
    rate = table["photographs_per_second"]
    released = rate.xs(RELEASED, level="variant")
    table.insert(1, "ratio", rate / table.index.get_level_values("net").map(released))
    about = pd.DataFrame(
        [VARIANTS[device][variant] for _, variant in table.index],
        index=table.index,
        columns=["what", "trainings", "threads", "precision"],
    )
    return table.join(about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=VARIANTS, default="cpu")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is measured")
    parser.add_argument("--steps", type=int, default=3, help="of zero-dce; twice as many of others")
    place = paths.reports("study") / "speed" / "training.csv"
    parser.add_argument("--csv", type=Path, default=place, help="write the table")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        device, variant, net, steps, seed = arguments.child
        return child(device, variant, net, int(steps), int(seed))
    if not datasets.at_hand("sice-train"):
        return print("sice-train is not at hand: zdce data fetch sice-train")
    datasets.training_set("sice-train", 256)
    rows, variants, before = [], VARIANTS[arguments.device], timing.busy()
    conditions = timing.conditions("training", arguments.device)
    for _, net, variant in itertools.product(range(arguments.rounds), MAIN, variants):
        steps = arguments.steps * (1 if net == "zero-dce" else 2)
        rate, loss = measure(arguments.device, variant, net, steps)
        rows.append({"net": net, "variant": variant, "rate": rate, "steps": steps, "loss": loss})
        print(f"{net:18} {variant:14} {rate:9.2f} photographs/s, loss {loss:.4f}", flush=True)
    table = summary(pd.DataFrame(rows), arguments.device)
    table = table.assign(other_work=timing.other_work(before), **conditions)
    print(table[["photographs_per_second", "ratio", "lowest", "highest"]].to_string())
    arguments.csv.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.csv, float_format="%.6g")


if __name__ == "__main__":
    main()

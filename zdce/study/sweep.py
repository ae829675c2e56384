"""Many trainings, on this machine or on a cluster: each one once, whatever stops in between."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zdce import paths
from zdce.files import atomic_write
from zdce.study import experiments
from zdce.training import TrainConfig, finished, train

if TYPE_CHECKING:
    from distributed import Future

RETRIES = 2  # of a training that failed, or whose process or worker was lost
FILES = (
    "record.csv",
    "run.json",
    "checkpoint.safetensors",
    "model.safetensors",
)  # of a run; the last one says that it is done


@dataclass(frozen=True)
class Outcome:
    """How one training of a sweep ended. state: ``trained``, ``there already`` or ``failed``; seconds: of this sweep,
    waiting for a free worker not counted; error: why it failed."""

    config: TrainConfig
    state: str
    seconds: float = 0.0
    error: str = ""

    def line(self) -> str:
        """For the console."""
        head = f"{self.config.name}, seed {self.config.seed}, {self.config.steps:,} steps: {self.state}"
        return (
            f"{head}: {self.error}"
            if self.error
            else f"{head}, {self.seconds / 60:.1f} min"
            if self.seconds
            else head
        )


def folder(config: TrainConfig) -> Path:
    """Where the run of ``config`` lies: a folder of ``runs/`` named after a hash of all of it."""
    return paths.runs() / config.run_name()


def command(config: TrainConfig) -> list[str]:
    """The ``zdce`` command that trains an arm's ``config`` into :func:`folder`, or goes on with it."""
    arm = experiments.ARMS.get(config.name)
    options = {key: getattr(config, key) for key in ("data", "size", "steps", "seed", "precision")}
    if arm is None or config != replace(arm, **options):
        raise ValueError(
            f"{config.name!r}: is no arm of the study, or differs from it in more than its budget"
        )
    options = {"arm": config.name, **options}
    if config.precision == arm.precision:
        del options["precision"]
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return ["zdce", "train", *words, "--resume"]


def sweep(
    configs: Sequence[TrainConfig],
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    device: str = "auto",
) -> Iterator[Outcome]:
    """Train ``configs`` (arms of the study), yielding each one's outcome when it ends; finished runs are not repeated.

    jobs: trainings at a time on this machine, one thread each; default: one for each processor core. scheduler:
    address of a Dask cluster to train on instead (``tcp://host:8786``); its workers need this package and the
    training photographs, but no folder shared with this machine. A training that fails, or whose process or worker is
    lost, is run again from its last checkpoint, :data:`RETRIES` times. Equal configurations give equal weights
    wherever they are trained, up to the processor's arithmetic.
    """
    waiting = []
    for config in configs:
        if finished(config, folder(config)):
            yield Outcome(config, "there already")
        else:
            waiting.append(config)
    if waiting:
        yield from (
            _cluster(waiting, scheduler, device) if scheduler else _local(waiting, jobs, device)
        )


# --- this machine -------------------------------------------------------------------------------------------------


def _local(configs: list[TrainConfig], jobs: int | None, device: str) -> Iterator[Outcome]:
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        futures = [pool.submit(_process, config, device) for config in configs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _process(config: TrainConfig, device: str) -> Outcome:
    """Train in a process of its own; what it prints goes to ``log.txt`` of the run's folder."""
    started, home = time.perf_counter(), folder(config)
    home.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", *command(config), "--device", device]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ZDCE_RUNS": str(paths.runs())}
    with (home / "log.txt").open("a") as log:
        for _ in range(1 + RETRIES):
            code = subprocess.run(
                words, stdout=log, stderr=subprocess.STDOUT, env=environment
            ).returncode
            if code == 0 and finished(config, home):
                return Outcome(config, "trained", time.perf_counter() - started)
    last = (home / "log.txt").read_text(errors="replace").strip().splitlines()
    error = f"killed by signal {-code}" if code < 0 else last[-1] if last else f"exit code {code}"
    return Outcome(config, "failed", time.perf_counter() - started, error)


# --- a cluster ----------------------------------------------------------------------------------------------------


def _cluster(configs: list[TrainConfig], scheduler: str, device: str) -> Iterator[Outcome]:
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise ValueError('--scheduler needs Dask: pip install "zdce[cluster]"') from None
    with Client(scheduler) as client:

        def submit(config: TrainConfig, lost: int) -> Future:
            key = f"{config.run_name()}-{lost}" if lost else config.run_name()
            return client.submit(_on_worker, config, device, key=key, retries=RETRIES)

        running = {submit(config, 0): (config, 0) for config in configs}
        done = as_completed(running)
        for future in done:
            config, lost = running.pop(future)
            if (
                future.status != "finished"
                and isinstance(future.exception(), KilledWorker)
                and lost < RETRIES
            ):
                # Dask counts every worker that died with a training assigned, also where it had not begun: again.
                again = submit(config, lost + 1)
                running[again] = (config, lost + 1)
                done.add(again)
            elif future.status == "finished":
                seconds, files = future.result()
                _bring(config, files)
                yield Outcome(config, "trained", seconds)
            else:
                yield Outcome(config, "failed", error=str(future.exception()))


def _on_worker(config: TrainConfig, device: str) -> tuple[float, dict[str, bytes]]:
    """Train on a worker of the cluster: seconds, and the run's files."""
    import torch

    torch.set_num_threads(1)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    run = train(config, folder(config), resume=True, device=device, progress=False)
    return run.seconds, {name: (run.folder / name).read_bytes() for name in FILES}


def _bring(config: TrainConfig, files: dict[str, bytes]) -> None:
    """Keep what a worker trained; where it shares its folders with this machine, all is there already."""
    home = folder(config)
    if finished(config, home):
        return
    for name in FILES:
        with atomic_write(home / name) as partial:
            partial.write_bytes(files[name])

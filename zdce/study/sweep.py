"""Many trainings, on this machine or on a cluster: each one once, whatever stops it."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch

from zdce import paths
from zdce.folders import cluster
from zdce.model import device_of
from zdce.training import Saving, TrainConfig, finished, train

RETRIES = 2  # of a training that failed, or whose process or worker was lost


@dataclass(frozen=True)
class Outcome:
    """How one training of a sweep ended: ``trained``, ``there already`` or ``failed``, and why."""

    config: TrainConfig
    state: str
    error: str = ""

    def line(self) -> str:
        """For the console."""
        c, why = self.config, self.error and f": {self.error}"
        return f"{c.name}, seed {c.seed}, {c.steps:,} steps: {self.state}{why}"


def folder(config: TrainConfig) -> Path:
    """Where the run of ``config`` lies: a folder of ``runs/`` named after a hash of all of it."""
    return paths.runs() / config.run_name()


def sweep(
    configs: Sequence[TrainConfig],
    *,
    snapshots: Mapping[str, tuple[int, ...]] | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    device: str = "auto",
) -> Iterator[Outcome]:
    """Train ``configs``, yielding each one's outcome when it ends; finished runs are not repeated.

    snapshots: steps after which weights are kept, by the configuration's name. jobs: trainings at a
    time, each in a process with one thread; default: one for each processor core, one on a GPU.
    scheduler: address of a Dask cluster to train on instead (``tcp://host:8786``); its workers read
    and write the same paths, as on a shared disk. A training that fails, or whose process or worker
    is lost, is run again from its last checkpoint, :data:`RETRIES` times.
    """
    waiting = []
    for config in configs:
        if finished(config, folder(config)):
            yield Outcome(config, "there already")
        else:
            saving = Saving(snapshots=(snapshots or {}).get(config.name, ()))
            waiting.append((config, folder(config), saving))
    jobs = jobs or (1 if device_of(device).type == "cuda" else os.cpu_count())
    work = _on_worker if scheduler else _in_process
    with cluster(scheduler) if scheduler else ThreadPoolExecutor(jobs) as executor:
        running = {executor.submit(work, *job, device): (job, RETRIES) for job in waiting}
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, left = running.pop(future)
                    try:
                        future.result()
                        yield Outcome(job[0], "trained")
                    except Exception as error:  # of a cluster: whatever a worker meets
                        if left:
                            running[executor.submit(work, *job, device)] = (job, left - 1)
                        else:
                            yield Outcome(job[0], "failed", str(error))
        finally:
            for future in running:
                future.cancel()


def _in_process(config: TrainConfig, home: Path, saving: Saving, device: str) -> None:
    """Train in a process of its own; what it prints goes to ``log.txt`` of the run's folder."""
    log = home / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        pipes = {"stdout": stream, "stderr": subprocess.STDOUT}
        pipes["env"] = os.environ | {"OMP_NUM_THREADS": "1"}
        pipes["input"] = pickle.dumps((config, home, saving, device))
        code = subprocess.run([sys.executable, "-m", "zdce.study.sweep"], **pipes).returncode
    if code or not finished(config, home):
        said = log.read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"ended with {code}: {said[-1] if said else 'said nothing'}")


def _on_worker(config: TrainConfig, home: Path, saving: Saving, device: str) -> None:
    """Train on a worker of the cluster."""
    torch.set_num_threads(1)
    train(config, home, resume=True, device=device, progress=False, saving=saving)


if __name__ == "__main__":  # the other end of _in_process
    _config, _home, _saving, _device = pickle.load(sys.stdin.buffer)
    train(_config, _home, resume=True, device=_device, saving=_saving)

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
from zdce.files import atomic_write
from zdce.folders import cluster
from zdce.model import device_of
from zdce.training import CHECKPOINT, MODEL, Saving, TrainConfig, finished, train

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
    scheduler: address of a Dask cluster to train on instead (``tcp://host:8786``); its workers need
    this package and the training photographs, but no folder shared with this machine. A training
    that fails, or whose process or worker is lost, is run again from its last checkpoint,
    :data:`RETRIES` times.
    """
    waiting = []
    for config in configs:
        if finished(config, folder(config)):
            yield Outcome(config, "there already")
        else:
            waiting.append((config, Saving(snapshots=(snapshots or {}).get(config.name, ()))))
    jobs = jobs or (1 if device_of(device).type == "cuda" else os.cpu_count())
    work = _on_worker if scheduler else _in_process
    with cluster(scheduler) if scheduler else ThreadPoolExecutor(jobs) as executor:
        running = {executor.submit(work, *job, device): (job, RETRIES) for job in waiting}
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, left = running.pop(future)
                    try:
                        for name, content in future.result().items():
                            with atomic_write(folder(job[0]) / name) as partial:
                                partial.write_bytes(content)
                        yield Outcome(job[0], "trained")
                    except Exception as error:  # of a cluster: whatever a worker meets
                        if left:
                            running[executor.submit(work, *job, device)] = (job, left - 1)
                        else:
                            yield Outcome(job[0], "failed", str(error))
        finally:
            for future in running:
                future.cancel()


def _in_process(config: TrainConfig, saving: Saving, device: str) -> dict[str, bytes]:
    """Train in a process of its own; what it prints goes to ``log.txt`` of the run's folder."""
    log = folder(config) / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    own = {"OMP_NUM_THREADS": "1", "ZDCE_RUNS": str(paths.runs())}
    with log.open("a") as stream:
        pipes = {"stdout": stream, "stderr": subprocess.STDOUT, "env": os.environ | own}
        pipes["input"] = pickle.dumps((config, saving, device))
        code = subprocess.run([sys.executable, "-m", "zdce.study.sweep"], **pipes).returncode
    if code or not finished(config, folder(config)):
        said = log.read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"ended with {code}: {said[-1] if said else 'said nothing'}")
    return {}


def _on_worker(config: TrainConfig, saving: Saving, device: str) -> dict[str, bytes]:
    """Train on a worker of the cluster: the run's files, the finished weights last."""
    torch.set_num_threads(1)
    home = folder(config)
    train(config, home, resume=True, device=device, progress=False, saving=saving)
    snapshots = sorted((home / "snapshots").glob("*.safetensors"))
    files = [*snapshots, *(home / name for name in ("record.csv", "run.json", CHECKPOINT, MODEL))]
    return {str(file.relative_to(home)): file.read_bytes() for file in files}


if __name__ == "__main__":  # the other end of _in_process
    _config, _saving, _device = pickle.load(sys.stdin.buffer)
    train(_config, folder(_config), resume=True, device=_device, saving=_saving)

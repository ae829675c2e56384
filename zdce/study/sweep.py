"""Many trainings, on this machine, on its GPU or on a cluster: each one once, whatever stops it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from zdce import paths
from zdce.files import atomic_write, lock
from zdce.step import TrainConfig, TrainingError
from zdce.training import Job, Saving, finished, train

if TYPE_CHECKING:
    from distributed import Future

RETRIES = 2  # of a training that failed, or whose process or worker was lost
PACKED = 8  # trainings at a time on a GPU; measured on an H100 with the study's two networks
FILES = ("record.csv", "run.json", "checkpoint.safetensors")  # of a run, beside its weights


@dataclass(frozen=True)
class Outcome:
    """How one training of a sweep ended.

    state: ``trained``, ``there already`` or ``failed``. seconds: of this sweep, waiting for a free
    worker not counted. error: why it failed.
    """

    config: TrainConfig
    state: str
    seconds: float = 0.0
    error: str = ""

    def line(self) -> str:
        """For the console."""
        c = self.config
        head = f"{c.name}, seed {c.seed}, {c.steps:,} steps: {self.state}"
        if self.error:
            return f"{head}: {self.error}"
        return f"{head}, {self.seconds / 60:.1f} min" if self.seconds else head


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
    time; default: one for each processor core, each in a process with one thread, or eight on a
    GPU, which they share in one process, each on a stream of its own. scheduler: address of a Dask
    cluster to train on instead (``tcp://host:8786``); its workers need this package and the
    training photographs, but no folder shared with this machine. A training that fails, or whose
    process or worker is lost, is run again from its last checkpoint, :data:`RETRIES` times (on a
    GPU not). Equal configurations give equal weights wherever they are trained, up to the
    processor's arithmetic.
    """
    waiting = []
    for config in configs:
        if finished(config, folder(config)):
            yield Outcome(config, "there already")
        else:
            waiting.append((config, Saving(snapshots=(snapshots or {}).get(config.name, ()))))
    if scheduler and waiting:
        yield from _cluster(waiting, scheduler, device)
    elif _resolved(device) == "cuda":
        yield from _gpu(waiting, jobs or PACKED, "cuda")
    else:
        yield from _local(waiting, jobs or os.cpu_count())


def _resolved(device: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


# --- this machine's processor ---------------------------------------------------------------------

Wanted = list[tuple[TrainConfig, Saving]]


def _local(wanted: Wanted, jobs: int) -> Iterator[Outcome]:
    pool = ThreadPoolExecutor(jobs)
    try:
        for future in as_completed([pool.submit(_process, *each) for each in wanted]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _process(config: TrainConfig, saving: Saving) -> Outcome:
    """Train in a process of its own; what it prints goes to ``log.txt`` of the run's folder."""
    started, home = time.perf_counter(), folder(config)
    home.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "zdce.study.sweep"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ZDCE_RUNS": str(paths.runs())}
    with (home / "log.txt").open("a") as log:
        pipes = {"stdout": log, "stderr": subprocess.STDOUT, "env": environment}
        for _ in range(1 + RETRIES):
            code = subprocess.run(words, input=pickle.dumps((config, saving)), **pipes).returncode
            if code == 0 and finished(config, home):
                return Outcome(config, "trained", time.perf_counter() - started)
    last = (home / "log.txt").read_text(errors="replace").strip().splitlines()
    error = f"killed by signal {-code}" if code < 0 else last[-1] if last else f"exit code {code}"
    return Outcome(config, "failed", time.perf_counter() - started, error)


def _from_stdin() -> None:
    """The other end of :func:`_process`."""
    config, saving = pickle.load(sys.stdin.buffer)
    try:
        train(config, folder(config), resume=True, saving=saving)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"Error: {error}")


# --- this machine's GPU ---------------------------------------------------------------------------


def _gpu(wanted: Wanted, jobs: int, device: str) -> Iterator[Outcome]:
    """``jobs`` trainings at a time take turns: each launches a step, the device overlaps them."""
    waiting, active = list(reversed(wanted)), []
    with ExitStack() as locks:
        while waiting or active:
            while waiting and len(active) < jobs:
                config, saving = waiting.pop()
                home = folder(config)
                locks.enter_context(lock(home, "trains"))
                job = Job(config, home, resume=True, device=device, saving=saving)
                active.append((job, job.steps(), time.perf_counter()))
            for each in list(active):
                job, steps, started = each
                try:
                    next(steps)
                    continue
                except StopIteration:
                    state, error = "trained", ""
                except (OSError, ValueError, TrainingError) as failure:
                    state, error = "failed", str(failure)
                active.remove(each)
                yield Outcome(job.config, state, time.perf_counter() - started, error)


# --- a cluster ------------------------------------------------------------------------------------


def _cluster(wanted: Wanted, scheduler: str, device: str) -> Iterator[Outcome]:
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise ValueError('--scheduler needs Dask: pip install "zdce[cluster]"') from None
    with Client(scheduler) as client:

        def submit(config: TrainConfig, saving: Saving, lost: int) -> Future:
            key = f"{config.run_name()}-{lost}" if lost else config.run_name()
            return client.submit(_on_worker, config, saving, device, key=key, retries=RETRIES)

        running = {submit(*each, 0): (*each, 0) for each in wanted}
        done = as_completed(running)
        for future in done:
            config, saving, lost = running.pop(future)
            failed = future.exception() if future.status != "finished" else None
            if isinstance(failed, KilledWorker) and lost < RETRIES:
                # Dask counts every worker that died with a training assigned, begun or not: again.
                again = submit(config, saving, lost + 1)
                running[again] = (config, saving, lost + 1)
                done.add(again)
            elif future.status == "finished":
                seconds, files = future.result()
                _bring(config, files)
                yield Outcome(config, "trained", seconds)
            else:
                yield Outcome(config, "failed", error=str(failed))


def _on_worker(config: TrainConfig, saving: Saving, device: str) -> tuple[float, dict[str, bytes]]:
    """Train on a worker of the cluster: seconds, and the run's files, the finished weights last."""
    torch.set_num_threads(1)
    how = {"resume": True, "device": _resolved(device), "progress": False, "saving": saving}
    run = train(config, folder(config), **how)
    snapshots = sorted((run.folder / "snapshots").glob("*.safetensors"))
    files = [*snapshots, *(run.folder / name for name in FILES), run.weights]
    return run.seconds, {str(file.relative_to(run.folder)): file.read_bytes() for file in files}


def _bring(config: TrainConfig, files: dict[str, bytes]) -> None:
    """Keep what a worker trained; where it shares its folders with this machine, all is there."""
    home = folder(config)
    if finished(config, home):
        return
    for name, content in files.items():
        with atomic_write(home / name) as partial:
            partial.write_bytes(content)


if __name__ == "__main__":
    _from_stdin()

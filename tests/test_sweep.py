"""Sweeps: every training once, on this machine and on a real cluster, with processes and workers
that die.
"""

import os
import signal
import subprocess
import threading
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from pictures import photographs

from zdce import checkpoints, paths
from zdce.cli import main
from zdce.study import experiments, sweep
from zdce.training import TrainConfig, train


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Folders of this test alone, for this process and for those that it starts; a few generated
    photographs.
    """
    for name in ("runs", "data", "photos"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"ZDCE_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(paths.PACKAGE.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    photographs(tmp_path / "photos", 5)
    return tmp_path


def configs(home, count: int, steps: int) -> list[TrainConfig]:
    small = {"data": str(home / "photos"), "size": 32, "steps": steps, "precision": "float32"}
    base = replace(experiments.EXPERIMENTS["channels-8"], **small)
    return [replace(base, seed=seed) for seed in range(count)]


def assert_correct(wanted: list[TrainConfig], home) -> None:
    """Every run is there and equal, bit for bit, to one that nothing disturbed."""
    runs = sorted(path.name for path in (home / "runs").iterdir())
    assert runs == sorted(config.run_name() for config in wanted)
    for config in wanted:
        alone = train(config, home / "alone" / config.run_name(), progress=False)
        model = sweep.folder(config) / "model.safetensors"
        assert checkpoints.fingerprint(model) == checkpoints.fingerprint(alone.weights)
        record = pd.read_csv(sweep.folder(config) / "record.csv")
        assert len(record) == config.steps
        assert record.equals(pd.read_csv(alone.folder / "record.csv"))


@pytest.mark.long
def test_a_worker_killed_midway_and_four_correct_runs(home):
    from distributed import Client, LocalCluster

    wanted, killed = configs(home, count=4, steps=150), []

    def kill_a_busy_worker(address: str) -> None:
        with Client(address) as client:
            pids = client.run(os.getpid)
            while not killed:
                busy = [worker for worker, keys in client.processing().items() if keys]
                time.sleep(0.3)  # so that it is in the middle of its steps
                for worker in busy[:1]:
                    os.kill(pids[worker], signal.SIGKILL)
                    killed.append(worker)

    how = {"threads_per_worker": 1, "dashboard_address": None}
    own = {"ZDCE_RUNS": str(home / "theirs")}  # they are told where
    with LocalCluster(n_workers=2, env=own, **how) as cluster:
        # The scheduler gives a training up as soon as one worker died with it: the sweep does not.
        cluster.scheduler.allowed_failures = 0
        address = cluster.scheduler_address
        murderer = threading.Thread(target=kill_a_busy_worker, args=(address,))
        murderer.start()
        kept = {"channels-8": (60,)}
        outcomes = list(sweep.sweep(wanted, scheduler=address, snapshots=kept))
        murderer.join()
        assert killed and sorted(o.config.seed for o in outcomes) == [0, 1, 2, 3]
        assert {o.state for o in outcomes} == {"trained"}, [o.error for o in outcomes]
        assert_correct(wanted, home)
        assert len(list(home.glob("runs/*/snapshots/*"))) == 4
        before = {f: f.stat().st_mtime_ns for f in (home / "runs").rglob("*")}
        again = list(sweep.sweep(wanted, scheduler=address))
    assert {o.state for o in again} == {"there already"}
    assert before == {f: f.stat().st_mtime_ns for f in (home / "runs").rglob("*")}


@pytest.mark.long
def test_a_killed_process_of_this_machine_is_started_again(home, monkeypatch):
    wanted, started = configs(home, count=2, steps=150), []

    class Noted(subprocess.Popen):
        def __init__(self, *words, **pipes) -> None:
            super().__init__(*words, **pipes)
            started.append(self)

    def kill_the_first() -> None:
        while not any("/150" in log.read_text() for log in home.glob("runs/*/log.txt")):
            time.sleep(0.01)  # until it is at its steps
        started[0].kill()

    monkeypatch.setattr(subprocess, "Popen", Noted)
    murderer = threading.Thread(target=kill_the_first)
    murderer.start()
    outcomes = list(sweep.sweep(wanted, jobs=1, device="cpu"))
    murderer.join()
    assert [process.returncode for process in started] == [-signal.SIGKILL, 0, 0]
    assert {o.state for o in outcomes} == {"trained"}, [o.error for o in outcomes]
    assert_correct(wanted, home)
    assert {o.state for o in sweep.sweep(wanted)} == {"there already"}


def test_a_training_that_cannot_succeed_is_reported(home, monkeypatch):
    monkeypatch.setattr(sweep, "RETRIES", 0)
    good, bad = configs(home, count=2, steps=2)
    bad = replace(bad, data=str(home / "nowhere"))
    outcomes = {o.config: o for o in sweep.sweep([bad, good], jobs=2, device="cpu")}
    assert outcomes[good].state == "trained" and outcomes[bad].state == "failed"
    assert "nowhere" in outcomes[bad].error
    line = f"channels-8, seed 1, 2 steps: failed: {outcomes[bad].error}"
    assert outcomes[bad].line() == line


@pytest.mark.long
def test_the_command_trains_keeps_and_does_not_repeat(home, monkeypatch):
    monkeypatch.setattr(paths, "reports", lambda profile="": home / "reports" / profile)
    quick = replace(experiments.BUDGETS["quick"], data=str(home / "photos"), size=32)
    monkeypatch.setitem(experiments.BUDGETS, "quick", quick)
    words = ["sweep", "--arms", "channels-8", "--seeds", "0,1", "--jobs", "2", "--device", "cpu"]
    first = CliRunner().invoke(main, words)
    assert first.exit_code == 0, first.output
    assert first.output.count("10 steps: trained") == 2
    assert CliRunner().invoke(main, words).output.count("there already") == 2
    (config, _) = experiments.plan("quick", (0, 1), ["channels-8"])
    table = experiments.trainings("quick")
    row = table.iloc[0]
    assert (list(table["seed"]), row["steps"], row["photographs"]) == ([0, 1], 10, 5)
    record = experiments.records("channels-8", profile="quick").query("seed == 0")
    every = pd.read_csv(sweep.folder(config) / "record.csv")
    assert record["loss"].mean() == pytest.approx(every["loss"].mean(), rel=1e-5)
    assert checkpoints.read(row["weights"]).header["train"] == config.header()
    assert not len(experiments.records("tv-100", profile="quick"))


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        ("--seeds a", "'a'"),
        ("--arms paper", "experiment 'paper' in profile quick: choose one of"),
        ("--profile huge", "profile='huge': choose one of quick, study"),
    ],
)
def test_wrong_words_are_explained(words, needle):
    result = CliRunner().invoke(main, ["sweep", *words.split()])
    assert result.exit_code != 0 and needle in result.output and "Traceback" not in result.output

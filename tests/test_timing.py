"""The timing contract: order of calls, what a clock is read around, arithmetic. No test asserts a
time.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from zdce.cli import main
from zdce.study import timing as speed
from zdce.study.timing import STAGES, Version

PAIR = (Version("original", "zero-dce"), Version("improved", "zero-dce-improved"))
FILES = {"a": Path("a.jpg"), "b": Path("b.jpg")}


def recorded(log: list, label: str, milliseconds=None):
    """A version that notes its calls; its network takes the given times in turn."""
    times = itertools.cycle(milliseconds or [1.0])

    def call(file, synchronise=True):
        log.append((label, file.stem, synchronise))
        return dict.fromkeys(STAGES, 0.0) | {"network": next(times)}

    return call


def measured(original: list, improved: list, repeats: int = 3) -> pd.DataFrame:
    calls = {
        "original": recorded([], "original", original),
        "improved": recorded([], "improved", improved),
    }
    return speed.measure(calls, {"1": Path("1.jpg")}, repeats)


def test_versions_take_turns_after_a_first_pass_that_waits_for_nothing():
    log = []
    times = speed.measure({"A": recorded(log, "A"), "B": recorded(log, "B")}, FILES, 2)
    first, turns = log[:4], log[4:]
    assert first == [("A", "a", False), ("A", "b", False), ("B", "a", False), ("B", "b", False)]
    assert turns == [(v, f, True) for _ in range(2) for f in "ab" for v in "AB"]
    assert times["repeat"].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_the_device_is_waited_for_before_each_reading_of_the_clock():
    log, now = [], itertools.count()

    def note(what, value=None):
        log.append(what)
        return value

    stages = {
        "one": lambda value: note("one", value + 1),
        "two": lambda value: note(f"two of {value}"),
    }
    taken = speed.timed(stages, 0, lambda: note("wait"), lambda: note("clock", next(now) ** 2))
    assert log == [
        "wait",
        "clock",
        "one",
        "wait",
        "clock",
        "wait",
        "clock",
        "two of 1",
        "wait",
        "clock",
    ]
    assert taken == {"one": 1000.0, "two": 5000.0}  # 1² − 0², 3² − 2²


def test_first_calls_are_no_part_of_the_median():
    table = speed.summary(measured([900, 10, 20, 30], [500, 5, 5, 5]), "original").set_index(
        "version"
    )
    assert table.loc["original", ["ms", "ms_low", "ms_high", "n", "first_ms"]].tolist() == [
        20,
        15,
        25,
        3,
        900,
    ]
    assert table.loc["improved", "first_ms"] == 500


def test_ratios_are_taken_within_a_turn_so_that_drift_cancels():
    table = speed.summary(measured([0, 10, 100, 1000], [0, 5, 50, 500]), "original").set_index(
        "version"
    )
    assert table.loc["improved", ["ratio", "ratio_low", "ratio_high"]].tolist() == [2, 2, 2]
    assert table.loc["original", "ratio"] == 1


@pytest.mark.parametrize(
    ("other", "starts"), [(0.0, "quiet"), (1.5, "WARNING"), (float("nan"), "other work")]
)
def test_other_work_is_told(other, starts):
    assert speed.contention({"other_work": other, "load_before": 1.0}).startswith(starts)


# --- processes ------------------------------------------------------------------------------------


def test_two_processes_enhance_and_tell_their_memory():
    versions = [
        Version("one", "zero-dce-improved", threads=1),
        Version("other", "zero-dce", 1, keep_freed=False),
    ]
    with speed.Workers(versions) as workers:
        files = workers.files({"small": np.full((120, 160, 3), 40, np.uint8)})
        times = speed.measure(workers, files, 1)
        memory, conditions = workers.memory(), workers.conditions()
        folder = files["small"].parent
        assert not workers["other"].about["kept"]
        workers["other"].process.kill()
        with pytest.raises(RuntimeError, match="'other': its process ended"):
            workers["other"](files["small"])
    assert len(times) == 4 and set(times.columns) == {"version", "photograph", "repeat", *STAGES}
    assert (times[list(STAGES)] > 0).all(axis=None)
    assert memory["version"].tolist() == ["one", "other"] and (memory["peak_mb"] > 5).all()
    assert conditions["torch"] and not folder.exists()
    assert workers["one"].process.returncode == 0


def test_a_version_that_cannot_run_is_named():
    with (
        pytest.raises(RuntimeError, match=r"'broken'.*no-such\.pth"),
        speed.Workers([Version("broken", "no-such.pth")]),
    ):
        pass


def test_the_command_prints_ratios_and_writes_settings_and_versions(monkeypatch, tmp_path):
    class Fake(speed.Workers):
        def __enter__(self):
            self.update(
                {
                    v.label: recorded([], v.label, [9.0, 8.0 if v.model == "zero-dce" else 4.0])
                    for v in self.versions
                }
            )
            return self

        def __exit__(self, *_):
            pass

        def files(self, images):
            return {name: Path(name) for name in images}

        def memory(self):
            return pd.DataFrame({"version": list(self), "idle_mb": 1.0, "peak_mb": 2.0})

        def conditions(self):
            return {
                "load_before": 3.0,
                "other_work": 1.5,
                "machine": "2 cores m",
                "torch": "9.9",
                "commit": "c",
            }

    monkeypatch.setattr(speed, "Workers", Fake)
    monkeypatch.setattr(speed.compare, "__defaults__", (PAIR, 1, {"small": (60, 40)}))
    file = tmp_path / "new" / "speed.csv"
    result = CliRunner().invoke(main, ["speed", "--csv", str(file)])
    assert result.exit_code == 0, result.output
    assert "2.00 ×" in result.output and "WARNING" in result.output and "torch 9.9" in result.output
    table = pd.read_csv(file).set_index("version")
    assert {"threads", "device", "torch", "commit", "other_work", "keep_freed"} <= set(
        table.columns
    )
    assert table.loc[
        "improved", ["ratio", "network_ms", "pixels_ms", "first_call_ms"]
    ].tolist() == [2, 4, 4, 9]
    assert table.loc["improved", ["photograph", "width", "height"]].tolist() == ["small", 60, 40]


def test_paths_run_in_stages_from_file_to_file():
    """Whatever the path, from the same pixels: nearly the same photograph, and every stage runs."""
    results = {}
    for version in speed.PATHS[:4]:
        stages, wait = speed.steps(version)
        value = np.full((90, 120, 3), 30, np.uint8)
        for name in ("prepare", "network", "finish"):
            value = stages[name](value)
        results[version.label] = value
        assert value.shape == (90, 120, 3) and value.dtype == np.uint8 and value.mean() > 30
        assert list(stages) == list(STAGES) and wait() is None
    plain = results["improved, plain"].astype(int)
    assert np.abs(results["improved, faithful"] - plain).max() <= 2
    away = np.abs(results["improved, fast"] - plain)[20:-20, 20:-20]
    assert away.max() <= 6  # borders reach further at a reduced size


def test_peers_run_in_stages(shared):
    for version in speed.PEERS[::2]:
        stages, _ = speed.steps(version)
        value = np.full((90, 120, 3), 30, np.uint8)
        for name in ("prepare", "network", "finish"):
            value = stages[name](value)
        assert value.shape == (90, 120, 3) and value.dtype == np.uint8


def test_choices_name_an_engine_and_a_reason():
    told = speed.choices()
    assert set(told) == {"auto", "zero-dce-improved", "zero-dce"}
    assert all("engine" in line and "(" in line for line in told.values())

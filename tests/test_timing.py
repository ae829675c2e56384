"""The timing contract: order of calls, what a clock is read around, arithmetic, and files that
belong to the code as it is. No test asserts a time.
"""

import itertools
import multiprocessing
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from zdce import paths
from zdce.cli import main
from zdce.study import timing

MEASURED = sorted((paths.reports("study") / "speed").glob("*.csv"))


def recorded(log: list, label: str, milliseconds: list):
    """A version that notes its calls and takes the given times, one after the other."""
    times = itertools.cycle(milliseconds)

    def call():
        log.append(label)
        return {"decode": 1.0, "enhance": next(times), "encode": 2.0}

    return call


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.stem)
def test_committed_speeds_are_of_the_code_as_it_is(file):
    measured = set(pd.read_csv(file)["fingerprint"])
    assert measured == {timing.fingerprint(file.stem)}, "measure again: make speed"


def test_the_fingerprint_is_that_of_the_sources(tmp_path):
    home = tmp_path / "zdce"
    shutil.copytree(paths.PACKAGE, home, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    same = {name: timing.fingerprint(name, home) for name in timing.SOURCES}
    assert same == {name: timing.fingerprint(name) for name in timing.SOURCES}
    with (home / "engine" / "winograd.py").open("a") as file:
        file.write('\n\n# A comment\n"""A docstring."""\n')
    assert same == {name: timing.fingerprint(name, home) for name in same}
    with (home / "engine" / "winograd.py").open("a") as file:
        file.write("more = 1\n")
    changed = {name for name in same if timing.fingerprint(name, home) != same[name]}
    assert changed == {"paths", "large", "video"}
    named = set(itertools.chain(*timing.SOURCES.values()))
    assert [name for name in named if not list(home.glob(f"{name}.py"))] == []


def test_versions_take_turns_until_each_took_its_time(monkeypatch):
    """A takes a second a call and B two, for four seconds each and three calls or more."""
    log = []
    calls = {"A": recorded(log, "A", [1.0]), "B": recorded(log, "B", [1.0])}
    monkeypatch.setattr(
        timing, "time", SimpleNamespace(perf_counter=lambda: log.count("A") + 2 * log.count("B"))
    )
    times = timing.measure(calls, 4)
    assert "".join(log) == "AB" * (1 + timing.LEAST) + "A"
    assert times["round"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_ratios_are_taken_within_a_turn_and_the_warm_up_counts_for_nothing():
    calls = {
        "first": recorded([], "first", [900, 10, 100, 1000]),
        "other": recorded([], "other", [1, 20, 200, 2000]),
    }
    table = timing.summary(timing.measure(calls, 0)).set_index("version")
    assert table.loc["first", ["ms", "ms_low", "ms_high", "n", "decode_ms"]].tolist() == [
        100, 55, 550, 3, 1,
    ]  # fmt: skip
    assert table.loc["other", ["ratio", "ratio_low", "ratio_high"]].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("other", "starts"), [(0.0, "quiet"), (1.5, "WARNING"), (float("nan"), "other work")]
)
def test_other_work_is_told(other, starts):
    assert timing.contention(other).startswith(starts)


def test_the_command_measures_in_processes_and_tells_what_is_chosen(monkeypatch, tmp_path):
    """Two engines and the network as it stands agree; what cannot run is a line."""
    paths_of = ("chosen", "reference", "torch", "quantum")
    groups = (((60, 40), {"zero-dce-improved": paths_of, "sci-medium": ["torch"]}),)
    monkeypatch.setattr(timing.compare, "__defaults__", (groups, 0.0))
    monkeypatch.setenv("ZDCE_DATA", str(tmp_path))
    monkeypatch.delenv("ZDCE_MIRROR", raising=False)
    file = tmp_path / "new" / "paths.csv"
    result = CliRunner().invoke(main, ["speed", "--csv", str(file)])
    assert result.exit_code == 0, result.output
    assert re.search(r"not measured: sci-medium, torch: .*zdce data fetch", result.output)
    assert "not measured: zero-dce-improved, quantum: " in result.output
    chosen = re.search(r"zero-dce-improved, 60×40: (.+) is chosen \((.+)\): (.+)", result.output)
    here = timing.engines("zero-dce-improved")
    assert chosen[1] == here[0].name and chosen[2] == here[0].reason
    assert all(re.search(rf"{one.name} \d+\.\d ms", chosen[3]) for one in here)
    table = pd.read_csv(file)
    assert set(table["path"]) >= {"chosen", "reference", "torch"}
    assert (table["within_1"] >= 0.999).all() and (table["furthest"] <= 2).all()
    assert (table[["ms", "decode_ms", "encode_ms"]] > 0).all(axis=None) and table["ratio"][0] == 1
    about = table[["width", "threads", "fingerprint"]].iloc[0].tolist()
    assert about == [60, 2, timing.fingerprint("paths")]


def test_a_process_that_ends_is_named(tmp_path):
    with timing.worker("auto", "chosen", tmp_path / "a.jpg") as call:
        for process in multiprocessing.active_children():
            process.kill()
        with pytest.raises(RuntimeError, match=r"auto, chosen: BrokenProcessPool: .*terminated"):
            call()


@pytest.mark.parametrize("path", ["torch", "channels-last", "ONNX Runtime", "AVX2"])
def test_paths_give_what_the_reference_gives(path):
    if path == "ONNX Runtime":
        pytest.importorskip("onnxscript")
    if path == "AVX2":
        pytest.importorskip("numba")
    pixels = np.random.default_rng(0).integers(0, 60, (90, 120, 3), dtype=np.uint8)
    versions = [("zero-dce-improved", "reference"), ("zero-dce-improved", path)]
    table = timing.agreement({each: timing.enhancing(*each)(pixels) for each in versions})
    assert (table["within_1"] >= 0.999).all() and (table["furthest"] <= 2).all() and len(table) == 2

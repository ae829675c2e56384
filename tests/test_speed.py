"""The timing contract: order of calls, what a clock is read around, arithmetic. No test asserts a time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from zdce.cli import main
from zdce.engine import winograd
from zdce.model import ZERO_DCE, CurveNet
from zdce.study import speedup
from zdce.study import timing as speed
from zdce.study.timing import STAGES, Version

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


def test_slope_tells_proportional_from_quadratic():
    sizes = np.array([0.1, 1.0, 10.0])
    rows = [("line", s, 7 * s) for s in sizes] + [("square", s, s**2) for s in sizes]
    told = speed.growth(pd.DataFrame(rows, columns=["version", "megapixels", "ms"])).set_index(
        "version"
    )
    assert told["slope"].tolist() == pytest.approx([1, 2])
    assert told["ms_per_megapixel"].tolist() == pytest.approx([7, 10])


@pytest.mark.parametrize(
    ("other", "starts"), [(0.0, "quiet"), (1.5, "WARNING"), (float("nan"), "other work")]
)
def test_other_work_is_told(other, starts):
    assert speed.contention({"other_work": other, "load_before": 1.0}).startswith(starts)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::mkldnn_convolution", "convolution"),
        ("aten::max_pool2d_with_indices", "pooling and its layout"),
        ("aten::copy_", "pooling and its layout"),
        ("aten::clamp_min_", "ReLU and tanh"),
        ("aten::cat", "joining"),
        ("aten::mul", "curve"),
        ("aten::empty", "other"),
        ("aten::allclose", "other"),
    ],
)
def test_operations_are_filed_by_kind(operation, kind):
    assert speed._kind(operation) == kind


def test_photographs_have_the_sizes_of_lime():
    whole, quarter = speed.lime_photographs(False), speed.lime_photographs(False, 0.25)
    assert [image.shape[1::-1] for image in whole.values()] == list(speed.LIME_SIZES)
    assert quarter["1"].shape == (340, 360, 3)
    assert speed.sized_photographs([0.24])["0.24 MP"].shape == (400, 600, 3)


def test_the_sizes_are_those_of_the_real_files(shared):
    assert [image.shape[1::-1] for image in speed.lime_photographs(True).values()] == list(
        speed.LIME_SIZES
    )


# --- processes ------------------------------------------------------------------------------------------------


def test_two_processes_enhance_and_tell_their_memory():
    versions = [
        Version("one", "zero-dce-improved", threads=1),
        Version("other", "zero-dce", 1, keep_freed=False),
    ]
    with speed.Workers(versions) as workers:
        files = workers.files({"small": np.full((120, 160, 3), 40, np.uint8)})
        times = speed.measure(workers, files, 1)
        memory, kinds, conditions = (
            workers.memory(),
            workers.kinds(files["small"], 1),
            workers.conditions(),
        )
        folder = files["small"].parent
        assert not workers["other"].about["kept"]
        workers["other"].process.kill()
        with pytest.raises(RuntimeError, match="'other': its process ended"):
            workers["other"](files["small"])
    assert len(times) == 4 and set(times.columns) == {"version", "photograph", "repeat", *STAGES}
    assert (times[list(STAGES)] > 0).all(axis=None)
    assert memory["version"].tolist() == ["one", "other"] and (memory["peak_mb"] > 5).all()
    assert (kinds.loc[["convolution", "curve", "joining"]] > 0).all(axis=None)
    assert kinds.loc["pooling and its layout", "one"] > kinds.loc["pooling and its layout", "other"]
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
    monkeypatch.setattr(speed.compare, "__defaults__", (speed.PAIR, 1, {"small": (60, 40)}))
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
    """Whatever the path, from the same JPEG: nearly the same photograph, and every stage is timed."""
    results = {}
    for version in [*speed.PATHS[:3], *speed.PEERS[::2]]:
        stages, wait = speed.steps(version)
        value = np.full((90, 120, 3), 30, np.uint8)
        for name in ("prepare", "network", "finish"):
            value = stages[name](value)
        results[version.label] = value
        assert value.shape == (90, 120, 3) and value.dtype == np.uint8 and value.mean() > 30
        assert list(stages) == list(STAGES) and wait() is None
    plain = results["improved, plain"].astype(int)
    assert np.abs(results["improved, faithful"] - plain).max() <= 2
    assert (
        np.abs(results["improved, fast"] - plain)[20:-20, 20:-20].max() <= 6
    )  # borders reach further at a reduced size


def goals_of(**milliseconds) -> pd.DataFrame:
    rows = [(name, label, ms) for (name, label), ms in milliseconds["ms"].items()]
    return speed.goals(
        pd.DataFrame(rows, columns=["photograph", "version", "pixels_ms"])
    ).set_index("goal")


def test_goals_are_held_against_the_fastest_peer():
    sizes, labels = ("600×400", "4K"), ("improved, plain", "improved, faithful", "improved, fast")
    ms = {
        (size, label): value
        for size in sizes
        for label, value in zip(labels, (100.0, 20.0, 2.0), strict=True)
    }
    ms |= {
        (size, peer.label): value
        for size in sizes
        for peer, value in zip(speed.PEERS, (9, 5, 8, 7), strict=True)
    }
    told = goals_of(ms=ms)
    assert told.loc["improved, faithful", ["ratio", "held"]].tolist() == [5.0, "yes"]
    assert told.loc["improved, fast", "ratio"].tolist() == [2.5, 2.5]
    assert set(told.loc["improved, fast", "against"]) == {speed.PEERS[1].label}
    assert (
        set(told.loc["improved, fast", "held"]) == {"no"}
        and told.loc["improved, fast: a frame", "held"] == "yes"
    )


def test_limits_count_bytes_and_multiply_adds():
    rows = [("p", path.label, path.model, path.path, 600, 400, 10.0) for path in speed.PATHS]
    columns = ["photograph", "version", "model", "path", "width", "height", "pixels_ms"]
    told = speed.beside_limits(
        pd.DataFrame(rows, columns=columns), {"copy": 1e9, "float32": 1e9, "bfloat16": 1e9}
    ).set_index("version")
    each = 432 + (23472 - 432) * 64 / 324 if winograd.numba else 23472  # products of a pixel
    assert told.loc["improved, faithful", "multiply_adds"] == pytest.approx(each * 240_000)
    assert told.loc[["improved, faithful", "improved, fast"], "bytes"].tolist() == [
        1_440_000,
        2_160_000,
    ]
    assert told.loc["improved, fast", "copy_ms"] == pytest.approx(2.16)
    assert told.loc["improved, fast", "arithmetic_ms"] == pytest.approx(each * 75 * 50 / 1e6)
    assert all(value > 0 for value in speed.machine_limits(1).values())


def test_agreement_counts_pixels():
    told = speed.agreement("bundled", 1, ["zero-dce-improved"]).iloc[0]
    assert told["photographs"] == 1 and told["gamma"] == 1.15
    assert 0.99 < told["same"] <= told["within_1"] and told["within_1"] >= 0.999


# --- original against improved --------------------------------------------------------------------------------


def test_steps_of_a_clock_are_found():
    values = speedup.PUBLISHED[["original", "improved"]].to_numpy().ravel()
    step = speedup.clock_step(values)
    assert step == pytest.approx(0.0009974, abs=1e-6)
    assert np.round(values / step).tolist()[:4] == [24, 16, 14, 12]
    assert np.isnan(speedup.clock_step(np.random.default_rng(0).uniform(0.005, 0.04, 18)))


def test_the_published_table_gives_the_stated_gain():
    gains = speedup.saved(speedup.PUBLISHED["original"] / speedup.PUBLISHED["improved"])
    assert gains.min() == pytest.approx(0.10, abs=0.01) and gains.max() == pytest.approx(
        0.34, abs=0.01
    )


def test_floor_of_the_paper_s_card():
    floor = speedup.arithmetic_floor(CurveNet(ZERO_DCE), 1200, 900, speedup.PEAK_2080TI)
    assert 1000 * floor == pytest.approx(12.7, abs=0.1)


def test_a_line_is_found():
    assert speedup.line([1, 2, 3], [7, 9, 11]) == pytest.approx((5, 2, 1))


def test_excess_adds_up_to_the_gap():
    kinds = pd.DataFrame(
        {"original": [90.0, 6.0], "improved": [30.0, 6.0]}, index=["convolution", "curve"]
    )
    parts = speedup.excess(kinds, 3.0)
    assert parts["excess_ms"].tolist() == [0, 4] and parts["ratio"].tolist() == [3, 1]
    assert "curve 100 %" in speedup.gap_words(parts, 3.0)
    assert "hardly a gap" in speedup.gap_words(speedup.excess(kinds, 2.0), 2.0)


def nine(
    ratio: float, low: float | None = None, share: float = 1.0, other: float = 0.0
) -> pd.DataFrame:
    gain = speedup.saved(ratio)
    names = [str(number) for number in range(1, 10)]
    told = {
        "ratio": ratio,
        "ratio_low": low or ratio,
        "saved": gain,
        "share": share,
        "other_work": other,
    }
    return pd.DataFrame({"photograph": names} | told)


@pytest.mark.parametrize(
    ("ratio", "low", "share", "other", "verdict"),
    [
        (1.3, None, 1.0, 0.0, "supported"),
        (2.0, None, 1.0, 0.0, "partly supported"),  # faster, by more than was stated
        (0.9, None, 1.0, 0.0, "not supported"),
        (1.05, 0.98, 1.0, 0.0, "not supported"),
        (1.3, None, 0.25, 0.0, "not testable here"),
        (1.3, None, 1.0, 1.8, "not testable here"),  # beside other work
    ],
)
def test_verdict_on_inference(ratio, low, share, other, verdict):
    rows = speedup.claims(speedup.sizes(), nine(ratio, low, share, other), pd.DataFrame(), "fake")
    assert speedup.verdicts(rows)["N3"] == verdict
    told = speedup.findings(rows, nine(ratio, low, share, other), {"multiply_adds_pixel": 3.37})
    assert f"(inference speed) **{verdict}**" in told[0]
    assert any("no evidence" in line for line in told) == (other > speed.BUSY)


def trained(tmp_path, monkeypatch, improved: float) -> pd.DataFrame:
    rows = []
    for net, rate in (("zero-dce", 3.0), ("zero-dce-improved", improved)):
        for variant, rounds in (("released loop", 3), ("torch.compile", 1)):
            told = {
                "photographs_per_second": rate,
                "lowest": rate - 0.1,
                "highest": rate + 0.1,
                "rounds": rounds,
            }
            rows.append(
                {"net": net, "variant": variant} | told | {"what": "w", "device": "d", "torch": "t"}
            )
    folder = tmp_path / "training"
    folder.mkdir()
    pd.DataFrame(rows).to_csv(folder / "speed.csv", index=False)
    monkeypatch.setattr(speedup.paths, "reports", lambda profile: tmp_path)
    return speedup.training()


@pytest.mark.parametrize(("improved", "verdict"), [(6.0, "supported"), (3.1, "not supported")])
def test_verdict_on_training_follows_ranges_over_rounds(tmp_path, monkeypatch, improved, verdict):
    table = trained(tmp_path, monkeypatch, improved)
    assert table["ratio"].tolist() == pytest.approx([improved / 3] * 2)
    rows = speedup.claims(speedup.sizes(), nine(1.3), table, "fake")
    assert speedup.verdicts(rows)["N2"] == verdict
    assert (rows["claim"] == "N2").sum() == 1  # one round has no range


def test_claims_have_the_ledger_s_columns_and_name_what_is_missing():
    rows = speedup.claims(speedup.sizes(), nine(1.3), pd.DataFrame(), "fake")
    assert list(rows) == ["claim", "part", "rule", "measured", "interval", "n", "budget", "held"]
    assert speedup.verdicts(rows) == {
        "N1": "supported",
        "N2": "not testable here",
        "N3": "supported",
    }
    assert "training_speed.py" in rows.set_index("claim").loc["N2", "measured"]


def test_words_follow_the_numbers():
    assert speedup.against_prediction(3.3, 3.37).endswith("as predicted")
    assert speedup.against_prediction(1.9, 3.37).endswith("less than predicted")
    assert speedup.against_prediction(4.0, 3.37).endswith("more than predicted")
    json.dumps(speedup.published_words())

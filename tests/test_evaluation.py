"""Scores are computed once, kept by what they depend on, and found again without the
photographs.
"""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from zdce import checkpoints, datasets, metrics
from zdce.enhance import Enhancer
from zdce.model import CurveNet
from zdce.study import evaluation
from zdce.study.evaluation import INPUT, Method


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """A store of the test's own; the committed one is left alone."""
    monkeypatch.setenv("ZDCE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(evaluation, "committed", lambda: tmp_path / "committed")
    forget()
    yield
    forget()


def forget() -> None:
    for each in (evaluation.kept, evaluation._fingerprint, evaluation._names, evaluation._network):
        each.cache_clear()


@pytest.fixture
def weights(tmp_path):
    """Weights files of two small networks."""

    def save(seed: int) -> str:
        torch.manual_seed(seed)
        net = CurveNet(width=4)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, 0, 0.1)
        file = tmp_path / f"net-seed{seed}-epoch001.safetensors"
        checkpoints.save(file, net, "zero-dce")
        return str(file)

    return [save(0), save(1)]


def refuse(*_):
    raise AssertionError("computed again")


def test_scores_are_those_of_metrics_and_are_computed_once(weights, tmp_path, monkeypatch):
    rows = [INPUT, Method("net", weights[0], 1.0, seed=0), Method("net", weights[1], 1.3, seed=1)]
    found = evaluation.evaluate(rows, "bundled", 2)
    assert found["method"].tolist() == ["input", "net", "net"] * 2
    assert found["seed"].isna().tolist() == [True, False, False] * 2
    sample = datasets.samples("bundled", 2)[1]
    before = sample.image()
    after = Enhancer(weights=weights[1], gamma=1.3)(before)
    for name, value in metrics.scores(after, before, sample.reference()).items():
        assert found[name].iloc[5] == pytest.approx(value, rel=1e-5, nan_ok=True)
    monkeypatch.setattr(metrics, "scores", refuse)
    again = evaluation.evaluate(rows, "bundled", 2)
    pd.testing.assert_frame_equal(again, found)
    again = str(tmp_path / "again.safetensors")
    checkpoints.save(again, checkpoints.load(weights[0]).net, "another name", note="header")
    renamed = evaluation.evaluate([Method("other", again, 1.0)], "bundled", 2)
    assert renamed["psnr"].tolist() == found["psnr"][found["seed"] == 0].tolist()


def test_other_weights_gamma_or_metrics_are_computed_anew(weights, monkeypatch):
    rows = [Method("net", weights[0], 1.0)]
    plain = evaluation.evaluate(rows, "bundled", 1)
    first, second = weights
    for other in ((second, 1.0), (first, 1.2), (first, 1.0, 1.2)):
        found = evaluation.evaluate([Method("net", *other)], "bundled", 1)
        assert found["mean"][0] != plain["mean"][0]
    monkeypatch.setattr(metrics, "VERSION", metrics.VERSION + 1)
    evaluation.kept.cache_clear()
    monkeypatch.setattr(metrics, "scores", lambda *_: {"psnr": 1.0})
    assert evaluation.evaluate(rows, "bundled", 1)["psnr"][0] == 1.0


def test_what_was_finished_before_a_stop_is_kept(weights, monkeypatch):
    monkeypatch.setattr(evaluation, "CHUNK", 2)
    rows, answers = [Method("net", weights[0], 1.0)], iter([1.0, 2.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr(metrics, "scores", lambda *_: {"psnr": next(answers)})
    with pytest.raises(StopIteration):
        evaluation.evaluate(rows, "bundled", 6)
    monkeypatch.setattr(metrics, "scores", lambda *_: {"psnr": 0.5})
    found = evaluation.evaluate(rows, "bundled", 6)
    assert found["psnr"].tolist() == [1, 2, 3, 4, 0.5, 0.5]


def key(model) -> str:
    return Method("", model and str(model)).weights()


def commit(*files: str) -> None:
    """What was scored and these weights, as the study's own; the weights go."""
    for folder in evaluation.own().iterdir():
        table = pd.concat([pd.read_csv(file) for file in folder.glob("*.csv")])
        evaluation.committed().mkdir(exist_ok=True)
        table.to_csv(evaluation.committed() / f"{folder.name}.csv.gz", index=False)
    names = pd.DataFrame({"name": Path(file).stem, "weights": key(file)} for file in files)
    names.to_csv(evaluation.committed() / "weights.csv", index=False)
    shutil.rmtree(evaluation.own())
    for file in files:
        Path(file).unlink()
    forget()


def test_committed_scores_are_found_by_name_without_weights_and_photographs(weights, monkeypatch):
    rows = [INPUT, Method("net", weights[0], 1.0, seed=0)]
    found = evaluation.evaluate(rows, "bundled", 2)
    noise = evaluation.evaluate_bursts(rows, "bundled", 1)
    commit(weights[0])
    monkeypatch.setattr(datasets.Sample, "image", refuse)
    monkeypatch.setattr(datasets, "bursts", refuse)
    assert evaluation.methods(rows[1:]) == rows
    pd.testing.assert_frame_equal(evaluation.evaluate(rows, "bundled", 2), found)
    pd.testing.assert_frame_equal(evaluation.evaluate_bursts(rows, "bundled", 1), noise)
    assert noise.loc[noise["method"] == "input", "noise_gain"].tolist() == [1]


def test_methods_that_can_neither_be_found_nor_computed_are_left_out(weights, capsys):
    rows = [Method("net", weights[0], 1.0)]
    evaluation.evaluate(rows, "bundled", 1)
    commit(weights[0])
    unknown = Method("theirs", weights[0].replace("seed0", "seed7"), 1.0)
    assert evaluation.methods([*rows, unknown]) == [INPUT, *rows]
    found = evaluation.evaluate([INPUT, *rows, unknown], "bundled", 1)
    assert found["method"].tolist() == ["input", "net"]
    assert "left out" in (said := capsys.readouterr().out) and "theirs" in said
    assert evaluation.evaluate([INPUT, *rows], "bundled", 2)["method"].unique() == ["input"]


def test_agreement_is_kept_apart_and_what_is_neither_kept_nor_at_hand_not_answered(
    weights, monkeypatch
):
    rows = [Method("net", weights[0], 1.0)]
    cheap = evaluation.evaluate(rows, "bundled", 2, figures="agreement")
    monkeypatch.setattr(datasets, "at_hand", lambda name: False)
    assert evaluation.answers(rows, "bundled", 2, figures="agreement")
    assert not evaluation.answers(rows, "bundled", 3, figures="agreement")
    assert not evaluation.answers(rows, "bundled", 1)
    every = evaluation.evaluate(rows, "bundled", 2)
    assert "detail_kept" not in cheap
    pd.testing.assert_series_equal(cheap["ssim_matched"], every["ssim_matched"])


def test_an_unknown_set_is_named():
    with pytest.raises(ValueError, match="'limes'"):
        evaluation.sets("bundled, limes")


def test_all_sets_are_wanted_whole(monkeypatch):
    monkeypatch.setattr(datasets, "at_hand", lambda name: name != "dicm")
    with pytest.raises(ValueError, match=r"zdce data fetch dicm$"):
        evaluation.sets("all")
    assert evaluation.sets("bundled,dicm") == ["bundled", "dicm"]

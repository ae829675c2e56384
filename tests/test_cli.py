"""The command line as a user types it."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from zdce import checkpoints
from zdce.cli import main
from zdce.enhance import Enhancer


@pytest.fixture
def zdce():
    def run(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    return run


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 80, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "dark photo.png"
    Image.fromarray(pixels).save(path)
    return path


def test_every_command_answers_help(zdce):
    for words in (
        (),
        ("enhance",),
        ("train",),
        ("evaluate",),
        ("report",),
        ("data",),
        ("data", "fetch"),
    ):
        result = zdce(*words, "--help")
        assert result.exit_code == 0, words
        assert "Usage:" in result.output


def test_enhance_writes_what_the_enhancer_makes(zdce, photo, tmp_path):
    result = zdce("enhance", photo, "-o", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    written = np.asarray(Image.open(tmp_path / "out" / photo.name))
    assert np.array_equal(written, Enhancer(device="cpu")(np.asarray(Image.open(photo))))


def test_a_model_s_own_gamma_is_applied_and_gamma_1_switches_it_off(zdce, photo, tmp_path):
    model = ("--model", "zero-dce-improved")
    zdce("enhance", photo, "-o", tmp_path / "own.png", *model)
    zdce("enhance", photo, "-o", tmp_path / "study.png", *model, "--gamma", "1.15")
    zdce("enhance", photo, "-o", tmp_path / "off.png", *model, "--gamma", "1")
    own, study, off = (
        np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("own", "study", "off")
    )
    assert np.array_equal(own, study)
    assert off.mean() > own.mean()


def test_the_default_model_is_the_one_that_is_named(zdce, photo, tmp_path):
    zdce("enhance", photo, "-o", tmp_path / "default.png")
    zdce("enhance", photo, "-o", tmp_path / "named.png", "--model", checkpoints.DEFAULT)
    assert (tmp_path / "default.png").read_bytes() == (tmp_path / "named.png").read_bytes()
    said = " ".join(zdce("enhance", "--help").output.split())
    assert f"default {checkpoints.DEFAULT}" in said


def test_a_bad_file_fails_and_the_rest_is_done(zdce, photo, tmp_path):
    (photo.parent / "broken.jpg").write_bytes(b"no photograph")
    result = zdce("enhance", photo.parent, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "1 enhanced, 1 failed" in result.output
    assert (tmp_path / "out" / photo.name).exists()
    assert sum("broken.jpg" in line for line in result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "zero-dse"), "zero-dse"),
        (("--weights", "missing.safetensors"), "missing.safetensors"),
        (("--gamma", "-1"), "gamma"),
        (("--strength", "2"), "strength"),
        (("--model", "zero-dce", "--weights", "x.pth"), "--weights"),
    ],
)
def test_wrong_arguments_end_in_a_line_that_names_them(zdce, photo, tmp_path, words, says):
    result = zdce("enhance", photo, "-o", tmp_path / "out", *words)
    assert result.exit_code != 0
    assert says in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_model_help_lists_every_model(zdce, photo):
    result = zdce("enhance", photo, "-o", "x", "--model", "help")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == list(checkpoints.MODELS)


def test_train_then_enhance_with_the_result(zdce, photo, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    run = tmp_path / "run"
    words = (
        "train",
        "--data",
        folder,
        "--size",
        32,
        "--epochs",
        2,
        "--out",
        run,
        "--device",
        "cpu",
    )
    result = zdce(*words)
    assert result.exit_code == 0, result.output
    assert "2 steps" in result.output  # three photographs fit one batch of four
    assert zdce(*words, "--resume").exit_code == 0
    result = zdce(
        "enhance", photo, "-o", tmp_path / "out.png", "--weights", run / "model.safetensors"
    )
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "out.png").size == (30, 20)


def test_train_refuses_an_empty_folder_and_an_unknown_arm(zdce, tmp_path):
    (tmp_path / "empty").mkdir()
    result = zdce("train", "--data", tmp_path / "empty", "--steps", 1, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "empty" in result.output
    result = zdce("train", "--arm", "zero-dse")
    assert result.exit_code == 2
    assert "zero-dse" in result.output


def test_evaluate_prints_means_and_writes_a_row_for_each_photograph(zdce, tmp_path):
    file = tmp_path / "scores.csv"
    result = zdce(
        "evaluate",
        "--model",
        "zero-dce",
        "zero-dce-improved",
        "--on",
        "bundled",
        "--limit",
        1,
        "--csv",
        file,
    )
    assert result.exit_code == 0, result.output
    assert "psnr" in result.output
    lines = file.read_text().splitlines()
    assert len(lines) == 4  # header, input, two models
    assert lines[0].startswith("dataset,photograph,")


def test_data_list_names_every_set_and_verify_finds_a_changed_file(
    zdce, shared, tmp_path, monkeypatch
):
    monkeypatch.setenv("ZDCE_DATA", str(tmp_path))
    assert zdce("data", "fetch", "niqe-model", "--mirror", shared).exit_code == 0
    assert "niqe-model" in zdce("data", "list").output
    assert zdce("data", "verify", "niqe-model").exit_code == 0
    file = next(tmp_path.rglob("*.mat"))
    file.write_bytes(bytes(file.stat().st_size))
    result = zdce("data", "verify", "niqe-model")
    assert result.exit_code == 1
    assert file.name in result.output
    assert zdce("data", "fetch", "no-such-set").exit_code == 1

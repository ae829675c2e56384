"""The command line as a user types it."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pandas as pd
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


def test_the_second_page_s_python_runs(monkeypatch, photo):
    """Every block of Python in docs/enhance.md, as a reader would paste it."""
    from zdce import paths

    page = (paths.root() / "docs" / "enhance.md").read_text()
    monkeypatch.chdir(photo.parent)
    Image.open(photo).save("night.jpg")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/enhance.md", "exec"), {})


def test_the_second_page_names_options_that_exist(zdce):
    from zdce import paths

    page = (paths.root() / "docs" / "enhance.md").read_text()
    for command in ("enhance", "evaluate", "train"):
        said = zdce(command, "--help").output
        for line in re.findall(rf"^zdce {command} .*$", page, re.MULTILINE):
            for option in re.findall(r"(?<= )--[a-z-]+", line.split("  #")[0]):
                assert option in said, (command, option)


def test_own_pairs_are_scored_with_models_and_finished_pictures(zdce, tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("mine/low", "mine/high", "theirs"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a", "b"):
        bright = rng.integers(60, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(bright).save(tmp_path / "mine/high" / f"{name}.png")
        Image.fromarray(bright // 4).save(tmp_path / "mine/low" / f"{name}.bmp")
        Image.fromarray(bright - 5).save(tmp_path / "theirs" / f"{name}.png")
    low, high = tmp_path / "mine/low", tmp_path / "mine/high"
    file = tmp_path / "scores.csv"
    finished = ("--finished", tmp_path / "theirs", "--finished", f"second={high}")
    result = zdce("evaluate", "--pairs", low, high, *finished, "--csv", file)
    assert result.exit_code == 0, result.output
    scores = pd.read_csv(file).groupby("method")["mae"].mean()
    assert scores["theirs"] == pytest.approx(5) and scores["second"] == 0 and scores["input"] > 50
    result = zdce("evaluate", "--on", tmp_path / "mine", "--model", "auto", "--device", "cpu")
    assert result.exit_code == 0 and "psnr" in result.output and "auto" in result.output
    (high / "b.png").unlink()
    result = zdce("evaluate", "--pairs", low, high)
    assert result.exit_code == 1 and "high" in result.output and "'b'" in result.output
    for words in (("--on", "bundled"), (), ("--pairs", low, high, "--on", "bundled")):
        assert zdce("evaluate", *words).exit_code == 2


def test_a_dry_run_says_what_would_be_written(zdce, photo, tmp_path):
    words = ("--dry-run", "--format", "jpg", "--suffix", "_b")
    result = zdce("enhance", photo, "-o", tmp_path / "out", *words)
    assert result.exit_code == 0 and not (tmp_path / "out").exists()
    assert f"{photo} -> {tmp_path / 'out' / 'dark photo_b.jpg'}" in result.output
    assert "1 would be enhanced, 0 would fail" in result.output


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from zdce.cli import main\ntry: main(['enhance', '--help'])\n"
        "except SystemExit: print(sorted({'torch', 'numpy', 'numba', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip().endswith("[]")

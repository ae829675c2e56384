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

from zdce import checkpoints, paths
from zdce.cli import main
from zdce.enhance import Enhancer


@pytest.fixture
def zdce():
    def run(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    return run


def random_picture(path, height=20, width=30, top=80, seed=0):
    pixels = np.random.default_rng(seed).integers(0, top, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photo(tmp_path):
    return random_picture(tmp_path / "dark photo.png")


def test_every_command_answers_help_at_once(zdce):
    for words in ("", "enhance", "train", "evaluate", "report", "data", "data fetch"):
        result = zdce(*words.split(), "--help")
        assert result.exit_code == 0 and "Usage:" in result.output, words
    code = (
        "import sys; from zdce.cli import main\ntry: main(['enhance', '--help'])\n"
        "except SystemExit: print(sorted({'torch', 'numpy', 'numba', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip().endswith("[]")


def test_enhance_writes_what_the_enhancer_makes_of_the_model_that_is_named(zdce, photo, tmp_path):
    pixels = {}
    for name, words in {
        "default": (),
        "named": ("--model", checkpoints.DEFAULT),
        "own": ("--model", "zero-dce-improved"),
        "study": ("--model", "zero-dce-improved", "--gamma", "1.15"),
        "off": ("--model", "zero-dce-improved", "--gamma", "1"),
    }.items():
        result = zdce("enhance", photo, "-o", tmp_path / f"{name}.png", "--device", "cpu", *words)
        assert result.exit_code == 0, result.output
        pixels[name] = np.asarray(Image.open(tmp_path / f"{name}.png"))
    wanted = Enhancer(device="cpu")(np.asarray(Image.open(photo)))
    assert np.array_equal(pixels["default"], wanted) and np.array_equal(pixels["named"], wanted)
    assert np.array_equal(pixels["own"], pixels["study"])  # a model's own gamma, and none
    assert pixels["off"].mean() > pixels["own"].mean()
    said = " ".join(zdce("enhance", "--help").output.split())
    assert f"default {checkpoints.DEFAULT}" in said


def test_a_bad_file_fails_and_the_rest_is_done(zdce, photo, tmp_path):
    (photo.parent / "broken.jpg").write_bytes(b"no photograph")
    result = zdce("enhance", photo.parent, "-o", tmp_path / "out")
    assert result.exit_code == 1 and "1 enhanced, 1 failed" in result.output
    assert (tmp_path / "out" / photo.name).exists()
    assert sum("broken.jpg" in line for line in result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--model zero-dse", "zero-dse"),
        ("--weights missing.safetensors", "missing.safetensors"),
        ("--gamma -1", "gamma"),
        ("--strength 2", "strength"),
        ("--model zero-dce --weights x.pth", "--weights"),
    ],
)
def test_wrong_arguments_end_in_a_line_that_names_them(zdce, photo, tmp_path, words, says):
    result = zdce("enhance", photo, "-o", tmp_path / "out", *words.split())
    assert result.exit_code != 0 and says in result.output
    assert "Traceback" not in result.output and not (tmp_path / "out").exists()


def test_model_help_lists_every_model(zdce, photo):
    result = zdce("enhance", photo, "-o", "x", "--model", "help")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == list(checkpoints.MODELS)


def test_train_then_enhance_with_the_result(zdce, photo, tmp_path):
    for k in range(3):
        random_picture(tmp_path / "photos" / f"{k}.png", 40, 40, 256, k)
    (tmp_path / "empty").mkdir()
    run = ("--out", tmp_path / "run", "--device", "cpu")
    words = ("train", "--data", tmp_path / "photos", "--size", 32, "--epochs", 2, *run)
    result = zdce(*words)
    assert result.exit_code == 0, result.output
    assert "2 steps" in result.output  # three photographs fit one batch of four
    assert zdce(*words, "--resume").exit_code == 0
    weights = ("--weights", tmp_path / "run" / "model.safetensors")
    result = zdce("enhance", photo, "-o", tmp_path / "out.png", *weights)
    assert result.exit_code == 0 and Image.open(tmp_path / "out.png").size == (30, 20)
    result = zdce("train", "--data", tmp_path / "empty", "--steps", 1, "--out", tmp_path / "other")
    assert result.exit_code == 1 and "empty" in result.output
    result = zdce("train", "--arm", "zero-dse")
    assert result.exit_code == 2 and "zero-dse" in result.output


def test_evaluate_prints_means_and_writes_a_row_for_each_photograph(zdce, tmp_path):
    words = ("--model", "zero-dce", "zero-dce-improved", "--on", "bundled", "--limit", 1)
    result = zdce("evaluate", *words, "--csv", tmp_path / "scores.csv")
    assert result.exit_code == 0 and "psnr" in result.output
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert len(lines) == 4 and lines[0].startswith("dataset,photograph,")  # input and two models


def test_own_pairs_are_scored_with_models_and_finished_pictures(zdce, tmp_path):
    rng, mine, theirs = np.random.default_rng(0), tmp_path / "mine", tmp_path / "theirs"
    low, high = mine / "low", mine / "high"
    for folder in (low, high, theirs):
        folder.mkdir(parents=True)
    for name in ("a", "b"):
        bright = rng.integers(60, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(bright).save(high / f"{name}.png")
        Image.fromarray(bright // 4).save(low / f"{name}.bmp")
        Image.fromarray(bright - 5).save(theirs / f"{name}.png")
    finished = ("--finished", theirs, "--finished", f"second={high}")
    words = ("--pairs", low, high, *finished, "--csv", tmp_path / "scores.csv")
    assert zdce("evaluate", *words).exit_code == 0
    scores = pd.read_csv(tmp_path / "scores.csv").groupby("method")["mae"].mean()
    assert scores["theirs"] == pytest.approx(5) and scores["second"] == 0 and scores["input"] > 50
    result = zdce("evaluate", "--on", mine, "--model", "auto", "--device", "cpu")
    assert result.exit_code == 0 and "psnr" in result.output and "auto" in result.output
    (high / "b.png").unlink()
    result = zdce("evaluate", "--pairs", low, high)
    assert result.exit_code == 1 and "high" in result.output and "'b'" in result.output
    for words in (("--on", "bundled"), (), ("--pairs", low, high, "--on", "bundled")):
        assert zdce("evaluate", *words).exit_code == 2


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
    assert result.exit_code == 1 and file.name in result.output
    assert zdce("data", "fetch", "no-such-set").exit_code == 1


def test_the_second_page_s_python_runs_and_its_options_exist(zdce, monkeypatch, photo):
    """Every block of Python in docs/enhance.md, as a reader would paste it."""
    page = (paths.root() / "docs" / "enhance.md").read_text()
    monkeypatch.chdir(photo.parent)
    Image.open(photo).save("night.jpg")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/enhance.md", "exec"), {})
    for command in ("enhance", "evaluate", "train"):
        said = zdce(command, "--help").output
        for line in re.findall(rf"^zdce {command} .*$", page, re.MULTILINE):
            for option in re.findall(r"(?<= )--[a-z-]+", line.split("  #")[0]):
                assert option in said, (command, option)


def test_a_dry_run_says_what_would_be_written(zdce, photo, tmp_path):
    words = ("--dry-run", "--format", "jpg", "--suffix", "_b")
    result = zdce("enhance", photo, "-o", tmp_path / "out", *words)
    assert result.exit_code == 0 and not (tmp_path / "out").exists()
    assert f"{photo} -> {tmp_path / 'out' / 'dark photo_b.jpg'}" in result.output
    assert "1 would be enhanced, 0 would fail" in result.output

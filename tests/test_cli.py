"""The command line as a user types it."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pictures import dark, noise
from PIL import Image

from zdce import checkpoints, paths
from zdce.cli import main
from zdce.enhance import Enhancer


@pytest.fixture
def zdce():
    def run(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    return run


def write(folder, **pictures):
    folder.mkdir(exist_ok=True, parents=True)
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def photo(tmp_path):
    return write(tmp_path, **{"dark photo": dark()}) / "dark photo.png"


def test_help_is_there_at_once():
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
        assert zdce("enhance", photo, "-o", tmp_path / f"{name}.png", *words).exit_code == 0
        pixels[name] = np.asarray(Image.open(tmp_path / f"{name}.png"))
    wanted = Enhancer()(np.asarray(Image.open(photo)))
    assert np.array_equal(pixels["default"], wanted) and np.array_equal(pixels["named"], wanted)
    assert np.array_equal(pixels["own"], pixels["study"])  # a model's own gamma, and none
    assert pixels["off"].mean() > pixels["own"].mean()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--model zero-dse", ", ".join(checkpoints.MODELS)),
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


def test_train_then_enhance_with_the_result(zdce, photo, tmp_path):
    folder = write(tmp_path / "photos", **{name: noise(40, 40, 3) for name in "abc"})
    words = ("train", "--data", folder, "--size", 32, "--epochs", 2, "--out", tmp_path / "run")
    assert "2 steps" in zdce(*words).output  # three photographs fit one batch of four
    assert zdce(*words, "--resume").exit_code == 0
    weights = ("--weights", tmp_path / "run" / "model.safetensors")
    result = zdce("enhance", photo, "-o", tmp_path / "out.png", *weights)
    assert result.exit_code == 0 and Image.open(tmp_path / "out.png").size == (30, 24)


def test_train_without_photographs_says_what_can_be_had(zdce, tmp_path, monkeypatch):
    result = zdce("train", "--arm", "zero-dse")
    assert result.exit_code == 2 and "zero-dse" in result.output
    monkeypatch.setenv("ZDCE_DATA", str(tmp_path))
    monkeypatch.delenv("ZDCE_MIRROR", raising=False)
    result = zdce("train", "--steps", 1, "--out", tmp_path / "run")
    assert result.exit_code and not (tmp_path / "run").exists()
    assert "zdce data fetch sice-train" in result.output and "--data bundled" in result.output


def test_own_pairs_are_scored_with_models_and_finished_pictures(zdce, tmp_path):
    rng, mine, file = np.random.default_rng(0), tmp_path / "mine", tmp_path / "scores.csv"
    bright = {name: rng.integers(60, 256, (24, 24, 3), dtype=np.uint8) for name in "ab"}
    low = write(mine / "low", **{name: pixels // 4 for name, pixels in bright.items()})
    high = write(mine / "high", **bright)
    theirs = write(tmp_path / "theirs", **{name: pixels - 5 for name, pixels in bright.items()})
    pairs, finished = ("evaluate", "--pairs", low, high), ("--finished", theirs, "--finished", high)
    assert zdce(*pairs, *finished, "--model", "zero-dce", "auto", "--csv", file).exit_code == 0
    scores = pd.read_csv(file)
    means = scores.groupby("method")["mae"].mean()
    assert len(scores) == 2 * len(means) == 10
    assert means[str(theirs)] == pytest.approx(5) and means[str(high)] == 0
    assert means["input"] > 50 and means["auto"] < means["input"]
    result = zdce("evaluate", "--on", mine, "--model", "auto", "--device", "cpu")
    assert result.exit_code == 0 and "psnr" in result.output and "auto" in result.output
    (theirs / "b.png").unlink()
    assert (result := zdce(*pairs, *finished)).exit_code == 1 and "'b'" in result.output
    write(high, a=bright["a"][:20])  # of another size
    assert (result := zdce(*pairs)).exit_code == 1 and "a.png" in result.output
    for words in (("--on", "bundled"), (), ("--pairs", low, high, "--on", "bundled")):
        assert zdce("evaluate", *words).exit_code == 2


def test_sets_are_fetched_listed_and_verified(zdce, shared, tmp_path, monkeypatch):
    monkeypatch.setenv("ZDCE_DATA", str(tmp_path))
    assert zdce("data", "fetch", "niqe-model", "--mirror", shared).exit_code == 0
    assert "niqe-model" in zdce("data", "list").output
    assert zdce("data", "verify", "niqe-model").exit_code == 0
    (file := next(tmp_path.rglob("*.mat"))).write_bytes(b"")
    assert file.name in (result := zdce("data", "verify", "niqe-model")).output
    assert result.exit_code == zdce("data", "fetch", "no-such-set").exit_code == 1


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
    result = zdce("enhance", photo, "-o", tmp_path / "out", "--dry-run", "--format", "jpg")
    assert f"{photo} -> {tmp_path / 'out' / 'dark photo.jpg'}" in result.output
    assert "1 would be enhanced" in result.output and not (tmp_path / "out").exists()

"""Every script of ``benchmarks/`` runs in its smallest form, on bundled photographs alone."""

import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest
from PIL import Image

from zdce import datasets, paths, video

SCRIPTS = {file.stem: file for file in (paths.root() / "benchmarks").glob("*.py")}
# script → words of its command line, and what is smaller in it
SMALL = {
    "auto_constants": ("-o out.csv", {"WINDOW": 64}),
    "denoise": ("-o out.csv --seeds 1 --steps 2 --supervised", {"INSIDE": (slice(0, 64),) * 2}),
    "filter": ("--csv out.csv", {"ProcessPoolExecutor": partial(ThreadPoolExecutor, 1)}),
    "large_photograph": (
        "--megapixels 0.1 --csv out.csv",
        {"CASES": [("1.jpg", 1, "auto", "fast")]},
    ),
    "losses": (".", {"PHOTOGRAPHS": [1]}),
    "scores": ("--stages auto --aside", {}),
    "training_speed": ("--child cpu float32 zero-dce-improved 1 0", {}),
    "video": ("--rounds 1 --csv out.csv", {"WIDTH": 96, "HEIGHT": 64, "FRAMES": 3, "av": video.av}),
}


@pytest.mark.long
@pytest.mark.parametrize("name", SCRIPTS)
def test_it_runs(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if name == "video":
        pytest.importorskip("av")
    monkeypatch.setenv("ZDCE_RUNS", str(tmp_path))
    monkeypatch.setenv("ZDCE_DATA", str(tmp_path / "data"))
    photographs, shot = datasets.samples("bundled")[::3], tmp_path / "1.jpg"
    Image.fromarray(photographs[0].image()).save(shot)
    bursts = {s.scene: [s.image()[:128, :128] for s in (s, s)] for s in photographs}
    small = datasets.training_set(tmp_path, 64, progress=False)
    weights = paths.weights() / "zero-dce.safetensors"
    (tmp_path / "scores").mkdir()
    for module, key, value in [
        (paths, "reports", lambda profile="": tmp_path),
        (datasets, "at_hand", lambda name: name != "niqe-model"),
        (datasets, "find", lambda path: shot if path.endswith("jpg") else weights),
        (datasets, "samples", lambda name, limit=0, part="": photographs),
        (datasets, "bursts", lambda name: bursts),
        (datasets, "training_set", lambda name, size, progress=True: small),
        (sys, "argv", [name, *SMALL[name][0].split()]),
    ]:
        monkeypatch.setattr(module, key, value)
    script = SimpleNamespace(**runpy.run_path(str(SCRIPTS[name])))
    script.main.__globals__.update(SMALL[name][1])
    script.main()

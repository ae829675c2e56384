"""Golden results: what must stay equal, bit for bit, on one machine (processors round differently).

``write FOLDER`` keeps inputs, weights and results of today; ``compare FOLDER`` computes them again
and exits with 1 if one differs. Published weights take part where ZDCE_MIRROR names their folder.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import tifffile
import torch
from PIL import Image

import zdce
from zdce import datasets

OURS = ("zero-dce", "zero-dce-improved")
PUBLISHED = {
    "zero-dce-published": "zero_dce_Epoch99.pth",
    "zero-dce-improved-published": "zero_dce_improved_pre-train.pth",
    "zero-dce++": "zero_dce_pp_Epoch99.pth",
    "sci-medium": "sci_medium.pt",
}


def inputs() -> dict[str, np.ndarray]:
    """Bundled photographs, darkened, in every kind that is taken; names say how they are given."""

    def sized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).resize((width, height)))

    dark = {sample.name: sample.image() for sample in datasets.samples("bundled")}
    coffee, cat, astronaut = (dark[k] for k in ("coffee-3ev", "chelsea-2ev", "astronaut-3ev"))
    random = np.random.default_rng(0)
    deep = cat * np.uint16(256) + random.integers(256, size=cat.shape, dtype=np.uint16)
    alpha = random.integers(256, size=coffee.shape[:2], dtype=np.uint8)
    grey = np.asarray(Image.fromarray(astronaut).convert("L"))
    return {
        "array-coffee": coffee,
        "array-chelsea": cat,
        "array-rocket": dark["rocket-4ev"],
        "array-bright": datasets.samples("bundled")[3].reference(),
        "array-black": np.zeros((64, 80, 3), np.uint8),
        "array-16bit": deep,
        "array-float32": (coffee / 255).astype(np.float32),
        "array-float64": random.random((45, 67, 3)) ** 2,
        "array-37x53": sized(cat, 53, 37),
        "array-1x1": cat[:1, :1].copy(),
        "array-3x500": astronaut[200:203, :500].copy(),
        "array-601x399": sized(dark["astronaut-2ev"], 399, 601),
        "array-large": sized(astronaut, 1931, 1297),
        "image-rgb": sized(coffee, 201, 150),
        "image-grey": grey,
        "image-grey16": deep[..., 1].copy(),
        "image-grey-alpha": np.dstack([grey, grey[::-1]]),
        "image-alpha": np.dstack([coffee, alpha]),
    }


def files(arrays: dict[str, np.ndarray], folder: Path) -> None:
    """Photographs and a short video for the command line."""
    folder.mkdir(parents=True)
    for name in ("image-rgb", "image-alpha", "image-grey", "image-grey16"):
        Image.fromarray(arrays[name]).save(folder / f"{name}.png")
    tifffile.imwrite(folder / "deep.tif", arrays["array-16bit"], photometric="rgb")
    (turned := Image.Exif())[0x0112] = 6  # to be shown turned by 90 degrees
    Image.fromarray(arrays["array-coffee"]).save(folder / "turned.jpg", quality=90, exif=turned)
    with av.open(str(folder / "clip.mkv"), "w") as video:  # without loss: H.264 varies by itself
        stream = video.add_stream("ffv1", rate=12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for k in range(12):  # the camera moves to the right
            part = np.ascontiguousarray(arrays["array-chelsea"][80:144, 60 + 8 * k : 156 + 8 * k])
            video.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        video.mux(stream.encode(None))


def settings(folder: Path):
    """(name, arguments of the Enhancer) of every setting."""
    for name in OURS:
        for speed in ("faithful", "fast"):
            own = {"weights": folder / "weights" / f"{name}.safetensors", "speed": speed}
            for gamma in (1.0, 1.15, None):
                yield f"{name}/{speed}-gamma-{gamma}", own | {"gamma": gamma}
            yield f"{name}/{speed}-strength-0.7", own | {"gamma": 1.15, "strength": 0.7}
    for name, file in PUBLISHED.items():
        for speed in ("faithful", "fast") if (folder / "weights" / file).is_file() else ():
            if (name, speed) != ("sci-medium", "fast"):  # it has no curves to estimate on a copy
                yield f"{name}/{speed}-file", {"weights": folder / "weights" / file, "speed": speed}
                yield f"{name}/{speed}-name", {"model": name, "speed": speed}


def decoded(file: Path) -> np.ndarray:
    """Pixels of a written file: (H, W) or (H, W, bands); (frames, H, W, 3) of a video."""
    if file.suffix == ".mkv":
        with av.open(str(file)) as video:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    return tifffile.imread(file) if file.suffix == ".tif" else np.asarray(Image.open(file))


def computed(folder: Path, chosen: str):
    """(case, kind, array) of each setting on each input, then of each file of the command."""
    for name, options in settings(folder):
        if name.startswith(chosen[: len(name)]):
            enhancer = zdce.Enhancer(**options, device="cpu")
            for key, array in np.load(folder / "inputs.npz").items():
                after = enhancer(Image.fromarray(array) if key.startswith("image") else array)
                yield f"{name}/{key}", getattr(after, "mode", "array"), np.asarray(after)
    ways = {f"cli/{n}": ["--weights", str(folder / "weights" / f"{n}.safetensors")] for n in OURS}
    ways["cli/faithful"] = [*ways["cli/zero-dce"], "--speed", "faithful", "--gamma", "1.15"]
    ways["cli/fast"] = [*ways["cli/zero-dce-improved"], "--speed", "fast", "--strength", "0.7"]
    call = [sys.executable, "-m", "zdce", "enhance", str(folder / "files"), "--device", "cpu"]
    for name, options in ways.items() if chosen[:3] in ("", "cli") else ():
        with tempfile.TemporaryDirectory() as out:
            subprocess.run([*call, "-o", out, *options], cwd=Path(zdce.__file__).parents[1])
            for file in sorted(path for path in Path(out).rglob("*") if path.is_file()):
                yield f"{name}/{file.name}", file.suffix, decoded(file)


def results(folder: Path, chosen: str = ""):
    """Results whose names begin with ``chosen``: name, what golden.json says of it."""
    for case, kind, array in computed(folder, chosen):
        if case.startswith(chosen):
            what = f"{kind} {array.dtype} {'x'.join(map(str, array.shape))}"
            yield case, {"kind": what, "sha256": hashlib.sha256(array.tobytes()).hexdigest()}


def write(folder: Path) -> int:
    """Keep inputs, weights and results of the package as it is."""
    (folder / "weights").mkdir(parents=True)
    for home in (Path(zdce.__file__).parent, Path(os.environ.get("ZDCE_MIRROR", folder))):
        for name in (*(f"{name}.safetensors" for name in OURS), *PUBLISHED.values()):
            if (home / "weights" / name).is_file() and home != folder:
                shutil.copy(home / "weights" / name, folder / "weights")
    np.savez_compressed(folder / "inputs.npz", **inputs())
    files(inputs(), folder / "files")
    cases = dict(results(folder))
    (folder / "golden.json").write_text(json.dumps({"cases": cases}, indent=1))
    print(f"{len(cases)} results in {folder}")
    return 0


def compare(folder: Path, chosen: str) -> int:
    """Compute every case again and say how it stands; 1 if one is not right."""
    was = json.loads((folder / "golden.json").read_text())["cases"]
    was = {c: about for c, about in was.items() if c.startswith(chosen) and c[:6] != "level/"}
    counts = dict.fromkeys(("equal bit for bit", "DIFFERS", "new"), 0)
    for case, now in results(folder, chosen):
        about = was.pop(case, None)
        state = "new" if about is None else "equal bit for bit" if now == about else "DIFFERS"
        counts[state] += 1
        print(f"{case}: {state}")
    print("".join(f"{case}: MISSING\n" for case in was), end="")
    print(*(f"{n} {state}," for state, n in counts.items()), f"{len(was)} missing")
    return min(1, len(was) + counts["DIFFERS"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Keep golden results, or compare with them.")
    parser.add_argument("what", choices=("write", "compare"))
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--only", default="", help="cases whose names begin so")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
    print(f"package {zdce.__file__}")
    sys.exit(write(args.folder) if args.what == "write" else compare(args.folder, args.only))

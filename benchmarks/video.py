"""How fast a 1080p video is enhanced from file to file, and what of that is the codec's.

    python benchmarks/video.py [--model auto] [--rounds 3] [--csv reports/study/speed/video.csv]

The clip is made, never stored: bundled photographs side by side, darkened with sensor noise, first
panned over, then still, its exposure unsteady as a camera's that decides anew for every frame. The
ways take turns; milliseconds of cores a frame hardly depend on what else the machine does. Flicker
is that of the written files, codec included.
"""

import argparse
import os
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from zdce import camera, checkpoints, datasets, video
from zdce.enhance import Enhancer
from zdce.study import timing

WIDTH, HEIGHT, RATE = 1920, 1080, 25
FRAMES = 50  # of either part, panned and still
STEP = 12  # pixels that the panned view moves a frame
STOPS, UNSTEADY, TAKES = 2.5, 0.04, 5  # under-exposure, its spread, takes with noise of their own
AS_FILMED = {"preset": "veryfast", "crf": "16"}  # noise survives it, as in a telephone's files
SCENES = ("astronaut", "coffee", "rocket", "chelsea")
WAYS = {
    "decode": "decoding alone",
    "codec": "decoding and encoding the enhanced video, its pictures left as they are",
    "fast": "everything: zdce enhance, noise filter included, curves steadied",
    "unsteadied": "everything, every frame by its own curves",
}


def views() -> list[np.ndarray]:
    """The clip's pictures, (HEIGHT, WIDTH, 3) uint8."""
    samples = {sample.scene: sample for sample in datasets.samples("bundled")}
    images = [Image.fromarray(samples[name].reference()) for name in SCENES]
    sizes = [(round(image.width * HEIGHT / image.height), HEIGHT) for image in images]
    parts = [np.asarray(image.resize(size)) for image, size in zip(images, sizes, strict=True)]
    rng = np.random.default_rng(0)
    stops = rng.normal(STOPS, UNSTEADY, TAKES)
    scene = np.concatenate(parts, axis=1)[:, : WIDTH + FRAMES * STEP]
    takes = [camera.expose(scene, each, number) for number, each in enumerate(stops)]
    lefts = [min(number, FRAMES) * STEP for number in range(2 * FRAMES)]
    return [takes[rng.integers(TAKES)][:, left : left + WIDTH] for left in lefts]


def make(path: Path) -> None:
    """Write the clip: H.264, BT.709."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options=AS_FILMED)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        to = {"format": "yuv420p", "dst_colorspace": "ITU709", "dst_color_range": "MPEG"}
        for number, view in enumerate(views()):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(view), format="rgb24")
            frame = frame.reformat(**to)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def decode(path: Path) -> int:
    """Decode all frames with threads and keep none; their number."""
    with av.open(str(path)) as file:
        file.streams.video[0].thread_type = "AUTO"
        return sum(1 for _ in file.decode(video=0))


def flicker(path: Path) -> float:
    """Mean |m(t) − m(t−1)| over the mean of m, in per cent: m the mean luma of the still part."""
    with av.open(str(path)) as file:
        means = [frame.to_ndarray(format="gray").mean() for frame in file.decode(video=0)]
    still = np.array(means[FRAMES + 1 :])
    return float(100 * np.abs(np.diff(still)).mean() / still.mean())


def timed(call) -> dict[str, float]:
    """Frames a second, and milliseconds of all cores a frame."""
    started, busy = time.perf_counter(), time.process_time()
    frames = call()
    seconds = time.perf_counter() - started
    core_ms = 1e3 * (time.process_time() - busy) / frames
    return {"frames_per_second": frames / seconds, "core_ms_a_frame": core_ms}


def measured(model: str, rounds: int, folder: Path) -> pd.DataFrame:
    """A row a way: medians over the rounds, and the flicker of what it wrote, in per cent."""
    fast, nothing = (Enhancer(model, speed="fast", strength=each) for each in (1.0, 0.0))
    clip, bright = folder / "clip.mp4", folder / "fast.mp4"
    make(clip)
    calls = {
        "decode": lambda: decode(clip),
        "codec": lambda: video.enhance_video(bright, folder / "codec.mp4", nothing).frames,
        "fast": lambda: video.enhance_video(clip, bright, fast).frames,
        "unsteadied": lambda: (
            video.enhance_video(clip, folder / "unsteadied.mp4", fast, steady=0).frames
        ),
    }
    calls["fast"]()  # warm, and what "codec" reads
    rows = []
    for number in range(rounds):
        for way, call in calls.items():
            rows.append({"way": way} | timed(call))
            shown = "{frames_per_second:6.1f} frames/s, {core_ms_a_frame:5.1f} ms of cores a frame"
            print(f"{number + 1}/{rounds} {way:12}", shown.format(**rows[-1]), flush=True)
    table = pd.DataFrame(rows).groupby("way", sort=False).median()
    table["of_real_time"] = table["frames_per_second"] / RATE
    written = {"decode": clip, "fast": bright, "unsteadied": folder / "unsteadied.mp4"}
    table["flicker_percent"] = pd.Series({way: flicker(path) for way, path in written.items()})
    table["what"], table["engine"] = pd.Series(WAYS), fast.engine.name
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is measured")
    parser.add_argument("--model", default=checkpoints.DEFAULT, help="of zdce enhance")
    parser.add_argument("--csv", type=Path, help="write the table")
    arguments = parser.parse_args()
    before = timing.busy()
    with tempfile.TemporaryDirectory(prefix="zdce-") as folder:
        table = measured(arguments.model, arguments.rounds, Path(folder))
    about = {"model": arguments.model, "rounds": arguments.rounds, "frames": 2 * FRAMES}
    about["preset"] = " ".join(video.ENCODERS["h264"][1].values())
    about |= {"threads": os.cpu_count(), "other_work": timing.other_work(before)}
    table = table.assign(**about, **timing.conditions("video"))
    print(table[["frames_per_second", "core_ms_a_frame", "flicker_percent"]].round(2).to_string())
    print(timing.contention(about["other_work"]))
    if arguments.csv:
        arguments.csv.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.csv, float_format="%.5g")


if __name__ == "__main__":
    try:
        import av
    except ImportError:
        sys.exit(print(f"not measured: {video.INSTALL}"))
    main()

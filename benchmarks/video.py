"""How fast a 1080p video is enhanced, what of that is the codec's, and how much it flickers.

    python benchmarks/video.py [--model auto] [--rounds 3] [--csv reports/study/speed/video.csv]

The clip is made, never stored: a panorama of the bundled photographs, darkened with sensor noise,
first panned over, then still while something bright crosses it, its exposure unsteady as a camera's
that decides anew for every frame. Needs a machine with nothing else to do, and says what else it
did; the ways take turns. Milliseconds of cores a frame hardly depend on that. Flicker is that of
the written files, codec included.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch
from PIL import Image

from zdce import camera, checkpoints, datasets, video
from zdce.enhance import Enhancer
from zdce.model import CurveNet
from zdce.study import report

CORES = os.cpu_count()
WIDTH, HEIGHT, RATE = 1920, 1080, 25
PANNED, STILL = 75, 75  # frames of either part, without --frames
STEP = 12  # pixels that the panned view moves a frame
STOPS, UNSTEADY, TAKES = (
    2.5,
    0.04,
    7,
)  # under-exposure, its spread from take to take, takes with a noise of their own
OBJECT = 200  # side of what crosses the still view, pixels
AS_FILMED = {"preset": "veryfast", "crf": "16"}  # noise survives it, as in a telephone's files
SCENES = ("astronaut", "coffee", "rocket", "chelsea")
WAYS = {
    "decode": "decoding alone",
    "encode": "encoding the enhanced pictures alone",
    "codec": "decoding and encoding the enhanced video, its pictures left as they are",
    "fast": "everything: zdce enhance, curves steadied",
    "unsteadied": "everything, every frame by its own curves",
}


def panorama() -> np.ndarray:
    """The bundled photographs side by side, HEIGHT pixels high: (HEIGHT, W, 3) uint8."""
    samples = {sample.scene: sample for sample in datasets.samples("bundled")}
    images = [Image.fromarray(samples[name].reference()) for name in SCENES]
    widths = [round(image.width * HEIGHT / image.height) for image in images]
    parts = [
        image.resize((w, HEIGHT), Image.Resampling.BICUBIC)
        for image, w in zip(images, widths, strict=True)
    ]
    return np.concatenate([np.asarray(part) for part in parts], axis=1)


def views() -> Iterator[np.ndarray]:
    """The clip's pictures, (HEIGHT, WIDTH, 3) uint8."""
    scene, rng = panorama(), np.random.default_rng(0)
    stops = rng.normal(STOPS, UNSTEADY, TAKES)
    takes = [camera.expose(scene, each, number) for number, each in enumerate(stops)]
    order = rng.permuted(np.tile(np.arange(TAKES), (PANNED + STILL) // TAKES + 1))
    for number in range(PANNED + STILL):
        take = takes[order[number]]
        left = min(number, PANNED) * STEP
        picture = take[:, left : left + WIDTH].copy()
        if number >= PANNED:
            at = (number - PANNED) * (WIDTH - OBJECT) // STILL
            picture[:OBJECT, at : at + OBJECT] = 255 - picture[:OBJECT, at : at + OBJECT] // 4
        yield picture


def make(path: Path) -> None:
    """Write the clip: H.264, BT.709, with a tone of 440 Hz as AAC."""
    with av.open(str(path), "w") as file:
        pictures = file.add_stream("libx264", rate=RATE, options=AS_FILMED)
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        pictures.codec_context.colorspace, pictures.codec_context.color_range = 1, 1
        sound = file.add_stream("aac", rate=48000, layout="mono")
        each = 48000 // RATE
        for number, view in enumerate(views()):
            frame = av.VideoFrame.from_ndarray(view, format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            file.mux(pictures.encode(frame))
            tone = 0.1 * np.sin(2 * np.pi * 440 * (np.arange(each) + each * number) / 48000)
            samples = av.AudioFrame.from_ndarray(
                tone.astype(np.float32)[None], format="fltp", layout="mono"
            )
            samples.sample_rate, samples.pts, samples.time_base = (
                48000,
                each * number,
                Fraction(1, 48000),
            )
            file.mux(sound.encode(samples))
        file.mux(pictures.encode(None))
        file.mux(sound.encode(None))


def still() -> np.ndarray:
    """Pixels that show the same throughout the still part: (HEIGHT, WIDTH) bool."""
    mask = np.ones((HEIGHT, WIDTH), bool)
    mask[: OBJECT + 64] = (
        False  # 64: where neither the object nor a block of the codec that holds some of it reaches
    )
    return mask


def brightness_of(path: Path, mask: np.ndarray, first: int) -> np.ndarray:
    """Mean brightness, in [0, 1], of the pixels in a mask (H, W), of every frame from ``first``
    on.
    """
    pixels = (video.pixels_of(frame) for frame in decoded(path)[first:])
    return np.array([each[mask].mean(dtype=np.float64) / 255 for each in pixels])


def flicker(brightness: np.ndarray) -> float:
    """Flicker of what does not move: mean |m(t) − m(t−1)| over the mean of m, in per cent.

    Relative, because brightening multiplies every difference; 0 is perfectly steady.
    """
    return float(100 * np.abs(np.diff(brightness)).mean() / brightness.mean())


def decoded(path: Path, most: int | None = None) -> list[av.VideoFrame]:
    """The first frames, decoded with threads."""
    with av.open(str(path)) as file:
        file.streams.video[0].thread_type = "AUTO"
        found = []
        for frame in file.decode(video=0):
            found.append(frame)
            if most and len(found) == most:
                break
        return found


def decode(path: Path) -> int:
    """Decode all frames and keep none; their number."""
    with av.open(str(path)) as file:
        file.streams.video[0].thread_type = "AUTO"
        return sum(1 for _ in file.decode(video=0))


def encode(frames: list[av.VideoFrame], path: Path) -> int:
    """Encode as :mod:`zdce.video` does."""
    name, options = video.ENCODERS["h264"]
    with av.open(str(path), "w") as file:
        stream = file.add_stream(name, rate=RATE, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base, stream.thread_type = frames[0].time_base, "FRAME"
        for frame in frames:
            frame.pict_type = 0
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return len(frames)


def timed(call: Callable[[], int]) -> tuple[float, float]:
    """Frames a second, and milliseconds of all cores a frame."""
    started, busy = time.perf_counter(), time.process_time()
    frames = call()
    return frames / (time.perf_counter() - started), 1e3 * (time.process_time() - busy) / frames


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a way, from one a measurement: way, rate (frames a second), busy (ms of all cores a
    frame).
    """
    table = rows.groupby("way", sort=False).agg(
        frames_per_second=("rate", "median"),
        lowest=("rate", "min"),
        highest=("rate", "max"),
        core_ms_a_frame=(
            "busy",
            "median",
        ),  # of all cores together; hardly changed by what else they do
        rounds=("rate", "size"),
    )
    table.insert(1, "of_real_time", table["frames_per_second"] / RATE)
    table.insert(2, "of_codec", table["frames_per_second"] / table["frames_per_second"]["codec"])
    table["rate_of_free_cores"] = (
        1e3 * CORES / table["core_ms_a_frame"]
    )  # were all of them busy with it all the time
    table["what"] = [WAYS[way] for way in table.index]
    table["frames"], table["preset"] = PANNED + STILL, " ".join(video.ENCODERS["h264"][1].values())
    return table


def enhancer(model: str, strength: float) -> Enhancer:
    """As ``zdce enhance`` uses it for videos."""
    speed = "fast" if isinstance(checkpoints.load(model).net, CurveNet) else "faithful"
    return Enhancer(model, speed=speed, strength=strength)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is measured")
    parser.add_argument("--model", default=checkpoints.DEFAULT, help="of zdce enhance")
    parser.add_argument("--frames", type=int, default=PANNED, help="of either part of the clip")
    parser.add_argument("--csv", help="write the table")
    arguments = parser.parse_args()
    globals().update(PANNED=arguments.frames, STILL=arguments.frames)
    load = os.getloadavg()[0]
    fast, nothing = (enhancer(arguments.model, strength) for strength in (1.0, 0.0))
    with tempfile.TemporaryDirectory(prefix="zdce-") as folder:
        home = Path(folder)
        clip = home / "clip.mp4"
        make(clip)
        outputs = {way: home / f"{way}.mp4" for way in WAYS}
        video.enhance_video(clip, outputs["fast"], fast)
        bright = decoded(outputs["fast"].replace(home / "bright.mp4"), RATE * 2)
        calls = {
            "decode": lambda: decode(clip),
            "encode": lambda: encode(bright, outputs["encode"]),
            "codec": lambda: (
                video.enhance_video(home / "bright.mp4", outputs["codec"], nothing).frames
            ),
            "fast": lambda: video.enhance_video(clip, outputs["fast"], fast).frames,
            "unsteadied": lambda: (
                video.enhance_video(clip, outputs["unsteadied"], fast, steady=0).frames
            ),
        }
        rows = []
        for number in range(arguments.rounds):
            for way, call in calls.items():
                rate, busy = timed(call)
                rows.append({"way": way, "rate": rate, "busy": busy})
                print(
                    f"{number + 1}/{arguments.rounds} {way:12} {rate:6.1f} frames/s, "
                    f"{busy:5.1f} ms of cores a frame"
                )
        seen = {"input": clip, "fast": outputs["fast"], "unsteadied": outputs["unsteadied"]}
        flickers = {
            way: flicker(brightness_of(path, still(), PANNED + 1)) for way, path in seen.items()
        }
        rates = {
            way: path.stat().st_size * 8e-6 * RATE / (PANNED + STILL) for way, path in seen.items()
        }
    table = summary(pd.DataFrame(rows))
    table["flicker_percent"], table["flicker_input"] = pd.Series(flickers), flickers["input"]
    table["mbit_per_s"], table["mbit_input"] = pd.Series(rates), rates["input"]
    table["model"], table["engine"] = arguments.model, fast.engine.name
    table["versions"] = f"torch {torch.__version__}, av {av.__version__}"
    table["device"], table["load_before"] = f"{CORES} cores {platform.machine()}", round(load, 2)
    table["commit"] = report.commit()
    words = ["what", "model", "engine", "versions", "device", "load_before", "commit"]
    print(table.drop(columns=words).T.to_string())
    if arguments.csv:
        Path(arguments.csv).parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.csv, float_format="%.5g")


if __name__ == "__main__":
    main()

"""Video files through the enhancer: frames at their times, sound as it was, steady brightness, whole or not at all."""

from __future__ import annotations

import itertools
import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import dark, trained
from PIL import Image

from zdce import checkpoints, datasets, video
from zdce.engine import Curves, Reference
from zdce.enhance import Enhancer
from zdce.folders import enhance_files
from zdce.photos import Photo, PhotoError, write_photo
from zdce.video import SUFFIXES, VideoError, enhance_video, flicker

av = pytest.importorskip("av")


def box_mean(pixels, factor):
    means = Reference(trained()).box_mean(torch.from_numpy(pixels), factor)
    return means[0].permute(1, 2, 0).numpy()


TICK = Fraction(1, 1000)  # s
EVEN = [40 * number for number in range(10)]  # ticks: 25 frames a second


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoints.save(path, trained(pooling="overlapping"), "small", gamma=1.3)
    return path


@pytest.fixture(scope="module")
def enhancer(weights):
    return Enhancer(weights=weights, device="cpu", speed="fast")


def scene(number=0, width=64, height=48, light=1.0, scale=1):
    """(height, width, 3) uint8, dark, with noise that differs from number to number."""
    still = dark(height, width, seed=7).astype(float) * light * scale
    return (
        (still + np.random.default_rng(number).normal(0, 2, still.shape))
        .clip(0, 255)
        .astype(np.uint8)
    )


def clip(
    path,
    pictures=None,
    times=EVEN,
    codec="libx264",
    form="yuv420p",
    sound="aac",
    options=None,
    tags=None,
):
    """Write a video of RGB pictures, shown at ``times`` (ticks), with a tone."""
    pictures = [scene(number) for number in range(len(times))] if pictures is None else pictures
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], form
        stream.codec_context.time_base = TICK
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        tone = file.add_stream(sound, rate=48000, layout="mono") if sound else None
        for number, (picture, at) in enumerate(zip(pictures, times, strict=True)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=form)
            frame.pts, frame.time_base = at, TICK
            file.mux(stream.encode(frame))
            if tone:
                wave = 0.1 * np.sin(np.arange(1920) / 20 + number)
                samples = av.AudioFrame.from_ndarray(
                    wave.astype(np.float32)[None], format="fltp", layout="mono"
                )
                samples.sample_rate, samples.pts, samples.time_base = (
                    48000,
                    1920 * number,
                    Fraction(1, 48000),
                )
                file.mux(tone.encode(samples))
        for each in filter(None, (stream, tone)):
            file.mux(each.encode(None))
    return path


def frames(path):
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def times(path):
    return [frame.time for frame in frames(path)]


def packets(path, kind):
    with av.open(str(path)) as file:
        stream = next(s for s in file.streams if s.type == kind)
        return [(p.pts * p.time_base, bytes(p)) for p in file.demux(stream) if p.size]


def pictures(path):
    """Frames as R'G'B', (n, H, W, 3) uint8 or uint16, by this package's own conversion."""
    found = []
    for frame in frames(path):
        form = video._form(frame, 0)
        found.append(video.to_pixels(video.planes(frame, form), form))
    return np.array(found)


# What is kept


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.mp4", "libx264", "aac"),
        ("a.mov", "libx264", "aac"),
        ("a.mkv", "libx264", "libopus"),
        ("a.ts", "libx264", "aac"),
        ("a.webm", "libvpx-vp9", "libopus"),
        ("a.mp4", "mpeg4", "aac"),
        ("a.mkv", "ffv1", "flac"),
        ("a.avi", "mjpeg", "mp3"),
    ],
)
def test_every_frame_at_its_time_and_the_sound_bit_for_bit(tmp_path, enhancer, name, codec, sound):
    form = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = {"preset": "ultrafast"} if codec == "libx264" else {}
    source = clip(tmp_path / name, codec=codec, sound=sound, form=form, options=options)
    target = tmp_path / "out" / name
    done = enhance_video(source, target, enhancer)
    assert done.frames == len(EVEN) == len(frames(target)) and not done.left_out
    shift = (
        times(target)[0] - times(source)[0]
    )  # where times may not be negative, all streams begin later
    assert shift == 0 or name.endswith(".ts")
    assert times(target) == pytest.approx([at + shift for at in times(source)], abs=1e-9)
    heard, kept = packets(source, "audio"), packets(target, "audio")
    assert [data for _, data in kept] == [data for _, data in heard]
    assert [float(at) for at, _ in kept] == pytest.approx(
        [float(at) + shift for at, _ in heard], abs=1e-9
    )
    before, after = frames(source)[0], frames(target)[0]
    assert (after.width, after.height, after.format.name) == (
        before.width,
        before.height,
        before.format.name,
    )
    assert pictures(target).mean() > 1.2 * pictures(source).mean()
    with av.open(str(source)) as one, av.open(str(target)) as other:
        names = [
            [s.codec_context.codec.canonical_name for s in file.streams] for file in (one, other)
        ]
    assert names[0] == names[1]


def test_variable_frame_rate(tmp_path, enhancer):
    uneven = [0, 40, 60, 100, 200, 230, 231, 500, 520, 900]
    for name in ("a.mp4", "a.mkv"):
        source = clip(tmp_path / name, times=uneven)
        enhance_video(source, tmp_path / "out" / name, enhancer)
        assert times(tmp_path / "out" / name) == times(source)
        assert times(source) == pytest.approx([at / 1000 for at in uneven], abs=1e-3)


@pytest.mark.parametrize("size", [(64, 48), (65, 47), (7, 5), (1, 1), (130, 9)])
@pytest.mark.parametrize("form", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray"])
def test_any_size_and_form_without_loss(tmp_path, enhancer, size, form):
    source = clip(
        tmp_path / "a.mkv", [scene(n, *size) for n in range(3)], EVEN[:3], "ffv1", form, None
    )
    target = tmp_path / "b.mkv"
    enhance_video(source, target, enhancer)
    for before, after in zip(frames(source), frames(target), strict=True):
        assert (before.width, before.height, before.format.name) == (
            after.width,
            after.height,
            after.format.name,
        )
    before, after = pictures(source), pictures(target)
    assert after.mean() > 1.2 * before.mean()
    if form == "gray":
        assert (after[..., :1] == after).all()


def test_colour_tags(tmp_path, enhancer):
    tags = {"color_range": 2, "colorspace": 1, "color_primaries": 1, "color_trc": 1}
    source = clip(tmp_path / "a.mp4", tags=tags)
    enhance_video(source, tmp_path / "b.mp4", enhancer)
    after = frames(tmp_path / "b.mp4")[0]
    assert {tag: getattr(after, tag) for tag in tags} == {
        tag: getattr(frames(source)[0], tag) for tag in tags
    }
    assert after.color_range == 2 and after.colorspace == 1


def test_rotation(tmp_path, enhancer):
    source = clip(tmp_path / "a.mp4")
    data = bytearray(source.read_bytes())
    at = (
        data.index(b"tkhd") + 4 + 40
    )  # a track's header: the matrix follows 40 bytes of other things
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    source.write_bytes(data)
    assert frames(source)[0].rotation == -90
    enhance_video(source, tmp_path / "b.mp4", enhancer)
    after = frames(tmp_path / "b.mp4")[0]
    assert after.rotation == -90 and (after.width, after.height) == (64, 48)


def test_title_chapters_languages_notes_and_shape_of_pixels(tmp_path, enhancer):
    source = clip(tmp_path / "a.mkv", tags={"sample_aspect_ratio": Fraction(4, 3)})
    titled = tmp_path / "titled.mkv"
    chapter = {
        "id": 1,
        "start": 40,
        "end": 200,
        "time_base": TICK,
        "metadata": {"title": "the second frame"},
    }
    with av.open(str(source)) as file, av.open(str(titled), "w") as copy:
        copy.metadata["title"] = "a night"
        copy.set_chapters([chapter])
        streams = {s.index: copy.add_stream_from_template(s, opaque=True) for s in file.streams}
        streams[1].metadata["language"] = "fra"
        streams[1].disposition = int(av.stream.Disposition.original)
        copy.add_attachment("notes.txt", "text/plain", b"some notes")
        for packet in file.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                copy.mux(packet)
    assert not enhance_video(titled, tmp_path / "b.mkv", enhancer).left_out
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert file.metadata["title"] == "a night"
        assert [c["metadata"]["title"] for c in file.chapters()] == ["the second frame"]
        assert file.streams.video[0].codec_context.sample_aspect_ratio == Fraction(4, 3)
        assert file.streams.audio[0].language == "fra"
        assert file.streams.audio[0].disposition & av.stream.Disposition.original
        assert file.streams.attachments[0].data == b"some notes"


def test_another_container(tmp_path, enhancer):
    source = clip(tmp_path / "a.mp4")
    enhance_video(source, tmp_path / "b.mkv", enhancer)
    shift = times(tmp_path / "b.mkv")[
        0
    ]  # Matroska knows no negative times, at which this sound begins
    assert times(tmp_path / "b.mkv") == pytest.approx(
        [at + shift for at in times(source)], abs=1e-3
    )
    heard, kept = packets(source, "audio"), packets(tmp_path / "b.mkv", "audio")
    assert [data for _, data in kept] == [data for _, data in heard]
    assert [float(at) for at, _ in kept] == pytest.approx(
        [float(at) + shift for at, _ in heard], abs=1e-3
    )


# What is done


def test_frames_equal_photographs(tmp_path, weights):
    source = clip(tmp_path / "a.mkv", codec="ffv1", form="yuv444p", sound=None)
    for options in ({}, {"gamma": 1.0}, {"strength": 0.4}):
        fast_one = Enhancer(weights=weights, device="cpu", speed="fast", **options)
        enhance_video(source, tmp_path / "b.mkv", fast_one, steady=0)
        for before, after in zip(pictures(source), pictures(tmp_path / "b.mkv"), strict=True):
            error = np.abs(fast_one(before).astype(int) - after)
            assert (
                np.median(error) <= 1 and np.quantile(error, 0.99) <= 6
            )  # what was rounded to fewer levels is lifted


def test_the_faithful_path_sees_every_pixel(tmp_path, weights):
    source = clip(tmp_path / "a.mkv", codec="ffv1", form="yuv444p", sound=None, times=EVEN[:3])
    faithful = Enhancer(weights=weights, device="cpu")
    enhance_video(source, tmp_path / "b.mkv", faithful)
    for before, after in zip(pictures(source), pictures(tmp_path / "b.mkv"), strict=True):
        assert np.abs(faithful(before).astype(int) - after).max() <= 3


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": 4.0},
        {"fixed_size": 16},
        {"shared_curves": True, "separable": True},
        {"fixed_size": 16, "denoise": 5.0, "spared": True},
        {
            "fixed_size": 16,
            "denoise": 5.0,
            "spared": True,
            "one_curve": True,
            "level": 0.4,
            "measured": True,
        },
    ],
)
def test_networks_that_reduce_for_themselves(tmp_path, monkeypatch, fields):
    monkeypatch.setattr(
        checkpoints, "load", lambda _: SimpleNamespace(net=trained(**fields), gamma=1.0)
    )
    enhancer = Enhancer(device="cpu", speed="fast")
    source = clip(
        tmp_path / "a.mkv",
        [scene(n, 200, 150) for n in range(2)],
        EVEN[:2],
        "ffv1",
        "yuv444p",
        None,
    )
    enhance_video(source, tmp_path / "b.mkv", enhancer, steady=0)
    for before, after in zip(pictures(source), pictures(tmp_path / "b.mkv"), strict=True):
        expected = enhancer.engine.render(
            before, replace(enhancer.engine.curves(before), noise=None)
        )
        assert np.median(np.abs(expected.astype(int) - after)) <= 1


def test_without_curves_nothing_changes():
    rng = np.random.default_rng(0)
    nothing = Curves(np.zeros((3, 4, 8, 3), np.float32), 16, False)
    for depth, full, shift in itertools.product(
        (8, 10, 12), (False, True), ((0, 0), (1, 0), (1, 1), (2, 0))
    ):
        form = video.Form(61, 45, depth, False, shift, full, *video.MATRICES[1])
        sides = (45, 61), *[(-(-45 // 2 ** shift[1]), -(-61 // 2 ** shift[0]))] * 2
        middle = 2 ** (depth - 1)
        source = [
            rng.integers(middle - middle // 8, middle + middle // 8, side).astype(form.dtype)
            for side in sides
        ]
        target = [np.zeros_like(plane) for plane in source]
        video.bend(source, target, form, nothing)
        for before, after in zip(source, target, strict=True):
            assert np.abs(before.astype(int) - after).max() == 0, (depth, full, shift)


def test_conversion_agrees_with_the_standard():
    form = video.Form(1, 1, 8, False, (0, 0), False, *video.MATRICES[1])
    for stored, rgb in {
        (16, 128, 128): (0, 0, 0),
        (235, 128, 128): (255, 255, 255),
        (63, 102, 240): (255, 0, 0),
    }.items():
        plane = [np.array([[value]], np.uint8) for value in stored]
        assert np.abs(video.to_pixels(plane, form)[0, 0].astype(int) - rgb).max() <= 1
    deep = video.Form(1, 1, 10, False, (0, 0), False, *video.MATRICES[9])
    white = [np.array([[value]], np.uint16) for value in (940, 512, 512)]
    assert video.to_pixels(white, deep).tolist() == [[[65535] * 3]]


def test_box_mean_of_planes_equals_that_of_the_picture():
    rng = np.random.default_rng(0)
    form = video.Form(61, 45, 8, False, (1, 1), False, *video.MATRICES[6])
    stored = [
        rng.integers(100, 150, side).astype(np.uint8) for side in ((45, 61), (23, 31), (23, 31))
    ]
    whole = video.reduced(stored, form, 1)
    small = box_mean(whole, 7)
    assert np.allclose(video.reduced(stored, form, 7), small, atol=1e-5)


def test_strength_zero_leaves_pictures_alone(tmp_path, weights):
    source = clip(tmp_path / "a.mkv", codec="ffv1")
    enhance_video(source, tmp_path / "b.mkv", Enhancer(weights=weights, strength=0, speed="fast"))
    assert np.array_equal(pictures(source), pictures(tmp_path / "b.mkv"))


# Steadiness


def test_flicker_falls_below_frame_by_frame_and_below_the_input(tmp_path, enhancer):
    light = np.random.default_rng(1).normal(1, 0.02, 40)
    still = [scene(number, light=each) for number, each in enumerate(light)]
    source = clip(tmp_path / "a.mkv", still, [40 * n for n in range(40)], "ffv1", "yuv420p", None)
    found = {"input": flicker(video.brightness_of(source))}
    for name, seconds in {"steady": video.STEADY, "alone": 0.0}.items():
        enhance_video(source, tmp_path / f"{name}.mkv", enhancer, steady=seconds)
        found[name] = flicker(video.brightness_of(tmp_path / f"{name}.mkv"))
    assert found["steady"] < found["alone"] and found["steady"] <= found["input"]


def test_flicker_is_relative_and_told_in_per_cent():
    assert flicker([0.2, 0.2, 0.2]) == 0
    assert (
        flicker([0.1, 0.102])
        == pytest.approx(flicker([0.5, 0.51]))
        == pytest.approx(100 * 0.002 / 0.101)
    )
    for wrong in ([0.1], [0.0, 0.0], [[0.1, 0.2]]):
        with pytest.raises(ValueError, match="brightness"):
            flicker(wrong)


def test_a_cut_starts_the_curves_anew(tmp_path, enhancer):
    scenes = [scene(n) for n in range(5)] + [
        scene(n, scale=1)[::-1, ::-1] // 2 + 90 for n in range(5)
    ]
    source = clip(tmp_path / "a.mkv", scenes, codec="ffv1", sound=None)
    done = enhance_video(source, tmp_path / "steady.mkv", enhancer, steady=10)
    enhance_video(source, tmp_path / "alone.mkv", enhancer, steady=0)
    steady, alone = pictures(tmp_path / "steady.mkv"), pictures(tmp_path / "alone.mkv")
    assert done.cuts == (0.2,)
    assert np.array_equal(steady[5], alone[5]) and not np.array_equal(steady[4], alone[4])


def test_what_moves_has_its_own_curves_at_once_and_what_is_still_keeps_them():
    small, curves = np.full((4, 4, 3), 0.1, np.float32), np.full((4, 4, 8, 3), -0.4, np.float32)
    steady = video.Steady(0.5)
    steady(Curves(curves, 24, False), small, 0)
    moved, changed = small.copy(), curves.copy()
    moved[0, 0], changed[0, 0], changed[3, 3] = 0.4, -0.1, -0.6
    result, cut = steady(Curves(changed, 24, False), moved, 0.04)
    assert not cut and result.values[0, 0] == pytest.approx(-0.1, abs=0.01)
    assert (
        result.values[1, 1] == pytest.approx(-0.4, abs=0.01) and result.values[3, 3].min() > -0.45
    )


def test_unsteady_exposure_is_levelled_and_a_lasting_change_is_followed():
    rng, curves = np.random.default_rng(0), np.full((9, 16, 8, 3), -0.4, np.float32)
    scene_, grid = (
        rng.uniform(0.02, 0.3, (9, 16, 3)).astype(np.float32),
        Curves(curves, 24, False),
    )
    light = np.concatenate([rng.normal(1, 0.02, 30), np.full(50, 1.15)]).astype(np.float32)

    def bent(steady):
        means = []
        for each in light:
            result, _ = steady(grid, scene_ * each, 0.04)
            means.append(np.exp(video._brightness(scene_ * each, result, result.values)).mean())
        return means

    steadied, alone = bent(video.Steady(0.5)), bent(video.Steady(0))
    assert flicker(steadied[:30]) < 0.5 * flicker(alone[:30])
    assert max(np.diff(steadied[29:])) < 0.5 * max(np.diff(alone[29:]))
    assert steadied[-1] == pytest.approx(alone[-1], rel=0.01)


def test_the_mean_follows_time_and_not_frames():
    grid, small = (
        Curves(np.zeros((1, 1, 8, 3), np.float32), 1, False),
        np.ones((1, 1, 3), np.float32),
    )
    other = Curves(np.ones((1, 1, 8, 3), np.float32), 1, False)
    for steps in (1, 5, 50):
        steady = video.Steady(0.5)
        steady(grid, small, 0)
        for _ in range(steps):
            result, cut = steady(other, small, 0.5 / steps)
            assert not cut
        assert result.values == pytest.approx(1 - np.exp(-1), abs=1e-5)
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds="):
            video.Steady(wrong)


def test_cuts_are_told_from_noise_and_from_pans():
    """Between any two bundled photographs is a cut; noise, and a pan of a twentieth of the width a frame, are none."""
    views = {}
    for sample in datasets.samples("bundled"):
        if sample.stops == 4:
            whole = Image.fromarray(sample.reference()).resize((400, 225))
            for take in (0, 1):
                views[sample.scene, take] = datasets.expose(np.asarray(whole), 4, take)

    def small(pixels):
        return box_mean(np.ascontiguousarray(pixels), 5)

    names = {name for name, _ in views}
    cuts = [
        video.change(small(views[a, 0]), small(views[b, 1]))
        for a, b in itertools.permutations(names, 2)
    ]
    noise = [video.change(small(views[a, 0]), small(views[a, 1])) for a in names]
    pans = [video.change(small(views[a, 0][:, :350]), small(views[a, 1][:, 20:370])) for a in names]
    assert max(noise) < max(pans) < video.CUT < min(cuts)


# What is refused, and never half written


def test_refusals_in_one_line(tmp_path, enhancer):
    good = clip(tmp_path / "good.mp4").read_bytes()
    long = clip(tmp_path / "long.mkv", times=[40 * n for n in range(100)]).read_bytes()
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        tone = file.add_stream("aac", rate=48000, layout="mono")
        samples = av.AudioFrame.from_ndarray(
            np.zeros((1, 4800), np.float32), format="fltp", layout="mono"
        )
        samples.sample_rate = 48000
        file.mux(tone.encode(samples))
        file.mux(tone.encode(None))
    clip(tmp_path / "hdr.mkv", codec="ffv1", form="yuv420p10le", tags={"color_trc": 16})
    clip(tmp_path / "rgb.mkv", codec="ffv1", form="bgr0")
    wrong = {
        "missing.mp4": (None, "cannot be read: No such file"),
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"no video at all\n" * 100, "no video"),
        "list.mp4": (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ngood.mp4\n#EXT-X-ENDLIST\n",
            "no video",
        ),
        "half.mp4": (good[: len(good) // 2], "no video|damaged|cut short"),
        "half.mkv": (long[: len(long) // 2], "cut short"),
        "holes.mp4": (good[:200] + bytes(3000) + good[3200:], "damaged|no video|no frame"),
        "sound.mp4": (None, "no moving pictures"),
        "hdr.mkv": (None, r"high dynamic range \(PQ\)"),
        "rgb.mkv": (None, "stored as bgr0"),
    }
    for name, (data, words) in wrong.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(VideoError, match=words) as told:
            enhance_video(tmp_path / name, tmp_path / "out" / name, enhancer)
        assert str(told.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(told.value)
        assert not list((tmp_path / "out").glob("*")) and not list((tmp_path / "out").glob(".*"))
    with pytest.raises(VideoError, match=r"b\.jpg: videos are written as \.mp4"):
        enhance_video(tmp_path / "good.mp4", tmp_path / "b.jpg", enhancer)
    with pytest.raises(VideoError, match=r"vp9 does not go into|cannot be written as"):
        source = clip(tmp_path / "a.webm", codec="libvpx-vp9", sound=None)
        enhance_video(source, tmp_path / "a.3gp", enhancer)


def test_frames_too_large_to_read(tmp_path, enhancer, monkeypatch):
    source = clip(tmp_path / "a.mkv")
    monkeypatch.setattr(video, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(VideoError, match="frames of 64×48"):
        enhance_video(source, tmp_path / "b.mkv", enhancer)


def test_odd_names_are_names(tmp_path, enhancer):
    for name in ("--help.mp4", "a?b#%20c.mp4", "concat:a|b.mp4", "new\nline.mp4"):
        source = clip(tmp_path / "a.mp4", times=EVEN[:2]).rename(tmp_path / name)
        assert enhance_video(source, tmp_path / "out" / name, enhancer).frames == 2


def test_without_the_extra_one_line_says_how_to_install_it(tmp_path, enhancer, monkeypatch):
    source = clip(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(PhotoError, match=r'a\.mp4: .* pip install "zdce\[video\]"'):
        enhance_video(source, tmp_path / "b.mp4", enhancer)
    monkeypatch.undo()
    monkeypatch.setattr(video, "numba", None)
    with pytest.raises(PhotoError, match=r'a\.mp4: .* pip install "zdce\[video\]"'):
        enhance_video(source, tmp_path / "b.mp4", enhancer)


def test_an_error_on_the_way_leaves_nothing_and_the_older_output_as_it_was(tmp_path, weights):
    class Failing(Enhancer):
        seen = 0

        def __call__(self, photo):
            self.seen += 1
            if self.seen == 5:
                raise RuntimeError("not enough memory")
            return super().__call__(photo)

    source = clip(tmp_path / "a.mp4")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.mp4").write_bytes(b"of an earlier run")
    with pytest.raises(RuntimeError, match="not enough memory"):
        enhance_video(source, tmp_path / "out" / "a.mp4", Failing(weights=weights))
    assert [file.read_bytes() for file in (tmp_path / "out").iterdir()] == [b"of an earlier run"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_on_the_way_leaves_no_output(tmp_path, weights):
    source = clip(tmp_path / "a.mp4", times=[40 * n for n in range(500)], sound=None)
    command = [
        sys.executable,
        "-m",
        "zdce",
        "enhance",
        str(source),
        "-o",
        str(tmp_path / "out"),
        "--weights",
        weights,
    ]
    process = subprocess.Popen([*command, "--speed", "faithful"])
    out = tmp_path / "out"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(
        file.suffix == ".part" for file in out.glob(".*")
    ):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "a.mp4").exists()


# Folders and the command


def test_folders_of_photographs_and_videos(tmp_path, weights, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    write_photo(Photo(dark()), source / "a.jpg")
    clip(source / "b.MP4", times=EVEN[:3])
    (source / "below").mkdir()
    clip(source / "below" / "c.mkv", times=EVEN[:3])
    (source / "bad.mp4").write_bytes(b"none")
    faithful = Enhancer(weights=weights)
    outcome = enhance_files([source], out, faithful, progress=True)
    assert outcome.written == [out / "a.jpg", out / "b.MP4", out / "below" / "c.mkv"]
    assert [file.name for file, _ in outcome.failed] == ["bad.mp4"]
    assert "bad.mp4: no video" in capsys.readouterr().err
    again = enhance_files([source], out, faithful, progress=False, skip_done=True)
    assert len(again.skipped) == 3 and not again.written
    single = enhance_files([source / "b.MP4"], tmp_path / "named.mkv", faithful, progress=False)
    assert single.written == [tmp_path / "named.mkv"]
    with pytest.raises(ValueError, match="would overwrite"):
        enhance_files([source / "b.MP4"], source, faithful, progress=False)


def test_videos_are_fast_unless_told_otherwise(tmp_path, weights, monkeypatch):
    source, seen = clip(tmp_path / "a.mp4", times=EVEN[:2]), []
    monkeypatch.setattr(
        video, "enhance_video", lambda source, target, enhancer, **_: seen.append(enhancer.speed)
    )
    for speed in (None, "fast", "faithful"):
        enhance_files(
            [source], tmp_path / "out", Enhancer(weights=weights), progress=False, video_speed=speed
        )
    assert seen == ["fast", "fast", "faithful"]


def test_suffixes_are_no_photographs():
    from zdce.photos import SUFFIXES as PHOTOGRAPHS

    assert (
        not set(SUFFIXES) & set(PHOTOGRAPHS)
        and video.is_video("A.MP4")
        and not video.is_video("mp4")
    )

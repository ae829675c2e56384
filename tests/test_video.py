"""Video files: frames at their times, sound as it was, what cameras write, steady brightness, whole
or not at all.
"""

import contextlib
import itertools
import struct
import threading
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pictures import dark

from zdce import video
from zdce.engine import Curves
from zdce.enhance import Enhancer
from zdce.folders import enhance_files
from zdce.model import apply_curves
from zdce.photos import Photo, PhotoError, write_photo
from zdce.video import VideoError, enhance_video

av = pytest.importorskip("av")
TICK = Fraction(1, 1000)  # s
EVEN = [40 * number for number in range(10)]  # ticks: 25 frames a second
CONTAINERS = ["mp4", "mov", "mkv", "avi"]
QUICK = {"preset": "ultrafast"}
QUARTER = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # display matrices
MIRROR = (-(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


class Doubling:
    """An engine that makes every pixel twice as bright."""

    def curves(self, pixels):
        return None

    def render(self, pixels, curves, *, gamma, strength, gray):
        top = np.iinfo(pixels.dtype).max
        return (pixels.astype(np.uint32) * 2).clip(0, top).astype(pixels.dtype)


DOUBLING = SimpleNamespace(engine=Doubling(), gamma=1.0, strength=1.0)


@pytest.fixture(scope="module")
def enhancer(weights):
    return Enhancer(weights=weights, device="cpu", speed="fast")


def scene(number=0, width=64, height=48, light=1.0):
    """(height, width, 3) uint8, dark, with noise that differs from number to number."""
    still = dark(height, width, seed=7).astype(float) * light
    noise = np.random.default_rng(number).normal(0, 2, still.shape)
    return (still + noise).clip(0, 255).astype(np.uint8)


def bar(number):
    """(48, 96, 3) uint8: a bright bar stands where the number says."""
    picture = np.full((48, 96, 3), 20, np.uint8)
    picture[:, 4 * number : 4 * number + 4] = 110
    return picture


def clip(
    path,
    pictures=None,
    times=EVEN,
    codec="libx264",
    form="yuv420p",
    sound="aac",
    options=None,
    **more,  # tick, sound_at (s), movflags; tags and metadata by name
):
    """Write a video of RGB pictures, shown at ``times`` (ticks), with a tone."""
    tick, movflags = more.get("tick", TICK), more.get("movflags")
    pictures = [scene(number) for number in range(len(times))] if pictures is None else pictures
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as file:
        file.metadata.update(more.get("metadata", {}))
        options = QUICK if options is None and codec == "libx264" else options or {}
        stream = file.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], form
        stream.codec_context.time_base = tick
        for name, value in more.get("tags", {}).items():
            setattr(stream.codec_context, name, value)
        tone = file.add_stream(sound, rate=48000, layout="mono") if sound else None
        for picture, at in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=form)
            frame.pts, frame.time_base = at, tick
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if tone:
            tones(file, tone, more.get("sound_at", 0))
    return path


def tones(file, stream, begin=0.0):
    """A third of a second of sound, from ``begin`` s on."""
    for start in range(0, 1152 * 15, 1152):
        wave = 0.1 * np.sin(np.arange(start, start + 1152) / 20)
        wave = wave.astype(np.float32)[None]
        samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        samples.sample_rate, samples.time_base = 48000, Fraction(1, 48000)
        samples.pts = start + int(48000 * begin)
        file.mux(stream.encode(samples))
    file.mux(stream.encode(None))


def turn(path, matrix):
    """Write a display matrix into an MP4's header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


def frames(path):
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def times(path):
    return [frame.time for frame in frames(path)]


def packets(path, kind):
    with av.open(str(path)) as file:
        stream = next(s for s in file.streams if s.type == kind)
        return [(float(p.pts * p.time_base), bytes(p)) for p in file.demux(stream) if p.size]


def pictures(path):
    """Frames as R'G'B', (n, H, W, 3) uint8, or uint16 above 8 bits."""
    shown = frames(path)
    form = "rgb48le" if shown[0].format.components[0].bits > 8 else "rgb24"
    return np.array([frame.to_ndarray(format=form) for frame in shown])


def number(picture):
    """Where a bar stands."""
    return int(np.argmax(picture.mean(axis=(0, 2))) // 4)


def delay(path):
    """Seconds from the first picture to the sound's begin."""
    return packets(path, "audio")[0][0] - times(path)[0]


def flicker(means):
    """Mean change from frame to frame, over the mean."""
    return np.abs(np.diff(means)).mean() / np.mean(means)


# What is kept


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.mp4", "libx264", "aac"),
        ("a.mov", "mpeg4", "aac"),
        ("a.mkv", "ffv1", "flac"),
        ("a.webm", "libvpx-vp9", "libopus"),
        ("a.mts", "libx264", "ac3"),
        ("a.avi", "mjpeg", "mp3"),
        ("a.mpg", "mpeg2video", "mp2"),
        ("a.wmv", "wmv2", "mp3"),
        ("a.flv", "flv", "mp3"),
    ],
)
def test_every_frame_at_its_time_and_the_sound_bit_for_bit(tmp_path, name, codec, sound):
    form, tick = "yuvj420p" if codec == "mjpeg" else "yuv420p", Fraction(1, 25)
    source, target = tmp_path / name, tmp_path / "out" / name
    clip(source, None, range(10), codec, form, sound, tick=tick)
    old = source.suffix in video.ONLY_READ
    if old:
        with pytest.raises(VideoError, match=rf"{name}: videos are written as \.mp4"):
            enhance_video(source, target, DOUBLING)
        target = target.with_suffix(".mp4")
    done = enhance_video(source, target, DOUBLING)
    assert done.frames == 10 == len(frames(target)) and not done.notes
    assert np.diff(times(target)) == pytest.approx(np.diff(times(source)), abs=1e-3)
    heard, kept = packets(source, "audio"), packets(target, "audio")
    assert [data for _, data in kept] == [data for _, data in heard]
    assert delay(target) == pytest.approx(delay(source), abs=2e-2)
    before, after = frames(source)[0], frames(target)[0]
    assert (after.width, after.height) == (before.width, before.height)
    assert after.format.name == before.format.name
    assert pictures(target).mean() == pytest.approx(2 * pictures(source).mean(), rel=0.1)
    with av.open(str(source)) as one, av.open(str(target)) as other:
        names = [[s.codec_context.codec.canonical_name for s in f.streams] for f in (one, other)]
    assert old or names[0] == names[1]


@pytest.mark.parametrize("size", [(64, 48), (7, 5), (1, 1)])
@pytest.mark.parametrize("form", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray", "bgr0"])
def test_any_size_and_form_without_loss(tmp_path, size, form):
    shown = [scene(n, *size) // 2 + 20 for n in range(3)]
    source = clip(tmp_path / "a.mkv", shown, EVEN[:3], "ffv1", form, None)
    enhance_video(source, tmp_path / "b.mkv", DOUBLING)
    before, after = pictures(source), pictures(tmp_path / "b.mkv")
    assert before.shape == after.shape and frames(tmp_path / "b.mkv")[0].format.name == form
    assert after.mean() == pytest.approx(2 * before.mean(), rel=0.03)
    assert form != "gray" or (after[..., :1] == after).all()
    nothing = SimpleNamespace(engine=Doubling(), gamma=1.0, strength=0)
    enhance_video(source, tmp_path / "c.mkv", nothing)
    assert np.array_equal(pictures(tmp_path / "c.mkv"), before)


def test_tags_chapters_languages_sounds_subtitles_and_attachments_stay_or_are_named(tmp_path):
    tags = {"color_range": 2, "colorspace": 1, "color_primaries": 1, "color_trc": 1}
    source = clip(tmp_path / "a.mkv", tags=tags | {"sample_aspect_ratio": Fraction(4, 3)})
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:00,200\nhello\n")
    full = tmp_path / "full.mkv"
    with contextlib.ExitStack() as stack:
        opened = lambda *words: stack.enter_context(av.open(*map(str, words)))  # noqa: E731
        inputs, file = [opened(source), opened(tmp_path / "a.srt")], opened(full, "w")
        made = [[file.add_stream_from_template(s, opaque=True) for s in i.streams] for i in inputs]
        file.metadata["title"] = "a night"
        chapter = {"id": 1, "start": 40, "end": 200, "time_base": TICK}
        file.set_chapters([chapter | {"metadata": {"title": "two"}}])
        made[0][1].metadata["language"] = "fra"
        made[0][1].disposition = int(av.stream.Disposition.original)
        file.add_attachment("notes.txt", "text/plain", b"some notes")
        for streams, each in zip(made, inputs, strict=True):
            for packet in each.demux():
                if packet.size:
                    packet.stream = streams[packet.stream.index]
                    file.mux(packet)
    for name, lost in {"b.mkv": 0, "b.mp4": 2}.items():
        notes = enhance_video(full, tmp_path / name, DOUBLING).notes
        assert len(notes) == lost
        with av.open(str(tmp_path / name)) as file:
            kinds = [s.type for s in file.streams if s.type != "data"]  # chapters of MP4
            assert kinds == ["video", "audio", "subtitle", "attachment"][: 4 - lost]
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert file.metadata["title"] == "a night"
        assert [c["metadata"]["title"] for c in file.chapters()] == ["two"]
        assert file.streams.video[0].codec_context.sample_aspect_ratio == Fraction(4, 3)
        assert file.streams.audio[0].language == "fra"
        assert file.streams.audio[0].disposition & av.stream.Disposition.original
        assert file.streams.attachments[0].data == b"some notes"
        after = next(file.decode(video=0))
    assert {tag: getattr(after, tag) for tag in tags} == tags


PHONE = {
    "com.apple.quicktime.creationdate": "2024-05-01T22:10:11+0200",
    "com.apple.quicktime.location.ISO6709": "+48.8584+002.2945+035/",
    "com.apple.quicktime.model": "iPhone 15",
    "com.android.version": "14",
    "creation_time": "2024-05-01T20:10:11.000000Z",
    "title": "Night",
}


@pytest.mark.parametrize("name", ["a.mov", "a.mp4", "a.mkv", "a.avi"])
def test_date_place_and_camera_of_phones(tmp_path, name):
    moved = "use_metadata_tags"
    source = clip(tmp_path / "in.mov", times=EVEN[:3], metadata=PHONE, movflags=moved)
    done = enhance_video(source, tmp_path / name, DOUBLING)
    with av.open(str(tmp_path / name)) as file:
        kept = {key.lower(): value for key, value in file.metadata.items()}
    lost = {key for key, value in PHONE.items() if kept.get(key.lower()) != value}
    if name == "a.avi":
        assert "com.apple.quicktime.model" in done.notes[0] and ".mov and .mkv" in done.notes[0]
    else:
        assert not lost and not done.notes


@pytest.mark.parametrize("matrix", [QUARTER, MIRROR], ids=str)
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("b.mov", "libx264"),
        ("b.mkv", "libx264"),
        ("b.mp4", "libx265"),
        ("b.mp4", "libsvtav1"),
        ("b.mp4", "libvpx-vp9"),
        ("b.avi", "libx264"),
    ],
)
def test_a_turn_is_kept_with_every_codec_or_refused(tmp_path, name, codec, matrix):
    options = {"libsvtav1": {"preset": "12"}, "libx265": QUICK | {"x265-params": "log-level=error"}}
    shown, how = [scene(n, 128, 96) for n in range(3)], options.get(codec)
    source = clip(tmp_path / "a.mp4", shown, EVEN[:3], codec, options=how, sound=None)
    turn(source, matrix)
    if name == "b.avi":
        with pytest.raises(VideoError, match=r"turned .* do not go into .*\.mkv"):
            enhance_video(source, tmp_path / name, DOUBLING)
    else:
        enhance_video(source, tmp_path / name, DOUBLING)
        (found,) = (d for d in frames(tmp_path / name)[0].side_data if "MATRIX" in d.type.name)
        assert tuple(np.frombuffer(found, np.int32)[:5]) == matrix[:5]


# Times as cameras write them


MIXED = {"bf": "3", "preset": "medium", "x264-params": "scenecut=0"}  # pictures out of order
KINDS = {
    "B-frames": ("a.mkv", {"options": MIXED}),
    "recorded B-frames": ("a.ts", {"options": MIXED}),
    "late video": ("a.mkv", {"times": [at + 400 for at in range(0, 640, 40)]}),
    "late sound": ("a.mkv", {"sound_at": 0.5}),
    "uneven": ("a.mp4", {"times": [0, 40, 60, 100, 200, 230, 231, 500, 520, 900]}),
    "gap": ("a.mkv", {"times": [0, 40, 80, 30120, 30160, 30200]}),
    "old AVI": ("a.avi", {"codec": "mpeg4", "options": {"bf": "2", "qmax": "2"}}),
    # readers make up 1, 4, 3, 5, 2, … for it: even times are right
    "AVI without times": ("a.avi", {"options": MIXED}),
}
NOT_IN_AVI = {"late sound": "sound that begins later", "uneven": "uneven times"}


@pytest.mark.parametrize("out", CONTAINERS)
@pytest.mark.parametrize("kind", KINDS)
def test_order_times_and_sound_in_step_whatever_the_camera_wrote(tmp_path, kind, out):
    name, options = KINDS[kind]
    ticks = options.get("times", range(0, 640, 40))
    shown, target = [bar(n) for n in range(len(ticks))], tmp_path / f"b.{out}"
    options = {"times": ticks, "sound": "mp3", **options}
    if name.endswith("avi"):
        options |= {"times": range(16), "tick": Fraction(1, 25)}
    source = clip(tmp_path / name, shown, **options)
    if out == "avi" and kind in NOT_IN_AVI:
        with pytest.raises(VideoError, match=rf"{NOT_IN_AVI[kind]} .*\.mkv"):
            enhance_video(source, target, DOUBLING)
        assert not target.exists()
        return
    enhance_video(source, target, DOUBLING)
    assert [number(each) for each in pictures(target)] == list(range(len(ticks)))
    before, after = np.diff(times(source)), np.diff(times(target))
    if kind == "AVI without times":
        before = np.full(15, 0.04 if min(before) < 0 else np.nan)
    if out == "avi":  # readers show its pictures a frame later, and guess the last one's time
        before, after = np.sort(before[:-1]), np.sort(after[:-1])
    assert after == pytest.approx(before, abs=2e-3)
    assert delay(target) == pytest.approx(
        delay(source), abs=0.13 if "avi" in (out, name[2:]) else 0.025
    )


def test_times_that_repeat_or_go_back(tmp_path):
    source = clip(tmp_path / "a.mkv", times=EVEN[:6], sound=None, codec="mjpeg", form="yuvj420p")
    data = bytearray(source.read_bytes())
    for written, wanted in zip(EVEN, (0, 40, 40, 80, 70), strict=False):
        block = data.index(struct.pack(">BhB", 0x81, written, 0x80), data.index(b"\x1fC\xb6u"))
        data[block + 1 : block + 3] = struct.pack(">h", wanted)
    source.write_bytes(data)
    enhance_video(source, tmp_path / "b.mkv", DOUBLING)
    assert times(tmp_path / "b.mkv") == pytest.approx([0, 0.04, 0.041, 0.08, 0.081, 0.2])


def test_recordings_begun_in_the_middle_and_put_together(tmp_path):
    part = clip(tmp_path / "a.ts", options=QUICK | {"g": "5", "bf": "0"}, sound=None).read_bytes()
    pieces = [part[at : at + 188] for at in range(0, len(part), 188)]
    (tmp_path / "late.ts").write_bytes(b"".join([*pieces[:3], *pieces[len(pieces) // 3 :]]))
    done = enhance_video(tmp_path / "late.ts", tmp_path / "c.mkv", DOUBLING)
    assert 3 <= done.frames < 10 and times(tmp_path / "c.mkv")[0] < 1
    ticks = range(0, 2000, 40)
    long = clip(tmp_path / "b.ts", None, ticks, options=QUICK | {"bf": "0"}, sound=None)
    (tmp_path / "twice.ts").write_bytes(long.read_bytes() * 2)
    with pytest.raises(VideoError, match="put together"):
        enhance_video(tmp_path / "twice.ts", tmp_path / "b.mp4", DOUBLING)


def test_interlaced_pictures_become_whole_ones(tmp_path):
    rows = np.arange(48)[:, None, None]
    shown = [np.where(rows % 2 == 0, bar(n), bar(n + 1)).astype(np.uint8) for n in range(8)]
    options = {"x264-params": "interlaced=1", "preset": "veryfast"}
    source = clip(tmp_path / "a.mp4", shown, EVEN[:8], options=options)
    assert frames(source)[0].interlaced_frame
    done = enhance_video(source, tmp_path / "b.mp4", DOUBLING)
    assert "interlaced" in done.notes[0] and done.frames == 8
    after = frames(tmp_path / "b.mp4")
    assert times(tmp_path / "b.mp4") == times(source) and not after[0].interlaced_frame
    before = np.mean([np.abs(np.diff(p.astype(int), axis=0)) for p in shown])
    comb = [np.abs(np.diff(p.astype(int), axis=0)) for p in pictures(tmp_path / "b.mp4")]
    assert np.mean(comb) < 0.5 * 2 * before


def test_what_a_container_cannot_hold_is_said_with_one_that_can(tmp_path):
    flac = clip(tmp_path / "a.mkv", sound="flac", times=EVEN[:3])
    deep = clip(tmp_path / "b.mkv", None, EVEN[:3], "ffv1", "yuv420p10le", None)
    for source, name, words in [
        (flac, "c.webm", r"(audio 1 \(flac\) does not go into|cannot be written as) webm"),
        (deep, "c.webm", "libvpx-vp9 does not take yuv420p10le"),
    ]:
        with pytest.raises(VideoError, match=rf"{words}.*: name a file that ends in \.mkv"):
            enhance_video(source, tmp_path / name, DOUBLING)
        assert not (tmp_path / name).exists()
    for name, codec in {"c.mov": "h264", "c.mkv": "ffv1"}.items():
        enhance_video(deep, tmp_path / name, DOUBLING)
        with av.open(str(tmp_path / name)) as file:
            assert file.streams.video[0].codec_context.name == codec


# What is done


def test_frames_equal_photographs(tmp_path, weights):
    source = clip(tmp_path / "a.mkv", None, EVEN[:2], "ffv1", "yuv444p", None)

    def pixels(path):
        return [frame.to_ndarray(format="gbrp") for frame in frames(path)]

    fast = {"speed": "fast"}
    for options in (fast, fast | {"gamma": 1.0, "strength": 0.4}, {}):
        one = Enhancer(weights=weights, device="cpu", **options)
        enhance_video(source, tmp_path / "b.mkv", one, steady=0)
        for before, after in zip(pixels(source), pixels(tmp_path / "b.mkv"), strict=True):
            assert np.abs(one(before).astype(int) - after).max() <= 3  # rounded to fewer levels


@pytest.mark.parametrize(("form", "depth"), [("yuv444p", 8), ("yuv420p", 8), ("yuv420p12le", 12)])
def test_stored_colors_mean_what_the_standard_says_and_are_not_rounded_to_black(form, depth):
    stored = {(16, 128, 128): (0, 0, 0), (235, 128, 128): (255,) * 3, (63, 102, 240): (255, 0, 0)}
    stored |= {(16 + n, 128, 128): (255 * n / 219,) * 3 for n in range(1, 40)}  # where it is dark
    frame, errors = av.VideoFrame(64, 8, form), []
    frame.colorspace, frame.color_range = 1, 1
    converter = video._Converter(video._form(frame, 2))
    for values, rgb in stored.items():
        for plane, value in zip(frame.planes, values, strict=True):
            kind = np.uint8 if depth == 8 else np.uint16
            np.frombuffer(plane, kind)[:] = value << (depth - 8)
        found = converter.pixels(frame)
        errors.append(found / (np.iinfo(found.dtype).max / 255) - rgb)
    assert np.abs(errors).max() < 1.01 and abs(np.mean(errors[3:])) < 0.1
    shown = np.random.default_rng(0).integers(1, np.iinfo(found.dtype).max // 4, (8, 64, 1))
    shown = np.repeat(shown, 3, axis=2).astype(found.dtype)
    converter.store(shown, frame)
    error = converter.pixels(frame).astype(float) - shown
    assert abs(error.mean()) < np.iinfo(found.dtype).max / 255 / 10


# Steadiness


def dimmed(levels, wanted=0.4, white=0.0):
    """Grey levels of a picture at levels of light, and how far towards white, steadied, after the
    one curve each that brings it to a mean of ``wanted``.
    """
    base = np.random.default_rng(0).uniform(0.02, 0.9, (9, 16, 3)).astype(np.float32)
    steady, numbers, means = video.Steady(), np.linspace(-0.6, 0, 200), []
    for level, veil in np.broadcast(levels, white):
        small = np.round(255 * (base * level * (1 - veil) + veil)).clip(0, 255) / np.float32(255)
        image = torch.from_numpy(small).permute(2, 0, 1)[None]
        bent = [float(apply_curves(image, torch.full_like(image, r), 8).mean()) for r in numbers]
        best = numbers[np.argmin(np.abs(np.array(bent) - wanted))]
        own = Curves(np.full((1, 1, 1, 3), best, np.float32), repeated=8)
        held = float(steady(own, small, 0.04).values[0, 0, 0, 0])
        means.append(255 * float(apply_curves(image, torch.full_like(image, held), 8).mean()))
    return np.array(means)


def there_and_back(frames, before, middle=0.0):
    """Light that goes to ``middle``, stays there for a moment and comes back."""
    way = np.linspace(before, middle, frames)
    return np.r_[np.full(10, before), way, np.full(5, middle), way[::-1], np.full(20, before)]


FADES = [*itertools.product((0.7, 0.1), (12, 25, 75), [0]), (0, 25, 1)]


@pytest.mark.parametrize(("before", "frames", "to_white"), FADES)
def test_a_fade_is_followed_and_comes_back(before, frames, to_white):
    way = there_and_back(frames, before, to_white)
    means = dimmed(0.1, white=way) if to_white else dimmed(way)
    there = 10 + frames
    falling = means[there + 5 : there + 5 + frames] if to_white else means[10:there]
    assert (falling - np.minimum.accumulate(falling)).max() < 3
    assert to_white or np.abs(np.diff(means)).max() < 20
    assert means[-1] == pytest.approx(means[9], abs=5 if to_white else 4)


@pytest.mark.parametrize("frames", [4, 6, 8])
def test_a_quick_fade_is_no_new_scene(frames):
    falling = dimmed(there_and_back(frames, 0.7))[10 : 10 + frames]
    assert (falling - np.minimum.accumulate(falling)).max() < 3


def test_what_rises_never_falls_nor_bursts_and_what_stays_dark_is_brightened_again():
    dawn = np.r_[np.full(10, 0.05), np.linspace(0.05, 1.1, 75), np.full(10, 1.1)]
    means = dimmed(dawn)
    assert (np.maximum.accumulate(means) - means).max() < 4
    dusk = dimmed(np.r_[np.linspace(0.8, 0.05, 75), np.full(100, 0.05)])
    assert dusk[74] < 40 and dusk[-1] > 80
    step = dimmed(np.r_[np.full(30, 0.5), np.full(60, 0.575)])
    assert np.diff(step).max() < 5 and step[-1] == pytest.approx(102, abs=1)
    begun = dimmed(np.r_[np.zeros(3), np.linspace(0, 0.7, 25), np.full(25, 0.7)])
    assert np.abs(np.diff(begun)).max() < 20 and begun[-1] == pytest.approx(102, abs=5)  # no burst


def test_flicker_falls_below_frame_by_frame_and_below_the_input(tmp_path, enhancer):
    light = np.random.default_rng(1).normal(1, 0.02, 30)
    still = [scene(number, light=each) for number, each in enumerate(light)]
    source = clip(tmp_path / "a.mkv", still, [40 * n for n in range(30)], "ffv1", sound=None)
    found = {"input": flicker(pictures(source).mean(axis=(1, 2, 3)))}
    for name, seconds in {"steady": video.STEADY, "alone": 0.0}.items():
        enhance_video(source, tmp_path / f"{name}.mkv", enhancer, steady=seconds)
        found[name] = flicker(pictures(tmp_path / f"{name}.mkv").mean(axis=(1, 2, 3)))
    assert found["steady"] < 0.5 * found["alone"] and found["steady"] <= found["input"]


def test_a_cut_starts_the_curves_anew(tmp_path, enhancer):
    other = [scene(n)[::-1, ::-1] // 2 + 90 for n in range(3)]
    source = clip(tmp_path / "a.mkv", [scene(n) for n in range(3)] + other, EVEN[:6], "ffv1")
    enhance_video(source, tmp_path / "steady.mkv", enhancer, steady=10)
    enhance_video(source, tmp_path / "alone.mkv", enhancer, steady=0)
    steady, alone = pictures(tmp_path / "steady.mkv"), pictures(tmp_path / "alone.mkv")
    assert np.array_equal(steady[3], alone[3]) and not np.array_equal(steady[2], alone[2])


def test_what_moves_has_its_own_curves_at_once_and_what_is_still_keeps_them():
    small, values = np.full((4, 4, 3), 0.1, np.float32), np.full((4, 4, 8, 3), -0.4, np.float32)
    steady = video.Steady(0.5)
    steady(Curves(values, 24, False), small, 0)
    moved, changed = small.copy(), values.copy()
    moved[0, 0], changed[0, 0], changed[3, 3] = 0.4, -0.1, -0.6
    result = steady(Curves(changed, 24, False), moved, 0.04)
    assert result.values[0, 0] == pytest.approx(-0.1, abs=0.01)
    assert result.values[1, 1] == pytest.approx(-0.4, abs=0.01)
    assert result.values[3, 3].min() > -0.45


def test_the_mean_follows_time_and_not_frames():
    small = np.full((1, 1, 3), 0.5, np.float32)
    before, after = (Curves(np.full((1, 1, 8, 3), r, np.float32)) for r in (-1.0, 0.0))
    for steps in (1, 5, 50):
        steady = video.Steady(0.5)
        steady(before, small, 0)
        for _ in range(steps):
            result = steady(after, small, 0.5 / steps)
        assert result.values == pytest.approx(-np.exp(-1), abs=1e-4)
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds="):
            video.Steady(wrong)


# What is refused, and never half written


def test_refusals_in_one_line(tmp_path):
    good = clip(tmp_path / "good.mp4").read_bytes()
    long = clip(tmp_path / "long.mkv", times=[40 * n for n in range(60)]).read_bytes()
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        tones(file, file.add_stream("aac", rate=48000, layout="mono"))
    clip(tmp_path / "hdr.mkv", codec="ffv1", form="yuv420p10le", tags={"color_trc": 16})
    clip(tmp_path / "alpha.mkv", codec="ffv1", form="yuva420p")
    listing = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ngood.mp4\n#EXT-X-ENDLIST\n"
    wrong = {
        "missing.mp4": (None, "cannot be read: No such file"),
        "empty.mp4": (b"", "no video"),
        "text.mp4": (b"no video at all\n" * 100, "no video"),
        "list.mp4": (listing, "no video"),
        "half.mp4": (good[: len(good) // 2], "no video|damaged|cut short"),
        "half.mkv": (long[: len(long) // 3], "cut short"),
        "holes.mp4": (good[:200] + bytes(3000) + good[3200:], "damaged|no video|no frame"),
        "sound.mp4": (None, "no moving pictures"),
        "hdr.mkv": (None, r"high dynamic range \(PQ\)"),
        "alpha.mkv": (None, "stored as yuva420p"),
    }
    for name, (data, words) in wrong.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(VideoError, match=words) as told:
            enhance_video(tmp_path / name, tmp_path / "out" / name, DOUBLING)
        assert str(told.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(told.value)
        assert not list((tmp_path / "out").glob("*")) and not list((tmp_path / "out").glob(".*"))


def test_names_are_names_and_frames_may_be_too_large(tmp_path, monkeypatch):
    for name in ("--help.mp4", "a?b#%20c.mp4", "concat:a|b.mp4", "new\nline.mp4"):
        source = clip(tmp_path / "a.mp4", times=EVEN[:2]).rename(tmp_path / name)
        assert enhance_video(source, tmp_path / "out" / name, DOUBLING).frames == 2
    monkeypatch.setattr(video, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(VideoError, match="frames of 64×48"):
        enhance_video(source, tmp_path / "b.mkv", DOUBLING)


def test_without_the_extra_one_line_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "av", None)
    with pytest.raises(PhotoError, match=r'a\.mp4: .* pip install "zdce\[video\]"'):
        enhance_video(tmp_path / "a.mp4", tmp_path / "b.mp4", DOUBLING)


def test_a_stage_is_in_order_bounded_tells_its_errors_and_ends():
    made, seen = [], []

    def items():
        for n in range(6):
            made.append(n)
            assert len(made) - len(seen) <= 4
            yield n
        raise KeyError("at the end")

    before = threading.active_count()
    with pytest.raises(KeyError, match="at the end"):
        seen.extend(video.ahead(items(), 3))
    assert seen == list(range(6)) and threading.active_count() == before


def test_an_error_on_the_way_leaves_nothing_and_the_older_output_as_it_was(tmp_path):
    class Failing(Doubling):
        left = 5

        def render(self, pixels, curves, **options):
            self.left -= 1
            if not self.left:
                raise RuntimeError("not enough memory")
            return super().render(pixels, curves, **options)

    source = clip(tmp_path / "a.mp4")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.mp4").write_bytes(b"of an earlier run")
    failing = SimpleNamespace(engine=Failing(), gamma=1.0, strength=1.0)
    with pytest.raises(RuntimeError, match="not enough memory"):
        enhance_video(source, tmp_path / "out" / "a.mp4", failing)
    assert [file.read_bytes() for file in (tmp_path / "out").iterdir()] == [b"of an earlier run"]


# Folders and the command


def test_folders_of_photographs_and_videos(tmp_path, weights, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    write_photo(Photo(dark()), source / "a.jpg")
    clip(source / "b.MP4", times=EVEN[:3])
    clip(source / "c.mpg", None, range(3), "mpeg2video", sound=None, tick=Fraction(1, 25))
    (source / "bad.mp4").write_bytes(b"none")
    outcome = enhance_files([source], out, Enhancer(weights=weights))
    assert outcome.written == [out / "a.jpg", out / "b.MP4"]
    assert [file.name for file, _ in outcome.failed] == ["bad.mp4"]
    assert "add --format mp4" in outcome.lines()[0]
    assert "bad.mp4: no video" in capsys.readouterr().err
    again = enhance_files([source], out, Enhancer(weights=weights), skip_done=True, format="mp4")
    assert again.skipped == [out / "a.jpg", out / "b.MP4"] and again.written == [out / "c.mp4"]


def test_videos_are_fast_unless_told_otherwise(tmp_path, weights):
    source, found = clip(tmp_path / "a.mkv", None, EVEN[:2], "ffv1", sound=None), {}
    for speed in (None, "fast", "faithful"):
        out, enhancer = tmp_path / str(speed), Enhancer(weights=weights, device="cpu")
        enhance_files([source], out, enhancer, video_speed=speed)
        found[speed] = pictures(out / "a.mkv")
    assert np.array_equal(found[None], found["fast"])
    assert not np.array_equal(found[None], found["faithful"])

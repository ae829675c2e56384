"""Video in, brighter video out: sound, times, turn, dates and colour tags kept, brightness steady.

Frames go through the same engine as photographs, noise filter included; curves are steadied over
time so that brightness does not flicker. Needs PyAV (extra ``video``). Source: ours.
"""

import heapq
import itertools
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from zdce.color import HDR
from zdce.engine import Curves
from zdce.enhance import Enhancer
from zdce.files import atomic_write, check_is_file
from zdce.model import apply_curves
from zdce.photos import PhotoError
from zdce.postprocess import highlight_protection

try:
    import av
    from av.video.reformatter import Interpolation, VideoReformatter

    # rounded, not cut off, with a colour for every pixel: else a strong curve shows it
    EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
    EXACT |= Interpolation.BICUBIC
    logging.getLogger("libav").setLevel(logging.CRITICAL)  # VideoError tells it in one line
except (ImportError, AttributeError):  # the extra "video" is not installed, or an older PyAV
    av = None

# suffix → the container that is written
SUFFIXES = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
SUFFIXES |= {".webm": "webm", ".avi": "avi"}
# suffixes of videos that are written as something else
ONLY_READ = (".3gp", ".3g2", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".mod", ".wmv")
ONLY_READ += (".asf", ".flv", ".ogv")
# Only these are read: a file may call itself a play list and name others, on other machines even.
READABLE = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg"
RECORDED = ("mpegts", "mpeg")  # begin anywhere, at any time
NO_TIMES = ("avi", "asf")  # have one time a picture: none may be shown out of order
REALTIME = {"deadline": "realtime", "cpu-used": "7", "row-mt": "1"}
# codec → encoder and its settings; quick presets at a quality that hides the second encoding
ENCODERS = {
    "h264": ("libx264", {"preset": "veryfast", "crf": "20"}),
    "hevc": ("libx265", {"preset": "superfast", "crf": "21", "x265-params": "log-level=error"}),
    "av1": ("libsvtav1", {"preset": "10", "crf": "28"}),
    "vp9": ("libvpx-vp9", REALTIME | {"crf": "26", "b": "0"}),
    "mpeg4": ("mpeg4", {"qmin": "2", "qmax": "3"}),
    "mjpeg": ("mjpeg", {"qmin": "2", "qmax": "3"}),
    "ffv1": ("ffv1", {}),
}
LOOKED_AT = 80  # pixels of the longer side of the reduced picture that is followed
MISSING = 0.05  # of a video, and a second or one part, that may be missing or damaged
MAX_PIXELS = 2**26  # of a frame: more than 8K, less than what a file of a few bytes may claim
LATE = 0.06  # s by which sound may begin later before people notice that it was moved
AHEAD = 4  # frames that a stage may be ahead of the next
OTHER = ": name a file that ends in .mkv"  # which takes more than the others
INSTALL = 'video files need PyAV 18.1: pip install "zdce[video]"'
UNSAID = 2  # a matrix or transfer that the file does not state
LIMITED, FULL_RANGE = 1, 2  # values fill 16 … 235 or 240 of 255; or all of it
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}  # of files (ITU-T H.273), and of libswscale
TAGS = ("color_range", "color_primaries", "color_trc", "colorspace")
UPRIGHT = (1 << 16, 0, 0, 0, 1 << 16)  # a display matrix that changes nothing, its first numbers
# Steadiness
STEADY = 0.5  # seconds, time constant of :class:`Steady`; ours, like what follows
DARKER = 2.0  # as many times as long for curves that grow stronger
CUT = 0.5  # difference from the last picture, over the mean, from which on a new scene begins
JUMP = (16 / 255, 1.5)  # or its mean's, as difference and as ratio
SAME = 0.9  # correlation with the scene's picture from which on it is the same scene
FADE = 0.2  # recent change of light and contrast, as a logarithm, at which curves are held
MOVED = 0.2  # relative change of the reduced picture at which its curves follow at once
FLOOR = 2 / 255  # mean of a black picture, or contrast of a plain one: neither says anything
TINY = 1 / 1000  # so that black can be divided by


class VideoError(PhotoError):
    """A video that cannot be read or written: one line with the file's name and the reason."""


class Enhanced(NamedTuple):
    """What :func:`enhance_video` did."""

    frames: int
    notes: tuple[str, ...] = ()  # what was left out or changed, for people


def is_video(path: str | os.PathLike) -> bool:
    """Whether a file's name says that it is a video."""
    return Path(path).suffix.lower() in (*SUFFIXES, *ONLY_READ)


def enhance_video(
    source: str | os.PathLike,
    target: str | os.PathLike,
    enhancer: Enhancer,
    *,
    steady: float = STEADY,
) -> Enhanced:
    """Enhance a video file, frame by frame, at their times (variable rates too) and size.

    Curves of a whole picture or of a reduced copy are steadied with the time constant ``steady`` in
    seconds (:class:`Steady`; 0: not at all); a faithful network enhances every frame by itself.

    Written in the container that the target's suffix says, by the source's codec where it is one of
    :data:`ENCODERS` and the container takes it, else as H.264 or VP9. Sampling, depth, colour tags,
    turn, title, date, place and camera stay; sound, subtitles, attachments and covers are copied;
    interlaced pictures become whole ones. What a container cannot hold is told in the notes, but
    without sound or a turn nothing is written. The file appears whole or not at all.

    Raises VideoError, one line, for what is no video, damaged, cut short, of high dynamic range,
    transparent or of changing size, and when writing fails; ValueError for ``steady``.
    """
    source, target, curves = Path(source), Path(target), Steady(steady)
    container = SUFFIXES.get(target.suffix.lower())
    if container is None:
        as_what = f"{', '.join(SUFFIXES)}: name the output, or its format"
        raise VideoError(f"{target}: videos are written as {as_what}")
    try:
        with _reading(source) as video, atomic_write(target) as partial, ExitStack() as stages:
            read = _Source(video)
            decoded = stages.enter_context(closing(ahead(read.whole(read.decoded()))))
            before = [next(decoded)]
            while not isinstance(first := before[-1], av.VideoFrame):
                before.append(next(decoded))
            items, form = itertools.chain(before, decoded), _form(first, read.transfer)
            output = stages.enter_context(_output(partial, container, read))
            written = _Target(output, container, read, first)
            if enhancer.strength:
                items = _curved(items, enhancer, curves, form, read.transfer)
                items = stages.enter_context(closing(ahead(items, 1)))
                items = stages.enter_context(closing(ahead(_rendered(items, enhancer, form))))
            about = {"unit": "frame", "leave": False, "disable": None}  # None: off a terminal
            bar = tqdm(items, source.name, read.pictures.frames or None, **about)
            for item in stages.enter_context(bar):
                written.write(item)
            written.finish()
    except OSError as error:
        raise VideoError(f"{target}: cannot be written: {error.strerror or error}") from error
    return Enhanced(written.frames, tuple(read.notes))


def ahead(items: Iterable[Any], most: int = AHEAD) -> Iterator[Any]:
    """``items``, worked out in a thread at most ``most`` ahead, which ends when this is closed."""
    items, end = iter(items), object()
    worker = ThreadPoolExecutor(1, "zdce video")
    try:
        coming = deque(worker.submit(next, items, end) for _ in range(most))
        while (item := coming.popleft().result()) is not end:
            coming.append(worker.submit(next, items, end))
            yield item
    finally:
        worker.shutdown(cancel_futures=True)


# Pictures


class Form(NamedTuple):
    """How a video's pictures are stored; format: libswscale's name for it."""

    format: str
    width: int
    height: int
    depth: int  # bits
    gray: bool
    matrix: int  # of MATRICES
    range: int  # LIMITED or FULL_RANGE


def _form(frame: Any, transfer: int) -> Form:
    """How a frame is stored (``transfer``: the stream's); VideoError for what is not read."""
    name, parts = frame.format.name, frame.format.components
    depth, gray = parts[0].bits, name.startswith("gray")
    if not (gray or len(parts) == 3) or not 8 <= depth <= 16:
        raise VideoError(f"pictures stored as {name} are not read: convert it to yuv420p first")
    transfer = frame.color_trc if frame.color_trc not in (0, UNSAID) else transfer
    if transfer in HDR:
        raise VideoError(f"high dynamic range ({HDR[transfer]}): convert it to BT.709 first")
    matrix = frame.colorspace
    if matrix == UNSAID:  # as players have it
        matrix = 1 if frame.height >= 720 else 6
    if gray or frame.format.is_rgb:
        matrix = 6  # says nothing
    if matrix not in MATRICES:
        raise VideoError(f"colour matrix {matrix} is not read: convert it to BT.709 first")
    full = name.startswith("yuvj") or frame.color_range == FULL_RANGE or frame.format.is_rgb
    full |= gray and frame.color_range == 0  # as FFmpeg has it
    values = FULL_RANGE if full else LIMITED
    return Form(name, frame.width, frame.height, depth, gray, MATRICES[matrix], values)


class _Converter:
    """Frames as a video stores them ↔ pixels (H, W, 3), by libswscale; for one thread."""

    def __init__(self, form: Form) -> None:
        self.form, self.reformatter = form, VideoReformatter()
        # read as planes: of rgb48le, libswscale's bright reds and blues run over (its 9.5)
        self.read, self.written = ("gbrp", "rgb24") if form.depth == 8 else ("gbrp16le", "rgb48le")

    def pixels(self, frame: Any) -> np.ndarray:
        """(H, W, 3) uint8, or uint16 above 8 bits."""
        return self._converted(frame, self.read, self.form.range, FULL_RANGE).to_ndarray()

    def store(self, pixels: np.ndarray, frame: Any) -> None:
        """Pixels into a frame, whose time, tags and captions stay."""
        shown = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(pixels), self.written)
        stored = self._converted(shown, self.form.format, FULL_RANGE, self.form.range)
        frame.make_writable()
        for planes in zip(frame.planes, stored.planes, strict=True):
            to, of = (np.frombuffer(x, np.uint8).reshape(-1, x.line_size) for x in planes)
            used = min(to.shape[1], of.shape[1])  # what follows pads the lines
            to[:, :used] = of[:, :used]

    def _converted(self, frame: Any, format: str, before: int, after: int) -> Any:
        how = {"interpolation": EXACT, "threads": torch.get_num_threads()}
        how |= {"src_colorspace": self.form.matrix, "dst_colorspace": self.form.matrix}
        how |= {"src_color_range": before, "dst_color_range": after}
        return self.reformatter.reformat(frame, format=format, **how)


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    """Nine integers that say how a frame is turned or mirrored; None where it is shown as it is."""
    for each in frame.side_data:
        if each.type.name == "DISPLAYMATRIX":
            matrix = tuple(int(value) for value in np.frombuffer(each, np.int32))
            return matrix if matrix[:5] != UPRIGHT else None
    return None


def _curved(
    items: Iterable[Any], enhancer: Enhancer, steady: Callable, form: Form, transfer: int
) -> Iterator[tuple[Any, np.ndarray | None, Curves | None]]:
    """Frames with their pixels (H, W, 3) and steadied curves; packets with neither."""
    engine, converter, before = enhancer.engine, _Converter(form), None
    for item in items:
        pixels = curves = None
        if isinstance(item, av.VideoFrame):
            if (now := _form(item, transfer)) != form:
                change = " to ".join(f"{f.width}×{f.height}, {f.depth} bits" for f in (form, now))
                raise VideoError(f"changes from {change} on the way, which is not read")
            pixels = converter.pixels(item)
            curves = engine.curves(pixels)
        if curves is not None:
            factor = max(1, math.ceil(max(pixels.shape) / LOOKED_AT))
            with engine.stream(pixels):
                small = engine.box_mean(engine.put(pixels), factor)[0].permute(1, 2, 0)
                small = small.contiguous().numpy(force=True)
            at = float(item.pts * item.time_base)
            curves = steady(curves.arrays(), small, at - (at if before is None else before))
            before = at
        yield item, pixels, curves


def _rendered(items: Iterable[tuple], enhancer: Enhancer, form: Form) -> Iterator[Any]:
    """What came with pixels and curves, enhanced in its place."""
    options = {"gamma": enhancer.gamma, "strength": enhancer.strength, "gray": form.gray}
    converter = _Converter(form)
    for item, pixels, curves in items:
        if pixels is not None:
            pixels = enhancer.engine.render(pixels, curves, **options)
            converter.store(pixels, item)
        yield item


# Reading


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """The file, open for demuxing; what goes wrong inside is a VideoError that names it."""
    if av is None:
        raise VideoError(f"{path}: {INSTALL}")
    try:
        check_is_file(path)
        options = {"format_whitelist": READABLE}
        video = av.open(f"file:{path.absolute()}", container_options=options)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"{path}: no video that is read, or damaged") from error
    try:
        with video:
            yield video
    except VideoError as error:
        raise VideoError(f"{path}: {error}") from error
    except (av.FFmpegError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"{path}: damaged or cut short: {reason}") from error


class _Source:
    """A video that is read: its stream of pictures, times that go forward, notes for people.

    A recording's start becomes 0. AVI and WMV know no times of presentation: those that readers
    make up are taken in order. A time that repeats or is missing becomes a later one.
    """

    def __init__(self, video: Any) -> None:
        self.video, self.notes = video, []
        for self.pictures in video.streams.video:
            cover = self.pictures.disposition & av.stream.Disposition.attached_pic
            if not cover and self.pictures.codec_context is not None:
                break
        else:
            raise VideoError("holds no moving pictures")
        context = self.pictures.codec_context
        self.transfer = context.color_trc
        context.thread_type, context.options = "AUTO", {"max_pixels": str(MAX_PIXELS)}
        if context.width * context.height > MAX_PIXELS:
            raise VideoError(f"frames of {context.width}×{context.height} are too large")
        self.recorded = video.format.name in RECORDED
        self.start = Fraction(video.start_time or 0, 10**6) if self.recorded else Fraction(0)
        self.waiting: list[int] = []  # times that no frame has taken yet
        self.early: int | None = None  # what readers add to the time of storage
        self.last: int | None = None

    def _time_packet(self, packet: Any) -> None:
        """Correct the times of a packet, given in the file's order."""
        start = round(self.start / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - start
        packet.dts = None if packet.dts is None else packet.dts - start
        by_order = self.video.format.name in NO_TIMES and packet.stream == self.pictures
        if by_order and packet.pts is not None:
            if self.early is None:
                self.early = packet.pts - packet.dts if packet.dts is not None else 0
            heapq.heappush(self.waiting, packet.pts - self.early)

    def _time_frame(self, frame: Any) -> None:
        """Correct the time of a frame, given in the order of presentation."""
        frame.time_base = base = self.pictures.time_base
        at = heapq.heappop(self.waiting) if self.waiting else frame.pts
        if self.last is not None:
            each = 1 / (self.pictures.average_rate or 25)
            at = self.last + max(1, round(each / base)) if at is None else at
            if (self.last - at) * base > 1:
                raise VideoError("several recordings put together are not read: split it first")
            at = max(at, self.last + 1)
        self.last = frame.pts = at or 0

    def decoded(self) -> Iterator[Any]:
        """Packets of streams to copy and frames, as they come, at times that go forward."""
        end, frames, lost = Fraction(0), 0, 0
        for packet in self.video.demux():
            if packet.size == 0 and packet.dts is not None:
                continue  # of AVI: the frame before is shown for longer
            self._time_packet(packet)
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            whole, bad = [], packet.is_corrupt
            if packet.stream.index == self.pictures.index:
                try:
                    found = self.pictures.decode(packet if packet.size else None)
                    whole = [frame for frame in found if not frame.is_corrupt]
                    bad |= len(whole) < len(found)
                except av.FFmpegError:
                    bad = True
            elif packet.size and not bad:
                yield packet
            if bad and not self.recorded:
                raise VideoError("damaged or cut short")
            frames += len(whole)
            lost += bad and frames > 0  # before the first one: what began before
            for frame in whole:
                self._time_frame(frame)
                yield frame
        if not frames or lost > 1 + MISSING * frames:
            raise VideoError(f"damaged: {frames} pictures can be read, {lost} parts cannot")
        if lost:
            self.notes.append(f"{lost} damaged parts left out")
        stated = (self.video.duration or 0) / 1e6 + max(0.0, (self.video.start_time or 0) / 1e6)
        if not self.recorded and end < stated - max(1.0, MISSING * stated):
            raise VideoError(f"cut short: ends after {float(end):.1f} s of {stated:.1f} s")

    def whole(self, items: Iterable[Any]) -> Iterator[Any]:
        """Interlaced frames as whole ones, at the same times; all else as it is."""
        weaving, times = None, deque()
        for item in itertools.chain(items, [None]):
            frame = isinstance(item, av.VideoFrame)
            if weaving is None and frame and item.interlaced_frame:
                self.notes.append("interlaced: written as whole pictures")
                weaving = av.filter.Graph()
                begin = weaving.add_buffer(template=self.pictures, format=item.format.name)
                weave = weaving.add("bwdif", "mode=send_frame:deint=interlaced")
                weaving.link_nodes(begin, weave, weaving.add("buffersink")).configure()
            if item is not None and (weaving is None or not frame):
                yield item
            elif weaving is not None:
                weaving.vpush(item)
                times += [item.pts] if frame else []
                with suppress(av.BlockingIOError, av.EOFError):
                    while True:
                        woven = weaving.vpull()
                        woven.pts, woven.time_base = times.popleft(), self.pictures.time_base
                        yield woven


# Writing


def _output(path: Path, container: str, source: _Source) -> Any:
    """The file to write, with what a container is told as a whole."""
    metadata, options = source.video.metadata, {}
    keys = [key for key in metadata if "." in key]  # such as com.apple.quicktime.model
    if keys and container in ("mp4", "mov"):
        options["movflags"] = "use_metadata_tags"
    elif keys and container == "avi":
        source.notes.append(f"avi does not keep: {', '.join(keys)} (.mov and .mkv do)")
    output = av.open(str(path.absolute()), "w", format=container, container_options=options)
    output.metadata.update(metadata)
    output.set_chapters(source.video.chapters())
    return output


class _Target:
    """The video that is written: frames encoded, packets of other streams copied."""

    def __init__(self, output: Any, container: str, source: _Source, first: Any) -> None:
        self.output, self.container, self.source = output, container, source
        self.pictures, self.notes = source.pictures, source.notes
        self.other = OTHER * (container != "matroska")
        self.frames, self.places, self.begun = 0, {}, set()
        self.even, self.shown, self.begin = None, None, 0  # unit of even times, last, first
        self._add_streams(first)

    def write(self, item: Any) -> None:
        """Encode a frame, or copy a packet."""
        if isinstance(item, av.VideoFrame):
            item.pict_type = 0  # the encoder chooses its own key frames
            self._check_even(item)
            self._mux(self.stream.encode, item)
            self.frames += 1
        elif place := self.places.get(item.stream.index):
            if item.pts is not None and place.index not in self.begun:
                self.begun.add(place.index)  # an AVI cannot say that sound begins later
                if self.container == "avi" and item.pts * item.time_base > LATE:
                    raise VideoError(f"sound that begins later does not go into avi{self.other}")
            item.stream = place
            self._mux(lambda packet: [packet], item)

    def finish(self) -> None:
        """Write what the encoder still holds and the container's end."""
        self._mux(self.stream.encode, None)
        self._mux(lambda _: self.output.close() or [], None)

    def _mux(self, packets: Any, item: Any) -> None:
        try:
            self.output.mux(packets(item))
        except (av.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            what = f"cannot be written as {self.container}: {reason}"
            raise VideoError(f"{what}{self.other}") from error

    def _check_even(self, frame: Any) -> None:
        """VideoError where two frames would share a time, which an AVI counts."""
        if self.even is not None:
            at = round(frame.pts * frame.time_base / self.even)
            if at == self.shown:
                raise VideoError(f"uneven times do not go into {self.container}{self.other}")
            if self.shown is None:  # it begins with a picture, or readers lose count
                self.begin = at if 0 < at <= 2 else 0
            self.shown, frame.pts, frame.time_base = at, at - self.begin, self.even

    def _add_streams(self, first: Any) -> None:
        """The stream to encode to, and those to copy; a note, or a VideoError, for what is not."""
        matrix = _display_matrix(first)
        if matrix and self.container == "avi":
            raise VideoError(f"turned pictures do not go into {self.container}{self.other}")
        kinds = ("audio", "subtitle", "video", "attachment")[: 3 + (self.container == "matroska")]
        for stream in self.source.video.streams:
            made, context = None, stream.codec_context
            if stream.index == self.pictures.index:
                self.stream = made = self._encoded_stream(first)
                if matrix:
                    made.set_display_matrix(matrix)
            elif stream.type in kinds:
                with suppress(ValueError, av.FFmpegError):
                    opaque = True if context is not None else None
                    made = self.output.add_stream_from_template(stream, opaque=opaque)
                    self.places[stream.index] = made
            if made is not None:
                made.metadata.update(stream.metadata)
                made.disposition = int(stream.disposition)
                continue
            what = f"{stream.type} {stream.index}" + (f" ({context.name})" if context else "")
            if stream.type == "audio":
                raise VideoError(f"{what} does not go into {self.container}{self.other}")
            self.notes.append(f"{what} left out: {self.container} does not take it")

    def _encoded_stream(self, first: Any) -> Any:
        """The output's stream of pictures, its encoder open."""
        source, rate = self.pictures.codec_context, self.pictures.average_rate
        own, usual = source.codec.canonical_name, "vp9" if self.container == "webm" else "h264"
        for codec in (own if own in ENCODERS else usual, usual):
            name, options = ENCODERS[codec]
            with suppress(ValueError):
                stream = self.output.add_stream(name, rate=rate)
                break
        encoder = stream.codec_context
        encoder.bit_rate = 0
        encoder.width, encoder.height = first.width, first.height
        encoder.pix_fmt = first.format.name
        encoder.time_base = self.pictures.time_base
        if self.container == "avi":
            encoder.time_base = self.even = 1 / rate if rate else Fraction(1, 25)
        elif codec == "mpeg4" and encoder.time_base.denominator > 65535:
            encoder.time_base = Fraction(1, 30000)
        if source.sample_aspect_ratio:
            encoder.sample_aspect_ratio = source.sample_aspect_ratio
        for tag in TAGS:
            setattr(encoder, tag, getattr(source, tag))
        if codec == "hevc" and self.container in ("mp4", "mov"):
            encoder.codec_tag = "hvc1"  # Apple's players know no other
        encoder.options = options | ({"bf": "0"} if self.container in NO_TIMES else {})
        encoder.thread_type = "FRAME" if codec in ("h264", "ffv1") else "AUTO"
        encoder.thread_count = 0
        try:
            encoder.open()
        except (av.FFmpegError, ValueError) as error:
            what = f"{encoder.pix_fmt} of {encoder.width}×{encoder.height} at {rate} frames/s"
            raise VideoError(f"{name} does not take {what}{self.other}") from error
        return stream


# Steadiness


class Steady:
    """Curves steadied over time, so that neither they nor the camera's exposure make it flicker.

    Curves are their exponential mean over ``seconds``, :data:`DARKER` times as slow where they grow
    stronger; how they differ from point to point follows at once where something moved. In fades to
    black and back they are held, to white in those of one or two seconds. Light that rises, and
    contrast with it, may weaken them at once, but never so far that the result darkens. One factor
    holds off small changes of brightness outside of fades. Another picture than the last one, or
    the same in quite another light, begins a new scene with its own curves; a black one with none.

    Whether light changed is told by the median over a reduced picture, on which something that
    moves has no say. ``seconds`` of 0 leaves every frame its own curves; ValueError for less.
    """

    def __init__(self, seconds: float = STEADY) -> None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"seconds={seconds}: the time constant must be 0 (off) or more")
        self.seconds = seconds
        self._last: np.ndarray | None = None  # the last reduced picture
        # logarithms against their recent means: the picture's light, its contrast, the brightness
        self._light = self._contrast = self._above = 0.0

    def __call__(self, curves: Curves, small: np.ndarray, passed: float) -> Curves:
        """Steadied curves; small: (h, w, 3) float32 in [0, 1]; passed: seconds since the last."""
        if not self.seconds:
            return curves
        grid, last = curves.values.shape[:2], self._last
        if grid != (1, 1):  # as many pixels as points
            small = torch.from_numpy(small).permute(2, 0, 1)
            small = F.adaptive_avg_pool2d(small, grid).permute(1, 2, 0).numpy()
        self._last = seen = small
        if last is None or self._is_cut(last, seen):
            black = seen.mean() <= FLOOR
            self._slow, self._curves = seen, _times(curves, 0) if black else curves  # means
            self._known = not black  # whether the curves are those of this scene
            self._light = self._contrast = self._above = 0.0
            return self._curves
        least = -math.expm1(-max(0.0, passed) / self.seconds)
        weight, moved = self._weights(curves, seen, last, least)
        curves = _towards(self._curves, curves, weight, moved)
        self._curves = self._not_darker(curves, seen, last)
        return _times(self._curves, self._levelling(seen, last, least))

    def _is_cut(self, before: np.ndarray, after: np.ndarray) -> bool:
        """Whether a new scene begins: another picture, or all at once another light."""
        means = [float(each.mean(dtype=np.float64)) for each in (before, after)]
        low, high = sorted(means)
        if high - low > JUMP[0] and high > JUMP[1] * low:
            # else it is a part of a fade
            return self._steadiness() > 0.01 or before.mean() <= FLOOR
        scaled = before * (means[1] / max(means[0], 1e-6))
        changed = np.abs(after - scaled).mean(dtype=np.float64)
        return low > 2 * FLOOR and changed > CUT * means[1]

    def _weights(
        self, curves: Curves, seen: np.ndarray, last: np.ndarray, least: float
    ) -> tuple[float, np.ndarray]:
        """How far to go towards a frame's own curves, in [0, 1]: as a whole, and by point."""
        light = math.log(_light(seen, last))
        contrast = [float(each.mean(axis=2).std()) + TINY / 3 for each in (seen, last)]
        self._light = (self._light + light) * (1 - least)
        self._contrast = (self._contrast + math.log(contrast[0] / contrast[1])) * (1 - least)
        moved = self._moved(seen)
        steady = self._steadiness()
        one, other = seen - seen.mean(), self._slow - self._slow.mean()
        same = (one * other).sum() >= SAME * math.sqrt((one**2).sum() * (other**2).sum())
        self._known = steady > 0.9 or (self._known and bool(same or contrast[0] <= FLOOR))
        held = steady if self._known else 1.0
        self._slow = self._slow + np.float32(least) * (seen - self._slow)
        if curves.values.mean() < self._curves.values.mean():
            return least / DARKER * held, moved
        brighter = min(1.0, (self._light / MOVED) ** 2) if light > 0 else 0.0
        return max(least * held, brighter * _within(max(0.0, self._light - self._contrast))), moved

    def _steadiness(self) -> float:
        """1 where neither light nor contrast changed of late, near 0 in a fade."""
        return _within(math.hypot(self._light, self._contrast))

    def _moved(self, seen: np.ndarray) -> np.ndarray:
        """How far each point's picture changed against its mean in the same light, in [0, 1]."""
        light = _light(seen, self._slow)
        moved = np.abs(seen - light * self._slow).sum(axis=2)
        moved /= ((seen + light * self._slow).sum(axis=2) / 2).clip(18 * FLOOR)
        return np.clip(moved / MOVED, 0, 1) ** 2

    def _not_darker(self, curves: Curves, seen: np.ndarray, last: np.ndarray) -> Curves:
        """The curves' new mean, held back where it would darken what grows brighter."""
        before = np.exp(_brightness(last, self._curves)).mean()
        kept, gone = (np.exp(_brightness(seen, c)).mean() - before for c in (self._curves, curves))
        if np.median(seen.sum(axis=2) - last.sum(axis=2)) <= 0 or gone >= 0:
            return curves
        return _towards(self._curves, curves, float(max(0.0, kept) / (max(0.0, kept) - gone)))

    def _levelling(self, seen: np.ndarray, last: np.ndarray, least: float) -> float:
        """The factor for the curves' mean that holds off small changes of brightness."""
        now, step = _brightness(seen, self._curves), 0.02
        above = self._above + float(np.median(now - _brightness(last, self._curves)))
        self._above = above * (1 - least) * self._steadiness()
        gained = float(np.median(_brightness(seen, _times(self._curves, 1 + step)) - now)) / step
        factor = 1 - self._above / gained if gained > 1e-3 else 1.0
        return min(max(factor, 0.92), 1.08)


def _light(seen: np.ndarray, before: np.ndarray) -> float:
    """By which factor the light changed, as most of the picture has it."""
    return float(np.median((seen.sum(axis=2) + TINY) / (before.sum(axis=2) + TINY)))


def _within(change: float) -> float:
    """1 for no recent change, near 0 for that of a fade."""
    return math.exp(-((change / FADE) ** 4))


def _towards(before: Curves, after: Curves, weight: float, moved: np.ndarray | float = 0) -> Curves:
    """Curves between two, and where something ``moved`` (h, w) more of the second's own shape."""
    weight = np.float32(weight)
    own, held = (c.values - c.values.mean(axis=(0, 1)) for c in (after, before))
    more = np.atleast_2d(moved - weight).clip(0).astype(np.float32)[..., None, None]
    values = before.values + weight * (after.values - before.values) + more * (own - held)
    noise = before.noise
    if noise is not None:
        noise = noise + weight * (after.noise - noise)
    return replace(after, values=values, noise=noise)


def _times(curves: Curves, factor: float) -> Curves:
    """The curves times a factor; with 0 they change no picture."""
    noise = 0 * curves.noise if curves.noise is not None and not factor else curves.noise
    return replace(curves, values=(curves.values * np.float32(factor)).clip(-1, 1), noise=noise)


def _brightness(small: np.ndarray, curves: Curves) -> np.ndarray:
    """Logarithm of the mean over colours of a reduced picture after the curves: (h, w)."""
    image = small.transpose(2, 0, 1)[None]
    protection = 1.0
    if curves.highlight_protection:
        protection = highlight_protection(torch.from_numpy(image)).numpy()
    for values in np.moveaxis(curves.values, (2, 3), (0, 1)):  # NumPy: threads would only wait
        image = apply_curves(image, values[None] * protection, curves.repeated)
    return np.log(image[0].mean(axis=0).clip(1 / 255))

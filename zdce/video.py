"""Video in, brighter video out: sound, times, turn, dates and colour tags kept, brightness steady.

Frames go through the same engine as photographs, noise filter included; curves are steadied over
time so that brightness does not flicker. Needs PyAV and numba (extra ``video``). Source: ours.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import logging
import math
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from tqdm import tqdm

from zdce.engine.planes import MATRICES, Form, from_pixels, numba, to_pixels
from zdce.files import atomic_write, opened
from zdce.photos import PhotoError
from zdce.steady import STEADY, Steady

if TYPE_CHECKING:
    from zdce.enhance import Enhancer

# suffix → the container that is written
SUFFIXES = {
    **dict.fromkeys((".mp4", ".m4v", ".f4v"), "mp4"),
    **{".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi", ".divx": "avi"},
    **{".3gp": "3gp", ".3g2": "3g2"},
    **dict.fromkeys((".ts", ".mts", ".m2ts", ".m2t"), "mpegts"),
    **dict.fromkeys((".mpg", ".mpeg", ".mpe", ".vob", ".mod"), "vob"),
    **{".wmv": "asf", ".asf": "asf", ".flv": "flv", ".ogv": "ogg"},
}
ONLY_READ = (".mxf", ".dv", ".rm", ".rmvb")  # suffixes of videos that are written as something else
# Only these are read: a file may call itself a play list and name others, on other machines even.
READABLE = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,mxf,dv,rm"
RECORDED = ("mpegts", "mpeg")  # begin anywhere, at any time, and may be several put together
REALTIME, BY_QUALITY = {"deadline": "realtime", "cpu-used": "7"}, {"qmin": "2", "qmax": "3"}
# codec → encoder and its settings; quick presets at a quality that hides the second encoding
ENCODERS = {
    "h264": ("libx264", {"preset": "veryfast", "crf": "20"}),
    "hevc": ("libx265", {"preset": "superfast", "crf": "21", "x265-params": "log-level=error"}),
    "av1": ("libsvtav1", {"preset": "10", "crf": "28"}),
    "vp9": ("libvpx-vp9", REALTIME | {"row-mt": "1", "crf": "26", "b": "0"}),
    "vp8": ("libvpx", REALTIME | {"crf": "10", "b": "8M"}),
    **{name: (name, BY_QUALITY) for name in ("mpeg4", "mjpeg", "mpeg2video", "wmv2")},
    "flv1": ("flv", BY_QUALITY),
    "prores": ("prores_ks", {}),
    "ffv1": ("ffv1", {}),
}
USUAL = {"vob": "mpeg2video", "asf": "wmv2", "webm": "vp9", "ogg": "vp8"}  # else H.264
# Where a writer takes any codec, those that readers find again.
TAKEN = {
    "vob": "mpeg2video mp2 mp3 ac3 dts pcm_dvd dvd_subtitle",
    "mpegts": "h264 hevc mpeg2video mpeg4 aac mp2 mp3 ac3 eac3 opus dts dvb_subtitle",
    "asf": "wmv2 wmav1 wmav2 mp3 mp2 ac3 aac pcm_s16le",
    "flv": "h264 flv1 aac mp3 pcm_s16le speex",
    "ogg": "vp8 opus vorbis flac speex",
}
NO_TIMES = ("avi", "asf")  # containers with one time a picture: none may be shown out of order
EVEN_RATE = ("mpeg2video",)  # encoders that take frames at a constant rate alone
# Containers that say how a picture is turned.
TURNING = ("mp4", "mov", "3gp", "3g2", "matroska", "webm")
LOOKED_AT = 80  # pixels of the longer side of the reduced picture that is followed
MISSING = 0.05  # of a video (and a second) that may be missing or damaged before it is refused
GAP = 10.0  # seconds between packets that no recording has: parts put together
MAX_PIXELS = 2**26  # of a frame: more than 8K, less than what a file of a few bytes may claim
LATE = 0.06  # s by which sound may begin later before people notice that it was moved
AHEAD = 4  # frames that a stage may be ahead of the next
OTHER = ": name a file that ends in .mkv"
INSTALL = 'video files need PyAV and numba: pip install "zdce[video]"'
UNSAID, FULL_RANGE = 2, 2  # a matrix or transfer that the file does not state; a range of 0 … top
HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics that the networks have never seen
TAGS = ("color_range", "color_primaries", "color_trc", "colorspace")
UPRIGHT = (1 << 16, 0, 0, 0, 1 << 16)  # a display matrix that changes nothing, its first numbers
PROGRESSIVE = 1  # libavcodec's AVFieldOrder
# Tags that an MP4 has a place of its own for; others, of phones and cameras, go into a list of
# keys.
MP4_TAGS = {"title", "artist", "album_artist", "composer", "album", "date", "comment", "genre"}
MP4_TAGS |= {"copyright", "grouping", "lyrics", "description", "synopsis", "creation_time"}
MP4_TAGS |= {"location"}
# What a container writes about itself, or a file's maker about its container.
STRUCTURE = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}

Item = TypeVar("Item")


class VideoError(PhotoError):
    """A video that cannot be read or written: one line with the file's name and the reason."""


@dataclass(frozen=True)
class Enhanced:
    """What :func:`enhance_video` did.

    frames: how many. notes: one line each on what was left out or changed, for people.
    """

    frames: int
    notes: tuple[str, ...] = ()


# --- pictures -------------------------------------------------------------------------------------


def _form(frame: Any, transfer: int) -> Form:
    """How a decoded frame is stored; VideoError for what is not read.

    transfer: the stream's, for a frame that does not tell its own.
    """
    name, parts = frame.format.name, frame.format.components
    depth = parts[0].bits
    planar = name.startswith(("yuv4", "yuvj4", "gray")) and len(parts) in (1, 3)
    if not planar or name.endswith("be") or not 8 <= depth <= 16:
        raise VideoError(f"pictures stored as {name} are not read: convert it to yuv420p first")
    transfer = frame.color_trc if frame.color_trc not in (0, UNSAID) else transfer
    if transfer in HDR:
        kind = HDR[transfer]
        raise VideoError(f"high dynamic range ({kind}) is not read: convert it to BT.709 first")
    matrix = frame.colorspace
    if matrix == UNSAID:  # as players have it
        matrix = 1 if frame.height >= 720 else 6
    gray = len(parts) == 1
    if matrix not in MATRICES and not gray:
        raise VideoError(f"colour matrix {matrix} is not read: convert it to BT.709 first")
    full = name.startswith("yuvj") or frame.color_range == FULL_RANGE
    full |= gray and frame.color_range == 0  # as FFmpeg has it
    matrix = 6 if gray else matrix
    return Form(frame.width, frame.height, depth, gray, _shift(frame.format), full, matrix)


def _shift(format: Any) -> tuple[int, int]:
    """By how many bits a format's colour planes have fewer columns and rows than that of luma."""
    if len(format.components) == 1:
        return 0, 0
    sides = format.chroma_width(4096), format.chroma_height(4096)
    across, down = (round(math.log2(4096 / side)) for side in sides)
    return across, down


def _planes(frame: Any, form: Form) -> list[np.ndarray]:
    """The frame's planes, whole lines with what pads them, sharing its memory."""
    found = []
    for plane in frame.planes[: 1 if form.gray else 3]:
        samples = np.frombuffer(plane, form.dtype)
        found.append(samples.reshape(-1, plane.line_size // samples.itemsize))
    return found


def pixels_of(frame: Any) -> np.ndarray:
    """A decoded frame's R'G'B', (H, W, 3): uint8, or uint16 above 8 bits; VideoError if not
    read.
    """
    form = _form(frame, 0)
    return to_pixels(_planes(frame, form), form)


def _turned(pixels: np.ndarray, matrix: Sequence[int]) -> np.ndarray:
    """Pixels as a display matrix (nine integers) shows them, to the nearest quarter turn."""
    a, b, _, c, d = matrix[:5]
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


# --- times ----------------------------------------------------------------------------------------


class _Clock:
    """Times that go forward, whatever a file says; all in seconds or in units of a stream.

    Where a file is several put together, the times of all streams begin anew with each of them;
    they are moved on. A recording's start becomes 0. Of AVI and WMV, which know no times of
    presentation, those that readers make up are taken in order. A time that repeats or is missing
    becomes a later one.
    """

    def __init__(self, video: Any, rate: Fraction | None) -> None:
        self.recorded = video.format.name in RECORDED
        self.by_order = video.format.name in NO_TIMES
        start = Fraction(-(video.start_time or 0), 10**6) if self.recorded else Fraction(0)
        self.moves = [start]  # of each part of the file
        self.parts: dict[int, int] = collections.Counter()  # by stream, the part that it is in
        self.expected: dict[int, Fraction] = {}  # by stream, the time after the last packet
        self.each = 1 / rate if rate else Fraction(1, 25)  # of a frame without a duration
        self.waiting: list[int] = []  # times that no frame has taken yet
        self.early: int | None = None  # what readers add to the time of storage
        self.last: int | None = None

    def packet(self, packet: Any) -> None:
        """Correct the times of a packet, given in the file's order."""
        base, index = packet.time_base, packet.stream.index
        if (now := packet.dts) is not None:  # times of presentation go back and forth
            at = now * base + self.moves[self.parts[index]]
            behind = self.expected.get(index, at) - at
            if behind > Fraction(1, 10) or (self.recorded and -behind > GAP):
                self.parts[index] += 1  # streams get there one after the other
                if self.parts[index] == len(self.moves):
                    self.moves.append(self.moves[-1] + behind)
            lasts = packet.duration * base if packet.duration else self.each
            self.expected[index] = now * base + self.moves[self.parts[index]] + lasts
        shift = round(self.moves[self.parts[index]] / base)
        if packet.pts is not None:
            packet.pts += shift
        if packet.dts is not None:
            packet.dts += shift

    def decoding(self, packet: Any) -> None:
        """Note a packet of pictures."""
        if self.by_order and packet.size and packet.pts is not None:
            if self.early is None:
                self.early = packet.pts - packet.dts if packet.dts is not None else 0
            heapq.heappush(self.waiting, packet.pts - self.early)

    def frame(self, frame: Any, base: Fraction) -> None:
        """Correct the time of a frame, given in the order of presentation."""
        frame.time_base = base
        at = heapq.heappop(self.waiting) if self.by_order and self.waiting else frame.pts
        if self.last is not None:
            at = self.last + max(1, round(self.each / base)) if at is None else at
            at = max(at, self.last + 1)
        self.last = frame.pts = at or 0


# --- files ----------------------------------------------------------------------------------------


def is_video(path: str | os.PathLike) -> bool:
    """Whether a file's name says that it is a video."""
    return Path(path).suffix.lower() in (*SUFFIXES, *ONLY_READ)


def enhance_video(
    source: str | os.PathLike,
    target: str | os.PathLike,
    enhancer: Enhancer,
    *,
    steady: float = STEADY,
    progress: bool = False,
) -> Enhanced:
    """Enhance a video file, frame by frame, at their times (variable rates too) and size.

    Curves of a whole picture or of a reduced copy are steadied with the time constant ``steady`` in
    seconds (:class:`Steady`; 0 switches it off); a faithful network enhances every frame as a
    photograph, slowly and not steadied. Decoding, enhancing and encoding go on at the same time.

    Written in the container that the target's suffix says, by the source's codec where
    :data:`ENCODERS` has it and the container takes it, else by the container's usual one; with the
    source's sampling, depth, colour tags, title, date, place and camera. A turn is kept where the
    container can say it; elsewhere the pictures themselves are turned. Interlaced pictures become
    whole ones. Sound, subtitles, attachments and covers are copied without being decoded. What a
    container cannot hold is told in the result's notes, but for sound: without it nothing is
    written. Where a container has no times below zero, all streams may begin later by the same
    span. The file appears whole or not at all.

    Raises VideoError, one line, for what is no video, damaged or cut short, without a frame, of
    high dynamic range or stored in an unusual way (RGB, transparency), and when writing fails;
    ValueError for ``steady``.
    """
    source, target = Path(source), Path(target)
    curves = Steady(steady)
    if target.suffix.lower() not in SUFFIXES:
        written = f"videos are written as {', '.join(SUFFIXES)}"
        raise VideoError(f"{target}: {written}: name the output, or its format")
    container = SUFFIXES[target.suffix.lower()]
    try:
        with _reading(source) as video, atomic_write(target) as partial:
            job = _Job(video, partial, container, enhancer, curves)
            job.run(tqdm(desc=source.name, unit="frame", disable=not progress, leave=False))
    except OSError as error:
        raise VideoError(f"{target}: cannot be written: {error.strerror or error}") from error
    return Enhanced(job.frames, tuple(job.notes))


def _av() -> Any:
    """PyAV; None where it is not installed."""
    try:
        import av
    except ImportError:
        return None
    logging.getLogger("libav").setLevel(logging.CRITICAL)  # VideoError tells it in one line
    return av


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """The file, open for demuxing by one of the formats that are read.

    What goes wrong with it inside is told as a VideoError, one line that names the file.
    """
    av = _av()
    if av is None or numba is None:
        raise VideoError(f"{path}: {INSTALL}")
    try:
        with opened(path) as file:
            if not file.read(1):
                raise VideoError(f"{path}: empty")
        options = {"format_whitelist": READABLE}
        video = av.open(f"file:{path.absolute()}", container_options=options)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"{path}: no video ({', '.join(SUFFIXES)}), or damaged") from error
    try:
        with video:
            yield video
    except VideoError as error:
        raise VideoError(f"{path}: {error}") from error
    except (av.FFmpegError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"{path}: damaged or cut short: {reason}") from error


def _picture_stream(video: Any) -> Any:
    """The first stream of moving pictures; VideoError where there is none."""
    for stream in video.streams.video:
        cover = stream.disposition & type(stream.disposition).attached_pic
        if not cover and stream.codec_context is not None:
            return stream
    raise VideoError("holds no moving pictures")


class _Job:
    """One video: what is read, how it is written, and what became of it."""

    def __init__(
        self, video: Any, partial: Path, container: str, enhancer: Enhancer, steady: Steady
    ) -> None:
        self.video, self.partial, self.container = video, partial, container
        self.enhancer, self.steady = enhancer, steady
        self.pictures = _picture_stream(video)
        self.frames, self.notes, self.places, self.begun = 0, [], {}, set()
        self.weaving = None  # what makes interlaced frames whole
        self.even, self.shown, self.begin = None, None, 0  # unit of even times, last, first
        self.clock = _Clock(video, self.pictures.average_rate)
        context = self.pictures.codec_context
        self.transfer, self.before = context.color_trc, None
        context.thread_type, context.options = "AUTO", {"max_pixels": str(MAX_PIXELS)}
        if context.width * context.height > MAX_PIXELS:
            size, most = f"{context.width}×{context.height}", MAX_PIXELS // 10**6
            raise VideoError(f"frames of {size}: none above {most} megapixels is read")

    def run(self, bar: Any) -> None:
        """Read, enhance and write, each in a thread of its own."""
        bar.total = self.pictures.frames or None
        with bar, contextlib.ExitStack() as stages:
            decoded = stages.enter_context(_ahead(self._decoded()))
            first, waiting = next(decoded), []  # packets of other streams before the first frame
            while not hasattr(first, "planes"):
                waiting.append(first)
                first = next(decoded)
            self.form, matrix = _form(first, self.transfer), _display_matrix(first)
            self.turn = None if self.container in TURNING else matrix
            output = stages.enter_context(self._output(first))
            self._streams(output, first, None if self.turn else matrix)
            items = self._enhanced(itertools.chain(waiting, [first], decoded))
            for item in stages.enter_context(_ahead(items)):
                if hasattr(item, "planes"):
                    self._write(output, lambda item=item: self.written.encode(item))
                    self.frames += 1
                    bar.update()
                else:
                    self._write(output, lambda item=item: [item])
            self._write(output, lambda: self.written.encode(None))
            self._write(output, lambda: output.close() or [])
        self._compare_tags()

    # --- reading ---

    def _decoded(self) -> Iterator[Any]:
        """Packets of streams to copy and decoded frames, as they come, at times that go forward."""
        end, frames, damaged = Fraction(0), 0, 0
        for packet in self.video.demux():
            if packet.size == 0 and packet.dts is not None:
                continue  # of AVI: the frame before is shown for longer
            self.clock.packet(packet)
            if packet.is_corrupt and not self.clock.recorded:
                raise VideoError("damaged or cut short")
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream.index != self.pictures.index:
                if packet.size and not packet.is_corrupt:
                    yield packet
                continue
            found, lost = self._frames_of(packet)
            frames += len(found)
            damaged += lost if frames else 0  # before the first whole picture: what began before
            yield from self._whole(found, packet.size == 0)
        if not frames:
            raise VideoError("holds no frame")
        if damaged > 1 + MISSING * frames:
            raise VideoError(f"damaged: {damaged} of {frames + damaged} pictures cannot be read")
        if damaged:
            self.notes.append(f"{damaged} damaged pictures left out")
        stated = (self.video.duration or 0) / 1e6 + max(0.0, (self.video.start_time or 0) / 1e6)
        if not self.clock.recorded and end < stated - max(1.0, MISSING * stated):
            raise VideoError(f"cut short: ends after {float(end):.1f} s of {stated:.1f} s")

    def _frames_of(self, packet: Any) -> tuple[list[Any], int]:
        """The frames that a packet (an empty one: the end) gives, and how many are damaged."""
        self.clock.decoding(packet)
        try:
            frames = self.pictures.decode(packet if packet.size else None)
        except _av().FFmpegError:
            if not self.clock.recorded:
                raise
            return [], 1
        whole = [frame for frame in frames if not frame.is_corrupt]
        if len(whole) < len(frames) and not self.clock.recorded:
            raise VideoError("damaged")
        for frame in whole:
            self.clock.frame(frame, self.pictures.time_base)
        return whole, len(frames) - len(whole)

    def _whole(self, frames: Iterable[Any], last: bool) -> Iterator[Any]:
        """Interlaced frames as whole ones, at the same times; others as they are."""
        for frame in frames:
            if self.weaving is None and frame.interlaced_frame:
                self.notes.append("interlaced: written as whole pictures")
                self.weaving, self.times = _av().filter.Graph(), collections.deque()
                begin = self.weaving.add_buffer(template=self.pictures, format=frame.format.name)
                end = self.weaving.add("buffersink")
                weave = self.weaving.add("bwdif", "mode=send_frame:deint=interlaced")
                self.weaving.link_nodes(begin, weave, end).configure()
            if self.weaving is None:
                yield frame
            else:
                self.times.append(frame.pts)
                self.weaving.vpush(frame)
                yield from self._woven()
        if last and self.weaving is not None:
            self.weaving.vpush(None)
            yield from self._woven()

    def _woven(self) -> Iterator[Any]:
        """What the filter for interlaced frames has ready."""
        av = _av()
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                frame = self.weaving.vpull()
                frame.pts, frame.time_base = self.times.popleft(), self.pictures.time_base
                yield frame

    # --- enhancing ---

    def _enhanced(self, items: Iterable[Any]) -> Iterator[Any]:
        """Items in their order, frames enhanced, packets for the streams that they go to."""
        for item in items:
            if not hasattr(item, "planes"):
                if place := self.places.get(item.stream.index):
                    self._check_begin(item)
                    item.stream = place
                    yield item
                continue
            if (now := _form(item, self.transfer)) != self.form:
                before, after = (f"{f.width}×{f.height}, {f.depth} bits" for f in (self.form, now))
                raise VideoError(f"changes from {before} to {after} on the way, which is not read")
            yield self._frame(item)

    def _check_begin(self, packet: Any) -> None:
        """VideoError where sound begins later than the video, which an AVI cannot say."""
        if packet.stream.index not in self.begun and packet.pts is not None:
            self.begun.add(packet.stream.index)
            if self.container == "avi" and packet.pts * packet.time_base > LATE:
                raise VideoError(f"sound that begins later does not go into avi{OTHER}")

    def _frame(self, frame: Any) -> Any:
        """A frame, enhanced, as the encoder takes it, with all that came with it where it can."""
        same = frame.format.name == self.encoder.pix_fmt and not self.turn
        pixels, out, form = None, frame, self.form
        if self.enhancer.strength or not same:
            pixels = to_pixels(_planes(frame, form), form)
        if self.enhancer.strength:
            pixels = self._pixels(pixels, frame)
        if not same:
            out = _av().VideoFrame(self.encoder.width, self.encoder.height, self.encoder.pix_fmt)
            out.pts, out.time_base = frame.pts, frame.time_base
            for tag in ("duration", *TAGS):
                setattr(out, tag, getattr(frame, tag))
            depth, gray = out.format.components[0].bits, len(out.planes) == 1
            shape = out.width, out.height, depth, gray, _shift(out.format)
            form = Form(*shape, form.full, form.matrix)
            pixels = pixels if self.turn is None else _turned(pixels, self.turn)
            if form.dtype != self.form.dtype:  # an encoder of 8 bits
                pixels = np.uint8(pixels >> 8)
        elif pixels is not None:
            out.make_writable()
        if pixels is not None:
            from_pixels(pixels, _planes(out, form), form)
        out.pict_type = 0  # the encoder chooses its own key frames
        self._check_even(out)
        return out

    def _check_even(self, frame: Any) -> None:
        """VideoError where two frames would share a time, which encoder or container counts."""
        if self.even is not None:
            at = round(frame.pts * frame.time_base / self.even)
            missing = self.container == "vob" and self.shown is not None and at > self.shown + 1
            if at == self.shown or missing:  # a VOB does not say the time of every picture
                raise VideoError(f"uneven times do not go into {self.container}{OTHER}")
            if self.shown is None:  # an AVI begins with a picture, or readers lose count
                self.begin = at if self.container == "avi" and 0 < at <= 2 else 0
            self.shown, frame.pts, frame.time_base = at, at - self.begin, self.even

    def _pixels(self, pixels: np.ndarray, frame: Any) -> np.ndarray:
        """A frame's pixels (H, W, 3), enhanced by curves steadied over time."""
        engine, now = self.enhancer.engine, float(frame.pts * frame.time_base)
        curves = engine.curves(pixels)
        if curves is not None:
            factor = max(1, math.ceil(max(pixels.shape) / LOOKED_AT))
            small = engine.box_mean(engine.put(pixels), factor)[0].permute(1, 2, 0)
            passed = 0.0 if self.before is None else now - self.before
            self.before = now
            small = small.contiguous().numpy(force=True)
            curves = self.steady(curves.arrays(), small, passed)
        options = {"gamma": self.enhancer.gamma, "strength": self.enhancer.strength}
        return engine.render(pixels, curves, gray=self.form.gray, **options)

    # --- writing ---

    def _output(self, first: Any) -> Any:
        """The file to write, with what a container is told as a whole."""
        options = {}
        if self.container in ("mp4", "mov") and set(self.video.metadata) - MP4_TAGS - STRUCTURE:
            options["movflags"] = (
                "use_metadata_tags"  # keys of phones, such as com.apple.quicktime.*
            )
        if any(each.type.name == "SPHERICAL" for each in first.side_data):
            options["strict"] = "unofficial"  # 360° marks
        path = str(self.partial.absolute())
        output = _av().open(path, "w", format=self.container, container_options=options)
        output.metadata.update(self.video.metadata)
        output.set_chapters(self.video.chapters())
        return output

    def _write(self, output: Any, packets: Callable[[], Iterable[Any]]) -> None:
        try:
            output.mux(packets())
        except (_av().FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoError(f"cannot be written as {self.container}: {reason}{OTHER}") from error

    def _streams(self, output: Any, first: Any, matrix: tuple[int, ...] | None) -> None:
        """Streams of the output in the source's order: the one to encode to, and those to copy."""
        av, kinds = _av(), ["audio", "subtitle", "video"]
        kinds += ["attachment"] if self.container == "matroska" else []
        for stream in self.video.streams:
            made = None
            if stream.index == self.pictures.index:
                self.written = made = self._encoded_stream(output, first)
                if matrix:
                    made.set_display_matrix(matrix)
            elif stream.type in kinds and self._takes(stream):
                decoded = stream.codec_context is not None or None
                with contextlib.suppress(ValueError, av.FFmpegError):
                    made = output.add_stream_from_template(stream, opaque=decoded)
                    self.places[stream.index] = made
            if made is None:
                self._left_out(stream)
                continue
            made.metadata.update(stream.metadata)
            made.disposition = int(stream.disposition)

    def _takes(self, stream: Any) -> bool:
        if stream.type not in ("audio", "subtitle") or stream.codec_context is None:
            return True
        name = stream.codec_context.codec.canonical_name
        return name in TAKEN.get(self.container, name).split()

    def _left_out(self, stream: Any) -> None:
        """Say that a stream is not copied; VideoError for sound."""
        context = stream.codec_context
        name = context.name if context else stream.metadata.get("handler_name", "").strip()
        what = f"{stream.type} {stream.index}" + (f" ({name})" if name else "")
        if stream.type == "audio":
            raise VideoError(f"{what} does not go into {self.container}{OTHER}")
        self.notes.append(f"{what} left out: {self.container} does not take it")

    def _encoded_stream(self, output: Any, first: Any) -> Any:
        """The output's stream of pictures, its encoder open."""
        av, source = _av(), self.pictures.codec_context
        usual = USUAL.get(self.container, "h264")
        own, stream = source.codec.canonical_name, None
        keeps = own in ENCODERS and own in TAKEN.get(self.container, own).split()
        for codec in (own if keeps else usual, usual):
            name, options = ENCODERS[codec]
            with contextlib.suppress(ValueError):
                stream = self._new_stream(output, name)
                break
        if stream is None:
            raise VideoError(f"{codec} does not go into {self.container}{OTHER}")
        encoder = self.encoder = stream.codec_context
        encoder.extradata, encoder.bit_rate, encoder.field_order = None, 0, PROGRESSIVE
        across = self.turn is not None and abs(self.turn[1]) > abs(self.turn[0])
        size = (first.width, first.height)
        encoder.width, encoder.height = size[::-1] if across else size
        encoder.pix_fmt = _taken_format(encoder.codec, first.format)
        encoder.time_base = self.pictures.time_base
        rate = self.pictures.average_rate
        if rate:
            encoder.framerate = rate
        if self.container == "avi" or codec in EVEN_RATE:
            encoder.time_base = self.even = 1 / rate if rate else Fraction(1, 25)
        elif codec == "mpeg4" and encoder.time_base.denominator > 65535:
            encoder.time_base = Fraction(1, 30000)
        if aspect := source.sample_aspect_ratio:
            encoder.sample_aspect_ratio = 1 / aspect if across else aspect
        for tag in TAGS:
            setattr(encoder, tag, getattr(source, tag))
        if output.format.flags & av.format.Flags.global_header.value:
            encoder.flags |= av.codec.context.Flags.global_header.value
        if codec == "hevc" and self.container in ("mp4", "mov"):
            encoder.codec_tag = "hvc1"  # Apple's players know no other
        if self.container in NO_TIMES:
            options = {**options, "bf": "0"}
        encoder.options = dict(options)
        encoder.thread_type = "FRAME" if codec in ("h264", "ffv1") else "AUTO"
        encoder.thread_count = 0
        try:
            encoder.open()
        except (av.FFmpegError, ValueError) as error:
            what = f"{encoder.pix_fmt} of {encoder.width}×{encoder.height} at {rate} frames/s"
            raise VideoError(f"{name} does not take {what}{OTHER}") from error
        return stream

    def _new_stream(self, output: Any, name: str) -> Any:
        """A stream for an encoder; ValueError where the container does not take it.

        Where the source has the same, what describes it from outside comes with it (360° marks)."""
        av, source = _av(), self.pictures.codec_context
        with contextlib.suppress(av.codec.codec.UnknownCodecError):
            same = av.codec.Codec(source.codec.name, "w").name == name
            if same and not self.turn:
                return output.add_stream_from_template(self.pictures, opaque=False)
        return output.add_stream(name, rate=self.pictures.average_rate)

    def _compare_tags(self) -> None:
        """Note what of the source's description the written file does not say."""
        try:
            with _av().open(str(self.partial.absolute())) as written:
                kept = {key.lower() for key in written.metadata}
        except _av().FFmpegError:  # a stream of a few packets, by a name that does not say what
            return
        names = {key.lower(): key for key in self.video.metadata}
        lost = [names[key] for key in names if key not in kept | STRUCTURE]
        if lost:
            said = ", ".join(lost)
            self.notes.append(f"{self.container} does not keep: {said} (.mov and .mkv do)")


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    """Nine integers that say how a frame is turned or mirrored; None where it is shown as it is."""
    for each in frame.side_data:
        if each.type.name == "DISPLAYMATRIX":
            matrix = tuple(int(value) for value in np.frombuffer(each, np.int32))
            return matrix if matrix[:5] != UPRIGHT else None
    return None


def _taken_format(codec: Any, format: Any) -> str:
    """The format of pictures that an encoder takes in place of one: the same, or the nearest."""
    taken = [each.name for each in codec.video_formats or ()]
    if not taken or format.name in taken:
        return format.name
    sampling = "420" if _shift(format)[1] else "422" if _shift(format)[0] else "444"
    deep = format.components[0].bits > 8
    kinds = [f"yuv{s}p{'10le' if d else ''}" for d in {deep, False} for s in (sampling, "420")]
    return next((kind for kind in kinds if kind in taken), format.name)


@contextlib.contextmanager
def _ahead(items: Iterable[Item], most: int = AHEAD) -> Iterator[Iterator[Item]]:
    """``items``, worked out in a thread of their own that is at most ``most`` ahead.

    Its errors are raised here."""
    ready: queue.Queue = queue.Queue(most)
    stop = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None]) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(entry, timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:
            put((None, error))

    def taken() -> Iterator[Item]:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item

    thread = threading.Thread(target=work, name="zdce video", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stop.set()
        thread.join()

"""Photograph in, brighter photograph out: in memory, and for files and folders."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from zdce import checkpoints, fast, video, winograd
from zdce.files import content, shown, whole
from zdce.model import LUMA, CurveNet, apply_curves
from zdce.photos import (
    MAX_BYTES,
    SUFFIXES,
    Photo,
    PhotoError,
    from_pil,
    read_photo,
    to_pil,
    to_pixels,
    write_photo,
)
from zdce.postprocess import apply_gamma, blend, check_gamma, check_strength, gamma_table

SPEEDS = ("faithful", "fast")
LARGE = 2**25  # pixels of a photograph during which no other is read ahead, so that memory stays bounded


class Enhancer:
    """Brightens photographs with one network.

    model: a name of ``zdce.checkpoints.MODELS``. weights: a weight file (``.safetensors``, ``.pth``, ``.pt``) in its
    place. gamma: post-processing on the rounded image; None takes the model's own (1.15 for the improved network,
    else 1, which does nothing). strength in [0, 1]: mix with the original, applied last. device: "cpu", "cuda", or
    "auto" for a GPU where there is one.

    speed: "faithful" shows the network every pixel, in tiles that overlap exactly; "fast" shows it a copy reduced to
    80 pixels, brings its curves back bilinearly and bends 8-bit pixels in one pass (fastest with the extra ``fast``).
    Either way memory beyond the photograph and its result is bounded. bf16: whether the network computes 8-bit
    photographs in bfloat16 (results within one grey level, but for one pixel in a hundred); None where that is
    faster: where the processor has it, and the extra ``fast`` is not installed.
    Results do not depend on the number of threads. Raises ValueError naming the argument.
    """

    def __init__(
        self,
        model: str = checkpoints.DEFAULT,
        *,
        weights: str | os.PathLike | None = None,
        gamma: float | None = None,
        strength: float = 1.0,
        device: str = "auto",
        speed: str = "faithful",
        bf16: bool | None = None,
    ) -> None:
        if speed not in SPEEDS:
            raise ValueError(f"speed={speed!r}: choose {' or '.join(SPEEDS)}")
        if gamma is not None:
            check_gamma(gamma)
        check_strength(strength)
        self.options = {"model": model, "weights": weights and os.fspath(weights), "gamma": gamma}
        self.options |= {"strength": strength, "device": device, "speed": speed, "bf16": bf16}
        self.device = _device(device)
        self.model = checkpoints.load(model if weights is None else weights)
        self.net = self.model.net.to(self.device).eval()
        self.gamma = self.model.gamma if gamma is None else gamma
        self.strength = strength
        self.speed = speed
        if speed == "fast" and not isinstance(self.net, CurveNet):
            raise ValueError(f"speed='fast': {self.net.__class__.__name__} has no curves to estimate on a reduced copy")
        slow = self.device.type == "cpu" and not winograd.can_run(self.net)
        self.bf16 = slow and fast.has_bf16() if bf16 is None else bf16
        self._packed: dict[bool, winograd.Winograd | fast.Packed | None] = {}

    def __call__(self, photo):
        """The enhanced photograph, of the kind, size and depth of ``photo``.

        photo: a Pillow image; a :class:`Photo`; an array (H, W, 3) uint8, uint16, or float in [0, 1]; a float
        tensor (3, H, W) or (N, 3, H, W) in [0, 1]. Floats are not rounded before gamma. Alpha is untouched and
        grey stays grey (BT.601 luma of the enhanced colours). A Pillow image comes back in its own mode, except
        that palette, 1-bit and CMYK, which cannot hold the new colours, become RGB, L or LA/RGBA. Raises TypeError
        or ValueError for anything else, PhotoError for a Pillow mode that is not read.
        """
        if isinstance(photo, Image.Image):
            return self._image(photo)
        if isinstance(photo, Photo):
            return replace(photo, pixels=self._levels(photo.pixels, photo.gray))
        if isinstance(photo, np.ndarray):
            return self._array(photo)
        if isinstance(photo, Tensor):
            return self._tensor(photo)
        raise TypeError(f"photo is a {type(photo).__name__}: give a Pillow image, an array or a tensor")

    def _image(self, image: Image.Image) -> Image.Image:
        enhanced = to_pil(self(from_pil(image)))
        if image.mode in ("I", "La", "RGBa", "RGBX", "YCbCr"):
            enhanced = enhanced.convert(image.mode)
        dropped = {"transparency"} if image.mode != enhanced.mode or "A" in enhanced.getbands() else set()
        dropped |= {"icc_profile"} if image.mode == "CMYK" else set()
        enhanced.info |= {key: value for key, value in image.info.items() if key not in dropped}
        return enhanced

    def _array(self, array: np.ndarray) -> np.ndarray:
        if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise ValueError(f"photo has shape {array.shape}: give (H, W, 3), or a Pillow image")
        if array.dtype in (np.uint8, np.uint16):
            return self._levels(array)
        if array.dtype.kind != "f":
            raise ValueError(f"photo is {array.dtype}: give uint8, uint16, or float in [0, 1]")
        tensor = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1), dtype=np.float32))
        enhanced = self._tensor(tensor).numpy().transpose(1, 2, 0).astype(array.dtype)
        return blend(array, array, 0) if self.strength == 0 else np.ascontiguousarray(enhanced)

    def _tensor(self, tensor: Tensor) -> Tensor:
        if tensor.ndim not in (3, 4) or tensor.shape[-3] != 3 or 0 in tensor.shape:
            raise ValueError(f"photo has shape {tuple(tensor.shape)}: give (3, H, W) or (N, 3, H, W)")
        if not tensor.is_floating_point():
            raise ValueError(f"photo is {tensor.dtype}: give floats in [0, 1]")
        if not (tensor.min() >= 0 and tensor.max() <= 1):
            raise ValueError(f"photo has values {tensor.min():g} – {tensor.max():g}: floats must lie in [0, 1]")
        if self.strength == 0:
            return tensor.clone()
        original = tensor.detach().reshape(-1, *tensor.shape[-3:])
        enhanced = torch.cat([self._enhanced(one[None].float()) for one in original])
        enhanced = enhanced.to(tensor.device).clamp_(0, 1).pow_(self.gamma)
        mixed = torch.lerp(original.float(), enhanced, float(self.strength))
        return mixed.reshape(tensor.shape).to(tensor.dtype)

    def _levels(self, pixels: np.ndarray, gray: bool = False) -> np.ndarray:
        """(H, W, 3) uint8 or uint16, enhanced: network, rounding, gamma, mix."""
        if self.strength == 0:
            return pixels.copy()
        pixels = np.require(pixels, requirements=["C", "W"])
        grid = self._grid(pixels)
        eight_bits = pixels.dtype == np.uint8 and not gray
        if eight_bits and fast.numba and (grid is not None or self._in_one_pass()):
            table = None if self.gamma == 1 else gamma_table(self.gamma)
            out = fast.bend(pixels, grid, table) if grid else self._finished(pixels, table)
            if self.strength == 1:
                return out

            def finished(tile: fast.Tile) -> np.ndarray:
                return blend(pixels[tile.rows, tile.columns], out[tile.rows, tile.columns], self.strength)
        else:
            enhanced, out = self._by_tile(pixels, grid), np.empty_like(pixels)

            def finished(tile: fast.Tile) -> np.ndarray:
                image = enhanced(tile)
                if gray:
                    image = (image * image.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)
                    image = image.expand(-1, 3, -1, -1)
                part = apply_gamma(to_pixels(image, pixels.dtype), self.gamma)
                return blend(pixels[tile.rows, tile.columns], part, self.strength)

        def fill(tile: fast.Tile) -> None:
            out[tile.rows, tile.columns] = finished(tile)

        fast.parallel(fill, self._tiles(*pixels.shape[:2]))
        return out

    def _in_one_pass(self) -> bool:
        """Whether the network goes from 8 bits to 8 bits by itself."""
        ready = self._ready(np.dtype(np.uint8))
        return fast.plain(self.net) and isinstance(ready, winograd.Winograd) and ready.in_one_pass

    def _finished(self, pixels: np.ndarray, table: np.ndarray | None) -> np.ndarray:
        """The network as machine code on (H, W, 3) uint8, tile by tile; rounded, and through the table."""
        ready, out = self._ready(pixels.dtype), np.empty_like(pixels)
        parts = self._tiles(*pixels.shape[:2])
        fast.parallel(lambda tile: ready.finish(pixels, out, tile.rows, tile.columns, table), parts)
        return out

    def _enhanced(self, image: Tensor) -> Tensor:
        """Network on (1, 3, H, W) float32 in [0, 1]; same shape, on the CPU."""
        pixels = image[0].permute(1, 2, 0).cpu().numpy()
        enhanced = self._by_tile(pixels, self._grid(pixels))
        out = torch.empty(image.shape)

        def fill(tile: fast.Tile) -> None:
            out[..., tile.rows, tile.columns] = enhanced(tile)

        fast.parallel(fill, self._tiles(*pixels.shape[:2]))
        return out

    def _tiles(self, height: int, width: int) -> list[fast.Tile]:
        halo = fast.halo(self.net, self.speed == "fast" or fast.reduces(self.net))
        if halo is None:
            return list(fast.tiles(height, width, 0, (height, width)))  # a network that wants the whole photograph
        return list(fast.tiles(height, width, halo, fast.TILE if self.device.type == "cpu" else (1024, 1024)))

    @torch.inference_mode()
    def _grid(self, pixels: np.ndarray) -> fast.Grid | None:
        """Curves on a coarse grid; None when the network is to see every pixel."""
        if self.speed == "faithful" and not fast.reduces(self.net):
            return None
        return fast.estimated(self.net, pixels, self._ready(pixels.dtype), self.speed == "fast")

    def _by_tile(self, pixels: np.ndarray, grid: fast.Grid | None) -> Callable[[fast.Tile], Tensor]:
        """What enhances one tile of ``pixels``: (1, 3, h, w) float32 in [0, 1], on the CPU."""
        height, width = pixels.shape[:2]
        packed = self._ready(pixels.dtype) if fast.plain(self.net) and not grid else None

        @torch.inference_mode()
        def enhanced(tile: fast.Tile) -> Tensor:
            if grid:
                if grid.noise is None:
                    image = fast.scaled(pixels[tile.rows, tile.columns]).contiguous()
                else:
                    image = fast.scaled(pixels[tile.seen_rows, tile.seen_columns]).contiguous()
                    image = fast.denoised(image, grid, tile, height, width)[(..., *tile.inside)].contiguous()
                return fast.applied(image, grid, tile, height, width)
            machine_code = isinstance(packed, winograd.Winograd)
            if machine_code:
                tile = replace(tile, **packed.window(tile.rows, tile.columns, height, width))
            image = fast.scaled(pixels[tile.seen_rows, tile.seen_columns])
            inside = (..., *tile.inside)
            if machine_code:
                curves = packed.curves(image)[inside].contiguous()
                return apply_curves(image[inside].contiguous(), curves, self.net.config.iterations)
            if packed:
                return fast.bent(image[inside].contiguous(), packed.raw(image)[inside], self.net.config.iterations)
            return self.net(image.contiguous().to(self.device))[0][inside].cpu()

        return enhanced

    def _ready(self, dtype: np.dtype) -> winograd.Winograd | fast.Packed | None:
        """The network made ready for photographs of this kind; None where it is used as it is."""
        half = self.bf16 and dtype == np.uint8
        if half not in self._packed:
            self._packed[half] = fast.ready(self.net, half)
        return self._packed[half]


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={name!r}: choose auto, cpu or cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("device='cuda': no CUDA GPU is available here; choose cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@dataclass
class Outcome:
    """What became of :func:`enhance_files`: the files written, (source, reason) of those that failed, and the files
    that were there already."""

    written: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)

    def fail(self, source: Path, reason: str) -> None:
        """Note a failure and say so on stderr."""
        self.failed.append((source, reason))
        tqdm.write(shown(reason), file=sys.stderr)


def enhance_files(
    sources: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    enhancer: Enhancer,
    *,
    progress: bool = True,
    skip_done: bool = False,
    scheduler: str | None = None,
    video_speed: str | None = None,
) -> Outcome:
    """Enhance files, and folders with all that lies below them, into ``out``; format, name and place are kept.

    sources: files with a video suffix are videos, others are taken as photographs whatever their name; in folders,
    those with a photo or video suffix, hidden ones left out. out: a folder, created if need be; or a file name when
    the one source is a file and ``out`` has a suffix of the same kind.
    skip_done: leave photographs alone whose output is there and not older than they. scheduler: address of a Dask
    cluster that enhances instead; its workers need this package and the weights, but no folder shared with this
    machine. While one photograph is enhanced, the next is read and the one before written; large ones go alone.
    Videos follow the photographs, on this machine, one after another (:func:`zdce.video.enhance_video`), at
    ``video_speed``: "fast" unless told otherwise, or "faithful" where a network has no curves to estimate small.

    A photograph or video that fails gives one line on stderr, the rest is still done, and the outcome lists it. An
    output of an earlier run is replaced, an input never: ValueError, before anything is written, when an output would
    fall on an input, when two sources would share an output, and when there is no source. Source: ours.
    """
    sources, out = [Path(source) for source in sources], Path(out)
    outcome = Outcome()
    jobs = _plan(sources, out, outcome)
    for _, reason in outcome.failed:
        tqdm.write(shown(reason), file=sys.stderr)
    if skip_done:
        outcome.skipped = [target for source, target in jobs if _is_done(source, target)]
        jobs = [(source, target) for source, target in jobs if not _is_done(source, target)]
    videos = [job for job in jobs if video.is_video(job[0])]
    jobs = [job for job in jobs if not video.is_video(job[0])]
    with tqdm(total=len(jobs), desc="enhance", unit="photo", disable=not (progress and jobs)) as bar:
        run = _here if scheduler is None else functools.partial(_cluster, scheduler=scheduler)
        for source, target, reason in run(jobs, enhancer) if jobs else ():
            if reason is None:
                outcome.written.append(target)
            else:
                outcome.fail(source, reason)
            bar.update()
    for source, target, reason in _videos(videos, enhancer, video_speed, progress):
        if reason is None:
            outcome.written.append(target)
        else:
            outcome.fail(source, reason)
    return outcome


Job = tuple[Path, Path]  # source, target


def _here(jobs: list[Job], enhancer: Enhancer) -> Iterator[tuple[Path, Path, str | None]]:
    """(source, target, why it failed or None) in order; reading and writing go on beside the network."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming = reader.submit(read_photo, jobs[0][0]) if jobs else None
        writing: tuple[Job, Future] | None = None

        def written() -> Iterator[tuple[Path, Path, str | None]]:
            if writing:
                yield (*writing[0], _reason(writing[0][0], writing[1]))

        for job, after in zip(jobs, [*jobs[1:], None], strict=True):
            reading, coming = coming, None
            large = reading.exception() is None and reading.result().pixels.size > 3 * LARGE
            if after and not large:
                coming = reader.submit(read_photo, after[0])
            enhanced: Future = Future()
            try:
                enhanced.set_result(enhancer(reading.result()))
            except FAILURES as error:
                enhanced.set_exception(error)
            del reading
            yield from written()
            failed = enhanced.exception() is not None
            writing = (job, enhanced if failed else writer.submit(write_photo, enhanced.result(), job[1]))
            del enhanced
            if large:
                yield from written()
                writing = None
            if after and large:
                coming = reader.submit(read_photo, after[0])
        yield from written()


def _videos(
    jobs: list[Job], enhancer: Enhancer, speed: str | None, progress: bool
) -> Iterator[tuple[Path, Path, str | None]]:
    """As :func:`_here`, for videos."""
    if jobs:
        speed = speed or ("fast" if isinstance(enhancer.net, CurveNet) else "faithful")
        if speed != enhancer.speed:
            enhancer = Enhancer(**enhancer.options | {"speed": speed})
    for source, target in jobs:
        done: Future = Future()
        try:
            done.set_result(video.enhance_video(source, target, enhancer, progress=progress))
        except FAILURES as error:
            done.set_exception(error)
        yield source, target, _reason(source, done)


FAILURES = (PhotoError, MemoryError, RuntimeError)  # RuntimeError: out of memory, in torch


def _reason(source: Path, done: Future) -> str | None:
    """Why it failed, None if it did not; what is no fault of a photograph is raised."""
    error = done.exception()
    if error is None:
        return None
    if not isinstance(error, FAILURES):
        raise error
    return str(error) if isinstance(error, PhotoError) else f"{source}: {_first_line(error)}"


def _is_done(source: Path, target: Path) -> bool:
    try:
        return target.stat().st_mtime_ns >= source.stat().st_mtime_ns
    except OSError:
        return False


def _cluster(jobs: list[Job], enhancer: Enhancer, scheduler: str) -> Iterator[tuple[Path, Path, str | None]]:
    """As :func:`_here`, on the workers of a Dask cluster: file contents go there, and come back."""
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise ValueError('--scheduler needs Dask: pip install "zdce[cluster]"') from None
    waiting = iter(jobs)
    with Client(scheduler) as client:
        most = 2 * max(1, sum(client.nthreads().values()))  # photographs on their way at a time
        running, done = {}, as_completed()

        def more() -> Iterator[tuple[Path, Path, str | None]]:
            """Submit one more; those that cannot be read are yielded instead."""
            for source, target in waiting:
                try:
                    data = content(source, MAX_BYTES)
                except OSError as error:
                    yield source, target, f"{source}: cannot be read: {error.strerror or error}"
                    continue
                future = client.submit(
                    _on_worker, source.name, target.name, data, enhancer.options, pure=False, retries=1
                )
                running[future] = (source, target)
                done.add(future)
                return

        for _ in range(most):
            yield from more()
        if not running:
            return
        for future in done:
            source, target = running.pop(future)
            reason = None
            if future.status != "finished":
                reason = f"{source}: {_first_line(future.exception())}"
            else:
                data, reason = future.result()
                reason = _kept(data, target) if reason is None else f"{source}: {reason}"
            future.release()
            yield source, target, reason
            yield from more()


def _kept(data: bytes, target: Path) -> str | None:
    """Write what a worker made, whole or not at all; why that failed, or None."""
    try:
        with whole(target) as partial:
            partial.write_bytes(data)
    except OSError as error:
        return f"{target}: cannot be written: {error.strerror or error}"
    return None


def _on_worker(source: str, target: str, data: bytes, options: dict) -> tuple[bytes, str | None]:
    """On a worker of the cluster: a file's content → the enhanced file's content, and why it failed or None."""
    enhancer = _enhancer(tuple(sorted(options.items())))
    with tempfile.TemporaryDirectory(prefix="zdce-") as folder:
        before, after = Path(folder) / "in" / source, Path(folder) / "out" / target
        before.parent.mkdir()
        before.write_bytes(data)
        try:
            write_photo(enhancer(read_photo(before)), after)
        except FAILURES as error:
            return b"", _first_line(error).replace(f"{before}: ", "").replace(f"{after}: ", "")
        return after.read_bytes(), None


@functools.lru_cache(maxsize=2)
def _enhancer(options: tuple) -> Enhancer:
    return Enhancer(**dict(options))


def _plan(sources: list[Path], out: Path, outcome: Outcome) -> list[tuple[Path, Path]]:
    """(source, target) of all there is to do; folders without a photograph go to ``outcome.failed``."""
    known = (*SUFFIXES, *video.SUFFIXES)
    to_file = out.suffix.lower() in known and not out.is_dir()
    if not sources:
        raise ValueError("sources: name at least one photograph, video or folder")
    if to_file and (len(sources) > 1 or sources[0].is_dir()):
        raise ValueError(f"out={out}: a file name goes with a single photograph or video; name a folder for more")
    if out.exists() and not out.is_dir() and not to_file:
        raise ValueError(f"out={out}: is a file without a photo suffix; name a folder, a photo or a video file")
    jobs: dict[Path, Path] = {}  # by target
    for source in sources:
        unread: list[OSError] = []
        pairs = [(source, out)] if to_file else list(_targets(source, out, unread))
        for error in unread:
            outcome.failed.append((Path(error.filename), f"{error.filename}: cannot be read: {error.strerror}"))
        if not pairs and not unread:
            outcome.failed.append((source, f"{source}: holds no photographs or videos ({', '.join(known)})"))
        for path, target in pairs:
            owner = jobs.setdefault(target, path)
            if not _same(owner, path):
                raise ValueError(f"{owner} and {path} would both be written to {target}: enhance them apart")
    inputs = {_identity(path): path for path in jobs.values()}
    for target in jobs:
        if _identity(target) in inputs:
            raise ValueError(f"out={out}: would overwrite the input {inputs[_identity(target)]}; name another folder")
    return [(path, target) for target, path in jobs.items()]


def _targets(source: Path, out: Path, unread: list[OSError]) -> Iterator[tuple[Path, Path]]:
    """(file, its place below ``out``) for a file or a folder; results of an earlier run inside it are left out.

    Folders that cannot be read go to ``unread``."""
    if not source.is_dir():
        yield source, out / source.name
        return
    for folder, folders, names in os.walk(source, onerror=unread.append):
        here = Path(folder)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and not _same(here / n, out))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in (*SUFFIXES, *video.SUFFIXES):
                yield here / name, out / (here / name).relative_to(source)


def _same(one: Path, other: Path) -> bool:
    return _identity(one) == _identity(other)


def _identity(path: Path) -> tuple[int, int] | Path:
    """Equal for two names of one file."""
    try:
        stat = path.stat()
    except OSError:
        return path.absolute()
    return stat.st_dev, stat.st_ino


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__

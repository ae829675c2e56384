"""Parts of a photograph, and threads that compute them."""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

TILE = (512, 320)  # rows and columns: what a network needs for them stays near the processor
TILE_CUDA = (2048, 2048)  # memory for one network's features, and enough work for a GPU

Item, Result = TypeVar("Item"), TypeVar("Result")


def parallel(call: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """``call`` on every item, on as many threads as torch would use (``torch.set_num_threads``).

    Results are in order. Each thread computes alone: with several pieces of work that is faster
    than several threads on one piece, and where other programs keep the processor busy nobody waits
    for a thread that does not run.
    """
    items, count = list(items), torch.get_num_threads()
    if count == 1 or len(items) == 1:
        return [call(item) for item in items]
    return list(_pool(count, os.getpid()).map(call, items))


@functools.lru_cache
def _pool(count: int, _process: int) -> ThreadPoolExecutor:
    started = threading.Barrier(count + 1)

    def compute_alone() -> None:
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, "zdce", compute_alone)
    for _ in range(count):
        pool.submit(int)  # none is idle before all have started, so that each call starts a thread
    started.wait()
    torch.set_num_threads(count)  # what a thread sets is also the start value of threads made later
    return pool


@dataclass(frozen=True)
class Tile:
    """A part of a photograph.

    rows, columns: what is to be computed; seen_rows, seen_columns: what is needed for it, at least
    ``halo`` pixels more on each side that is no border of the photograph.
    """

    rows: slice
    columns: slice
    seen_rows: slice
    seen_columns: slice

    @property
    def inside(self) -> tuple[slice, slice]:
        """Where the tile lies in what is seen."""
        top, left = self.seen_rows.start, self.seen_columns.start
        return (
            slice(self.rows.start - top, self.rows.stop - top),
            slice(self.columns.start - left, self.columns.stop - left),
        )


def tiles(
    height: int, width: int, halo: int, size: tuple[int, int] | None = None, block: int = 1
) -> Iterator[Tile]:
    """Tiles that cover height × width pixels, none larger than ``size`` (default: :data:`TILE`).

    They depend on the size alone, never on the number of threads, and the network sees every one at
    the same height and width, so that all are computed in the same way; or, with ``block``, they
    and what they see begin at multiples of it (and ``halo``, counted in pixels, is one as well).
    """
    sides = zip((height, width), size or TILE, strict=True)
    down, across = ([*_spans(side, most, halo, block)] for side, most in sides)
    for rows, seen_rows in down:
        for columns, seen_columns in across:
            yield Tile(rows, columns, seen_rows, seen_columns)


def _spans(side: int, most: int, halo: int, block: int) -> Iterator[tuple[slice, slice]]:
    each = math.ceil(side / math.ceil(side / most))
    each += -each % block
    seen = min(side, each + 2 * halo)
    for start in range(0, side, each):
        part = slice(start, min(start + each, side))
        first = min(max(0, start - halo), side - seen)
        if block > 1:
            yield part, slice(max(0, start - halo), min(side, part.stop + halo))
        else:
            yield part, slice(first, first + seen)

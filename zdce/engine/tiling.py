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
    pool = ThreadPoolExecutor(count, "zdce", torch.set_num_threads, (1,))
    started = threading.Barrier(count)
    list(pool.map(lambda _: started.wait(), range(count)))  # so that all threads are there
    torch.set_num_threads(count)  # what a thread sets is also the start value of threads made later
    return pool


@dataclass(frozen=True)
class Tile:
    """A part of a photograph: rows and columns that are to be computed, and those that are seen
    for it, at least ``halo`` pixels more on each side that is no border of the photograph.
    """

    rows: slice
    columns: slice
    seen_rows: slice
    seen_columns: slice

    @property
    def inside(self) -> tuple[slice, slice]:
        """Where the tile lies in what is seen."""
        parts = (self.rows, self.seen_rows), (self.columns, self.seen_columns)
        return tuple(slice(x.start - seen.start, x.stop - seen.start) for x, seen in parts)


def tiles(
    height: int, width: int, halo: int, size: tuple[int, int], block: int = 1
) -> Iterator[Tile]:
    """Tiles that cover height × width pixels, none larger than ``size``.

    They depend on the size alone, never on the number of threads, and the network sees every one at
    the same height and width, so that all are computed in the same way; or, with ``block``, they
    and what they see begin at multiples of it (and ``halo``, counted in pixels, is one as well).
    """
    down, across = (
        [*_spans(*sides, halo, block)] for sides in zip((height, width), size, strict=True)
    )
    for rows, seen_rows in down:
        for columns, seen_columns in across:
            yield Tile(rows, columns, seen_rows, seen_columns)


def _spans(side: int, most: int, halo: int, block: int) -> Iterator[tuple[slice, slice]]:
    each = math.ceil(side / math.ceil(side / most))
    each += -each % block
    seen = min(side, each + 2 * halo)
    for start in range(0, side, each):
        part, first = slice(start, min(start + each, side)), max(0, start - halo)
        if block > 1:
            yield part, slice(first, min(side, part.stop + halo))
        else:
            first = min(first, side - seen)
            yield part, slice(first, first + seen)

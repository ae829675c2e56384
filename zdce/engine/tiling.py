"""Parts of a photograph, and threads that compute them."""

import functools
import itertools
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
    """``call`` on every item, in order, on as many threads as ``torch.get_num_threads()``.

    Each computes alone: on a busy processor nobody waits for a thread that does not run.
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
    """Rows and columns of a photograph that are to be computed, and those that are seen for it."""

    part: tuple[slice, slice]
    seen: tuple[slice, slice]

    @property
    def inside(self) -> tuple[slice, slice]:
        """Where the part lies in what is seen."""
        both = zip(self.part, self.seen, strict=True)
        return tuple(slice(x.start - seen.start, x.stop - seen.start) for x, seen in both)


def tiles(height: int, width: int, halo: int, size: tuple[int, int], block: int = 1) -> list[Tile]:
    """Tiles that cover height × width pixels, none larger than ``size``, seen with ``halo`` pixels
    around, whatever the number of threads.

    All are seen at one height and width, so that they are computed in the same way; or, with
    ``block``, they and what they see begin at multiples of it, as does ``halo``.
    """
    spans = [_spans(*sides, halo, block) for sides in ((height, size[0]), (width, size[1]))]
    return [Tile(*zip(*both, strict=True)) for both in itertools.product(*spans)]


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

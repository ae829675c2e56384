"""Properties of the enhancer that hold for whatever goes in: size, kind, range, identity, tiles."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zdce.engine import reference, winograd
from zdce.enhance import Enhancer
from zdce.folders import enhance_files
from zdce.photos import Photo, read_photo, write_photo


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    kind=st.sampled_from(
        ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "YCbCr", "RGBX", "I;16", "uint16", "float32"]
    ),
    strength=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_whatever_goes_in_comes_out_in_kind_and_in_range(height, width, kind, strength, seed):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    deep = values.astype(np.uint16) * 257
    arrays = {"uint16": deep, "float32": values.astype(np.float32) / 255}
    given = Image.fromarray(deep[..., 0].copy() if kind == "I;16" else values)
    given = arrays[kind] if kind in arrays else given if kind == "I;16" else given.convert(kind)
    kept, after = np.array(given), Enhancer(strength=strength)(given)
    assert np.array_equal(given, kept)
    if kind not in arrays:
        assert after.mode == {"P": "RGB", "1": "L", "CMYK": "RGB"}.get(kind, kind)
        kept, after = np.asarray(given.convert(after.mode)), np.asarray(after)
    assert after.shape == kept.shape and after.dtype == kept.dtype
    assert after.min() >= 0 and after.max() <= (1 if kind == "float32" else 65_535)
    if kind in ("RGBA", "LA"):
        assert np.array_equal(after[..., -1], kept[..., -1])
    assert strength or kind in ("CMYK", "YCbCr") or np.array_equal(after, kept)


# Kinds of files, and suffixes that hold them without loss.
KINDS = ("RGB", "L", "RGBA", "LA", "deep RGB", "deep L", "deep RGBA", "deep LA")
FILES = [(kind, suffix) for kind in KINDS for suffix in (".png", ".tif")]
FILES += [("RGB", ".bmp"), ("L", ".bmp")]


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    kind=st.sampled_from(FILES),
    strength=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_file_comes_out_in_its_kind_depth_and_size(height, width, kind, strength, seed):
    (mode, suffix), rng = kind, np.random.default_rng(seed)
    depth = np.uint16 if mode.startswith("deep") else np.uint8

    def values(*more: int) -> np.ndarray:
        return rng.integers(0, np.iinfo(depth).max + 1, (height, width, *more), depth)

    gray = "L" in mode
    pixels = np.repeat(values(1), 3, axis=2) if gray else values(3)
    photo = Photo(pixels, values() if mode.endswith("A") else None, gray)
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / f"in{suffix}", Path(folder) / "out" / f"in{suffix}"
        write_photo(photo, before)
        outcome = enhance_files([before], after.parent, Enhancer(strength=strength))
        assert outcome.written == [after] and not outcome.failed
        made = read_photo(after)
    assert made.pixels.shape == pixels.shape and made.pixels.dtype == depth and made.gray == gray
    assert np.array_equal(made.alpha, photo.alpha) if mode.endswith("A") else made.alpha is None
    assert strength or np.array_equal(made.pixels, pixels)


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    speed=st.sampled_from(["faithful", "fast"]),
    model=st.sampled_from(["zero-dce-improved", "auto"]),
    depth=st.sampled_from([np.uint8, np.uint16]),
    strength=st.sampled_from([1.0, 0.4]),
    seed=st.integers(0, 99),
)
def test_tiles_of_any_size_change_nothing(height, width, tile, speed, model, depth, strength, seed):
    photo = np.random.default_rng(seed).integers(
        0, np.iinfo(depth).max + 1, (height, width, 3), depth
    )
    enhancer = Enhancer(model, speed=speed, strength=strength)
    whole = enhancer(photo)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "TILE", tile)
        tiled = enhancer(photo)
    if winograd.numba and (depth == np.uint8 or model == "zero-dce-improved"):
        assert np.array_equal(tiled, whole)
    else:  # the last bits of floating-point sums, of 65,535 in 16 bits
        assert np.abs(tiled.astype(int) - whole).max() <= (1 if depth == np.uint8 else 2)

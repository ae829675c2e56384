"""Engines: the same pixels from each of them, whatever the parts, the threads and the sizes."""

import numpy as np
import pytest
import torch
from pictures import dark, trained
from torch.utils._python_dispatch import TorchDispatchMode

from zdce import checkpoints, engine
from zdce.auto import AutoCurve
from zdce.engine import Compiled, Reference, compiled, reference, tiling

needs_numba = pytest.mark.skipif(compiled.numba is None, reason="numba is not installed")
KINDS = (np.uint8, np.uint16, np.float32)


def pixels_of(height, width, kind):
    pixels = dark(height, width, dtype=np.uint16 if kind == np.uint16 else np.uint8)
    return (pixels / 255).astype(np.float32) if kind == np.float32 else pixels


def apart(quick, exact):
    """Distances in grey levels of 255."""
    unit = {"uint8": 1, "uint16": 257, "float32": 1 / 255}[str(exact.dtype)]
    assert quick.dtype == exact.dtype and quick.shape == exact.shape
    return np.abs(quick.astype(float) - exact) / unit


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (64, 64), (100, 33)])
def test_tiles_cover_every_pixel_once_and_see_enough_at_one_size(size):
    seen, count = set(), np.zeros(size, int)
    for tile in tiling.tiles(*size, 3, (16, 20)):
        count[tile.part] += 1
        seen.add(count[tile.seen].shape)
        for part, around, side in zip(tile.part, tile.seen, size, strict=True):
            assert around.start <= max(0, part.start - 3)
            assert around.stop >= min(side, part.stop + 3)
        assert count[tile.seen][tile.inside].shape == count[tile.part].shape
    assert (count == 1).all() and len(seen) == 1


class Moves(TorchDispatchMode, list):
    """What is copied from device to device; fails where anything else mixes them."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        each = [x for x in (*args, result) if isinstance(x, torch.Tensor) and x.ndim]
        if len({x.device for x in each}) > 1:
            assert function._schema.name in ("aten::to", "aten::_to_copy"), function
            self.append((str(result.device), result.dtype, result.shape))
        return result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["full", "half", "reduced", "auto"])
def test_pixels_go_to_the_device_once_as_they_are_and_nothing_else_moves(kind, way):
    """To the device "meta", which has no values: whatever asked for one would fail."""
    precision = torch.float16 if way == "half" else torch.float32
    net = AutoCurve() if way == "auto" else trained()
    one = Reference(net, "meta", reduced=way == "reduced", precision=precision)
    reference._table(1.15, getattr(torch, np.dtype(kind).name), one.device)
    pixels = torch.from_numpy(pixels_of(33, 47, kind))
    with Moves() as moved:
        result = one.render(pixels, gamma=1.15, strength=0.5)
    assert moved == [("meta", pixels.dtype, pixels.shape)]
    assert result.shape == pixels.shape and result.dtype == pixels.dtype and result.is_meta


@needs_numba
@pytest.mark.parametrize("fields", [{"width": 32}, {"iterations": 3}, {"pooling": "overlapping"}])
@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(81, 163), (1, 1), (3, 50)])
def test_machine_code_gives_what_the_reference_gives(fields, reduced, kind, size):
    pixels, net = pixels_of(*size, kind), trained(**fields)
    for options in ({}, {"gamma": 1.2, "strength": 0.4}):
        exact = Reference(net, reduced=reduced).render(pixels, **options)
        assert apart(Compiled(net, reduced=reduced).render(pixels, **options), exact).max() <= 1


@needs_numba
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(400, 603), (700, 320), (16, 16), (1, 1), (3, 50), (131, 1)])
def test_machine_code_of_the_curve_alone_gives_what_the_reference_gives(kind, size):
    pixels = pixels_of(*size, kind)
    pixels[: size[0] // 3], pixels[: size[0] // 5] = 0, pixels.max() * 2 // 3
    one = Compiled(AutoCurve())
    for options in ({}, {"gamma": 1.2, "strength": 0.4}, {"gray": True}):
        given = np.ascontiguousarray(pixels[..., :1].repeat(3, 2)) if "gray" in options else pixels
        quick = one.render(given, **options)
        away = apart(quick, Reference(AutoCurve()).render(given, **options))
        assert away.max() <= 2 and (away > 1).mean() <= 0.001


def test_the_reference_of_the_curve_alone_is_what_its_module_says():
    pixels = pixels_of(90, 131, np.float32)
    expected = AutoCurve()(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0][0].permute(1, 2, 0)
    assert np.allclose(Reference(AutoCurve()).render(pixels), expected, atol=1e-5)


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("net", [trained(), AutoCurve()])
def test_results_do_not_depend_on_the_number_of_threads(monkeypatch, reduced, net):
    monkeypatch.setattr(reference, "TILE", (16, 16))
    before, pixels = torch.get_num_threads(), dark(300, 50)
    for one in engine.candidates(net, reduced=reduced):
        results = []
        for threads in (1, 2, 3, before):
            torch.set_num_threads(threads)
            results.append(one.render(pixels))
            assert torch.get_num_threads() == threads
        assert all(np.array_equal(results[0], each) for each in results)


def test_without_numba_the_reference_runs_and_says_so(monkeypatch):
    monkeypatch.setattr(compiled, "numba", None)
    only = engine.choose(trained(), reduced=True)
    assert type(only) is Reference and "zdce[fast]" in only.reason


def test_curves_of_one_photograph_render_another():
    one = engine.choose(trained(), reduced=True)
    curves, second = one.curves(dark(60, 80)), dark(60, 80, seed=5)
    assert np.array_equal(one.render(second, curves.arrays()), one.render(second, curves))
    assert not np.array_equal(one.render(second, curves), one.render(second))


def test_matrix_units_are_used_for_eight_bits_alone(monkeypatch):
    """Of trained weights, whose curves in bfloat16 differ by no more than a grey level."""
    monkeypatch.setattr(engine, "has_matrix_units", lambda: True)
    net = checkpoints.load("zero-dce-improved").net
    one = engine.choose(net)
    assert one.precision == torch.bfloat16 and "matrix units" in one.reason
    assert engine.choose(net, reduced=True).precision == torch.float32
    plain = engine.candidates(net)[-1]
    for kind, most in ((np.uint8, 1), (np.uint16, 0)):
        pixels = pixels_of(60, 80, kind)
        assert apart(one.render(pixels), plain.render(pixels)).max() <= most

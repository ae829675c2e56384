"""Tiles, packed networks, and curves from a reduced copy, with numba and without."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import dark, trained

from zdce import checkpoints
from zdce.engine import compiled as fast
from zdce.engine import winograd
from zdce.enhance import Enhancer
from zdce.model import CurveNet, Sample, SciNet, apply_curves
from zdce.photos import Photo, to_pixels, to_tensor


def enhancer_of(monkeypatch, net, gamma=1.0, **options):
    monkeypatch.setattr(checkpoints, "load", lambda _: SimpleNamespace(net=net, gamma=gamma))
    return Enhancer(device="cpu", **options)


def without_numba(monkeypatch):
    for module in (fast, winograd):
        monkeypatch.setattr(module, "numba", None)


@pytest.fixture(params=["numba", "torch"])
def either_way(request, monkeypatch):
    """The fast path's machine code, and what runs in its place without the extra."""
    if request.param == "torch":
        without_numba(monkeypatch)
    elif not fast.numba:
        pytest.skip("numba is not installed")


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (64, 64), (100, 33)])
def test_tiles_cover_every_pixel_once_and_see_enough_at_one_size(size):
    seen, count = set(), np.zeros(size, int)
    for tile in fast.tiles(*size, 3, (16, 20)):
        count[tile.rows, tile.columns] += 1
        shape = [each.stop - each.start for each in (tile.seen_rows, tile.seen_columns)]
        seen.add(tuple(shape))
        for part, wide, side in zip(
            (tile.rows, tile.columns), (tile.seen_rows, tile.seen_columns), size, strict=True
        ):
            assert wide.start <= max(0, part.start - 3) and wide.stop >= min(side, part.stop + 3)
        assert (
            count[tile.seen_rows, tile.seen_columns][tile.inside].shape
            == count[tile.rows, tile.columns].shape
        )
    assert (count == 1).all() and len(seen) == 1


def test_how_far_networks_see():
    for fields, pixels in [
        ({}, 7),
        ({"pooling": "overlapping", "pools": 3}, 10),
        ({"scale": 2.0}, None),
        ({"fixed_size": 8}, None),
        ({"pooling": "stride2"}, None),
        ({"statistics": True}, None),
        ({"denoise": 3.0}, 15),
    ]:
        assert fast.halo(CurveNet(width=2, **fields)) == pixels
    assert fast.halo(CurveNet(width=2, fixed_size=8), True) == 0
    assert fast.halo(CurveNet(width=2, fixed_size=8, denoise=3.0), True) == 8
    assert fast.halo(SciNet()) == 3 and fast.halo(torch.nn.Identity()) is None


@pytest.mark.parametrize("fields", [{}, {"pooling": "overlapping", "pools": 3}, {"iterations": 3}])
def test_a_packed_network_is_the_network(fields):
    net, image = trained(**fields), to_tensor(dark(33, 40))
    if not fast.can_pack(net):
        pytest.skip("this build of torch has no packed convolutions")
    with torch.inference_mode():
        packed = fast.Packed(net)
        assert torch.allclose(
            fast.bent(image, packed.raw(image), net.config.iterations), net(image)[0], atol=1e-5
        )


def test_bfloat16_stays_within_a_grey_level(shared):
    """On trained weights, the published ones; a network of random weights is not held to it."""
    if not fast.has_bf16():
        pytest.skip("this processor has no bfloat16")
    weights = shared / "weights" / "zero_dce_improved_pre-train.pth"
    pixels = dark(90, 120)
    exact, quick = (
        Enhancer(weights=weights, gamma=1, bf16=each)(pixels).astype(int) for each in (False, True)
    )
    assert (np.abs(exact - quick).max(axis=2) <= 1).mean() >= 0.999


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(fast, "TILE", (16, 16))
    before, pixels = torch.get_num_threads(), dark(300, 50)
    for speed, fields in itertools.product(
        ("faithful", "fast"), ({}, {"fixed_size": 16, "denoise": 9.0})
    ):
        enhancer, results = enhancer_of(monkeypatch, trained(**fields), speed=speed), []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results += [enhancer(pixels), enhancer(pixels)]
            assert torch.get_num_threads() == threads
        torch.set_num_threads(before)
        assert all(np.array_equal(results[0], each) for each in results)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("factor", [1, 3, 7, 100])
def test_reduced_is_the_mean_of_blocks(either_way, dtype, factor):
    pixels = dark(41, 30) if dtype == np.float32 else dark(41, 30, dtype=dtype)
    pixels = (pixels / 255).astype(np.float32) if dtype == np.float32 else pixels
    whole = (
        to_tensor(pixels)
        if dtype != np.float32
        else torch.from_numpy(pixels).permute(2, 0, 1)[None]
    )
    expected = F.avg_pool2d(whole, factor, ceil_mode=True, count_include_pad=False)
    assert torch.allclose(fast.reduced(pixels, factor), expected, atol=1e-6)


def test_bright_areas_are_spared_without_a_filter_too():
    if not fast.numba:
        pytest.skip("numba is not installed")
    net, pixels = trained(fixed_size=16, denoise=5.0, spared=True).eval(), dark(60, 70)
    with torch.inference_mode():
        grid = replace(fast.estimated(net, pixels), noise=None)
        tile = fast.Tile(*[slice(0, side) for side in (60, 70)] * 2)
        expected = to_pixels(fast.applied(to_tensor(pixels), grid, tile, 60, 70))
    assert np.abs(fast.bend(pixels, grid).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("size", [(90, 130), (600, 520), (5, 3)])
def test_samples_are_those_of_the_model(either_way, dtype, size):
    pixels = dark(*size) if dtype == np.float32 else dark(*size, dtype=dtype)
    pixels = (pixels / 255).astype(np.float32) if dtype == np.float32 else pixels
    found, expected = fast.sampled(pixels, torch.device("cpu")), Sample.of(fast.scaled(pixels))
    assert torch.equal(found.points, expected.points) and torch.allclose(
        found.noise, expected.noise, rtol=1e-4
    )


@pytest.mark.parametrize(
    "fields", [{}, {"iterations": 3}, {"separable": True, "shared_curves": True}]
)
def test_fast_is_the_curves_of_the_mean_brought_back_bilinearly(monkeypatch, either_way, fields):
    net = trained(**fields)
    pixels = dark(160, 240)
    enhancer = enhancer_of(monkeypatch, net, speed="fast", bf16=False)
    small = F.avg_pool2d(to_tensor(pixels), 3)
    with torch.inference_mode():
        curves = (
            net._estimate(small[..., :53, :]).view(1, -1, 3, 53, 80).mean(dim=1)
        )  # one in place of each
        curves = F.interpolate(curves, size=(159, 240), mode="bilinear")
        expected = to_pixels(
            apply_curves(to_tensor(pixels)[..., :159, :], curves, net.config.iterations)
        )
    assert np.abs(enhancer(pixels)[:120].astype(int) - expected[:120]).max() <= 1


@pytest.mark.parametrize(
    "fields",
    [
        {"fixed_size": 16},
        {"scale": 4.0},
        {"fixed_size": 16, "grey_curves": True},
        {"fixed_size": 16, "statistics": True, "grey_curves": True, "denoise": 8.0},
        {
            "fixed_size": 16,
            "grey_curves": True,
            "denoise": 9.0,
            "measured": True,
            "spared": True,
            "level": 0.4,
        },
        {"fixed_size": 16, "one_curve": True, "denoise": 9.0, "spared": True, "level": 0.4},
        {
            "fixed_size": 16,
            "iterations": 3,
            "one_curve": True,
            "denoise": 8.0,
            "spared": True,
            "level": 0.4,
        },
        {"denoise": 8.0},
        {"statistics": True},
    ],
)
def test_networks_of_every_kind_give_what_they_give_whole(monkeypatch, fields):
    net, pixels = trained(**fields).eval(), dark(60, 70)
    monkeypatch.setattr(fast, "TILE", (20, 33))
    with torch.inference_mode():
        expected = to_pixels(net(to_tensor(pixels))[0])
        if net.config.denoise:
            plain = to_pixels(net._bent(to_tensor(pixels), net.curves(to_tensor(pixels))))
            assert np.abs(plain.astype(int) - expected).max() > 5  # the filter is seen
    for speed in ("faithful", "fast") if fast.reduces(net) else ("faithful",):
        assert (
            np.abs(enhancer_of(monkeypatch, net, speed=speed)(pixels).astype(int) - expected).max()
            <= 1
        )


@pytest.mark.parametrize(
    "fields", [{"separable": True, "shared_curves": True}, {"pooling": "overlapping"}]
)
def test_large_reduced_copies_go_in_tiles(monkeypatch, fields):
    net, image = trained(scale=2.0, **fields), to_tensor(dark(70, 90))
    with torch.inference_mode():
        whole = net._estimate(image)
        monkeypatch.setattr(fast, "TILE", (20, 30))
        seen = []
        monkeypatch.setattr(
            net, "_estimate", lambda part, call=net._estimate: seen.append(part.shape) or call(part)
        )
        assert torch.allclose(fast._by_tiles(net, image), whole, atol=1e-5)
    assert len(seen) == 12


@pytest.mark.parametrize("iterations", [8, 3])
def test_curves_may_be_shared_or_each_its_own(monkeypatch, either_way, iterations):
    net, pixels = trained(iterations=iterations), dark(160, 240)
    enhancer = enhancer_of(monkeypatch, net, speed="fast", bf16=False)
    with torch.inference_mode():
        own, shared = (fast.estimated(net, pixels, shared=each) for each in (False, True))
    assert (
        own.curves.shape[2] == own.iterations == shared.iterations and shared.curves.shape[2] == 1
    )
    monkeypatch.setattr(enhancer, "_grid", lambda pixels: own)
    apart = enhancer(pixels).astype(int)
    tile = fast.Tile(*[slice(0, side) for side in (160, 240)] * 2)
    with torch.inference_mode():
        expected = apply_curves(to_tensor(pixels), fast.upsampled(own, tile, 160, 240), iterations)
    assert np.abs(apart - to_pixels(expected)).max() <= 1


@pytest.mark.parametrize("model", ["zero-dce", "zero-dce-improved"])
def test_the_mean_of_trained_curves_does_what_each_of_them_does(either_way, model):
    enhancer, pixels = Enhancer(model, device="cpu", speed="fast", bf16=False), dark(160, 240)
    with torch.inference_mode():
        own = fast.estimated(enhancer.net, pixels, shared=False)
    shared = enhancer(pixels).astype(int)
    enhancer._grid = lambda pixels: own
    assert np.abs(shared - enhancer(pixels)).max() <= 3


def test_eight_bits_take_one_pass_on_the_faithful_path_too(monkeypatch):
    """Machine code and torch agree, for any number of curves; with gamma and strength as well."""
    if not fast.numba:
        pytest.skip("numba is not installed")
    pixels = dark(70, 90)
    monkeypatch.setattr(fast, "TILE", (32, 40))
    for fields in ({}, {"iterations": 3}, {"pooling": "overlapping"}):
        options = {"gamma": 1.2, "strength": 0.8}
        quick = enhancer_of(monkeypatch, trained(**fields), **options)(pixels).astype(int)
        with monkeypatch.context() as without:
            without_numba(without)
            for bf16 in {False, fast.has_bf16()}:
                slow = enhancer_of(without, trained(**fields), bf16=bf16, **options)
                assert not isinstance(slow._ready(pixels.dtype), winograd.Winograd)
                apart = np.abs(quick - slow(pixels))
                assert apart.max() <= 1 if not bf16 else (apart <= 2).mean() > 0.99


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"denoise": 6.0},
        {"fixed_size": 16, "grey_curves": True, "denoise": 20.0},
        {
            "fixed_size": 16,
            "grey_curves": True,
            "denoise": 20.0,
            "level": 0.4,
            "measured": True,
            "spared": True,
        },
        {
            "fixed_size": 16,
            "one_curve": True,
            "grey_curves": True,
            "denoise": 9.0,
            "level": 0.4,
            "spared": True,
        },
    ],
)
@pytest.mark.parametrize("size", [(300, 130), (90, 130), (1, 1), (3, 50), (50, 3)])
def test_with_numba_and_without_agree(monkeypatch, fields, size):
    if not fast.numba:
        pytest.skip("numba is not installed")
    pixels = dark(*size)
    for strength in (1, 0.4):
        options = {"gamma": 1.2, "speed": "fast", "strength": strength}
        quick = enhancer_of(monkeypatch, trained(**fields), **options)(pixels)
        with monkeypatch.context() as without:
            without_numba(without)
            slow = enhancer_of(without, trained(**fields), **options)(pixels)
        assert np.abs(quick.astype(int) - slow).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (81, 163)])
def test_fast_on_any_size_and_kind(monkeypatch, either_way, size):
    enhancer = enhancer_of(monkeypatch, trained(), speed="fast")
    for pixels in (
        dark(*size),
        dark(*size, dtype=np.uint16),
        (dark(*size) / 255).astype(np.float32),
    ):
        result = enhancer(pixels)
        assert (
            result.shape == pixels.shape
            and result.dtype == pixels.dtype
            and result.mean() > pixels.mean()
        )
    gray = enhancer(Photo(dark(*size)[..., :1].repeat(3, axis=2), gray=True))
    assert (gray.pixels[..., :1] == gray.pixels).all()


def test_fast_needs_a_network_of_curves(monkeypatch):
    with pytest.raises(ValueError, match="SciNet has no curves"):
        enhancer_of(monkeypatch, SciNet(), speed="fast")


@pytest.mark.parametrize("speed", ["faithful", "fast"])
def test_memory_does_not_grow_with_the_photograph(speed):
    """12 megapixels; whole, the network's 24 curves alone would take 1.2 GB. Room for tiles remains."""
    code = f"""
import numpy as np, torch
torch.set_num_threads(2)
from zdce import Enhancer
from zdce.study import timing as speed
enhancer = Enhancer("zero-dce", speed={speed!r})
enhancer(np.zeros((300, 600, 3), np.uint8))
photo = np.full((3000, 4000, 3), 20, np.uint8)
before = speed._memory("VmHWM")
bright = enhancer(photo)
print(speed._memory("VmHWM") - before - photo.nbytes, bright.mean() > 20)
"""
    words = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(words[0]) < 300e6 and words[1] == "True"

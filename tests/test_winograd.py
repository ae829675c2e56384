"""The convolutions as machine code: the network's own values, whatever its shape and size."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from pictures import dark, trained

from zdce.engine import winograd
from zdce.photos import to_tensor

pytestmark = pytest.mark.skipif(winograd.numba is None, reason="numba is not installed")


FIELDS = [
    {"width": 32},
    {"width": 16, "pooling": "overlapping"},
    {"width": 20, "pooling": "overlapping", "pools": 3},
    {"width": 4, "iterations": 3},
    {"width": 16, "shared_curves": True},
]


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("size", [(1, 1), (2, 61), (61, 2), (33, 40), (70, 131)])
def test_curves_are_the_networks(fields, size):
    net, image = trained(**fields), to_tensor(dark(*size))
    with torch.inference_mode():
        curves = winograd.Winograd(net).curves(image)
        assert curves.shape == (1, net.config.curve_channels, *size)
        assert torch.allclose(curves, net.curves(image), atol=2e-5)


@pytest.mark.parametrize("fields", FIELDS[:3])
def test_a_part_equals_the_whole_bit_for_bit(fields):
    """In any order: memory that a wider part has used serves a narrower one."""
    net, pixels, table = trained(**fields), dark(75, 90), np.empty(0, np.uint8)
    ready, whole = winograd.Winograd(net), np.empty_like(pixels)
    ready.finish(pixels, whole, (slice(0, 75), slice(0, 90)), table)
    parts = np.zeros_like(whole)
    for rows in (slice(0, 30), slice(30, 75)):
        for columns in (slice(0, 17), slice(17, 55), slice(55, 90)):
            ready.finish(pixels, parts, (rows, columns), table)
    assert np.array_equal(parts, whole)
    rows, columns = ready.window((slice(30, 75), slice(17, 55)), 75, 90)
    part = ready.curves(to_tensor(pixels)[..., rows, columns])
    part = part[..., 30 - rows.start :, 17 - columns.start :][..., :45, :38]
    assert torch.equal(part, ready.curves(to_tensor(pixels))[..., 30:75, 17:55])


@pytest.mark.long
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="another processor")
@pytest.mark.parametrize(
    ("name", "features", "lanes"), [("haswell", "+avx2,+fma", 8), ("x86-64", "+sse2", 4)]
)
def test_older_processors(name, features, lanes):
    """Vectors of another length, and nothing that only this processor has."""
    code = f"""
import numpy as np
from zdce import auto, checkpoints
from zdce.engine import Compiled, Reference, winograd
assert winograd.LANES == {lanes}
pixels, apart = np.random.default_rng(0).integers(0, 90, (31, 55, 3), dtype=np.uint8), []
for net in (checkpoints.load("zero-dce-improved").net, auto.AutoCurve()):
    exact, quick = (kind(net).render(pixels).astype(int) for kind in (Reference, Compiled))
    apart.append(np.abs(exact - quick).max())
print(max(apart))
"""
    environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    assert int(subprocess.check_output([sys.executable, "-c", code], env=environment)) <= 1

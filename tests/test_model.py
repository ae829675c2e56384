"""The networks: counts, sizes, ranges, and equality with plain re-computations of the design's
formulas.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from zdce.model import (
    ZERO_DCE,
    ZERO_DCE_IMPROVED,
    CurveNet,
    NetConfig,
    apply_curves,
    count_parameters,
    multiply_adds,
)
from zdce.peers import ZERO_DCE_PP, SciNet

SIZES = [(1, 1), (2, 3), (17, 31), (64, 48)]
VARIANTS = [
    NetConfig(width=4, pooling=pooling, pools=pools, upsampling=upsampling)
    for pooling, pools, upsampling in [
        ("none", 1, "bilinear"),
        *itertools.product(["overlapping"], [1, 2, 3], ["bilinear"]),
        *itertools.product(["stride2"], [1, 2, 3], ["bilinear", "transposed"]),
    ]
] + [
    NetConfig(width=1, iterations=1),
    NetConfig(width=4, iterations=3),
    NetConfig(width=4, separable=True),
    NetConfig(width=4, shared_curves=True),
    NetConfig(width=4, separable=True, shared_curves=True, scale=12.0),
    NetConfig(width=4, scale=2.5, pooling="overlapping"),
]


def lively(config: NetConfig, seed: int = 0) -> CurveNet:
    """A network whose curves differ widely from pixel to pixel; fresh weights are so small that all
    curves are 0.
    """
    torch.manual_seed(seed)
    net = CurveNet(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.6 if parameter.ndim > 1 else 0.1))
    return net.eval()


def photo(height: int, width: int, count: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


# ---- counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "parameters", "multiplications"),
    [
        (ZERO_DCE, 79_416, 5_190_451_200),
        (ZERO_DCE_IMPROVED, 23_592, 1_538_260_992),
        # 7 depthwise (9 weights, 1 bias per channel) and 7 pointwise convolutions, 3 curve channels
        (
            ZERO_DCE_PP,
            10 * (3 + 3 * 32 + 3 * 64) + 4 * 32 + 3 * 33 * 32 + 2 * 65 * 32 + 65 * 3,
            None,
        ),
    ],
)
def test_counts_of_published_networks(config, parameters, multiplications):
    net = CurveNet(config)
    assert count_parameters(net) == parameters
    if multiplications:
        assert multiply_adds(net, 256, 256) == multiplications


def test_parameters_that_do_not_train_are_not_counted():
    net = CurveNet(width=2)
    net.e_conv1.requires_grad_(False)
    assert count_parameters(CurveNet(width=2)) - count_parameters(net) == 2 * 3 * 9 + 2


def test_multiply_adds_of_pooled_separable_and_reduced_networks():
    w, h, b = 4, 8, 6  # width of the network, height and breadth of the photograph
    full, quarter = h * b, (h // 2) * (b // 2)
    convs = {
        n: 9 * cin * cout
        for n, (cin, cout) in enumerate([(3, w), (w, w), (w, w), (w, w), (2 * w, w)], 1)
    }
    last = 9 * 2 * w * w + 9 * 2 * w * 24
    pooled = CurveNet(width=w, pooling="stride2", upsampling="transposed")
    expected = full * (convs[1] + convs[2] + convs[3] + convs[5] + last) + quarter * (
        convs[4] + 4 * w * w
    )
    assert multiply_adds(pooled, h, b) == expected
    separable = CurveNet(width=w, separable=True)
    pairs = [(3, w), (w, w), (w, w), (w, w), (2 * w, w), (2 * w, w), (2 * w, 24)]
    assert multiply_adds(separable, h, b) == full * sum(9 * cin + cin * cout for cin, cout in pairs)
    assert multiply_adds(CurveNet(scale=2.0), 64, 32) == multiply_adds(CurveNet(), 32, 16)
    assert multiply_adds(SciNet(), 7, 5) == 3 * 81 * 35


def test_multiply_adds_leaves_the_network_alone():
    net = lively(NetConfig(width=2))
    before = net(photo(5, 5))[0]
    multiply_adds(net, 2000, 3000)
    assert torch.equal(before, net(photo(5, 5))[0])
    with pytest.raises(ValueError, match="height=0"):
        multiply_adds(net, 0, 5)


# ---- the curve -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("iterations", [1, 2, 8])
def test_curves_equal_a_loop_over_pixels(shared, iterations):
    rng = np.random.default_rng(iterations)
    image = rng.random((2, 3, 3, 4))
    curves = rng.uniform(-1, 1, (2, 3 if shared else 3 * iterations, 3, 4))
    expected = image.copy()
    for n, c, y, x in np.ndindex(image.shape):
        for k in range(iterations):
            value, r = expected[n, c, y, x], curves[n, c if shared else 3 * k + c, y, x]
            expected[n, c, y, x] = value + r * (value**2 - value)
    found = apply_curves(torch.from_numpy(image), torch.from_numpy(curves), iterations)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-14)


def test_curve_is_the_papers_with_the_sign_turned():
    x, alpha = torch.full((1, 3, 1, 1), 0.3), torch.full((1, 3, 1, 1), 0.8)
    bright = apply_curves(x, -alpha, iterations=1)
    torch.testing.assert_close(bright, x + alpha * x * (1 - x))
    assert (bright > x).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=8, max_size=8))
def test_curve_is_monotonic_and_fixes_black_and_white(strengths):
    x = torch.linspace(0, 1, 257).expand(1, 3, 1, 257)
    curves = torch.tensor(strengths).repeat_interleave(3).view(1, 24, 1, 1).expand(1, 24, 1, 257)
    y = apply_curves(x, curves)
    assert (y[..., 0] == 0).all() and (y[..., -1] == 1).all()
    assert (y.diff(dim=-1) >= -1e-6).all()  # rounding of float32
    assert y.min() >= 0 and y.max() <= 1


def test_curves_of_a_wrong_number_of_channels_are_refused():
    with pytest.raises(ValueError, match="12 channels; 8 iterations need 24 or 3"):
        apply_curves(photo(2, 2), torch.zeros(1, 12, 2, 2))


# ---- every variant -------------------------------------------------------------------------------


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_every_variant_keeps_size_and_range(config):
    net = lively(config)
    for height, width in SIZES:
        image = photo(height, width, count=2)
        with torch.no_grad():
            enhanced, curves = net(image)
        assert enhanced.shape == image.shape
        assert curves.shape == (2, config.curve_channels, height, width)
        assert curves.abs().max() <= 1
        assert enhanced.min() >= 0 and enhanced.max() <= 1
        assert not torch.equal(enhanced, image)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_every_parameter_of_every_variant_gets_a_gradient(config):
    net = lively(config)
    net(photo(17, 31))[0].square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("side", [12, 49, 98])
def test_scale_equal_to_the_side_reduces_to_one_pixel(side):
    # 49 · (1/49) is below 1 in floating point
    net = lively(NetConfig(width=2, scale=float(side)))
    assert net(photo(side, side))[0].shape == (1, 3, side, side)
    assert net(photo(side, 3))[0].shape == (1, 3, side, 3)


# ---- equality with the design's formulas ---------------------------------------------------------


def layers(net: CurveNet):
    """Convolution n of ``net`` as a function, straight from its tensors."""
    tensors = dict(net.named_parameters())

    def conv(n: int, x: torch.Tensor) -> torch.Tensor:
        if net.config.separable:
            d, p = f"e_conv{n}.depth_conv", f"e_conv{n}.point_conv"
            x = F.conv2d(
                x, tensors[f"{d}.weight"], tensors[f"{d}.bias"], padding=1, groups=x.shape[1]
            )
            return F.conv2d(x, tensors[f"{p}.weight"], tensors[f"{p}.bias"])
        return F.conv2d(x, tensors[f"e_conv{n}.weight"], tensors[f"e_conv{n}.bias"], padding=1)

    return conv


def enhance_naively(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    for k in range(8):
        part = r if r.shape[1] == 3 else r[:, 3 * k : 3 * k + 3]
        x = x + part * (torch.pow(x, 2) - x)
    return x


def pooled(x: torch.Tensor) -> torch.Tensor:
    """3×3 maximum around each pixel, by hand."""
    height, width = x.shape[-2:]
    out = torch.empty_like(x)
    for i, j in np.ndindex(height, width):
        out[..., i, j] = x[..., max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].amax(dim=(-2, -1))
    return out


@pytest.mark.parametrize(
    "config",
    [NetConfig(width=5), NetConfig(width=5, separable=True, shared_curves=True)],
    ids=["paper", "++"],
)
def test_network_equals_its_description(config):
    net, x = lively(config), photo(9, 13, count=2)
    conv = layers(net)
    x1 = F.relu(conv(1, x))
    x2 = F.relu(conv(2, x1))
    x3 = F.relu(conv(3, x2))
    x4 = F.relu(conv(4, x3))
    x5 = F.relu(conv(5, torch.cat([x3, x4], 1)))
    x6 = F.relu(conv(6, torch.cat([x2, x5], 1)))
    r = torch.tanh(conv(7, torch.cat([x1, x6], 1)))
    enhanced, curves = net(x)
    torch.testing.assert_close(curves, r)
    torch.testing.assert_close(enhanced, enhance_naively(x, r))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_in_either_layout_gives_the_frameworks_values_and_gradients(layout):
    net = CurveNet(width=4, pooling="overlapping")
    image = torch.rand(2, 4, 9, 11).round(decimals=1)  # many neighbours are equal
    x, y = (image.clone(memory_format=layout).requires_grad_() for _ in range(2))
    ours, theirs = net._pool(x), F.max_pool2d(y, 3, stride=1, padding=1)
    assert torch.equal(ours, theirs)
    assert ours.is_contiguous(memory_format=layout)
    weight = torch.rand_like(image)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pools", [1, 2, 3])
def test_overlapping_pooling_equals_its_description(pools):
    net, x = lively(NetConfig(width=4, pooling="overlapping", pools=pools)), photo(7, 10)
    conv = layers(net)
    with torch.no_grad():
        x1 = F.relu(conv(1, x))
        x2 = F.relu(conv(2, pooled(x1) if pools == 3 else x1))
        x3 = F.relu(conv(3, pooled(x2) if pools >= 2 else x2))
        x4 = F.relu(conv(4, pooled(x3)))
        x5 = F.relu(conv(5, torch.cat([x3, x4], 1)))
        x6 = F.relu(conv(6, torch.cat([x2, x5], 1)))
        r = torch.tanh(conv(7, torch.cat([x1, x6], 1)))
        torch.testing.assert_close(net.curves(x), r)
        plain = CurveNet(width=4)
        plain.load_state_dict(net.state_dict())  # pooling has no weights of its own
        assert not torch.allclose(plain.curves(x), r, atol=1e-3)


@pytest.mark.parametrize("size", [(8, 12), (7, 10)])
@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_stride2_pooling_equals_its_description(upsampling, size):
    net, x = (
        lively(NetConfig(width=4, pooling="stride2", upsampling=upsampling, pools=3)),
        photo(*size),
    )
    conv = layers(net)

    def halve(x):
        return F.max_pool2d(F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), value=-torch.inf), 2)

    def restore(x, like, stage):
        if upsampling == "bilinear":
            return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)
        up = net.up[stage]
        return F.conv_transpose2d(x, up.weight, up.bias, stride=2)[
            ..., : like.shape[-2], : like.shape[-1]
        ]

    with torch.no_grad():
        x1 = F.relu(conv(1, x))
        x2 = F.relu(conv(2, halve(x1)))
        x3 = F.relu(conv(3, halve(x2)))
        x4 = F.relu(conv(4, halve(x3)))
        assert x4.shape[-2:] == (-(-size[0] // 8), -(-size[1] // 8))
        x5 = F.relu(conv(5, torch.cat([x3, restore(x4, x3, 0)], 1)))
        x6 = F.relu(conv(6, torch.cat([x2, restore(x5, x2, 1)], 1)))
        r = torch.tanh(conv(7, torch.cat([x1, restore(x6, x1, 2)], 1)))
        torch.testing.assert_close(net.curves(x), r)


def test_scale_estimates_small_and_bends_at_full_size():
    net, whole = lively(NetConfig(width=3, scale=3.0)), lively(NetConfig(width=3))
    x = photo(26, 31)
    small = F.interpolate(x, scale_factor=1 / 3, mode="bilinear")
    assert small.shape[-2:] == (8, 10)
    r = F.interpolate(whole.curves(small), size=(26, 31), mode="bilinear", align_corners=True)
    torch.testing.assert_close(net(x)[0], apply_curves(x, r))


def test_sci_equals_its_description():
    torch.manual_seed(0)
    net = SciNet().eval()
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 0.5)
        x = photo(6, 5)
        t = dict(net.state_dict())
        f = F.relu(F.conv2d(x, t["in_conv.0.weight"], t["in_conv.0.bias"], padding=1))
        g = F.conv2d(f, t["conv.0.weight"], t["conv.0.bias"], padding=1)
        mean, var, gain, shift = (
            t[f"conv.1.{k}"].view(1, 3, 1, 1)
            for k in ("running_mean", "running_var", "weight", "bias")
        )
        g = F.relu((g - mean) / torch.sqrt(var + 1e-5) * gain + shift)
        s = torch.sigmoid(F.conv2d(f + g, t["out_conv.0.weight"], t["out_conv.0.bias"], padding=1))
        light = (s + x).clamp(1e-4, 1)
        enhanced, illumination = net(x)
    torch.testing.assert_close(illumination, light)
    torch.testing.assert_close(enhanced, (x / light).clamp(0, 1))


# ---- construction --------------------------------------------------------------------------------


def test_weights_start_as_the_released_codes():
    torch.manual_seed(0)
    net = CurveNet(width=32, pooling="stride2", upsampling="transposed")
    for name, tensor in net.named_parameters():
        if name.endswith("weight"):
            assert abs(tensor.mean()) < 0.002 and abs(tensor.std() - 0.02) < 0.002, name
    bound = 1 / np.sqrt(3 * 9)  # the framework's default for biases: uniform within 1/√fan-in
    assert 0.5 * bound < net.e_conv1.bias.abs().max() <= bound


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, "width=0"),
        ({"iterations": 0}, "iterations=0"),
        ({"pooling": "max"}, "pooling='max': choose one of none, overlapping, stride2"),
        ({"upsampling": "nearest"}, "upsampling='nearest': choose one of bilinear, transposed"),
        ({"pools": 0}, "pools=0"),
        ({"pools": 4}, "pools=4"),
        ({"scale": 0.5}, "scale=0.5"),
        ({"scale": float("nan")}, "scale=nan"),
        ({"scale": float("inf")}, "scale=inf"),
    ],
)
def test_wrong_arguments_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        CurveNet(**fields)


def test_config_and_fields_exclude_each_other():
    assert (
        CurveNet(config=ZERO_DCE_IMPROVED).config
        == CurveNet(width=16, pooling="overlapping").config
    )
    with pytest.raises(ValueError, match=r"not both \(got width\)"):
        CurveNet(ZERO_DCE, width=8)

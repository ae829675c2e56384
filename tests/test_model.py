"""The networks: counts, sizes, ranges, and equality with plain re-computations of the design's
formulas.
"""

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

SIZES = [(1, 1), (2, 3), (17, 31), (49, 49), (64, 48)]
VARIANTS = [
    NetConfig(width=4),
    *(NetConfig(width=4, pooling="overlapping", pools=pools) for pools in (1, 2, 3)),
    *(
        NetConfig(width=4, pooling="stride2", pools=pools, upsampling=upsampling)
        for pools, upsampling in itertools.product((1, 2, 3), ("bilinear", "transposed"))
    ),
    NetConfig(width=1, iterations=1),
    NetConfig(width=4, separable=True, shared_curves=True),
    NetConfig(width=4, separable=True, shared_curves=True, scale=12.0),
    NetConfig(width=4, scale=2.5, pooling="overlapping"),
    NetConfig(width=4, scale=49.0),  # 49 · (1/49) is below 1 in floating point
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
        # 7 depthwise (9 weights, 1 bias a channel) and 7 pointwise convolutions, 3 curve channels
        (ZERO_DCE_PP, 10 * 291 + 4 * 32 + 3 * 33 * 32 + 2 * 65 * 32 + 65 * 3, None),
    ],
)
def test_counts_of_published_networks(config, parameters, multiplications):
    net = CurveNet(config)
    assert count_parameters(net) == parameters
    assert multiplications in (None, multiply_adds(net, 256, 256))


def test_multiply_adds_of_pooled_separable_and_reduced_networks():
    w, h, b = 4, 8, 6  # width of the network, height and breadth of the photograph
    pairs = [(3, w), (w, w), (w, w), (w, w), (2 * w, w), (2 * w, w), (2 * w, 24)]
    each = [9 * cin * cout for cin, cout in pairs]
    pooled = CurveNet(width=w, pooling="stride2", upsampling="transposed")
    quarter = h // 2 * b // 2 * (each[3] + 4 * w * w)
    assert multiply_adds(pooled, h, b) == h * b * (sum(each) - each[3]) + quarter
    separable = sum(9 * cin + cin * cout for cin, cout in pairs)
    assert multiply_adds(CurveNet(width=w, separable=True), h, b) == h * b * separable
    assert multiply_adds(CurveNet(scale=2.0), 64, 32) == multiply_adds(CurveNet(), 32, 16)
    assert multiply_adds(SciNet(), 7, 5) == 3 * 81 * 35


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
            value, alpha = expected[n, c, y, x], -curves[n, c if shared else 3 * k + c, y, x]
            expected[n, c, y, x] = value + alpha * value * (1 - value)  # the paper's equation
    found = apply_curves(torch.from_numpy(image), torch.from_numpy(curves), iterations)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-14)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=8, max_size=8))
def test_curve_is_monotonic_and_fixes_black_and_white(strengths):
    x = torch.linspace(0, 1, 257).expand(1, 3, 1, 257)
    curves = torch.tensor(strengths).repeat_interleave(3).view(1, 24, 1, 1).expand(1, 24, 1, 257)
    y = apply_curves(x, curves)
    assert (y[..., 0] == 0).all() and (y[..., -1] == 1).all()
    assert (y.diff(dim=-1) >= -1e-6).all()  # rounding of float32
    assert y.min() >= 0 and y.max() <= 1


# ---- every variant -------------------------------------------------------------------------------


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_every_variant_keeps_size_and_range_and_trains_every_parameter(config):
    net = lively(config)
    for height, width in SIZES:
        image = photo(height, width, count=2)
        enhanced, curves = net(image)
        assert enhanced.shape == image.shape and not torch.equal(enhanced, image)
        assert curves.shape == (2, config.curve_channels, height, width)
        assert curves.abs().max() <= 1 and enhanced.min() >= 0 and enhanced.max() <= 1
    enhanced.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


# ---- equality with the design's formulas ---------------------------------------------------------


def conv(net: CurveNet, n: int, x: torch.Tensor) -> torch.Tensor:
    """Convolution n of ``net``, straight from its tensors."""
    tensors = dict(net.named_parameters())
    if not net.config.separable:
        return F.conv2d(x, tensors[f"e_conv{n}.weight"], tensors[f"e_conv{n}.bias"], padding=1)
    w, b = (tensors[f"e_conv{n}.depth_conv.{name}"] for name in ("weight", "bias"))
    x = F.conv2d(x, w, b, padding=1, groups=x.shape[1])
    return F.conv2d(x, *(tensors[f"e_conv{n}.point_conv.{name}"] for name in ("weight", "bias")))


def described(net: CurveNet, x: torch.Tensor) -> torch.Tensor:
    """The curves by the design's text; pooling before convolution 4, for more pools 3 and 2."""
    pooling, pools = net.config.pooling, net.config.pools

    def pool(x: torch.Tensor, least: int) -> torch.Tensor:
        if pooling == "none" or pools < least:
            return x
        if pooling == "overlapping":
            return F.max_pool2d(x, 3, stride=1, padding=1)
        odd = (0, x.shape[-1] % 2, 0, x.shape[-2] % 2)
        return F.max_pool2d(F.pad(x, odd, value=-torch.inf), 2)

    def joined(skip: torch.Tensor, x: torch.Tensor, stage: int) -> torch.Tensor:
        height, width = skip.shape[-2:]
        if pooling == "stride2" and pools > stage and net.config.upsampling == "bilinear":
            x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=True)
        elif pooling == "stride2" and pools > stage:
            up = net.up[stage]
            x = F.conv_transpose2d(x, up.weight, up.bias, stride=2)[..., :height, :width]
        return torch.cat([skip, x], 1)

    x1 = F.relu(conv(net, 1, x))
    x2 = F.relu(conv(net, 2, pool(x1, 3)))
    x3 = F.relu(conv(net, 3, pool(x2, 2)))
    x4 = F.relu(conv(net, 4, pool(x3, 1)))
    x5 = F.relu(conv(net, 5, joined(x3, x4, 0)))
    x6 = F.relu(conv(net, 6, joined(x2, x5, 1)))
    return torch.tanh(conv(net, 7, joined(x1, x6, 2)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(8, 12), (7, 10)])
@pytest.mark.parametrize("config", [each for each in VARIANTS if each.scale == 1], ids=str)
def test_network_equals_its_description_in_value_and_gradient(config, size, layout):
    net, blocks = lively(config), photo(*(side // 2 + 1 for side in size), count=2)
    x = blocks.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : size[0], : size[1]]
    x, y = (x.clone(memory_format=layout).requires_grad_() for _ in range(2))  # equal neighbours
    enhanced, curves = net.to(memory_format=layout)(x)
    expected = described(net, y)
    torch.testing.assert_close(curves, expected)
    torch.testing.assert_close(enhanced, apply_curves(x, expected, config.iterations))
    weight = torch.rand_like(curves)
    gradients = (
        torch.autograd.grad((r * weight).sum(), at) for r, at in ((curves, x), (expected, y))
    )
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_scale_estimates_small_and_applies_curves_at_full_size():
    net, whole = lively(NetConfig(width=3, scale=3.0)), lively(NetConfig(width=3))
    x = photo(26, 31)
    small = F.interpolate(x, scale_factor=1 / 3, mode="bilinear")
    assert small.shape[-2:] == (8, 10)
    r = F.interpolate(whole.curves(small), size=(26, 31), mode="bilinear", align_corners=True)
    torch.testing.assert_close(net(x)[0], apply_curves(x, r))


def test_sci_equals_its_description():
    torch.manual_seed(0)
    net, x = SciNet().eval(), photo(6, 5)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 0.5)
    t = net.state_dict()
    f = F.relu(F.conv2d(x, t["in_conv.0.weight"], t["in_conv.0.bias"], padding=1))
    g = F.conv2d(f, t["conv.0.weight"], t["conv.0.bias"], padding=1)
    names = ("running_mean", "running_var", "weight", "bias")
    mean, var, gain, shift = (t[f"conv.1.{name}"].view(1, 3, 1, 1) for name in names)
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
        ({"pooling": "max"}, "pooling='max': choose one of none, overlapping, stride2"),
        ({"pools": 4}, "pools=4"),
        ({"scale": float("inf")}, "scale=inf"),
    ],
)
def test_wrong_arguments_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        CurveNet(**fields)
    with pytest.raises(ValueError, match="12 channels; 8 iterations need 24 or 3"):
        apply_curves(photo(2, 2), torch.zeros(1, 12, 2, 2))

"""The enhancer on every kind of picture, and against the published pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pictures import dark, trained
from PIL import Image

from zdce import checkpoints
from zdce.engine import reference
from zdce.enhance import Enhancer
from zdce.photos import Photo, read_photo, to_pixels, to_tensor
from zdce.postprocess import apply_gamma, blend


@pytest.fixture(scope="module")
def enhancer(weights):
    return Enhancer(weights=weights, device="cpu")


def through(net, pixels, gamma):
    with torch.inference_mode():
        return apply_gamma(to_pixels(net(to_tensor(pixels))[0], pixels.dtype), gamma)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_network_then_rounding_then_gamma_then_mix(weights, dtype):
    net, pixels = checkpoints.load(weights).net, dark(dtype=dtype)
    for gamma, strength in [(None, 1.0), (1.0, 1.0), (0.7, 0.4)]:
        result = Enhancer(weights=weights, gamma=gamma, strength=strength)(pixels)
        expected = blend(pixels, through(net, pixels, 1.3 if gamma is None else gamma), strength)
        assert result.dtype == dtype and np.abs(result.astype(int) - expected).max() <= 1
    assert np.array_equal(pixels, dark(dtype=dtype)) and result.mean() > 1.3 * pixels.mean()


def test_strength_zero_is_the_identity(weights):
    nothing, tensor = Enhancer(weights=weights, strength=0), torch.rand(2, 3, 5, 4).double() / 3
    assert torch.equal(nothing(tensor), tensor)
    pixels = tensor[0].permute(1, 2, 0).numpy()
    assert np.array_equal(nothing(pixels), pixels) and nothing(pixels) is not pixels


@pytest.mark.parametrize(
    "fields", [{"pooling": "stride2"}, {"scale": 12.0}, {"separable": True}, {"width": 16}]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_network_takes_any_size_in_tiles_as_well(monkeypatch, fields, dtype):
    model = SimpleNamespace(net=trained(**fields), gamma=1.15)
    monkeypatch.setattr(checkpoints, "load", lambda _: model)
    enhancer = Enhancer(device="cpu")
    for size in [(1, 1), (1, 7), (13, 5), (70, 45)]:
        pixels = dark(*size, dtype=dtype)
        whole = enhancer(pixels)
        with monkeypatch.context() as patch:
            patch.setattr(reference, "TILE", (9, 14))
            apart = np.abs(enhancer(pixels).astype(int) - whole)
        assert whole.shape == (*size, 3) and apart.max() <= (1 if dtype == np.uint8 else 3)


def test_sixteen_bits_agree_with_eight(weights):
    pixels, plain = dark(40, 50), Enhancer(weights=weights, gamma=1)
    deep = plain(pixels * np.uint16(257))
    assert np.abs(deep / 257 - plain(pixels)).max() <= 0.51  # one rounding apart
    assert len(np.unique(deep & 255)) > 200  # low bytes are used


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_and_tensors(enhancer, dtype):
    deep = dark(dtype=np.uint16)
    pixels = (deep / 65535).astype(dtype)
    result = enhancer(pixels)
    assert result.dtype == dtype
    apart = np.abs(result.astype(float) - enhancer(deep) / 65535)
    assert apart.max() < (4e-3 if dtype == np.float16 else 2e-4)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    batch = enhancer(torch.stack([image, image / 2]))
    assert batch.dtype == image.dtype and torch.equal(batch[0], enhancer(image))
    assert np.array_equal(batch[0].permute(1, 2, 0).numpy(), result)


def test_pillow_pixels_equal_the_arrays_and_info_stays(enhancer):
    image = Image.fromarray(dark())
    (exif := Image.Exif())[274] = 6  # which turns nothing here
    image.info = {"exif": exif.tobytes(), "icc_profile": b"profile", "dpi": (300, 300)}
    result = enhancer(image)
    assert np.array_equal(np.asarray(result), enhancer(dark())) and result.info == image.info


def test_gray_stays_gray_and_equals_the_luma_of_the_colors(weights):
    gray = dark()[..., :1].repeat(3, axis=2)
    plain = Enhancer(weights=weights, gamma=1)(Photo(gray, gray=True))
    assert plain.gray and (plain.pixels[..., :1] == plain.pixels).all()
    color = through(checkpoints.load(weights).net, gray, 1.0).astype(float)
    assert np.ptp(color, axis=2).max() > 5  # the network itself would tint it
    assert np.abs(plain.pixels[..., 0] - color @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("gamma", 0), ("gamma", float("inf")), ("strength", 1.5), ("strength", float("nan"))],
        *[("device", "gpu"), ("device", "cuda"), ("model", "no-such"), ("speed", "quick")],
    ],
)
def test_wrong_options(monkeypatch, name, value):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        Enhancer(**{name: value})


@pytest.mark.parametrize(
    ("photo", "error", "words"),
    [
        ("a.jpg", TypeError, "str"),
        (np.zeros((4, 0, 3), np.uint8), ValueError, r"\(4, 0, 3\)"),
        (np.zeros((4, 4, 3), np.int32), ValueError, "int32"),
        (np.full((4, 4, 3), 200.0), ValueError, "200"),
        (np.full((4, 4, 3), np.nan), ValueError, "nan"),
        (torch.zeros(4, 4, 3), ValueError, r"\(4, 4, 3\)"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), ValueError, "uint8"),
    ],
)
def test_wrong_photographs(enhancer, photo, error, words):
    with pytest.raises(error, match=words):
        enhancer(photo)


@pytest.mark.parametrize("number", range(1, 10))
def test_published_pictures(shared, number):
    file = shared / "weights" / "zero_dce_improved_pre-train.pth"
    published = Enhancer(weights=file, gamma=1.15, device="cpu")
    photo = read_photo(shared / "data" / "test_data" / "LIME" / f"{number}.bmp")
    expected = read_photo(shared / "data" / "published_results" / "LIME" / f"{number}.bmp")
    assert published.gamma == checkpoints.IMPROVED_GAMMA == 1.15
    assert np.abs(published(photo).pixels.astype(int) - expected.pixels).max() <= 2

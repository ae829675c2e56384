"""NIQE: how natural an image looks, without a reference.

Source: "Making a completely blind image quality analyzer" (Mittal et al. 2013), its released code.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import io, ndimage, special

BLOCK = 96  # pixels; released code
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
SHAPES = np.arange(0.2, 10.001, 0.001)  # candidates for a distribution's shape; released code
SHAPE_RATIOS = special.gamma(2 / SHAPES) ** 2
SHAPE_RATIOS /= special.gamma(1 / SHAPES) * special.gamma(3 / SHAPES)


class NiqeModel(NamedTuple):
    """Of pristine photographs' features: ``mean`` (36,) and ``covariance`` (36, 36)."""

    mean: np.ndarray
    covariance: np.ndarray


def load_niqe_model(path: str | Path) -> NiqeModel:
    """Read ``niqe_modelparameters.mat`` as released."""
    content = io.loadmat(path)
    return NiqeModel(content["mu_prisparam"].ravel(), content["cov_prisparam"])


def niqe(pixels: np.ndarray, model: NiqeModel) -> float:
    """Distance of an (H, W, 3) uint8 image from pristine ones, 0 or more, lower is better.

    Y (BT.601, 16 – 235, rounded), whole blocks of 96×96 from the top left, features at full and at
    half size. NaN where the image has fewer than two such blocks.

    Filters run in single precision, on which published scores rest: uniform areas then come out as
    exact zeros, where double precision leaves crumbs of 1e-14 that count as texture and move the
    score by up to 0.09.
    """
    h, w = (side // BLOCK for side in pixels.shape[:2])
    if h * w < 2:
        return float("nan")
    y = np.rint(pixels @ np.array([65481, 128553, 24966]) / 255000 + 16).astype(np.float32)
    y = y[: h * BLOCK, : w * BLOCK]
    scales = []
    for side in (BLOCK, BLOCK // 2):
        blocks = _normalised(y).reshape(h, side, w, side).swapaxes(1, 2)
        scales.append([_features(block) for block in blocks.reshape(h * w, side, side)])
        y = _halved(_halved(y).T).T
    features = np.concatenate(scales, axis=1)
    complete = features[~np.isnan(features).any(axis=1)]
    if len(complete) < 2:
        return float("nan")
    difference = model.mean - np.nanmean(features, axis=0)
    spread = (model.covariance + np.cov(complete, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(spread) @ difference))


def _window(values: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(values, 7 / 6, mode="nearest", radius=3)


def _normalised(y: np.ndarray) -> np.ndarray:
    """Y less its local mean, over its local deviation plus 1; Gaussian window of 7×7, σ 7/6."""
    average = _window(y)
    return (y - average) / (np.sqrt(np.abs(_window(y * y) - average * average)) + 1)


def _halved(y: np.ndarray) -> np.ndarray:
    """Rows (2n, …) → (n, …) by MATLAB's antialiased bicubic: the kernel stretched to eight taps,
    edges mirrored."""
    d = np.abs(np.arange(8) - 3.5) / 2
    taps = np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2)
    padded = np.pad(y, ((3, 3), (0, 0)), mode="symmetric")
    taps = (taps / taps.sum()).astype(y.dtype)
    return sum(tap * padded[k : k + len(y) : 2] for k, tap in enumerate(taps))


def _fit(values: np.ndarray) -> tuple[float, float, float]:
    """Shape, left and right scale of the asymmetric generalised Gaussian that matches the moments
    of ``values``; NaN where all are of one sign."""
    negative, positive = values[values < 0], values[values > 0]
    left = np.sqrt(np.mean(negative**2)) if negative.size else np.nan
    right = np.sqrt(np.mean(positive**2)) if positive.size else np.nan
    skew, both = left / right, negative.size and positive.size
    ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2) if both else np.nan
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = SHAPES[np.argmin((SHAPE_RATIOS - ratio) ** 2)]
    scale = np.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape))
    return shape, left * scale, right * scale


def _features(block: np.ndarray) -> list[float]:
    """18 of one normalised block: its distribution, and that of products with four neighbours."""
    shape, left, right = _fit(block)
    features = [shape, (left + right) / 2]
    for shift in NEIGHBOURS:
        shape, left, right = _fit(block * np.roll(block, shift, axis=(0, 1)))
        centre = (right - left) * special.gamma(2 / shape) / special.gamma(1 / shape)
        features += [shape, centre, left, right]
    return features

"""What is done to a photograph after the network: a gamma curve as a table, and a mix with the original."""

from __future__ import annotations

import math

import numpy as np


def gamma_table(gamma: float) -> np.ndarray:
    """Gamma curve for 8-bit grey levels: entry v is round(255·(v/255)^gamma), (256,) uint8.

    gamma: above 1 darkens and tames over-exposure, below 1 brightens, 1 changes nothing. Raises ValueError when
    it is not a finite number above 0.

    Source: improved study, which uses 1.15.
    """
    return _table(gamma, np.uint8)


def apply_gamma(pixels: np.ndarray, gamma: float) -> np.ndarray:
    """Gamma curve on ``pixels`` of any shape, uint8 or uint16; same shape and dtype out.

    8 bits: :func:`gamma_table` (improved study). 16 bits: the same formula with 65535 in place of 255 (ours).
    Raises ValueError for another dtype, or a gamma that is not a finite number above 0.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels are {pixels.dtype}: give uint8 or uint16")
    return _table(gamma, pixels.dtype)[pixels]


def blend(original: np.ndarray, enhanced: np.ndarray, strength: float) -> np.ndarray:
    """Linear mix (1 − strength)·original + strength·enhanced, rounded for integers; shape and dtype as given.

    Both arrays have one shape and one dtype: uint8, uint16, or float in [0, 1]. strength in [0, 1]: 0 returns the
    original and 1 the enhanced, bit for bit. Raises ValueError otherwise. Source: ours.
    """
    original, enhanced = np.asarray(original), np.asarray(enhanced)
    if original.shape != enhanced.shape or original.dtype != enhanced.dtype:
        raise ValueError(
            f"original is {original.shape} {original.dtype}, enhanced is {enhanced.shape} {enhanced.dtype}: "
            "both need one shape and one dtype"
        )
    check_strength(strength)
    if strength in (0, 1):
        return (enhanced if strength else original).copy()
    working = np.result_type(original.dtype, np.float32)
    mixed = original.astype(working)
    mixed += working.type(strength) * (enhanced.astype(working) - mixed)
    return (
        np.rint(mixed).astype(original.dtype)
        if original.dtype.kind in "iu"
        else mixed.astype(original.dtype)
    )


def check_gamma(gamma: float) -> None:
    """Raise ValueError unless ``gamma`` is a finite number above 0."""
    if not (math.isfinite(gamma) and gamma > 0):
        raise ValueError(f"gamma={gamma}: must be a finite number above 0 (1 changes nothing)")


def check_strength(strength: float) -> None:
    """Raise ValueError unless ``strength`` lies in [0, 1]."""
    if not 0 <= strength <= 1:
        raise ValueError(
            f"strength={strength}: must lie between 0 (the original) and 1 (the enhanced)"
        )


def _table(gamma: float, dtype: np.typing.DTypeLike) -> np.ndarray:
    check_gamma(gamma)
    top = np.iinfo(dtype).max
    return np.rint(top * (np.arange(top + 1) / top) ** gamma).astype(dtype)

"""What each constant of ``zdce.auto`` is worth: each left out, or replaced by the simplest
alternative.

    python benchmarks/auto_constants.py -o reports/study/tables/08_constants.csv

Needs sice-pairs, lime, dicm and bursts. Measured on the choosing half of the scenes: of each
pair the middle 256 × 256 pixels (r is found on the whole), of lime and dicm every third pixel.
Bursts and lime have no halves. One row a change; the first row is ``auto`` as it is.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from zdce import auto, datasets, metrics, postprocess
from zdce.study.report import commit

NIGHTS = 45  # grey levels; a photograph of lime or dicm with a lower mean counts as a night here
WINDOW = 256  # pixels a side of what is scored of a pair
STEP = 3  # every third pixel of every third row is taken of lime and dicm
EVERYTHING = (slice(None), slice(None))
AGREEMENT = ("psnr", "ssim", "psnr_matched", "ssim_matched")
UNCHANGED = 60.0  # dB at most, so that means over photographs left as they are stay finite


def no_protection(image: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(image[:, :1])


def protection(power: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda image: 1 - image.amax(dim=1, keepdim=True) ** power


def fraction(image: torch.Tensor, curves: torch.Tensor, iterations: int = 8) -> torch.Tensor:
    """g·x / (1 + (g − 1)·x), g = exp(−iterations·r): the limit of ever more and smaller steps."""
    gain = torch.exp(-iterations * curves)
    return gain * image / (1 + (gain - 1) * image)


def everywhere(r: torch.Tensor, estimated: torch.Tensor) -> torch.Tensor:
    """A noise table of one strength a photograph, however much the curve brightens."""
    table = NOISE_TABLE(torch.full_like(r, -auto.LIMIT), estimated).amax(dim=1, keepdim=True)
    return table * (r < 0).view(-1, 1).expand(-1, 256)


NOISE_TABLE = auto.noise_table  # as it is, before it is replaced
LINEAR = {"WEAKEST": 1.0, "NOISE_FROM": 0.0}
# part, change, names in ``zdce.auto`` (or "postprocess.NAME") and what takes their place
CHANGES: list[tuple[str, str, dict]] = [
    ("auto", "as it is", {}),
    ("target mean", "0.42", {"TARGET_MEAN": 0.42}),
    ("target mean", "0.46", {"TARGET_MEAN": 0.46}),
    ("good as it is", "no passage, from the target on", {"GOOD": (0.4399, 0.44)}),
    ("good as it is", "from 0.33 on, no passage", {"GOOD": (0.3299, 0.33)}),
    ("nights", "no rule", {"NIGHT": (-1.0, -0.5)}),
    ("nights", "three times their mean", {"NIGHT_GAIN": 3.0}),
    ("nights", "black below 2.5 levels, no passage", {"SEEN": (2.499, 2.501)}),
    ("limit on r", "none", {"LIMIT": 1.0}),
    ("limit on r", "0.5", {"LIMIT": 0.5}),
    ("limit on r", "0.4", {"LIMIT": 0.4}),
    ("highlight protection", "none", {"highlight_protection": no_protection}),
    ("highlight protection", "1 − m²", {"highlight_protection": protection(2)}),
    ("highlight protection", "1 − m⁴", {"highlight_protection": protection(4)}),
    ("shape", "fraction", {"apply_curves": fraction}),
    (
        "shape",
        "fraction, 1 − m⁴",
        {"apply_curves": fraction, "highlight_protection": protection(4)},
    ),
    ("filter", "none", {"guided_filter": lambda image, noise: image}),
    ("filter", "blocks of 2 pixels", {"postprocess.FILTER_BLOCK": 2}),
    ("filter", "blocks of 8 pixels", {"postprocess.FILTER_BLOCK": 8}),
    ("strength", "3 levels always", {"WEAKEST": 3.0, "STRONGEST": 3.0}),
    ("strength", "growing 14 times, at most 5", {"NOISE_GAIN": 14.0, "STRONGEST": 5.0}),
    ("strength", "1 + 4.5 × noise, at most 4", LINEAR | {"NOISE_GAIN": 4.5, "STRONGEST": 4.0}),
    ("strength", "the same at every brightness", {"noise_table": everywhere}),
]


def replaced(changes: dict) -> ExitStack:
    """``zdce.auto`` with other constants and functions until the returned context ends."""
    stack = ExitStack()
    for name, value in changes.items():
        module = postprocess if name.startswith("postprocess.") else auto
        stack.enter_context(patch.object(module, name.removeprefix("postprocess."), value))
    return stack


def enhanced(pixels: np.ndarray, inside: tuple[slice, slice] = EVERYTHING) -> np.ndarray:
    """The part ``inside`` of (H, W, 3) uint8 through ``auto``, whose curve is of the whole."""
    image = torch.from_numpy(np.float32(pixels) / 255).permute(2, 0, 1)[None]
    r, noise = auto.curve_of(image)
    after = auto.render(image[..., *inside], r, auto.noise_table(r, noise))[0][0].permute(1, 2, 0)
    return (after * 255 + 0.5).clamp(0, 255).to(torch.uint8).numpy()


def window(pixels: np.ndarray) -> tuple[slice, slice]:
    """The middle :data:`WINDOW` rows and columns of a photograph."""
    starts = [max(0, side - WINDOW) // 2 for side in pixels.shape[:2]]
    return tuple(slice(start, start + WINDOW) for start in starts)


def photographs(part: str, limit: int) -> dict[str, list]:
    """What is measured on, read once: pairs (before, reference, whether first of its scene), sets,
    bursts.
    """
    pairs = datasets.samples("sice-pairs", limit, part)
    first = {sample.scene: sample.name for sample in reversed(pairs)}
    found = {"pairs": [(s.image(), s.reference(), first[s.scene] == s.name) for s in pairs]}
    for name in ("lime", "dicm"):
        samples = datasets.samples(name, limit and limit // 2, part if name == "dicm" else "")
        found[name] = [np.ascontiguousarray(s.image()[::STEP, ::STEP]) for s in samples]
    return found | {"bursts": list(datasets.bursts("bursts").values())}


def measured(on: dict[str, list]) -> Iterator[dict]:
    """Figures by photograph: pairs, their references as input, photographs without reference."""
    for before, reference, first in on["pairs"]:
        inside = window(before)
        found = metrics.agreement(enhanced(before, inside), reference[inside])
        yield {figure: found[figure] for figure in AGREEMENT}
        if first:
            kept = metrics.psnr(enhanced(reference, inside), reference[inside])
            yield {"good_kept": min(kept, UNCHANGED)}
    for name in ("lime", "dicm"):
        for before in on[name]:
            after = enhanced(before)
            found = {"clipped_share": metrics.clipped_share(after)}
            found["bright_gain"] = metrics.bright_gain(after, before)
            yield {f"{figure} {name}": value for figure, value in found.items()}
            if before.mean() < NIGHTS:
                found["newly_clipped"] = metrics.newly_clipped(after, before)
                yield {f"{figure} nights": value for figure, value in found.items()}
    for frames in on["bursts"]:
        yield {"burst_noise": metrics.burst_noise([enhanced(f) for f in frames], relative=True)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--half", default="choosing", choices=datasets.HALVES)
    parser.add_argument("--limit", type=int, default=0, help="so many pairs, evenly spaced; 0: all")
    parser.add_argument("--only", default="", help="parts to measure, with commas between them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [name.strip() for name in options.only.split(",") if name.strip()]
    rows, on = [], photographs(options.half, options.limit)
    for part, change, names in tqdm([c for c in CHANGES if not wanted or c[0] in wanted]):
        with replaced(names), torch.inference_mode():
            figures = pd.DataFrame(measured(on))
        about = {"part": part, "change": change, "half": options.half, "commit": commit()}
        rows.append(about | figures.mean().to_dict() | {"pairs": int(figures["psnr"].count())})
        pd.DataFrame(rows).to_csv(options.out, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()

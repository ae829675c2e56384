"""Quality against time of the guided filter: the exact one, and on blocks of 2, 4 and 8 pixels.

    python benchmarks/filter.py [--limit 0] [--csv reports/study/speed/filter.csv]

``auto`` with each filter, on sice-pairs (PSNR and SSIM against the reference exposure) and bursts
(noise over brightness). The exact filter works on every pixel, in windows of 13 × 13, nearest to
the 3 × 3 blocks of 4 × 4 of the fast one. Times are those of the filter alone in torch, in turn, on
600×400 random pixels. Three minutes.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from zdce import auto, datasets, metrics, paths, postprocess
from zdce.study import timing

WINDOW = 13  # pixels a side


def window(x: Tensor) -> Tensor:
    """Means over the window about each pixel; at the border, over what is there."""
    options = {"stride": 1, "count_include_pad": False}
    x = F.avg_pool2d(x, (WINDOW, 1), padding=(WINDOW // 2, 0), **options)
    return F.avg_pool2d(x, (1, WINDOW), padding=(0, WINDOW // 2), **options)


def filtering(**settings) -> Callable[[Tensor, Tensor], Tensor]:
    """:func:`zdce.postprocess.guided_filter` with other settings of its module."""

    def call(image: Tensor, noise: Tensor) -> Tensor:
        with patch.multiple(postprocess, **settings):
            return postprocess.guided_filter(image, noise)

    return call


FILTERS = {"exact": filtering(FILTER_BLOCK=1, _box=window)}
FILTERS |= {f"blocks of {n} pixels": filtering(FILTER_BLOCK=n) for n in (2, 4, 8)}
FILTERS["none"] = lambda image, noise: image


def enhanced(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """(H, W, 3) uint8 through ``auto`` with each of the filters."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    r, noise = auto.curve_of(image)
    found = {}
    for name, call in FILTERS.items():
        with patch.object(auto, "guided_filter", call):
            after = auto.render(image, r, auto.noise_table(r, noise))[0][0].permute(1, 2, 0)
        found[name] = (after * 255 + 0.5).clamp(0, 255).to(torch.uint8).numpy()
    return found


def scores(sample: datasets.Sample) -> list[dict]:
    """PSNR and SSIM of a pair, a row a filter."""
    torch.set_num_threads(1)
    reference = sample.reference()
    with torch.inference_mode():
        found = enhanced(sample.image())
    return [
        {"filter": name, "psnr": metrics.psnr(x, reference), "ssim": metrics.ssim(x, reference)}
        for name, x in found.items()
    ]


def milliseconds(rounds: int = 9) -> dict[str, float]:
    """Of each filter alone, medians in turn."""
    image = torch.rand(1, 3, 400, 600, generator=torch.Generator().manual_seed(0))
    noise, taken = torch.full((1, 256), 0.01), []
    for _ in range(rounds + 1):
        taken.append({})
        for name, call in FILTERS.items():
            started = time.perf_counter()
            call(image, noise)
            taken[-1][name] = 1000 * (time.perf_counter() - started)
    return pd.DataFrame(taken[1:]).median().to_dict()


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--limit", type=int, default=0, help="so many pairs, evenly spaced; 0: all")
    words.add_argument("--csv", type=Path, default=paths.reports("study") / "speed" / "filter.csv")
    asked = words.parse_args()
    if not (datasets.at_hand("sice-pairs") and datasets.at_hand("bursts")):
        return print("not at hand: zdce data fetch sice-pairs bursts")
    torch.set_num_threads(1)
    about = timing.conditions("filter")
    rows, pairs = [], datasets.samples("sice-pairs", asked.limit)
    with ProcessPoolExecutor() as pool:
        for each in tqdm(pool.map(scores, pairs), total=len(pairs)):
            rows += each
    with torch.inference_mode():
        for frames in datasets.bursts("bursts").values():
            every = [enhanced(frame) for frame in frames]
            for name in FILTERS:
                noise = metrics.burst_noise([found[name] for found in every], relative=True)
                rows.append({"filter": name, "burst_noise": noise})
        table = pd.DataFrame(rows).groupby("filter", sort=False).mean()
        table["ms"] = pd.Series(milliseconds())
    of_exact = table.loc["exact"]
    table["psnr_lost"], table["ssim_lost"] = (of_exact[k] - table[k] for k in ("psnr", "ssim"))
    table = table.assign(pairs=len(pairs), threads=1, **about)
    print(table[["psnr", "ssim", "psnr_lost", "ssim_lost", "burst_noise", "ms"]].to_string())
    asked.csv.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(asked.csv, float_format="%.6g")


if __name__ == "__main__":
    main()

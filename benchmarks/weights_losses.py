"""Where weights lie in their own losses (claim R1): ``python benchmarks/weights_losses.py --help``.

Every term, unweighted, in the released code's form and in the paper's, of published weights, of the finished trainings
and of their snapshots, on every 13th of the 2,002 training photographs at 256×256 (154 of them). Exposure is kept as the
mean and the mean square of its 16×16 regions, so that any target can be tried afterwards: mean (Y − E)² = square −
2·E·mean + E². ``distance``: mean absolute difference to the picture by the published weights of the same network, grey
levels. Writes ``reports/study/scores/losses.csv``; rows that are there are not computed again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image

from zdce import checkpoints, datasets, losses
from zdce.files import atomic_write
from zdce.study import evaluation

SEEDS = (0, 1, 2)
SNAPSHOTS = (1, 2, 5, 10, 20, 40, 60, 100, 140, 180, 200)
FINAL = {"zero-dce": 200, "zero-dce-improved": 181}
EVERY, SIDE, BATCH = 13, 256, 2


def photographs() -> torch.Tensor:
    """(154, 3, 256, 256) uint8, resized as for training."""
    entries = datasets._training_files("sice-train")[::EVERY]
    resized = [
        Image.fromarray(datasets._decode(file)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        for _, file in entries
    ]
    return torch.from_numpy(np.stack([np.asarray(image) for image in resized])).permute(0, 3, 1, 2)


def rows(folder: Path) -> list[tuple[str, str, int, int, str]]:
    """name, experiment, seed, epoch, model: published first, then by what matters most."""
    table = [(f"{name}-published", name, -1, 0, f"{name}-published") for name in FINAL]
    order = [(0, FINAL), (1, FINAL), (2, FINAL)]
    wanted = [(name, seed, epoch) for seed, final in order for name, epoch in final.items()]
    wanted += [(name, 0, epoch) for epoch in SNAPSHOTS for name in FINAL]
    for name, seed, epoch in dict.fromkeys(wanted):
        file = folder / f"{name}-seed{seed}-epoch{epoch:03d}.safetensors"
        if file.is_file():
            table.append((file.stem, name, seed, epoch, str(file)))
    return table


@torch.inference_mode()
def terms(
    net: torch.nn.Module, images: torch.Tensor, other: torch.Tensor | None
) -> tuple[dict, torch.Tensor]:
    """Means over photographs of every term, and the enhanced pictures as uint8."""
    found, pictures = [], []
    for part in images.split(BATCH):
        image = part.float() / 255
        enhanced, curves = net(image)
        regions = F.avg_pool2d(enhanced.mean(dim=1, keepdim=True), 16)
        row = {
            "spatial": losses.spatial_consistency(enhanced, image),
            "spatial_paper": losses.spatial_consistency(enhanced, image, "paper"),
            "regions_mean": regions.mean(),
            "regions_square": regions.square().mean(),
            "exposure_paper": losses.exposure_control(enhanced, 0.6, "paper"),
            "color": losses.color_constancy(enhanced),
            "color_paper": losses.color_constancy(enhanced, "paper"),
            "smoothness": losses.illumination_smoothness(curves),
            "smoothness_paper": losses.illumination_smoothness(curves, "paper"),
            "curves_mean": curves.mean(),
        }
        found.append({name: len(part) * value.item() for name, value in row.items()})
        pictures.append((enhanced.clamp(0, 1) * 255).round().byte())
    result = torch.cat(pictures)
    means = {name: sum(row[name] for row in found) / len(images) for name in found[0]}
    if other is not None:
        means["distance"] = (result.short() - other.short()).abs().float().mean().item()
    return means, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("runs/weights"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file = evaluation.committed() / "losses.csv"
    table = pd.read_csv(file).to_dict("records") if file.is_file() else []
    images, published = photographs(), {}
    for name, experiment, seed, epoch, model in rows(arguments.weights):
        known = {(row["name"], row["weights"]) for row in table}
        key = evaluation.weights_key(model)
        if (name, key) in known and seed >= 0:
            continue
        means, result = terms(checkpoints.load(model).net, images, published.get(experiment))
        if seed < 0:
            published[experiment] = result
        row = {"name": name, "weights": key, "experiment": experiment, "seed": seed}
        row |= {"epoch": epoch, "n": len(images)} | means
        table = [old for old in table if old["name"] != name] + [row]
        with atomic_write(file) as partial:
            pd.DataFrame(table).to_csv(partial, index=False, float_format="%.6g")
        print(name, {k: round(v, 5) for k, v in means.items()}, flush=True)


if __name__ == "__main__":
    main()

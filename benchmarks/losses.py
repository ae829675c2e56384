"""What trained and published weights reach of the losses: writes
``reports/study/scores/losses.csv``.

``python benchmarks/losses.py WEIGHTS_FOLDER``: every term, not weighted, of the published weights
of both networks and of snapshots of our trainings in the folder, as means over 77 photographs of
``sice-train`` (every 26th) at 256×256, as training sees them. Of the exposure term stand the mean
and the mean square of the 16×16 regions, from which it follows for any target E: mean (Y − E)² =
square − 2·E·mean + E². Some minutes on one core. Needs the photographs and the published weights.
"""

import argparse
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image

from zdce import checkpoints, datasets, losses, paths

EPOCHS = (1, 2, 5, 10, 60, 181, 200)
PHOTOGRAPHS = range(1, 2003, 26)
SIDE = 256  # pixels, as released


def photographs() -> torch.Tensor:
    """The photographs (77, 3, 256, 256) in [0, 1], resized by Lanczos as released."""
    images = []
    for number in PHOTOGRAPHS:
        with Image.open(datasets.find(f"data/train_data/{number}.jpg")) as image:
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        images.append(np.asarray(small))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def terms(weights: str, images: torch.Tensor) -> dict[str, float]:
    """Means of the terms over ``images``, a photograph at a time, so that batches do not matter."""
    net, rows = checkpoints.load(weights).net.eval(), []
    for image in images.split(1):
        enhanced, curves = net(image)
        regions = F.avg_pool2d(enhanced.mean(dim=1, keepdim=True), 16)
        row = {"region_mean": regions.mean(), "region_square": regions.square().mean()}
        for form in losses.FORMS:
            row[f"spatial_{form}"] = losses.spatial_consistency(enhanced, image, form)
            row[f"color_{form}"] = losses.color_constancy(enhanced, form)
            row[f"smoothness_{form}"] = losses.illumination_smoothness(curves, form)
        row["exposure_paper"] = losses.exposure_control(enhanced, 0.6, "paper")
        rows.append({name: float(value) for name, value in row.items()})
    return pd.DataFrame(rows).mean().to_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="weights, NAME-seedK-epochNNN.safetensors")
    folder = parser.parse_args().folder
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    images, rows = photographs(), []
    for network in ("zero-dce", "zero-dce-improved"):
        runs = [(network, None, None, f"{network}-published")]
        for file in sorted(folder.glob(f"{network}-seed?-epoch*.safetensors")):
            seed, epoch = (int(part.lstrip("sedpoch")) for part in file.stem.split("-")[-2:])
            runs += [(network, seed, epoch, str(file))] if epoch in EPOCHS else []
        for name, seed, epoch, weights in runs:
            about = {"network": name, "seed": seed, "epoch": epoch, "photographs": len(images)}
            rows.append(about | terms(weights, images) | {"commit": commit.stdout.strip()})
            print(rows[-1], flush=True)
    place = paths.reports("study") / "scores" / "losses.csv"
    table = pd.DataFrame(rows).astype({"seed": "Int64", "epoch": "Int64"})
    table.to_csv(place, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    main()

"""Does training at 128×128 rank the arms as training at 256×256 does, for a quarter of the arithmetic?

    python benchmarks/training_size.py [--steps 400] [--limit 24] [--csv reports/study/training/size.csv]

Trains a handful of arms, chosen to differ in different things, at both sizes on the same photographs in the same order
(runs already there are not repeated), scores them on sice-pairs and bursts, and prints the rank correlation.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import pandas as pd

from zdce.study import ablation, evaluation, experiments, sweep

ARMS = ("zero-dce-improved", "channels-8", "tv-1600", "exposure-0.5", "no-color")
SIZES = (128, 256)  # pixels
FIGURES = (
    "psnr",
    "ssim",
    "psnr_matched",
    "mean",
    "bright_gain",
    "dark_noise_gain",
    "color_cast",
    "relative_noise",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400, help="of each training")
    parser.add_argument(
        "--limit", type=int, default=24, help="photographs of sice-pairs, evenly spaced"
    )
    parser.add_argument("--jobs", type=int, help="trainings at a time")
    parser.add_argument("--csv", help="write the scores")
    arguments = parser.parse_args()
    configs = [
        replace(experiments.ARMS[arm], size=size, steps=arguments.steps)
        for size in SIZES
        for arm in ARMS
    ]
    for outcome in sweep.sweep(configs, jobs=arguments.jobs):
        print(f"{outcome.config.size} px: {outcome.line()}", flush=True)
    methods = [
        evaluation.Method(f"{c.name} {c.size}", str(sweep.folder(c) / "model.safetensors"), 1.0)
        for c in configs
    ]
    pairs = evaluation.summary(
        evaluation.evaluate(methods, "sice-pairs", arguments.limit), ["method"]
    )
    noise = evaluation.summary(evaluation.evaluate_bursts(methods, "bursts"), ["method"])
    about = pd.DataFrame(
        {"arm": c.name, "size": c.size, "steps": c.steps, "batch": c.batch, "n": arguments.limit}
        for c in configs
    )
    labels = [method.label for method in methods]
    scores = pairs.join(noise["relative_noise"]).loc[labels, list(FIGURES)].reset_index(drop=True)
    table = pd.concat([about, scores], axis="columns")
    print(table.round(3).to_string(index=False))
    print(ablation.size_ranks(table).round(3).to_string(index=False))
    if arguments.csv:
        table.to_csv(arguments.csv, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()

"""The tables in the README and on the weights' model card, generated from result files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from zdce import checkpoints, paths
from zdce.files import atomic_write
from zdce.study import claims as ledger

PROFILE = "study"
ON = "sice-pairs"
# column of tables/06_summary.csv → its heading, decimals
FIGURES = {
    "psnr": ("PSNR, dB ↑", 2),
    "ssim": ("SSIM ↑", 3),
    "psnr_matched": ("PSNR, means matched ↑", 2),
    "ssim_matched": ("SSIM, means matched ↑", 3),
    "mean": ("mean brightness", 2),
}
# column of soak.csv → its heading
HARM = (
    ("lost", "lost"),
    ("partial", "in part"),
    ("different", "different"),
    ("litter", "unfinished files left"),
)


def blocks() -> dict[Path, dict[str, Callable[[], str]]]:
    """Every file with generated parts, and what makes each part."""
    return {
        paths.root() / "README.md": {
            "video": videos,
            "claims": verdicts,
            "headline": headline,
            "soak": soak,
        },
        paths.weights() / "README.md": {"weights": weights_card},
    }


def write() -> None:
    """Generate every part anew, in place."""
    for file, parts in blocks().items():
        text = file.read_text("utf-8")
        for name, make in parts.items():
            text = replaced(text, name, make())
        with atomic_write(file) as partial:
            partial.write_text(text, "utf-8")


def replaced(text: str, name: str, block: str) -> str:
    """``text`` with ``block`` between ``<!-- name: … -->`` and ``<!-- /name -->``; ValueError without the two marks."""
    pattern = re.compile(rf"(<!-- {name}: .*? -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(
            f"block {name!r}: needs one <!-- {name}: … --> and one <!-- /{name} --> after it"
        )
    return pattern.sub(lambda match: f"{match[1]}{block.strip()}\n{match[3]}", text)


def verdicts() -> str:
    """The verdict on every claim, from the study's committed ledger."""
    return ledger.glance(pd.read_csv(paths.reports(PROFILE) / "claims.csv"))


def headline() -> str:
    """Scores of every method on real pairs, and its noise on bursts, from the study's committed tables."""
    tables = paths.reports(PROFILE) / "tables"
    scores = pd.read_csv(tables / "06_summary.csv").query("dataset == @ON").set_index("method")
    noise = pd.read_csv(tables / "06_noise.csv").query("dataset == 'bursts'")
    noise = noise.groupby("method", sort=False)["relative_noise"].agg(["mean", "size"])
    heads = ["method", *(head for head, _ in FIGURES.values()), "noise on bursts ÷ brightness ↓"]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for method, row in scores.iterrows():
        cells = [f"{row[column]:.{decimals}f}" for column, (_, decimals) in FIGURES.items()]
        cells.append(f"{noise['mean'][method]:.3f}" if method in noise.index else "")
        lines.append("| " + " | ".join([str(method), *cells]) + " |")
    caption = (
        f"n = {int(scores['n'].iloc[0])} real pairs of low and normal exposure (`{ON}`), {noise['size'].iloc[0]} "
        "scenes of `bursts`; 8-bit images at full size; made by "
        f"`zdce report --profile {PROFILE}`, tables `06_summary.csv` and `06_noise.csv`."
    )
    return "\n".join([*lines, "", caption])


def videos() -> str:
    """Speed and flicker of a 1080p video, from the committed table of ``benchmarks/video.py``."""
    table = pd.read_csv(paths.reports(PROFILE) / "speed" / "video.csv", index_col="way")
    work, rate = table["core_ms_a_frame"], table["frames_per_second"]
    flicker, first = table["flicker_percent"], table.iloc[0]
    return (
        f"1080p in H.264 by `{first['model']}`, {first['frames']} frames, {first['device']} "
        f"([video.csv](reports/{PROFILE}/speed/video.csv)): {rate['fast']:.0f} frames/s from file to file, "
        f"{rate['codec']:.0f} by decoding and encoding alone; of {work['fast']:.0f} ms of processor time a frame "
        f"{work['codec']:.0f} are the codec's. What stands still flickers by {first['flicker_input']:.2f} % of its "
        f"brightness in the input, by {flicker['unsteadied']:.2f} % with every frame's own curves and by "
        f"{flicker['fast']:.2f} % steadied."
    )


def soak() -> str:
    """What the long runs with faults found, from the table that ``make soak`` writes."""
    table = pd.read_csv(paths.reports(PROFILE) / "soak.csv")
    heads = [
        "command",
        "what was done to it",
        "times",
        "outputs",
        *(head for _, head in HARM),
        "memory, MiB",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * 2 + "|---:" * (len(heads) - 2) + "|"]
    for row in table.to_dict("records"):
        counts = [
            f"{row[column]:,}"
            for column in ("times", "outputs", *(column for column, _ in HARM), "peak_MiB")
        ]
        lines.append("| " + " | ".join([f"`{row['what']}`", row["done"], *counts]) + " |")
    return "\n".join(lines)


def weights_card() -> str:
    """Budget and fingerprint of every shipped weights file, from the files' own headers."""
    heads = [
        "file",
        "bytes",
        "seed",
        "steps",
        "batch",
        "photographs seen",
        "size, pixels",
        "sha256",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 2) + "|---|"]
    for file in sorted(paths.weights().glob("*.safetensors")):
        run = checkpoints.read(file).header["train"]
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        seen = f"{run['steps'] * run['batch']:,}"
        cells = [
            f"`{file.name}`",
            f"{file.stat().st_size:,}",
            run["seed"],
            f"{run['steps']:,}",
            run["batch"],
            seen,
        ]
        lines.append("| " + " | ".join(map(str, [*cells, run["size"], f"`{digest}`"])) + " |")
    return "\n".join(lines)

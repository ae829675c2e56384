"""The tables in the README and on the weights' model card, generated from result files."""

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from zdce import checkpoints, paths
from zdce.files import atomic_write
from zdce.study import claims as ledger
from zdce.study import evaluation, experiments

PROFILE = "study"
ON = "sice-pairs"
# rows of tables/06_summary.csv that the README shows, as far as they are there
SHOWN = (
    *("input", "auto", "zero-dce (published)", "zero-dce-improved + gamma (published)"),
    *("zero-dce", "zero-dce-improved", "zero-dce-improved + gamma", "zero-dce++"),
    *("zero-dce++-12x", "sci-medium", "sci-difficult"),
)
# its columns → heading, decimals
FIGURES = {
    "psnr": ("PSNR, dB ↑", 2),
    "ssim": ("SSIM ↑", 3),
    "psnr_matched": ("PSNR, means matched ↑", 2),
    "ssim_matched": ("SSIM, means matched ↑", 3),
    "mean": ("mean brightness", 2),
    "detail_kept": ("detail kept ↑", 3),
    "bright_detail_kept": ("in bright areas ↑", 3),
}
HEADS = [head for head, _ in FIGURES.values()]


def blocks() -> dict[Path, dict[str, Callable[[], str]]]:
    """Every file with generated parts, and what makes each part."""
    return {
        paths.root() / "README.md": {"claims": verdicts, "headline": headline},
        paths.weights() / "README.md": {"weights": weights_card, "seeds": seeds_card},
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
    """``text`` with ``block`` between ``<!-- name: … -->`` and ``<!-- /name -->``; ValueError
    without the marks.
    """
    pattern = re.compile(rf"(<!-- {name}: .*? -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        marks = f"one <!-- {name}: … --> and one <!-- /{name} --> after it"
        raise ValueError(f"block {name!r}: needs {marks}")
    return pattern.sub(lambda match: f"{match[1]}{block.strip()}\n{match[3]}", text)


def table(heads: list[str], rows: Iterable[Iterable], words: int = 1) -> str:
    """A Markdown table; the first ``words`` columns are text, the others numbers."""
    rule = "|---" * words + "|---:" * (len(heads) - words) + "|"
    lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in (heads, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])


def _figures(row: pd.Series) -> list[str]:
    return [f"{row[name]:.{digits}f}" for name, (_, digits) in FIGURES.items()]


def verdicts() -> str:
    """The verdict on every claim, from the study's committed ledger."""
    return ledger.glance(pd.read_csv(paths.reports(PROFILE) / "claims.csv"))


def headline() -> str:
    """Scores on real pairs and noise on bursts, from the study's committed tables."""
    tables = paths.reports(PROFILE) / "tables"
    scores = pd.read_csv(tables / "06_summary.csv").query("dataset == @ON").set_index("method")
    noise = pd.read_csv(tables / "06_noise.csv").query("dataset == 'bursts'").set_index("method")
    rows = []
    for method, row in scores.reindex([name for name in SHOWN if name in scores.index]).iterrows():
        grain = f"{noise.at[method, 'relative_noise']:.3f}" if method in noise.index else ""
        rows.append([f"**{method}**" if method == "auto" else method, *_figures(row), grain])
    return (
        table(["method", *HEADS, "noise ÷ brightness ↓"], rows)
        + f"\n\nn = {int(scores['n'].iloc[0])} real pairs of low and normal exposure (`{ON}`), "
        f"noise over {int(noise['scenes'].iloc[0])} scenes of `bursts`; 8-bit images at full size. "
        "zero-dce rows without “(published)” are trained by this project, means over three seeds; "
        "photographs without bright areas are left out of their column. Half of the pairs chose "
        "`auto`'s constants; notebook 08 has its scores on the other half. Source: "
        f"`06_summary.csv` and `06_noise.csv` of `zdce report --profile {PROFILE}`."
    )


def weights_card() -> str:
    """Budget and fingerprint of every shipped weights file, from the files' own headers."""
    rows = []
    for file in sorted(paths.weights().glob("*.safetensors")):
        run, data = checkpoints.read(file).header["train"], file.read_bytes()
        settings = [run[name] for name in ("seed", "steps", "batch", "size")]
        numbers = [len(data), *settings, run["steps"] * run["batch"]]
        digest = hashlib.sha256(data).hexdigest()
        rows.append([f"`{file.name}`", f"`{digest}`", *(f"{number:,}" for number in numbers)])
    heads = ["file", "sha256", "bytes", "seed", "steps", "batch", "size, pixels"]
    return table([*heads, "photographs seen"], rows, words=2)


def seeds_card() -> str:
    """How far the seeds of the two networks lie apart on real pairs."""
    methods = [method for name in experiments.MAIN for method in evaluation.trained(name)]
    scores = evaluation.evaluate(methods, ON)
    means = scores.groupby(["method", "seed"], sort=False)[[*FIGURES]].mean()
    rows = [[f"`{name}`", seed, *_figures(row)] for (name, seed), row in means.iterrows()]
    n = scores["photograph"].nunique()
    cards = table(["network", "seed", *HEADS], rows)
    return f"{cards}\n\nMeans over n = {n} pairs of `{ON}`, without gamma."

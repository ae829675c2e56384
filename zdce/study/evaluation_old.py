"""The study itself: the trainings that it compares, the methods that it scores, and the scores.

An arm is a training configuration, one change away from a reference row. A method is what a photograph goes through
to be scored: a model, and the gamma after it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from zdce import checkpoints, datasets, metrics, paths
from zdce.enhance import Enhancer
from zdce.postprocess import apply_gamma
from zdce.study import experiments
from zdce.study.claims import verdict  # noqa: F401  for the notebooks' modules

NIQE_FILE = "data/niqe_modelparameters.mat"

# --- comparisons ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """One row of a comparison. label: its name in tables; model: a model's name or file, None leaves the input as it
    is; gamma: applied afterwards, None for the model's own."""

    label: str
    model: str | None
    gamma: float | None = None

    def enhancer(self, device: str = "auto") -> Callable[[np.ndarray], np.ndarray]:
        """Photograph (H, W, 3) uint8 → the same enhanced."""
        if self.model is None:
            return lambda photograph: photograph
        return Enhancer(
            **_source(self.model), gamma=self.gamma, device=device, bf16=False
        )  # as it was trained

    def at_hand(self) -> bool:
        """Whether its weights are there; published ones are fetched like data sets."""
        if self.model is None or self.model not in checkpoints.MODELS:
            return True
        file = checkpoints.MODELS[self.model][1]
        published = file.startswith("weights/")
        return (
            datasets.at_hand("published-weights")
            if published
            else (paths.weights() / file).is_file()
        )


INPUT = Method("input", None)
# The study's comparison: its two networks without and with its gamma, by our weights and by the published ones.
OURS = (
    Method("zero-dce", "zero-dce"),
    Method("zero-dce-improved", "zero-dce-improved", 1.0),
    Method("zero-dce-improved + gamma", "zero-dce-improved"),
)
PUBLISHED = tuple(Method(f"{m.label} (published)", f"{m.model}-published", m.gamma) for m in OURS)
PEERS = tuple(
    Method(name, name)
    for name in ("zero-dce++", "zero-dce++-12x", "sci-easy", "sci-medium", "sci-difficult")
)


def repeats(profile: str = "study") -> list[Method]:
    """:data:`OURS` once more for every other seed of the main trainings of which both networks were kept, labelled
    such as ``zero-dce (seed 1)``."""
    kept, steps = experiments.trainings(profile), experiments.BUDGETS[profile].steps
    if not len(kept):
        return []
    files = (
        kept[kept["steps"] == kept["experiment"].map(steps)]
        .pivot(index="seed", columns="experiment", values="weights")
        .reindex(columns=experiments.MAIN)
    )
    again = files.drop(
        index=checkpoints.load(experiments.MAIN[0]).header["train"]["seed"], errors="ignore"
    ).dropna()
    return [
        Method(f"{m.label} (seed {seed})", str(row[m.model]), m.gamma)
        for seed, row in again.iterrows()
        for m in OURS
    ]


def methods(*groups: Sequence[Method]) -> list[Method]:
    """Those of ``groups`` (such as ``OURS, PUBLISHED, PEERS``) whose weights are at hand, after the plain input."""
    return [INPUT, *(method for group in groups for method in group if method.at_hand())]


def at_hand(*names: str) -> list[str]:
    """Those of the named data sets that are at hand, in the given order."""
    return [name for name in names if datasets.at_hand(name)]


def sets(data: str) -> list[str]:
    """Data sets named in a notebook's parameter ``data``: comma-separated names, or ``at hand`` for ``bundled`` and
    those of sice-pairs, lime, dicm and bursts that were fetched. Raises ValueError for an unknown name."""
    if data.strip() == "at hand":
        return at_hand("bundled", "sice-pairs", "lime", "dicm", "bursts")
    names = [name.strip() for name in data.split(",") if name.strip()]
    if unknown := [name for name in names if name not in datasets.DATASETS]:
        raise ValueError(
            f"data: no data set {unknown[0]!r}; known: {', '.join(datasets.DATASETS)}, or 'at hand'"
        )
    return names


def evaluate(
    rows: Iterable[Method | str],
    on: str,
    limit: int = 0,
    *,
    part: str = "",
    device: str = "auto",
    progress: bool = False,
) -> pd.DataFrame:
    """Scores of every method on every photograph of the data set ``on``: one row a pair, columns as in METRICS.

    rows: methods, or models' names. limit: so many photographs, evenly spaced; 0 takes all. part: only scenes of this
    half (``datasets.half``). NIQE is there when its
    model file is at hand. Raises ValueError for an unknown set or model, FileNotFoundError for files not fetched.
    """
    chosen = [
        row if isinstance(row, Method) else Method(row, None if row == INPUT.label else row)
        for row in rows
    ]
    through, niqe_model = _through(chosen, device), _niqe_model()
    table = []
    for sample in tqdm(
        datasets.samples(on, limit, part), desc=on, unit="photo", disable=not progress
    ):
        before, reference = sample.image(), sample.reference()
        for label, after in through(before).items():
            scores = metrics.scores(after, before, reference, niqe_model)
            table.append(
                {"dataset": on, "photograph": sample.name, "scene": sample.scene, "method": label}
                | scores
            )
    return pd.DataFrame(table)


def evaluate_bursts(
    rows: Iterable[Method], on: str, limit: int = 0, *, device: str = "auto"
) -> pd.DataFrame:
    """Noise of every method on every static scene of ``on`` (``bursts`` or ``bundled``): one row a pair.

    limit: the first so many scenes; 0 takes all. Columns: burst_noise in grey levels, noise_gain,
    noise_gain_relative (noise over mean brightness), as in METRICS.
    """
    scenes = list(datasets.bursts(on).items())[: limit or None]
    through, table = _through(list(rows), device), []
    for scene, before in scenes:
        frames = [through(frame) for frame in before]
        for label in frames[0]:
            after = [frame[label] for frame in frames]
            table.append(
                {
                    "dataset": on,
                    "scene": scene,
                    "method": label,
                    "burst_noise": metrics.burst_noise(after),
                    "relative_noise": metrics.burst_noise(after, relative=True),
                    "noise_gain": metrics.noise_gain(after, before),
                    "noise_gain_relative": metrics.noise_gain(after, before, relative=True),
                }
            )
    return pd.DataFrame(table)


def _through(rows: Sequence[Method], device: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Photograph (H, W, 3) uint8 → result by method's label; a network that methods share runs once."""
    networks = {
        method.model: Method(method.label, method.model, 1.0).enhancer(device) for method in rows
    }
    gammas = {method.label: getattr(method.enhancer(device), "gamma", 1.0) for method in rows}

    def results(photograph: np.ndarray) -> dict[str, np.ndarray]:
        plain = {model: network(photograph) for model, network in networks.items()}
        return {
            method.label: apply_gamma(plain[method.model], gammas[method.label]) for method in rows
        }

    return results


def summary(scores: pd.DataFrame, by: Sequence[str] = ("dataset", "method")) -> pd.DataFrame:
    """Mean of every figure per group, in the order of appearance, with n, the number of photographs or scenes."""
    figures = [column for column in scores.select_dtypes("number").columns if column not in by]
    groups = scores.groupby(list(by), sort=False)
    return groups[figures].mean().dropna(axis="columns", how="all").assign(n=groups.size())


def interval(values: pd.Series, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over photographs, seeded; (NaN, NaN) for fewer than two scenes or values.

    Photographs of one scene are no independent witnesses: where the index of ``values`` has a level ``scene``, they
    are drawn together.
    """
    known = values.dropna()
    if "scene" in known.index.names:
        groups = known.groupby(
            level=[level for level in known.index.names if level in ("dataset", "scene")]
        )
        sums, counts = groups.sum().to_numpy(), groups.size().to_numpy()
    else:
        sums, counts = known.to_numpy(), np.ones(len(known))
    if len(sums) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (0.025, 0.975))
    return float(low), float(high)


def paired_difference(
    scores: pd.DataFrame, figure: str, method: str, other: str
) -> tuple[float, float, float]:
    """Mean of ``figure`` of ``method`` minus that of ``other`` on the same photographs, and its 95 % interval."""
    difference = paired(scores, figure, method, other)
    return (float(difference.mean()), *interval(difference))


def paired(scores: pd.DataFrame, figure: str, method: str, other: str) -> pd.Series:
    """``figure`` of ``method`` minus that of ``other``, by data set, scene and photograph."""
    key = [column for column in ("dataset", "scene", "photograph") if column in scores]
    values = scores.pivot(index=key, columns="method", values=figure)
    return values[method] - values[other]


def _source(model: str) -> dict[str, str]:
    return (
        {"weights": model}
        if os.path.splitext(model)[1] in (".safetensors", ".pth", ".pt")
        else {"model": model}
    )


def _niqe_model() -> metrics.NiqeModel | None:
    return (
        metrics.load_niqe_model(datasets.find(NIQE_FILE))
        if datasets.at_hand("niqe-model")
        else None
    )

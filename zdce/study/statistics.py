"""Whether a difference is real: one paired test for every claim.

Photographs of one scene are no independent witnesses, and neither are photographs scored by one
training: what comes out for one seed may not for the next. So differences are paired by photograph
and, for trainings, by seed, and the bootstrap draws scenes *and* seeds anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

DRAWS = 2000
LEVEL = (0.025, 0.975)  # quantiles of the draws that bound the interval
FEWEST = 5  # scenes; with fewer a bootstrap interval says too little (ours)


@dataclass(frozen=True)
class Difference:
    """A mean with its 95 % interval, in the figure's unit; n: photographs, or scenes of bursts."""

    mean: float
    low: float
    high: float
    n: int
    scenes: int
    seeds: int


def compare(scores: pd.DataFrame, figure: str, method: str, other: str) -> Difference:
    """``figure`` of ``method`` less that of ``other``, on the same photographs and, where both have
    them, seeds.

    scores: of ``evaluation.evaluate`` or ``evaluate_bursts``, one data set or several. A method
    without seeds (the input, published weights) is compared with every seed of the other. Pairs
    with NaN are left out. Raises ValueError naming the method or figure that ``scores`` lacks.
    """
    if figure not in scores:
        raise ValueError(f"figure={figure!r}: not in these scores")
    values, base = _wide(scores, figure, method), _wide(scores, figure, other)
    if -1 in base:  # the same for every seed of the method
        base = pd.DataFrame(dict.fromkeys(values, base[-1]))
    elif -1 in values:
        values = pd.DataFrame(dict.fromkeys(base, values[-1]))
    seeds = values.columns.intersection(base.columns)
    return interval(values[seeds].sub(base[seeds]))


def interval(values: pd.Series | pd.DataFrame) -> Difference:
    """Mean of values and its 95 % interval over scenes and seeds.

    values: one a photograph, a column a seed where there are several. Scenes are the index levels
    ``dataset`` and ``scene``. With a single scene the interval is NaN; with a single seed it says
    nothing of seeds. With three seeds it reaches about as far as the seeds themselves.
    """
    table = values.to_frame() if isinstance(values, pd.Series) else values
    table = table.dropna(how="all")
    levels = [name for name in ("dataset", "scene") if name in table.index.names]
    groups = table.groupby(level=levels)
    sums, counts = groups.sum().to_numpy(float), groups.count().to_numpy(float)
    scenes, seeds = sums.shape
    if not scenes or not seeds:
        return Difference(np.nan, np.nan, np.nan, 0, 0, seeds)
    mean, low, high = sums.sum() / counts.sum(), np.nan, np.nan
    if scenes > 1:
        random = np.random.default_rng(0)
        drawn = random.multinomial(scenes, np.full(scenes, 1 / scenes), size=DRAWS)
        columns = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS)
        means = ((drawn @ sums) * columns).sum(axis=1) / ((drawn @ counts) * columns).sum(axis=1)
        low, high = np.nanquantile(means, LEVEL)
    return Difference(*map(float, (mean, low, high)), len(table), scenes, seeds)


def _wide(scores: pd.DataFrame, figure: str, method: str) -> pd.DataFrame:
    """``figure`` of one method: a row a photograph, a column a seed, −1 for a method without."""
    mine = scores[scores["method"] == method]
    if mine.empty:
        raise ValueError(f"method={method!r}: not in these scores")
    index = [name for name in ("dataset", "scene", "photograph") if name in mine]
    seeds = mine["seed"].astype("Int64").fillna(-1).astype(int) if "seed" in mine else -1
    return mine.assign(seed=seeds).pivot(index=index, columns="seed", values=figure)


def differences(
    scores: pd.DataFrame, figures: Iterable[str], pairs: Iterable[tuple[str, str]]
) -> pd.DataFrame:
    """:func:`compare` for every data set, pair of methods and figure in ``scores``: a row each."""
    rows, figures = [], [figure for figure in figures if figure in scores]
    for name, part in scores.groupby("dataset", sort=False):
        there = set(part["method"])
        for method, other in (pair for pair in pairs if {*pair} <= there):
            for figure in figures:
                about = {"dataset": name, "method": method, "other": other, "figure": figure}
                rows.append(about | vars(compare(part, figure, method, other)))
    return pd.DataFrame(rows).query("n > 0").reset_index(drop=True) if rows else pd.DataFrame()

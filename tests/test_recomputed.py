"""The committed scores agree with the published ones, and what the study derives from them follows
from them.
"""

import pandas as pd
import pytest

from zdce import datasets, paths
from zdce.study import claims, evaluation
from zdce.study.evaluation import INPUT, Method, trained

TABLES = paths.reports("study") / "tables"
NETWORKS = ("zero-dce", "zero-dce-improved")
PEERS = ("zero-dce++", "sci-easy", "sci-medium", "sci-difficult")
EXPECTED = {"input": INPUT, "zero-dce++ (12x)": Method("", "zero-dce++-12x", 1.0)}
EXPECTED |= {name: Method("", f"{name}-published", 1.0) for name in NETWORKS}
EXPECTED |= {name: Method("", name, 1.0) for name in PEERS}
EXPECTED["zero-dce-improved + gamma 1.15"] = Method("", "zero-dce-improved-published", 1.15)


@pytest.mark.parametrize("name", EXPECTED)
def test_committed_scores_of_published_weights_are_the_published_ones(name, shared):
    every = pd.read_csv(shared / "expected" / "sice_pairs_published_weights.csv")
    expected = every[every["method"] == name].set_index("low")
    found = evaluation.evaluate([EXPECTED[name]], "sice-pairs").set_index("photograph")
    assert len(found) == 250
    for figure in ("psnr", "ssim", "mae", "mean"):
        assert (found[figure] - expected[figure]).abs().max() < 0.002


def whole(rows: list[Method], on: str, group: str) -> list[Method]:
    """The methods whose scores the store holds for every photograph or scene of ``on``."""
    samples = datasets.samples(on)
    units = {s.scene for s in samples} if group.endswith("noise") else {s.name for s in samples}
    kept = set(evaluation.kept(group).index)
    keys = {m: m.key() for m in rows}
    return [m for m in rows if {(*keys[m], unit) for unit in units} <= kept]


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """Scores and noise of every method that a claim compares, from the store alone."""
    gamma = 0.8696
    name = "zero-dce-improved"
    rows = [
        *(m for each in ("zero-dce", name) for m in trained(each)),
        *trained(name, 1.15),
        *trained(name, gamma, label=f"{name} + gamma 0.87"),
        *trained(name, before=gamma, label=f"gamma 0.87 + {name}"),
        Method(f"{name} + gamma 0.87 (published)", f"{name}-published", gamma),
        Method(f"gamma 0.87 + {name} (published)", f"{name}-published", 1.0, gamma),
        *trained(name, epochs=60, label=claims.REFERENCE),
    ]
    arms = ("no-pool", "pools-2", "pools-3", "stride2-bilinear", "stride2-transposed", "tv-200")
    rows += [INPUT, *evaluation.PUBLISHED, *(m for each in arms for m in trained(each))]
    scores = [evaluation.evaluate(whole(rows, on, on), on) for on in ("sice-pairs", "lime", "dicm")]
    noise = evaluation.evaluate_bursts(whole(rows, "bursts", "bursts-noise"), "bursts")
    return {"scores": pd.concat(scores, ignore_index=True), "bursts": noise}


@pytest.mark.parametrize("number", ["02", "03", "04", "05", "06"])
def test_verdicts_follow_from_the_committed_scores(number, tables):
    file = TABLES / f"{number}_claims.csv"
    table = pd.read_csv(file, keep_default_na=False)
    names = [name for name, claim in claims.CLAIMS.items() if claim.notebook == number]
    if number == "05":  # which scores gamma on pairs alone
        pairs = tables["scores"]["dataset"] == "sice-pairs"
        tables = tables | {"scores": tables["scores"][pairs]}
    made = claims.judge(*names, **tables)
    compared = [part.part for name in names for part in claims.CLAIMS[name].parts if part.other]
    made = made[made["part"].isin(compared)]
    kept = table.merge(made, on=["claim", "part", "on"], suffixes=("", "_made"))
    assert len(kept) == len(made)
    assert kept["outcome"].tolist() == kept["outcome_made"].tolist()
    for column in ("measured", "low", "high"):
        numbers = pd.to_numeric(kept[column])
        assert numbers.tolist() == pytest.approx(
            kept[f"{column}_made"].tolist(), rel=1e-3, nan_ok=True
        )

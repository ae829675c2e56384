"""Original against improved network: what arithmetic predicts, what was published, what was measured (N1 – N3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from zdce import checkpoints, datasets, paths
from zdce.model import ZERO_DCE, CurveNet, count_parameters, multiply_adds
from zdce.study import claims_old as ledger
from zdce.study import evaluation
from zdce.study.timing import BUSY, LIME_SIZES

# --- as published ---------------------------------------------------------------------------------------------

# The improved study's table: seconds of the nine photographs of `lime` on its GPU, one call each, without warm-up and
# without synchronisation.
PUBLISHED = pd.DataFrame(
    {
        "photograph": [str(number) for number in range(1, 10)],
        "megapixels": [width * height / 1e6 for width, height in LIME_SIZES],
        "original": [
            0.02394,
            0.01396,
            0.01197,
            0.00997,
            0.03890,
            0.00898,
            0.01296,
            0.01197,
            0.01396,
        ],
        "improved": [
            0.01596,
            0.01197,
            0.00898,
            0.00798,
            0.03491,
            0.00598,
            0.00898,
            0.00898,
            0.01097,
        ],
    }
)
PUBLISHED_SAVED = (0.10, 0.35)  # the study's words: 10 – 35 % faster
PUBLISHED_FILES = {
    "zero-dce": (312, 316),
    "zero-dce-improved": (97, 97),
}  # KB of 1,024 bytes, lowest and highest
PAPER_SECONDS = 0.0025  # the paper: 1200×900 on a 2080 Ti
PEAK_2080TI = (
    4352 * 1.545e9 * 2
)  # operations a second: the card's units × boost clock × multiply and add


def clock_step(seconds: Iterable[float], precision: float = 1e-5) -> float:
    """The largest step, 0.2 – 5 ms, of which all ``seconds`` are whole multiples within their printed ``precision``.

    A clock that advances in steps gives such times. NaN where no step fits. Source: ours.
    """
    values = np.asarray(list(seconds))[:, None]
    steps = np.arange(0.005, 0.0002, -1e-7)[None]
    away = np.abs(values - np.round(values / steps) * steps).max(axis=0)
    fits = np.flatnonzero((away <= precision) & (np.round(values / steps) >= 1).all(axis=0))
    if not len(fits):
        return float("nan")
    near = fits[
        steps[0, fits] > 0.99 * steps[0, fits[0]]
    ]  # neighbours on the grid: the best of them
    return float(steps[0, near[away[near].argmin()]])


def line(pixels: Iterable[float], times: Iterable[float]) -> tuple[float, float, float]:
    """Straight line through times over pixels: time at no pixels, time a pixel, and the share of variance explained."""
    x, y = np.asarray(list(pixels), float), np.asarray(list(times), float)
    slope, start = np.polyfit(x, y, 1)
    left = ((y - start - slope * x) ** 2).sum()
    return float(start), float(slope), float(1 - left / ((y - y.mean()) ** 2).sum())


def arithmetic_floor(net: CurveNet, width: int, height: int, operations: float) -> float:
    """Seconds that the convolutions of one photograph take at least on a device of so many operations a second."""
    return 2 * multiply_adds(net, height, width) / operations


def held_bytes(net: CurveNet, pixels: int) -> int:
    """Bytes of the float32 maps alive at the last convolution of a full-size ``net``: the photograph, six layers'
    outputs, the pair that it reads, and the curves. What a library needs for itself is not in it. Source: ours."""
    return (
        4 * pixels * (3 + 6 * net.config.width + 2 * net.config.width + net.config.curve_channels)
    )


# --- analysis -------------------------------------------------------------------------------------------------


def saved(ratio: Any) -> Any:
    """Share of the time saved by what is ``ratio`` times as fast: 1 − 1/ratio."""
    return 1 - 1 / ratio


def beside_published(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`summary` of original and improved on nine photographs beside the published table: one row a photograph.

    Milliseconds of both, ratio with its quartiles, and the share of time saved: under the contract (``saved``), by the
    published way of timing (``saved_first``), and as published (``saved_published``).
    """
    pair = {version: part.set_index("photograph") for version, part in table.groupby("version")}
    original, improved = pair["original"], pair["improved"]
    published = PUBLISHED.set_index("photograph").loc[original.index]
    rows = {
        "megapixels": published["megapixels"],
        "original_ms": original["ms"],
        "improved_ms": improved["ms"],
        "ratio": improved["ratio"],
        "ratio_low": improved["ratio_low"],
        "ratio_high": improved["ratio_high"],
        "saved": saved(improved["ratio"]),
        "original_first_ms": original["first_ms"],
        "improved_first_ms": improved["first_ms"],
        "saved_first": saved(original["first_ms"] / improved["first_ms"]),
        "original_published_ms": 1000 * published["original"],
        "improved_published_ms": 1000 * published["improved"],
        "saved_published": saved(published["original"] / published["improved"]),
    }
    return pd.DataFrame(rows).reset_index()


def excess(kinds: pd.DataFrame, predicted: float) -> pd.DataFrame:
    """Why ``improved`` is not ``predicted`` times as fast as ``original``: :meth:`Workers.kinds` with each kind's
    ratio and its excess, the milliseconds above the original's divided by ``predicted``. They add up to the gap."""
    quotient = kinds["original"] / kinds["improved"].where(kinds["improved"] > 0)
    return kinds.assign(ratio=quotient, excess_ms=kinds["improved"] - kinds["original"] / predicted)


def sizes() -> pd.DataFrame:
    """Both networks: parameters, multiply-adds at 256×256 and a pixel, bytes of their numbers alone, of the published
    file (as the manifest states it, fetched or not) and of the file trained here; held_mb: predicted memory at
    600×400, megabytes."""
    rows = []
    for version, name in (("original", "zero-dce"), ("improved", "zero-dce-improved")):
        model = checkpoints.load(name)
        per_pixel = multiply_adds(model.net, 256, 256) / 256**2
        rows.append(
            {
                "version": version,
                "parameters": count_parameters(model.net),
                "multiply_adds_256": multiply_adds(model.net, 256, 256),
                "multiply_adds_pixel": per_pixel,
                "numbers_bytes": 4 * count_parameters(model.net),
                "published_bytes": datasets.manifest()[
                    checkpoints.MODELS[f"{name}-published"][1]
                ].size,
                "trained_bytes": model.file.stat().st_size,
                "held_mb": held_bytes(model.net, 600 * 400) / 1e6,
            }
        )
    return pd.DataFrame(rows)


def quotients(table: pd.DataFrame) -> dict[str, float]:
    """Original over improved for every column of :func:`sizes`."""
    original, improved = (
        table.set_index("version").loc[version] for version in ("original", "improved")
    )
    return (original / improved).to_dict()


def training() -> pd.DataFrame:
    """Training throughput of both networks, as ``benchmarks/training_speed.py`` measured it: one row a way of training.

    original, improved: photographs a second; ratio with its range over rounds (low: slowest round of the improved over
    the fastest of the original); rounds. Empty where it was not measured.
    """
    file = paths.reports("study") / "training" / "speed.csv"
    if not file.is_file():
        return pd.DataFrame()
    told = pd.read_csv(file)
    pair = {net: part.set_index("variant") for net, part in told.groupby("net", sort=False)}
    original, improved = pair["zero-dce"], pair["zero-dce-improved"]
    columns = {
        "what": original["what"],
        "original": original["photographs_per_second"],
        "improved": improved["photographs_per_second"],
        "ratio": improved["photographs_per_second"] / original["photographs_per_second"],
        "ratio_low": improved["lowest"] / original["highest"],
        "ratio_high": improved["highest"] / original["lowest"],
        "rounds": original["rounds"],
        "device": original["device"],
        "torch": original["torch"],
    }
    return (
        pd.DataFrame(columns)
        .loc[[variant for variant in original.index if variant in improved.index]]
        .reset_index()
    )


# --- claims ---------------------------------------------------------------------------------------------------

UNTESTED = "not testable here"


def _part(
    claim: str, part: str, rule: str, measured: str, held: bool | None, **about: str
) -> dict[str, str]:
    row = {"claim": claim, "part": part, "rule": rule, "measured": measured}
    row |= {"interval": "", "n": "", "budget": ""} | about
    return row | {"held": UNTESTED if held is None else "yes" if held else "no"}


def claims(
    table: pd.DataFrame, nine: pd.DataFrame, trained: pd.DataFrame, made: str
) -> pd.DataFrame:
    """The ledger's rows of N1, N2 and N3, from :func:`sizes`, :func:`beside_published` and :func:`training`.

    N3 is tested only where ``nine`` has nine whole photographs (its column ``share`` is 1) and other work kept no more
    than ``speed.BUSY`` cores busy meanwhile (``other_work``). made: rounds, threads, device.
    """
    return ledger.parts(
        [*_file_claims(table), *_training_claims(trained), *_inference_claims(nine, made)]
    )


def _file_claims(table: pd.DataFrame) -> list[dict]:
    rows = []
    for version, (low, high) in zip(
        ("original", "improved"), PUBLISHED_FILES.values(), strict=True
    ):
        size = float(table.set_index("version").loc[version, "published_bytes"]) / 1024
        stated = f"{low} – {high} KB" if high > low else f"{low} KB"
        rule = f"the published file has {stated} (1,024 bytes), rounded"
        about = {"n": "1 file", "budget": "published weights"}
        held = low - 0.5 <= size < high + 0.5
        rows.append(_part("N1", f"file of the {version}", rule, f"{size:.1f} KB", held, **about))
    (low, _), (_, small) = PUBLISHED_FILES.values()
    ratio = quotients(table)["trained_bytes"]
    rule = f"files trained here shrink by as much as stated, at least {low / small:.2f} ×"
    about = {
        "n": "2 files",
        "budget": "weights trained here; the length of training does not matter",
    }
    return [
        *rows,
        _part(
            "N1", "shrinking, trained here", rule, f"{ratio:.2f} ×", ratio >= low / small, **about
        ),
    ]


def _training_claims(trained: pd.DataFrame) -> list[dict]:
    rule = "the slowest round of the improved trains more photographs a second than the fastest of the original"
    rows = []
    for each in trained.itertuples():
        if each.rounds < 2:
            continue
        about = {
            "interval": f"{each.ratio_low:.2f} – {each.ratio_high:.2f}",
            "n": f"{each.rounds} rounds",
        }
        about["budget"] = f"{each.device}, torch {each.torch}, 256 px, batch 8 and 4"
        measured = f"{each.ratio:.2f} × the photographs a second"
        rows.append(
            _part("N2", f"training, {each.variant}", rule, measured, each.ratio_low > 1, **about)
        )
    return rows or [
        _part("N2", "training", rule, "not measured: run benchmarks/training_speed.py", None)
    ]


def _inference_claims(nine: pd.DataFrame, made: str) -> list[dict]:
    whole = bool((nine["share"] == 1).all()) and len(nine) == len(PUBLISHED)
    testable = whole and not disturbed(nine)
    low, high = PUBLISHED_SAVED
    least, most = nine["saved"].min(), nine["saved"].max()
    mean = nine.set_index("photograph")["saved"]
    interval = " – ".join(f"{100 * value:.0f} %" for value in evaluation.interval(mean))
    text = f"{percent([least, most])} of the time saved, mean {100 * mean.mean():.0f} %"
    about = {"interval": interval, "n": f"{len(nine)} photographs", "budget": made}
    faster = f"{nine['ratio'].min():.2f} – {nine['ratio'].max():.2f} × as fast"
    rules = (
        (
            "faster on each photograph",
            "lower quartile of the ratio, taken within each turn, above 1 on all nine",
        ),
        (
            "by the stated amount",
            f"{100 * low:.0f} – {100 * high:.0f} % of the time saved on every one of the nine",
        ),
    )
    held = (bool((nine["ratio_low"] > 1).all()), bool(low <= least and most <= high))
    if not testable:
        held = (None, None)
    return [
        _part("N3", *rule, measured, each, **about)
        for rule, measured, each in zip(rules, (faster, text), held, strict=True)
    ]


def disturbed(nine: pd.DataFrame) -> bool:
    """Whether other work kept more than ``speed.BUSY`` cores busy while the photographs were timed."""
    return bool((nine["other_work"] > BUSY).any())


# --- words ----------------------------------------------------------------------------------------------------


def against_prediction(measured: float, predicted: float) -> str:
    """How a measured ratio stands to the predicted one, in words: within a tenth it is as predicted."""
    quotient = measured / predicted
    word = (
        "less than predicted"
        if quotient < 0.9
        else "more than predicted"
        if quotient > 1.1
        else "as predicted"
    )
    return f"predicted {predicted:.2f} ×, measured {measured:.2f} ×, measured over predicted {quotient:.2f}: {word}"


def percent(values: Iterable[float]) -> str:
    """Lowest to highest of shares, as per cent."""
    values = list(values)
    low, high = round(100 * min(values)), round(100 * max(values))
    return f"{low} – {high} %" if low >= 0 else f"{low} to {high} %".replace("-", "−")


def published_words() -> list[str]:
    """What the published numbers say of themselves, in lines of Markdown: the clock's step, growth, the floor."""
    original, improved = PUBLISHED["original"], PUBLISHED["improved"]
    step = clock_step([*original, *improved])
    loosest = [
        saved((a + d) / (b - d))
        for d in (-step, step)
        for a, b in zip(original, improved, strict=True)
    ]
    start, slope, share = line(PUBLISHED["megapixels"], 1000 * original)
    rate = 2 * multiply_adds(CurveNet(ZERO_DCE), 1000, 1000) / (slope / 1000)
    floor = arithmetic_floor(CurveNet(ZERO_DCE), 1200, 900, PEAK_2080TI)
    return [
        f"- **The table's own ratios**: {percent(saved(original / improved))} of the time saved.",
        f"- **The clock**: all {2 * len(PUBLISHED)} published times are whole multiples of {1000 * step:.4f} ms, the "
        f"steps of a coarse clock. One step more or less in each time, and the table allows for {percent(loosest)}.",
        f"- **Growth**: the original's published times lie on a line of {start:.1f} ms and {slope:.0f} ms a megapixel "
        f"({100 * share:.1f} % of the variance). A call that only hands work to the card would not grow with the "
        f"photograph. Its slope means {rate / 1e12:.1f} million million operations a second, which graphics cards "
        f"reach (the paper's: {PEAK_2080TI / 1e12:.1f}). So these times probably hold the real work, though nothing in "
        "the way of timing made sure of it.",
        f"- **The paper's {1000 * PAPER_SECONDS:.1f} ms** at 1200×900: the convolutions alone need "
        f"{1000 * floor:.1f} ms on that card at its full rate, {floor / PAPER_SECONDS:.1f} times as long. Only a clock "
        "that does not wait for the card shows that.",
    ]


def first_call_words(nine: pd.DataFrame) -> list[str]:
    """What the published way of timing changes here, in lines of Markdown, from :func:`beside_published`."""
    lines = []
    for version in ("original", "improved"):
        times = nine[f"{version}_first_ms"] / nine[f"{version}_ms"]
        rest = times.iloc[1:]
        lines.append(
            f"- **{version.capitalize()}**: its very first call took {times.iloc[0]:.2f} times the median of the same "
            f"photograph under the contract, the eight after it {rest.min():.2f} – {rest.max():.2f} times."
        )
    spread, spread_first = (np.ptp(nine[name]) for name in ("saved", "saved_first"))
    word = (
        "wider"
        if spread_first > 1.25 * spread
        else "narrower"
        if spread_first < 0.8 * spread
        else "no wider"
    )
    lines.append(
        f"- **Time saved**: {percent(nine['saved_first'])} by the published way, {percent(nine['saved'])} under the "
        f"contract, {percent(nine['saved_published'])} as published. One call each gives a {word} range here."
    )
    return lines


def gap_words(parts: pd.DataFrame, predicted: float) -> str:
    """Which kinds of work keep the improved network from being ``predicted`` times as fast, from :func:`excess`."""
    total, gap = parts[["original", "improved"]].sum(), parts["excess_ms"].sum()
    if gap <= 0.1 * total["improved"]:
        return "There is hardly a gap to explain: the improved network is about as fast as its arithmetic predicts."
    ranked = parts["excess_ms"].sort_values(ascending=False)
    shares = ", ".join(
        f"{kind} {100 * value / gap:.0f} %"
        for kind, value in ranked.items()
        if abs(value) > 0.05 * gap
    )
    convolution = parts.loc["convolution", "ratio"]
    return (
        f"At {predicted:.2f} times the speed the improved network would take {total['original'] / predicted:.0f} ms; "
        f"it takes {total['improved']:.0f} ms. Of the {gap:.0f} ms between: {shares}. Its convolutions run "
        f"{convolution:.2f} times as fast, not {predicted:.2f} times."
    )


def settings_words(table: pd.DataFrame) -> list[str]:
    """What a second thread and kept memory give, in lines of Markdown, from a summary over ``speed.SETTINGS``."""
    time = table.set_index("version")["ms"]
    lines = []
    for version in ("original", "improved"):
        threads, kept = (
            time[f"{version}, 1 thread"] / time[version],
            time[f"{version}, memory returned"] / time[version],
        )
        word = (
            "slows it down"
            if kept > 1.05
            else "makes no difference here"
            if kept >= 0.95
            else "speeds it up here"
        )
        lines.append(
            f"- **{version.capitalize()}**: two threads are {threads:.2f} times as fast as one. Returning freed memory "
            f"to the system and fetching it again {word}: {kept:.2f} times the time."
        )
    return lines


def goal_words(goals: pd.DataFrame) -> list[str]:
    """Which goals of ``speed.goals`` are reached, in lines of Markdown."""
    lines = []
    for row in goals.itertuples():
        word = "reached" if row.held == "yes" else "not reached"
        told = (
            f"{row.ms:.1f} ms"
            if row.against == "33 ms"
            else f"{row.ratio:.1f} times as fast as {row.against}"
        )
        wanted = (
            f"{row.against_ms:.0f} ms or less"
            if row.against == "33 ms"
            else f"{row.wanted:g} times"
        )
        lines.append(f"- **{row.goal}**, {row.photograph}: {told}; wanted: {wanted}, {word}.")
    return lines


def agreement_words(told: pd.DataFrame, wanted: float = 0.999) -> list[str]:
    """Whether the faithful path gives what plain PyTorch does, from ``speed.agreement``, in lines of Markdown."""
    return [
        f"- **{row.model}**, faithful against plain, gamma {row.gamma:g}, n = {row.photographs}: within one grey level "
        f"{row.within_1:.4%} of pixels, the same {row.same:.3%}, furthest {row.furthest} grey levels; wanted: "
        f"{wanted:.1%} within one, {'reached' if row.within_1 >= wanted else 'not reached'}."
        for row in told.itertuples()
    ]


def growth_words(told: pd.DataFrame, table: pd.DataFrame) -> str:
    """How time grows, from :func:`speed.growth` and the summary behind it."""
    each = []
    for row in told.itertuples():
        word = "in proportion to pixels" if abs(row.slope - 1) <= 0.05 else "faster than pixels"
        word = "slower than pixels" if row.slope < 0.95 else word
        each.append(
            f"{row.version} {row.slope:.2f} ({word}; {row.ms_per_megapixel:.0f} ms a megapixel at the largest)"
        )
    ratio = table[table["version"] == "improved"].sort_values("megapixels")["ratio"]
    return (
        f"Slopes: {', '.join(each)}. Improved over original: {ratio.iloc[0]:.2f} × at the smallest size, "
        f"{ratio.iloc[-1]:.2f} × at the largest."
    )


def verdicts(rows: pd.DataFrame) -> dict[str, str]:
    """Verdict by claim, from :func:`claims`."""
    return {
        claim: ledger.verdict(part["held"]) for claim, part in rows.groupby("claim", sort=False)
    }


ABOUT = {"N1": "file size", "N2": "training speed", "N3": "inference speed"}


def findings(rows: pd.DataFrame, nine: pd.DataFrame, predicted: dict[str, float]) -> list[str]:
    """Answers in lines of Markdown: the verdicts of :func:`claims` first, then what was measured for each claim."""
    answer = ", ".join(
        f"{claim} ({ABOUT[claim]}) **{verdict}**" for claim, verdict in verdicts(rows).items()
    )
    lines = [f"{answer}."]
    if disturbed(nine):
        lines.append(
            f"**These times are no evidence**: other work kept {nine['other_work'].max():.1f} cores busy while the "
            "nine photographs were timed. They show the way of measuring; no verdict on N3 is drawn from them."
        )
    if (nine["share"] < 1).any():
        lines.append("N3 speaks of whole photographs, and here a part of their pixels was timed.")
    for claim, parts in rows.groupby("claim", sort=False):
        told = "; ".join(f"{row.part}: {row.measured} ({row.held})" for row in parts.itertuples())
        lines.append(f"- **{claim}**. {told}.")
    ratio, arithmetic = nine["ratio"].median(), predicted["multiply_adds_pixel"]
    lines.append(f"- **Prediction**. Arithmetic {against_prediction(ratio, arithmetic)}.")
    low, high = PUBLISHED_SAVED
    amount = nine["saved"].median()
    word = "less than" if amount < low else "more than" if amount > high else "as much as"
    told = (
        f"saves {100 * amount:.0f} % of the time"
        if amount >= 0
        else f"takes {-100 * amount:.0f} % more time"
    )
    lines.append(
        f"- **Beside the published {100 * low:.0f} – {100 * high:.0f} %**: on the middle photograph the improved "
        f"network {told} here; it saves {word} was published. Another device, another library: the direction "
        "can be compared, the amount only loosely."
    )
    return lines

"""Methods and their scores on photographs.

A method is what a photograph goes through to be scored: a model, and the gamma after it. A score is
computed once and kept (:mod:`zdce.study.store`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from zdce import checkpoints, datasets, metrics, paths
from zdce.enhance import Enhancer
from zdce.niqe import NiqeModel, load_niqe_model
from zdce.photos import read_photo
from zdce.postprocess import apply_gamma
from zdce.study import experiments, store

CHUNK = 16  # photographs that are scored before their scores are written
Scorer = Callable[[Callable[[np.ndarray], np.ndarray]], dict[str, float]]  # of what enhances

# --- methods --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    label: its name in tables; methods that differ in their training's seed alone share it. model: a
    model's name or weights file, None leaves the input as it is. gamma: applied afterwards, None
    for the model's own. before: a gamma applied to the photograph before the network. seed: of the
    training, None where there is but one.
    """

    label: str
    model: str | None
    gamma: float | None = None
    before: float = 1.0
    seed: int | None = None

    def enhancer(self, device: str = "auto") -> Callable[[np.ndarray], np.ndarray]:
        """Photograph (H, W, 3) uint8 → the same enhanced."""
        network, gamma = _network(self.model, device), self.own_gamma()
        return lambda photo: apply_gamma(network(apply_gamma(photo, self.before)), gamma)

    def own_gamma(self) -> float:
        """The gamma applied afterwards, in numbers."""
        if self.gamma is not None or self.model is None:
            return self.gamma or 1.0
        if self.model in checkpoints.MODELS:  # published weights need not be there to be looked up
            improved = self.model.startswith("zero-dce-improved")
            return checkpoints.IMPROVED_GAMMA if improved else 1.0
        return checkpoints.load(self.model).gamma

    def at_hand(self) -> bool:
        """Whether its weights are there; published ones are fetched like data sets."""
        if self.model is None or self.model == "auto":  # no network, no weights
            return True
        if self.model not in checkpoints.MODELS:
            return Path(self.model).is_file()
        shipped = paths.weights() / checkpoints.MODELS[self.model][1]
        return shipped.is_file() or datasets.at_hand("published-weights")

    def key(self) -> tuple[str | None, float, float]:
        """What its scores are kept by; begins with None where its weights are not known either."""
        return store.key(self.model, self.at_hand()), float(self.before), float(self.own_gamma())


INPUT = Method("input", None)
# The study's comparison: its two networks without and with its gamma, by the shipped weights and by
# the published.
OURS = (
    Method("zero-dce", "zero-dce", 1.0),
    Method("zero-dce-improved", "zero-dce-improved", 1.0),
    Method("zero-dce-improved + gamma", "zero-dce-improved", checkpoints.IMPROVED_GAMMA),
)
PUBLISHED = tuple(Method(f"{m.label} (published)", f"{m.model}-published", m.gamma) for m in OURS)
PEERS = tuple(
    Method(name, name)
    for name in ("zero-dce++", "zero-dce++-12x", "sci-easy", "sci-medium", "sci-difficult")
)


def trained(
    experiment: str,
    gamma: float = 1.0,
    *,
    epochs: int | None = None,
    label: str = "",
    before: float = 1.0,
    profile: str = "study",
) -> list[Method]:
    """The trainings of ``experiment`` as methods of one label, one a seed.

    epochs: so long trained; None for the longest. label: the experiment's name by default, with ``+
    gamma`` where a gamma other than 1 follows. Empty where there is no such training.
    """
    kept = experiments.trainings(profile)
    mine = kept[kept["experiment"] == experiment] if len(kept) else kept
    if not len(mine):
        return []
    wanted = mine["epochs"].max() if epochs is None else epochs
    name = label or experiment + " + gamma" * (gamma != 1.0)
    return [
        Method(name, str(row.weights), gamma, before, int(row.seed))
        for row in mine[mine["epochs"].round() == round(wanted)].itertuples()
    ]


def methods(*groups: Sequence[Method]) -> list[Method]:
    """Those of ``groups`` (such as ``PUBLISHED, PEERS``) that can be scored, after the plain input:
    their weights are at hand, or their scores are kept.
    """
    every = [method for group in groups for method in group]
    return [INPUT, *(m for m in every if store.key(m.model, m.at_hand()) is not None)]


def budgets(rows: Iterable[Method]) -> dict[str, str]:
    """How each method was trained, in words by label, for the column ``budget`` of claims: epochs,
    steps, batch, size and seeds; ``published weights``; nothing for the input.
    """
    told: dict[str, dict[str, set]] = {}
    for method in rows:
        if method.model is None or method.model == "auto":
            continue
        header = checkpoints.load(method.model).header if method.at_hand() else {}
        run, words = header.get("train", {}), "published weights"
        if run:
            words = f"{run['steps']:,} steps × {run['batch']} at {run['size']} px"
            if str(run.get("data", "")).startswith("sice-train"):
                epochs = run["steps"] / -(-experiments.PHOTOGRAPHS // run["batch"])
                words = f"{epochs:.4g} epochs, {words}"
        told.setdefault(method.label, {}).setdefault(words, set()).add(run.get("seed"))
    return {label: "; ".join(_seeded(*item) for item in v.items()) for label, v in told.items()}


def _seeded(words: str, seeds: set) -> str:
    seeds = sorted(seeds - {None})
    return words + f", seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" * bool(seeds)


def sets(data: str) -> list[str]:
    """Data sets named in a notebook's parameter ``data``: comma-separated names; ``at hand`` for
    ``bundled`` and those of sice-pairs, lime, dicm and bursts that were fetched. Raises ValueError
    for an unknown name.
    """
    if data.strip() == "at hand":
        names = ("bundled", "sice-pairs", "lime", "dicm", "bursts")
        return [name for name in names if datasets.at_hand(name)]
    names = [name.strip() for name in data.split(",") if name.strip()]
    if unknown := [name for name in names if name not in datasets.DATASETS]:
        known = ", ".join(datasets.DATASETS)
        raise ValueError(f"data: no data set {unknown[0]!r}; known: {known}, or 'at hand'")
    return names


# --- scores ---------------------------------------------------------------------------------------


def evaluate(
    rows: Iterable[Method],
    on: str,
    limit: int = 0,
    *,
    part: str = "",
    figures: str = "all",
    device: str = "auto",
) -> pd.DataFrame:
    """Scores of every method on every photograph of the data set ``on``: one row a pair.

    Columns: dataset, photograph, scene, method, seed (where a method has one), and figures as in
    METRICS. Kept scores are looked up, missing ones computed and kept.

    limit: so many photographs, evenly spaced; 0 takes all. part: only scenes of this half
    (``datasets.half``). figures: ``"all"``, or ``"agreement"`` for those that compare with a
    reference alone. NIQE is there when its model file is at hand. Raises ValueError for an unknown
    set or model, FileNotFoundError for files not fetched.
    """
    samples = {sample.name: sample for sample in datasets.samples(on, limit, part)}

    def prepare(name: str) -> Scorer:
        before, reference = metrics.Photograph(samples[name].image()), samples[name].reference()
        shown = None if reference is None else metrics.Photograph(reference)
        if figures == "agreement":
            return lambda through: metrics.agreement(through(before.pixels), shown)
        return lambda through: metrics.scores(through(before.pixels), before, shown, _niqe_model())

    scenes = {name: sample.scene for name, sample in samples.items()}
    return _table(list(rows), on, _group(on, figures), scenes, prepare, device)


def answers(rows: Iterable[Method], on: str, limit: int = 0, *, figures: str = "all") -> bool:
    """Whether :func:`evaluate` can answer here: the photographs are at hand, or every score is
    kept.
    """
    names = [sample.name for sample in datasets.samples(on, limit)]
    wanted = {(*method.key(), name) for method in rows for name in names}
    return datasets.at_hand(on) or wanted <= set(store.kept(_group(on, figures)).index)


def evaluate_bursts(
    rows: Iterable[Method], on: str, limit: int = 0, *, device: str = "auto"
) -> pd.DataFrame:
    """Noise of every method on every static scene of ``on`` (``bursts`` or ``bundled``): one row a
    pair.

    limit: the first so many scenes; 0 takes all. Columns as :func:`evaluate`, without photograph,
    and the figures of METRICS that need a burst.
    """
    scenes = list(dict.fromkeys(sample.scene for sample in datasets.samples(on)))[: limit or None]
    frames = cache(lambda: datasets.bursts(on))

    def prepare(scene: str) -> Scorer:
        before = frames()[scene]
        return lambda through: metrics.burst_scores([through(frame) for frame in before], before)

    named = dict(zip(scenes, scenes, strict=True))
    table = _table(list(rows), on, f"{on}-noise", named, prepare, device)
    return table.drop(columns="photograph")


def evaluate_pairs(
    low: str | Path,
    reference: str | Path,
    rows: Iterable[Method] = (),
    finished: dict[str, str | Path] | None = None,
    *,
    device: str = "auto",
) -> pd.DataFrame:
    """Scores on one's own pairs: photographs in the folder ``low`` and, by the same name, well
    exposed in ``reference``.

    finished: label → folder of finished pictures of another method, by the same names. Names are
    compared without their suffix. Nothing is kept. Columns: photograph, method, figures as in
    METRICS. Raises ValueError naming the folder and photograph where a partner is missing, doubled
    or of another size.
    """
    enhancers = {method.label: method.enhancer(device) for method in (INPUT, *rows)}
    folders = {label: _by_stem(folder) for label, folder in (finished or {}).items()}
    shown, table = _by_stem(reference), []
    for stem, file in _by_stem(low).items():
        before = _pixels(file)
        pictures = {label: enhancer(before) for label, enhancer in enhancers.items()}
        for where, folder in ((reference, shown), *((finished[n], folders[n]) for n in folders)):
            if stem not in folder:
                raise ValueError(f"{where}: no photograph named {stem!r} for {file.name}")
        pictures |= {label: _pixels(folder[stem]) for label, folder in folders.items()}
        for label, picture in pictures.items():
            try:
                scores = metrics.scores(picture, before, _pixels(shown[stem]), _niqe_model())
            except ValueError as error:
                raise ValueError(f"{file}, {label}: {error}") from None
            table.append({"photograph": file.name, "method": label} | scores)
    return pd.DataFrame(table)


def summary(scores: pd.DataFrame, by: Sequence[str] = ("dataset", "method")) -> pd.DataFrame:
    """Mean of every figure per group, in the order of appearance, with n, the number of photographs
    or scenes, and seeds where there are any.
    """
    groups = scores.groupby(list(by), sort=False)
    figures = [c for c in scores.select_dtypes("number").columns if c not in (*by, "seed")]
    table = groups[figures].mean().dropna(axis="columns", how="all")
    table["n"] = groups["photograph" if "photograph" in scores else "scene"].nunique()
    return table.assign(seeds=groups["seed"].nunique()) if "seed" in scores else table


# --- help -----------------------------------------------------------------------------------------


def _group(on: str, figures: str) -> str:
    return on if figures == "all" else f"{on}-{figures}"


def _table(
    methods: list[Method],
    on: str,
    group: str,
    scenes: dict[str, str],
    prepare: Callable[[str], Scorer],
    device: str,
) -> pd.DataFrame:
    """Rows of the store for these methods and units (photograph or scene → its scene), computed by
    what ``prepare`` makes of a unit where absent. Methods that are neither kept nor at hand are
    left out, in a line.
    """
    keys, known = {m: m.key() for m in methods}, set(store.kept(group).index)
    lost = [
        m for m in methods if not m.at_hand() and any((*keys[m], u) not in known for u in scenes)
    ]
    if lost:
        names = ", ".join(dict.fromkeys(m.label for m in lost))
        print(f"{on}: left out, weights not at hand (zdce data fetch published-weights): {names}")
    methods = [m for m in methods if m not in lost]
    once = {keys[m]: m for m in methods}
    absent = {u: [m for key, m in once.items() if (*key, u) not in known] for u in scenes}
    todo = [unit for unit in scenes if absent[unit]]
    for start in tqdm(range(0, len(todo), CHUNK), desc=group, disable=None if todo else True):
        rows = []
        for unit in todo[start : start + CHUNK]:
            score, done = prepare(unit), {}
            for method in absent[unit]:
                row = dict(zip(store.KEY, (*keys[method], unit), strict=True))
                rows.append(row | score(partial(_enhanced, method, device, done)))
        store.write(group, rows)
    wanted = [(*keys[method], unit) for unit in scenes for method in methods]
    found = store.kept(group).reindex(pd.MultiIndex.from_tuples(wanted, names=store.KEY))
    about = {"dataset": on, "photograph": np.repeat(list(scenes), len(methods))}
    about["scene"] = np.repeat(list(scenes.values()), len(methods))
    about["method"] = [method.label for method in methods] * len(scenes)
    if any(method.seed is not None for method in methods):
        about["seed"] = pd.array([method.seed for method in methods] * len(scenes), dtype="Int64")
    return pd.concat([pd.DataFrame(about), found.reset_index(drop=True)], axis=1)


def _enhanced(method: Method, device: str, done: dict, photo: np.ndarray) -> np.ndarray:
    """``photo`` by a method; ``done`` holds what its network made of the photographs of a unit, for
    methods that differ in the gamma after it alone."""
    key = method.model, method.before, id(photo)
    if key not in done:
        done[key] = _network(method.model, device)(apply_gamma(photo, method.before))
    return apply_gamma(done[key], method.own_gamma())


@cache
def _network(model: str | None, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Photograph → network's result without gamma."""
    return Enhancer(model, gamma=1.0, device=device) if model else lambda photo: photo


def _by_stem(folder: str | Path) -> dict[str, Path]:
    """Photographs of a folder by name without suffix, in order."""
    found: dict[str, Path] = {}
    for file in sorted(Path(folder).iterdir()):
        if file.suffix.lower() in datasets.SUFFIXES:
            if file.stem in found:
                raise ValueError(f"{folder}: {found[file.stem].name} and {file.name} share a name")
            found[file.stem] = file
    if not found:
        raise ValueError(f"{folder}: no photographs in this folder")
    return found


def _pixels(file: Path) -> np.ndarray:
    pixels = read_photo(file).pixels
    return pixels if pixels.dtype == np.uint8 else np.round(pixels / 257).astype(np.uint8)


@cache
def _niqe_model() -> NiqeModel | None:
    if not datasets.at_hand("niqe-model"):
        return None
    return load_niqe_model(datasets.find("data/niqe_modelparameters.mat"))

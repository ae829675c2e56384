"""Methods and their scores on photographs.

A method is what a photograph goes through to be scored: a model, and the gamma after it. A score is
computed once and kept (:mod:`zdce.study.store`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from zdce import checkpoints, datasets, metrics, paths
from zdce.enhance import Enhancer
from zdce.photos import read_photo
from zdce.postprocess import apply_gamma
from zdce.study import experiments, store

NIQE_FILE = "data/niqe_modelparameters.mat"
CHUNK = 16  # photographs that are scored before their scores are written

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
        if self.model in checkpoints.MODELS:
            return checkpoints.IMPROVED_GAMMA if self.model in _WITH_GAMMA else 1.0
        return checkpoints.load(self.model).gamma

    def at_hand(self) -> bool:
        """Whether its weights are there; published ones are fetched like data sets."""
        if self.model is None or self.model == "auto":  # no network, no weights
            return True
        if self.model not in checkpoints.MODELS:
            return Path(self.model).is_file()
        file = str(checkpoints.MODELS[self.model][1])
        if file.startswith("weights/"):
            return datasets.at_hand("published-weights")
        return (paths.weights() / file).is_file()


_WITH_GAMMA = ("zero-dce-improved", "zero-dce-improved-published")
Scorer = Callable[[Callable[[np.ndarray], np.ndarray]], dict[str, float]]  # of what enhances
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
    """Those of ``groups`` (such as ``OURS, PUBLISHED, PEERS``) that can be scored, after the plain
    input: their weights are at hand, or their scores are kept.
    """
    every = [method for group in groups for method in group]
    return [INPUT, *(m for m in every if m.at_hand() or store.known_key(m.model) is not None)]


def budgets(rows: Iterable[Method]) -> dict[str, str]:
    """How each method was trained, in words by label, for the column ``budget`` of claims: epochs,
    steps, batch, size and seeds; ``published weights``; nothing for the input.
    """
    told: dict[str, dict[str, list]] = {}
    for method in rows:
        if method.model is None or method.model == "auto":
            continue
        header = checkpoints.load(method.model).header if method.at_hand() else {}
        run = header.get("train", {})
        words = "published weights"
        if run:
            words = f"{run['steps']:,} steps × {run['batch']} at {run['size']} px"
            if str(run.get("data", "")).startswith("sice-train"):
                epochs = run["steps"] / -(-experiments.PHOTOGRAPHS // run["batch"])
                words = f"{epochs:.4g} epochs, {words}"
        seeds = told.setdefault(method.label, {}).setdefault(words, [])
        seeds += [run["seed"]] if "seed" in run else []
    return {
        label: "; ".join(
            f"{words}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(set(seeds))))}"
            if seeds
            else words
            for words, seeds in found.items()
        )
        for label, found in told.items()
    }


def at_hand(*names: str) -> list[str]:
    """Those of the named data sets that are at hand, in the given order."""
    return [name for name in names if datasets.at_hand(name)]


def sets(data: str) -> list[str]:
    """Data sets named in a notebook's parameter ``data``: comma-separated names; ``at hand`` for
    ``bundled`` and those of sice-pairs, lime, dicm and bursts that were fetched. Raises ValueError
    for an unknown name.
    """
    if data.strip() == "at hand":
        return at_hand("bundled", "sice-pairs", "lime", "dicm", "bursts")
    names = [name.strip() for name in data.split(",") if name.strip()]
    if unknown := [name for name in names if name not in datasets.DATASETS]:
        raise ValueError(
            f"data: no data set {unknown[0]!r}; known: {', '.join(datasets.DATASETS)}, or 'at hand'"
        )
    return names


# --- scores ---------------------------------------------------------------------------------------


def evaluate(
    rows: Iterable[Method | str],
    on: str,
    limit: int = 0,
    *,
    part: str = "",
    figures: str = "all",
    device: str = "auto",
    progress: bool = False,
) -> pd.DataFrame:
    """Scores of every method on every photograph of the data set ``on``: one row a pair.

    Columns: dataset, photograph, scene, method, seed (where a method has one), and figures as in
    METRICS. Kept scores are looked up, missing ones computed and kept.

    rows: methods, or models' names. limit: so many photographs, evenly spaced; 0 takes all. part:
    only scenes of this half (``datasets.half``). figures: ``"all"``, or ``"agreement"`` for those
    that compare with a reference alone. NIQE is there when its model file is at hand. Raises
    ValueError for an unknown set or model, FileNotFoundError for files not fetched.
    """
    chosen = [row if isinstance(row, Method) else _named(row) for row in rows]
    samples = datasets.samples(on, limit, part)
    units = {sample.name: (sample.scene, sample) for sample in samples}

    def prepare(sample: datasets.Sample) -> Scorer:
        before, reference = metrics.Photograph(sample.image()), sample.reference()
        shown = None if reference is None else metrics.Photograph(reference)
        if figures == "agreement":
            return lambda through: metrics.agreement(through(before.pixels), shown)
        return lambda through: metrics.scores(through(before.pixels), before, shown, _niqe_model())

    group = on if figures == "all" else f"{on}-{figures}"
    return _table(chosen, on, group, units, prepare, device, progress)


def answers(rows: Iterable[Method], on: str, limit: int = 0, *, figures: str = "all") -> bool:
    """Whether :func:`evaluate` can answer here: the photographs are at hand, or every score is
    kept.
    """
    if datasets.at_hand(on):
        return True
    group = on if figures == "all" else f"{on}-{figures}"
    names = [sample.name for sample in datasets.samples(on, limit)]
    wanted = [(*_key(method), name) for method in rows for name in names]
    return set(wanted) <= set(store.kept(group).index)


def evaluate_bursts(
    rows: Iterable[Method | str],
    on: str,
    limit: int = 0,
    *,
    device: str = "auto",
    progress: bool = False,
) -> pd.DataFrame:
    """Noise of every method on every static scene of ``on`` (``bursts`` or ``bundled``): one row a
    pair.

    limit: the first so many scenes; 0 takes all. Columns as :func:`evaluate`, without photograph,
    and the figures of METRICS that need a burst.
    """
    chosen = [row if isinstance(row, Method) else _named(row) for row in rows]
    frames = cache(lambda: datasets.bursts(on))
    known = datasets.BUNDLED if on == "bundled" else [s.scene for s in datasets.samples(on)]
    scenes = list(dict.fromkeys(known))
    units = {scene: (scene, scene) for scene in scenes[: limit or None]}

    def prepare(scene: str) -> Scorer:
        before = frames()[scene]
        return lambda through: metrics.burst_scores([through(frame) for frame in before], before)

    table = _table(chosen, on, f"{on}-noise", units, prepare, device, progress)
    return table.drop(columns="photograph")


def evaluate_pairs(
    low: str | Path,
    reference: str | Path,
    rows: Iterable[Method | str] = (),
    finished: dict[str, str | Path] | None = None,
    *,
    device: str = "auto",
) -> pd.DataFrame:
    """Scores on one's own pairs: photographs in the folder ``low`` and, by the same name, well
    exposed in ``reference``.

    rows: methods or models' names. finished: label → folder of finished pictures of another method,
    by the same names. Names are compared without their suffix. Nothing is kept. Columns:
    photograph, method, figures as in METRICS. Raises ValueError naming the folder and photograph
    where a partner is missing, doubled or of another size.
    """
    chosen = [INPUT, *(row if isinstance(row, Method) else _named(row) for row in rows)]
    folders = {label: _by_stem(folder) for label, folder in (finished or {}).items()}
    shown, table = _by_stem(reference), []
    enhancers = {method.label: method.enhancer(device) for method in chosen}
    for stem, file in _by_stem(low).items():
        before = _pixels(file)
        paired = _pixels(_partner(shown, stem, file, reference))
        pictures = {label: enhancer(before) for label, enhancer in enhancers.items()}
        for label, folder in folders.items():
            pictures[label] = _pixels(_partner(folder, stem, file, (finished or {})[label]))
        for label, picture in pictures.items():
            try:
                scores = metrics.scores(picture, before, paired, _niqe_model())
            except ValueError as error:
                raise ValueError(f"{file}, {label}: {error}") from None
            table.append({"photograph": file.name, "method": label} | scores)
    return pd.DataFrame(table)


def summary(scores: pd.DataFrame, by: Sequence[str] = ("dataset", "method")) -> pd.DataFrame:
    """Mean of every figure per group, in the order of appearance, with n, the number of photographs
    or scenes, and seeds where there are any.
    """
    figures = [c for c in scores.select_dtypes("number").columns if c not in (*by, "seed")]
    groups = scores.groupby(list(by), sort=False)
    table = groups[figures].mean().dropna(axis="columns", how="all")
    unit = "photograph" if "photograph" in scores else "scene"
    table["n"] = groups[unit].nunique()
    if "seed" in scores:
        table["seeds"] = groups["seed"].nunique()
    return table


# --- help -----------------------------------------------------------------------------------------


def _key(method: Method) -> tuple[str, float, float]:
    weights = store.weights_key(method.model, method.at_hand())
    return weights, float(method.before), float(method.own_gamma())


def _table(
    methods: Sequence[Method],
    on: str,
    group: str,
    units: dict[str, tuple[str, object]],
    prepare: Callable[[object], Scorer],
    device: str,
    progress: bool,
) -> pd.DataFrame:
    """Rows of the store for these methods and units (name → scene, and what ``prepare`` takes),
    computed where absent. Methods that are neither kept nor at hand are left out, in a line.
    """
    keys = {m: _key(m) for m in methods if m.at_hand() or store.known_key(m.model) is not None}
    known = set(store.kept(group).index)
    lost = {m for m in methods if m not in keys}
    lost |= {m for m in keys if not m.at_hand() and any((*keys[m], u) not in known for u in units)}
    if lost:
        names = ", ".join(dict.fromkeys(m.label for m in methods if m in lost))
        print(f"{on}: left out, weights not at hand (zdce data fetch published-weights): {names}")
    methods = [m for m in methods if m not in lost]
    once = {keys[m]: m for m in methods}
    todo = [(u, [m for key, m in once.items() if (*key, u) not in known]) for u in units]
    todo = [(unit, absent) for unit, absent in todo if absent]
    for start in tqdm(range(0, len(todo), CHUNK), desc=group, disable=not (progress and todo)):
        rows = []
        for unit, absent in todo[start : start + CHUNK]:
            score = prepare(units[unit][1])
            for method, through in _through(absent, device):
                rows.append(
                    dict(zip(store.KEY, (*keys[method], unit), strict=True)) | score(through)
                )
        store.write(group, rows)
    wanted = [(*keys[method], unit) for unit in units for method in methods]
    found = store.kept(group).reindex(pd.MultiIndex.from_tuples(wanted, names=store.KEY))
    about = {"dataset": on, "photograph": np.repeat(list(units), len(methods))}
    about["scene"] = np.repeat([scene for scene, _ in units.values()], len(methods))
    about["method"] = [method.label for method in methods] * len(units)
    if any(method.seed is not None for method in methods):
        about["seed"] = pd.array([method.seed for method in methods] * len(units), dtype="Int64")
    return pd.concat([pd.DataFrame(about), found.reset_index(drop=True)], axis=1)


def _through(methods: Sequence[Method], device: str) -> Iterator[tuple[Method, Callable]]:
    """Each method with what enhances a photograph; methods that share a network and an input run it
    once.
    """
    for (model, before), group in itertools.groupby(
        sorted(methods, key=lambda m: (str(m.model), m.before)), lambda m: (m.model, m.before)
    ):
        network, plain = _network(model, device), {}

        def enhanced(gamma: float, photo: np.ndarray, network=network, plain=plain, before=before):
            if id(photo) not in plain:  # frames of one photograph, which the caller holds meanwhile
                plain[id(photo)] = network(apply_gamma(photo, before))
            return apply_gamma(plain[id(photo)], gamma)

        for method in group:
            yield method, partial(enhanced, method.own_gamma())


@cache
def _network(model: str | None, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Photograph → network's result without gamma."""
    if model is None:
        return lambda photo: photo
    source = {"weights": model} if store.stem(model) != model else {"model": model}
    return Enhancer(**source, gamma=1.0, device=device)


def _named(name: str) -> Method:
    return Method(name, None if name == INPUT.label else name)


def _by_stem(folder: str | Path) -> dict[str, Path]:
    """Photographs of a folder by name without suffix, in order."""
    files = [f for f in sorted(Path(folder).iterdir()) if f.suffix.lower() in datasets.SUFFIXES]
    found: dict[str, Path] = {}
    for file in files:
        if file.stem in found:
            raise ValueError(f"{folder}: {found[file.stem].name} and {file.name} share a name")
        found[file.stem] = file
    if not found:
        raise ValueError(f"{folder}: no photographs in this folder")
    return found


def _partner(folder: dict[str, Path], stem: str, file: Path, where: str | Path) -> Path:
    if stem not in folder:
        raise ValueError(f"{where}: no photograph named {stem!r} for {file.name}")
    return folder[stem]


def _pixels(file: Path) -> np.ndarray:
    pixels = read_photo(file).pixels
    return pixels if pixels.dtype == np.uint8 else np.round(pixels / 257).astype(np.uint8)


@cache
def _niqe_model() -> metrics.NiqeModel | None:
    if not datasets.at_hand("niqe-model"):
        return None
    return metrics.load_niqe_model(datasets.find(NIQE_FILE))

"""Methods, their scores on photographs, and where scores are kept.

A score is computed once and kept by the weights' hash, gamma, photograph and ``metrics.VERSION``.
The study's own are committed (``reports/study/scores``: ``SET.csv.gz``, ``SET-noise.csv.gz``,
``SET-agreement.csv.gz``, and ``weights.csv``, which names the weights): its tables need neither
photographs nor weights. What a reader computes lies under ``runs/scores``; ``benchmarks/scores.py``
moves it to the committed ones.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import loadmat
from tqdm import tqdm

from zdce import auto, checkpoints, datasets, metrics, paths
from zdce.enhance import Enhancer
from zdce.files import atomic_write
from zdce.postprocess import apply_gamma
from zdce.study import experiments

KEY = ["weights", "before", "gamma", "photograph"]  # what a score is kept by
CHUNK = 64  # scores that are computed before they are written
SCORED = ("bundled", "sice-pairs", "lime", "dicm", "bursts")

# --- methods --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """What a photograph goes through to be scored: one row of a comparison.

    label: its name in tables, which a training's seeds share. model: a model's name or weights
    file, None leaves the input as it is. gamma: applied afterwards, None for the model's own;
    before: the same before the network. seed: of the training, if there are several.
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
        if self.gamma is not None or self.model is None:
            return self.gamma or 1.0
        if self.model in checkpoints.MODELS:  # published weights need not be there to be looked up
            improved = self.model.startswith("zero-dce-improved")
            return checkpoints.IMPROVED_GAMMA if improved else 1.0
        return checkpoints.load(self.model).gamma

    def at_hand(self) -> bool:
        """Whether its weights are there; published ones are fetched like data sets."""
        if self.model in (None, "auto"):
            return True
        if self.model not in checkpoints.MODELS:
            return Path(self.model).is_file()
        shipped = paths.weights() / checkpoints.MODELS[self.model]
        return shipped.is_file() or datasets.at_hand("published-weights")

    def weights(self) -> str | None:
        """What its scores are kept by: a hash of its network's tensors, ``input``, or ``auto-N``.
        Weights that are not at hand are looked up by name; None where they are not known either.
        """
        if self.model in (None, "auto"):
            return f"auto-{auto.VERSION}" if self.model else "input"
        return _fingerprint(self.model) if self.at_hand() else _names().get(Path(self.model).stem)

    def key(self) -> tuple[str | None, float, float]:
        return self.weights(), float(self.before), float(self.own_gamma())


INPUT = Method("input", None)
# The study's two networks without and with its gamma, by the shipped weights and the published
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
    """The trainings of ``experiment`` that lasted so many epochs (None: the longest) as methods of
    one label, one a seed; by default the experiment's name, with ``+ gamma`` where one follows.
    """
    mine = experiments.trainings(profile).query("experiment == @experiment")
    wanted = mine["epochs"].max() if epochs is None else epochs
    mine = mine[mine["epochs"].round() == np.round(wanted)]
    name = label or experiment + " + gamma" * (gamma != 1.0)
    seeds = zip(mine["weights"], mine["seed"], strict=True)
    return [Method(name, str(file), gamma, before, int(seed)) for file, seed in seeds]


def methods(*groups: Sequence[Method]) -> list[Method]:
    """The plain input, and those of ``groups`` with weights at hand or scores that are kept."""
    return [INPUT, *(m for group in groups for m in group if m.weights() is not None)]


def budgets(rows: Iterable[Method]) -> dict[str, str]:
    """How each method was trained, in words by label: epochs, steps, batch, size and seeds, or
    ``published weights``; nothing for the input and ``auto``.
    """
    told: dict[tuple[str, str], set[int]] = {}
    for method in (method for method in rows if method.model not in (None, "auto")):
        run = checkpoints.load(method.model).header.get("train", {}) if method.at_hand() else {}
        words = "published weights"
        if run:
            words = f"{run['steps']:,} steps × {run['batch']} at {run['size']} px"
            if str(run.get("data", "")).startswith("sice-train"):
                epochs = run["steps"] / -(-experiments.PHOTOGRAPHS // run["batch"])
                words = f"{epochs:.4g} epochs, {words}"
        told.setdefault((method.label, words), set()).update([run["seed"]] if "seed" in run else [])
    found: dict[str, str] = {}
    for (label, words), seeds in told.items():
        listed = ", ".join(map(str, sorted(seeds)))
        words += f", seed{'s' * (len(seeds) > 1)} {listed}" if seeds else ""
        found[label] = f"{found[label]}; {words}" if label in found else words
    return found


def sets(data: str) -> list[str]:
    """Data sets of a notebook's parameter ``data``: comma-separated names, or ``all`` that are
    scored. Raises ValueError for an unknown one, and for ``all`` where a file of them is missing.
    """
    if data == "all":
        needed = [*SCORED, "published-weights", "niqe-model"]
        if absent := [name for name in needed if not datasets.at_hand(name)]:
            raise ValueError(f"data='all': first zdce data fetch {' '.join(absent)}")
        return [*SCORED]
    names = data.replace(" ", "").split(",")
    if unknown := [name for name in names if name not in datasets.DATASETS]:
        raise ValueError(f"data: no data set {unknown[0]!r}; known: {', '.join(datasets.DATASETS)}")
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
    """Scores of every method on every photograph of the data set ``on``, kept or computed and kept:
    one row a pair.

    Columns: dataset, photograph, scene, method, seed (where a method has one), and figures as in
    METRICS, NIQE when its model file is at hand. limit, part: as in ``datasets.samples``. figures:
    ``"all"``, or ``"agreement"`` for those that compare with a reference alone. Raises ValueError
    for an unknown set or model, FileNotFoundError for files not fetched.
    """
    samples = {sample.name: sample for sample in datasets.samples(on, limit, part)}

    @lru_cache(1)
    def photographs(name: str) -> tuple[np.ndarray, np.ndarray | None]:
        return samples[name].image(), samples[name].reference()

    def score(method: Method, name: str) -> dict[str, float]:
        before, reference = photographs(name)
        image = method.enhancer(device)(before)
        if figures == "agreement":
            return metrics.agreement(image, reference)
        return metrics.scores(image, before, reference, _niqe_model())

    scenes = {name: sample.scene for name, sample in samples.items()}
    return _table(list(rows), on, _group(on, figures), scenes, score)


def answers(rows: Iterable[Method], on: str, limit: int = 0, *, figures: str = "all") -> bool:
    """Whether photographs are at hand or all scores kept, so that :func:`evaluate` can answer."""
    names = [sample.name for sample in datasets.samples(on, limit)]
    wanted = {(*method.key(), name) for method in rows for name in names}
    return datasets.at_hand(on) or wanted <= set(kept(_group(on, figures)).index)


def evaluate_bursts(
    rows: Iterable[Method], on: str, limit: int = 0, *, device: str = "auto"
) -> pd.DataFrame:
    """Noise of every method on the first ``limit`` (0: all) static scenes of ``on``, ``bursts`` or
    ``bundled``. Columns as :func:`evaluate` without photograph, figures of METRICS for bursts.
    """
    scenes = list(dict.fromkeys(sample.scene for sample in datasets.samples(on)))[: limit or None]
    bursts = cache(lambda: datasets.bursts(on))

    def score(method: Method, scene: str) -> dict[str, float]:
        frames = bursts()[scene]
        return metrics.burst_scores([*map(method.enhancer(device), frames)], frames)

    table = _table(list(rows), on, f"{on}-noise", {scene: scene for scene in scenes}, score)
    return table.drop(columns="photograph")


def evaluate_pairs(
    low: str | Path,
    reference: str | Path,
    rows: Iterable[Method] = (),
    finished: Iterable[str | Path] = (),
    *,
    device: str = "auto",
) -> pd.DataFrame:
    """Scores on one's own pairs, which are not kept: photographs in the folder ``low`` and, by the
    same name without suffix, well exposed in ``reference``; ``finished``: folders of other methods'
    pictures, by the same names. Columns: photograph, method, figures as in METRICS. Raises
    ValueError naming folder and photograph where a partner is missing, doubled or of another size.
    """
    enhancers = {method.label: method.enhancer(device) for method in (INPUT, *rows)}
    folders, table = {str(folder): _by_stem(folder) for folder in (*finished, reference)}, []
    for stem, file in _by_stem(low).items():
        for folder, found in folders.items():
            if stem not in found:
                raise ValueError(f"{folder}: no photograph named {stem!r} for {file.name}")
        before = datasets.read_8bit(file)
        pictures = {label: enhancer(before) for label, enhancer in enhancers.items()}
        shown = datasets.read_8bit(folders[str(reference)][stem])
        pictures |= {str(each): datasets.read_8bit(folders[str(each)][stem]) for each in finished}
        for label, picture in pictures.items():
            try:
                scores = metrics.scores(picture, before, shown, _niqe_model())
            except ValueError as error:
                raise ValueError(f"{file}, {label}: {error}") from None
            table.append({"photograph": file.name, "method": label} | scores)
    return pd.DataFrame(table)


def _table(
    rows: list[Method],
    on: str,
    group: str,
    scenes: dict[str, str],
    score: Callable[[Method, str], dict[str, float]],
) -> pd.DataFrame:
    """Scores of these methods and units (photograph or scene → its scene), absent ones computed; a
    line names methods that are neither kept nor at hand.
    """
    keys, known = {method: method.key() for method in rows}, set(kept(group).index)
    lost = [m for m in rows if not m.at_hand() and {(*keys[m], unit) for unit in scenes} - known]
    if lost:
        names = ", ".join(dict.fromkeys(method.label for method in lost))
        print(f"{on}: left out, weights not at hand (zdce data fetch published-weights): {names}")
    rows = [method for method in rows if method not in lost]
    todo = {(*keys[m], unit): (m, unit) for unit in scenes for m in rows}
    todo = [(key, pair) for key, pair in todo.items() if key not in known]
    for start in tqdm(range(0, len(todo), CHUNK), desc=group, disable=None if todo else True):
        part = todo[start : start + CHUNK]
        write(group, [dict(zip(KEY, key, strict=True)) | score(*pair) for key, pair in part])
    pairs = [(unit, method) for unit in scenes for method in rows]
    table = [(on, unit, scenes[unit], method.label, method.seed) for unit, method in pairs]
    about = pd.DataFrame(table, columns=["dataset", "photograph", "scene", "method", "seed"])
    about = about.astype({"seed": "Int64"})
    wanted = [(*keys[method], unit) for unit, method in pairs]
    found = kept(group).reindex(pd.MultiIndex.from_tuples(wanted, names=KEY))
    about = about if about["seed"].notna().any() else about.drop(columns="seed")
    return pd.concat([about, found.reset_index(drop=True)], axis=1)


@cache
def _network(model: str | None, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Photograph → network's result without gamma."""
    return Enhancer(model, gamma=1.0, device=device) if model else lambda photo: photo


def _by_stem(folder: str | Path) -> dict[str, Path]:
    files = [f for f in sorted(Path(folder).iterdir()) if f.suffix.lower() in datasets.SUFFIXES]
    found = {file.stem: file for file in files}
    if len(found) != len(files) or not files:
        what = "two photographs of one name" if files else "no photographs"
        raise ValueError(f"{folder}: {what} in this folder")
    return found


@cache
def _niqe_model():
    if datasets.at_hand("niqe-model"):
        return loadmat(datasets.find("data/niqe_modelparameters.mat"))
    return None


# --- where they are kept --------------------------------------------------------------------------


def committed() -> Path:
    return paths.reports("study") / "scores"


def own() -> Path:
    return paths.runs() / "scores"


@cache
def kept(group: str) -> pd.DataFrame:
    """All scores of a group, a file name without ending, indexed by :data:`KEY`."""
    files = [committed() / f"{group}.csv.gz", *sorted((own() / group).glob("*.csv"))]
    tables = [pd.read_csv(file, dtype={"photograph": str}) for file in files if file.is_file()]
    if not tables:
        return pd.DataFrame(columns=KEY).set_index(KEY)
    table = pd.concat(tables, ignore_index=True)
    table = table[table["version"] == metrics.VERSION].drop(columns="version")
    return table.drop_duplicates(KEY, keep="last").set_index(KEY)


def write(group: str, rows: list[dict]) -> None:
    """Keep rows, each with :data:`KEY` and figures, in a file of their own under :func:`own`."""
    table = pd.DataFrame(rows).assign(version=metrics.VERSION)
    text = table.to_csv(index=False, float_format="%.6g")
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    (own() / group).mkdir(parents=True, exist_ok=True)
    with atomic_write(own() / group / f"{name}.csv") as partial:
        partial.write_text(text)
    kept.cache_clear()


def _group(on: str, figures: str) -> str:
    return on if figures == "all" else f"{on}-{figures}"


@cache
def _names() -> dict[str, str]:
    """Name of weights → their hash."""
    file = committed() / "weights.csv"
    return dict(pd.read_csv(file).itertuples(index=False)) if file.is_file() else {}


@cache
def _fingerprint(model: str) -> str:
    net = checkpoints.load(model).net
    scale = getattr(getattr(net, "config", None), "scale", 1.0)
    return checkpoints.fingerprint(net.state_dict()) + (f"-{scale:g}x" if scale != 1 else "")

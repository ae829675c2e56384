"""Scores behind the study's tables, computed where they are not kept yet: ``python
benchmarks/scores.py --help``.

They go into ``reports/study/scores``, keyed by the weights' hash and ``metrics.VERSION``. ``main``:
the input, the two networks (three seeds) without and with gamma, published weights and peers, on
every photograph of bundled, sice-pairs, lime, dicm and bursts; ``auto``: the curve alone on the
same; ``arms``: every training of 60 epochs on bundled, sice-pairs and bursts; ``gammas``: gamma
0.87 before and after the improved network on these; ``epochs``: snapshots of the two networks on 50
pairs, evenly spaced; ``short``: the short trainings on the same 50, and bursts. Needs the
photographs, and the snapshots in the folder ``--weights``.
"""

import argparse
import shutil
import time
from pathlib import Path

import pandas as pd
import torch

from zdce import metrics
from zdce.checkpoints import IMPROVED_GAMMA as GAMMA
from zdce.files import atomic_write
from zdce.study import evaluation, experiments
from zdce.study.evaluation import INPUT, PEERS, PUBLISHED, Method
from zdce.study.experiments import ABLATED, SEEDS

KNOWN = (None, "auto")  # models whose scores need no name
FINAL = {"zero-dce": 200, "zero-dce-improved": 181}
EVENLY = 50  # pairs, evenly spaced, on which snapshots are scored
EPOCHS = (1, 2, 5, 10, 20, 40, 60, 100, 140, 180, 190, 195, 198, 199)


def training(folder: Path, name: str, epoch: int, **fields) -> list[Method]:
    files = [folder / f"{name}-seed{seed}-epoch{epoch:03d}.safetensors" for seed in SEEDS]
    return [
        Method(name, str(file), seed=seed, **fields)
        for seed, file in zip(SEEDS, files, strict=True)
        if file.is_file()
    ]


def stages(folder: Path) -> dict[str, list[tuple[str, list[Method]]]]:
    plain = [m for name, epoch in FINAL.items() for m in training(folder, name, epoch, gamma=1.0)]
    bent = [m for name, epoch in FINAL.items() for m in training(folder, name, epoch, gamma=GAMMA)]
    published = [*PUBLISHED, Method("zero-dce + gamma (published)", "zero-dce-published", GAMMA)]
    main = [INPUT, *plain, *bent, *published, *PEERS]
    arms = [m for name in ABLATED for m in training(folder, name, 60, gamma=1.0)]
    arms += training(folder, "zero-dce-improved", 60, gamma=1.0)
    improved = training(folder, "zero-dce-improved", 181)
    improved += [Method("published", "zero-dce-improved-published")]
    gammas = [
        Method(m.label, m.model, gamma, before, m.seed)
        for m in improved
        for gamma, before in ((0.8696, 1.0), (1.0, 0.8696))
    ]
    epochs = [m for e in EPOCHS for name in FINAL for m in training(folder, name, e, gamma=1.0)]
    kept = experiments.trainings("short")
    short = [Method(row.experiment, str(row.weights), 1.0) for row in kept.itertuples()]
    sets = ("bundled", "bundled-bursts", "bursts", "lime", "sice-pairs", "dicm")
    return {
        "main": [(on, main) for on in sets],
        "arms": [(on, arms) for on in ("sice-pairs", "bursts", "bundled", "bundled-bursts")],
        "gammas": [(on, gammas) for on in ("bundled", "bundled-bursts", "bursts", "sice-pairs")],
        "epochs": [("sice-pairs-agreement", [INPUT, *plain, *published[:2], *epochs])],
        "short": [("sice-pairs-50", short), ("bursts", short)],
        "auto": [(on, [Method("auto", "auto")]) for on in sets],
    }


def score(on: str, methods: list[Method]) -> None:
    began = time.time()
    if on.endswith("bursts"):
        evaluation.evaluate_bursts(methods, on.removesuffix("-bursts"))
    elif on == "sice-pairs-agreement":
        evaluation.evaluate(methods, "sice-pairs", EVENLY, figures="agreement")
    else:
        name, _, limit = on.partition("-pairs-")
        evaluation.evaluate(methods, f"{name}-pairs" if limit else on, int(limit or 0))
    print(f"{on}: {len(methods)} methods, {time.time() - began:.0f} s", flush=True)


def commit(methods: list[Method]) -> None:
    """Move the scores under ``runs/scores`` to the committed ones, one file a group, and the names
    of these methods' weights into ``weights.csv``."""
    for folder in sorted(evaluation.own().glob("*")):
        parts = sorted(folder.glob("*.csv"))
        file = evaluation.committed() / f"{folder.name}.csv.gz"
        every = [*([file] if file.is_file() else []), *parts]
        table = pd.concat([pd.read_csv(part, dtype={"photograph": str}) for part in every])
        table = table.drop_duplicates([*evaluation.KEY, "version"], keep="last")
        table = table[table["version"] == metrics.VERSION].sort_values(evaluation.KEY)
        with atomic_write(file) as partial:
            table.to_csv(partial, index=False, compression={"method": "gzip", "mtime": 0})
        shutil.rmtree(folder)
    file = evaluation.committed() / "weights.csv"
    names = {Path(m.model).stem: m.weights() for m in methods if m.model not in KNOWN}
    table = pd.DataFrame(names.items(), columns=["name", "weights"])
    table = pd.concat([pd.read_csv(file), table]).drop_duplicates("name", keep="last")
    with atomic_write(file) as partial:
        table.sort_values("name").to_csv(partial, index=False)
    evaluation.kept.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("runs/weights"))
    parser.add_argument("--aside", action="store_true", help="leave the scores in runs/scores")
    parser.add_argument("--stages", default="main,arms,gammas,epochs,short,auto")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for stage in arguments.stages.split(","):
        for on, methods in stages(arguments.weights)[stage]:
            print(stage, on, flush=True)
            score(on, methods)
            if not arguments.aside:
                commit(methods)


if __name__ == "__main__":
    main()

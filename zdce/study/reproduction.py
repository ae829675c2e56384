"""What the first notebook computes: predictions from the published descriptions, and the measurements beside them."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from zdce import checkpoints, datasets, metrics, paths
from zdce.losses import PAPER, RELEASED, TERMS, color_constancy, loss_terms
from zdce.model import NetConfig, apply_curves, count_parameters, multiply_adds
from zdce.photos import to_tensor
from zdce.study import claims_old as ledger
from zdce.study import evaluation, experiments
from zdce.training import Run, train

SIDE = 256  # pixels; the size of training photographs, at which multiply-adds are stated
# Training curve of the improved network, epoch → mean loss, read off the published plot.
PUBLISHED_CURVE = {1: 1.06, 20: 0.72, 60: 0.69, 200: 0.675}
# What counts as reproduced (ours). The plot can be read to about 0.02, and seeds differ.
TOLERANCE = {"grey levels": 2, "loss": 0.05, "PSNR": 0.5, "SSIM": 0.02}
FEWEST = 5  # photographs of a set; scores of fewer decide nothing (ours)

# ---- curve and network ---------------------------------------------------------------------------------------------


def curve_family(
    iterations: Sequence[int] = (1, 8), alphas: Sequence[float] = (-1, -0.5, 0, 0.5, 1)
) -> pd.DataFrame:
    """The light-enhancement curve, drawn: columns ``times`` applied, ``alpha``, ``input``, ``output``, in [0, 1].

    Source: paper, equation 1, LE(x) = x + α·x·(1 − x).
    """
    x = np.linspace(0, 1, 201)
    rows = []
    for times in iterations:
        for alpha in alphas:
            names = {
                "times": f"applied {times} time{'s' * (times > 1)}",
                "alpha": f"α = {alpha:g}".replace("-", "−"),
            }
            rows.append(
                pd.DataFrame(
                    names
                    | {"input": x, "output": _curve(torch.from_numpy(x), alpha, times).numpy()}
                )
            )
    return pd.concat(rows, ignore_index=True)


def curve_facts(
    alphas: Sequence[float] = (-1, -0.5, 0, 0.5, 1, 1.5), iterations: int = 8
) -> pd.DataFrame:
    """What the curve promises, one row an α: monotonic, ends fixed, range kept, and the slope at black.

    Slope at 0 predicted (1 + α)^iterations, measured by differentiation; float64 at 100,001 inputs from 0 to 1.
    """
    x = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    rows = []
    for alpha in alphas:
        y = _curve(x, alpha, iterations)
        black = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(_curve(black, alpha, iterations).sum(), black)[0].item()
        predicted = (1.0 + alpha) ** iterations
        row = {
            "alpha": alpha,
            "black stays 0": y[0].item() == 0,
            "white stays 1": y[-1].item() == 1,
        }
        row |= {
            "monotonic": bool((y.diff() >= 0).all()),
            "stays in 0 – 1": bool(((y >= 0) & (y <= 1)).all()),
        }
        row |= {
            "slope predicted": predicted,
            "slope measured": slope,
            "ratio": _ratio(slope, predicted),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _curve(x: Tensor, alpha: float, iterations: int) -> Tensor:
    """The curve of one α on a row of grey values, through the network's own code."""
    image = x.reshape(1, 1, 1, -1).expand(1, 3, 1, -1)
    return apply_curves(image, torch.full_like(image, -alpha), iterations)[0, 0, 0]


def layers(config: NetConfig) -> pd.DataFrame:
    """The seven convolutions by hand: what each reads, channels in and out, weights 9·in·out (as many multiply-adds
    a pixel), biases, and the side of the square of pixels that it depends on.

    For networks without separable convolutions, shared curves or stride. Source: paper, figure 2, and released code.
    """
    w, out = config.width, 3 * config.iterations
    plan = (("photograph", 3, w), ("conv1", w, w), ("conv2", w, w), ("conv3", w, w))
    plan += (("conv3, conv4", 2 * w, w), ("conv2, conv5", 2 * w, w), ("conv1, conv6", 2 * w, out))
    rows = []
    for number, (reads, cin, cout) in enumerate(plan, 1):
        pooled = config.pools if config.pooling == "overlapping" and number >= 4 else 0
        row = {
            "layer": f"conv{number}",
            "reads": reads,
            "in": cin,
            "out": cout,
            "weights": 9 * cin * cout,
        }
        row |= {"biases": cout, "sees": 1 + 2 * number + 2 * pooled}
        rows.append(row)
    return pd.DataFrame(rows)


def network_facts(nets: dict[str, nn.Module]) -> pd.DataFrame:
    """Parameters, multiply-adds at 256×256 and receptive field of networks: predicted by :func:`layers`, measured."""
    rows = []
    for name, net in nets.items():
        plan = layers(net.config)
        parameters = int(plan.weights.sum() + plan.biases.sum())
        for quantity, predicted, measured in (
            ("parameters", parameters, count_parameters(net)),
            (
                "multiply-adds at 256×256",
                int(plan.weights.sum()) * SIDE**2,
                multiply_adds(net, SIDE, SIDE),
            ),
            ("receptive field, pixels", int(plan.sees.iloc[-1]), receptive_field(net)),
        ):
            row = {
                "network": name,
                "quantity": quantity,
                "predicted": predicted,
                "measured": measured,
            }
            rows.append(row | {"ratio": _ratio(measured, predicted)})
    return pd.DataFrame(rows)


def receptive_field(net: nn.Module, side: int = 25, draws: int = 8, seed: int = 0) -> int:
    """Side in pixels of the square that one pixel's curves depend on: where their gradient is not zero.

    A maximum passes the gradient of one pixel only, so several random images of side × side pixels are tried together.
    """
    exact = copy.deepcopy(net).double()
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(
        draws, 3, side, side, generator=generator, dtype=torch.float64
    ).requires_grad_()
    middle = exact.curves(images)[..., side // 2, side // 2].sum()
    seen = torch.autograd.grad(middle, images)[0].abs().sum((0, 1)).sum(0).nonzero()
    return int(seen.max() - seen.min() + 1)


def file_sizes() -> pd.DataFrame:
    """Weights files in bytes and KB (1,024 bytes): predicted 4 bytes a parameter, measured, and what is added.

    Published files first, whose sizes stand in the data manifest (nothing is fetched), then this project's.
    """
    rows = []
    for weights in ("published", "trained here"):
        for name in ("zero-dce", "zero-dce-improved"):
            _, file, _ = checkpoints.MODELS[f"{name}-published" if weights == "published" else name]
            plan = layers(experiments.ARMS[name].net)
            predicted = 4 * int(plan.weights.sum() + plan.biases.sum())
            entry = datasets.manifest().get(file)
            size = entry.size if entry else (paths.weights() / file).stat().st_size
            row = {"weights": weights, "network": name, "predicted": predicted, "measured": size}
            rows.append(
                row | {"added": size - predicted, "KB": size / 1024, "ratio": size / predicted}
            )
    return pd.DataFrame(rows)


def _ratio(measured: float, predicted: float) -> float:
    return measured / predicted if predicted else float("nan")


# ---- losses --------------------------------------------------------------------------------------------------------


def loss_forms(model: checkpoints.Model, photograph: np.ndarray) -> pd.DataFrame:
    """The four losses of ``model`` on a photograph (H, W, 3) uint8, in the paper's form and the released code's.

    One row a form and term: value, weight, weighted value and its share of the form's sum.
    """
    image = to_tensor(photograph)
    with torch.no_grad():
        enhanced, curves = model.net(image)
    rows = []
    for form, config in (("paper", PAPER), ("released", RELEASED)):
        weighted = {
            name: term.item() for name, term in loss_terms(enhanced, image, curves, config).items()
        }
        for term, value in weighted.items():
            weight, share = getattr(config, term), value / sum(weighted.values())
            row = {"form": form, "term": term, "value": value / weight, "weight": weight}
            rows.append(row | {"weighted": value, "share": share})
    return pd.DataFrame(rows)


def color_gradients() -> pd.DataFrame:
    """Value and largest gradient of the colour loss, as released and as mended here, on plain images as text.

    The images are 16×16 pixels of one colour, near to grey and far from it; float32, as in training.
    """
    table = []
    colors = {
        "black": (0.0, 0.0, 0.0),
        "grey": (0.5, 0.5, 0.5),
        "nearly grey": (0.501, 0.5, 0.5),
        "reddish": (0.7, 0.5, 0.5),
    }
    for name, color in colors.items():
        row = {"image": name}
        for form, loss in (("released", _released_color), ("ours", color_constancy)):
            image = torch.tensor(color).reshape(1, 3, 1, 1).repeat(1, 1, 16, 16).requires_grad_()
            value = loss(image)
            gradient = torch.autograd.grad(value, image)[0].abs().max().item()
            row |= {f"{form} value": f"{value.item():.3g}", f"{form} gradient": f"{gradient:.3g}"}
        table.append(row)
    return pd.DataFrame(table).replace("nan", "not a number")


def _released_color(enhanced: Tensor) -> Tensor:
    """The formula as released, a plain square root, to show what it does at grey; never trained with."""
    r, g, b = enhanced.mean(dim=(2, 3)).unbind(dim=1)
    return ((r - g).pow(4) + (r - b).pow(4) + (g - b).pow(4)).sqrt().mean()


# ---- pictures, training, scores ------------------------------------------------------------------------------------


def published_pictures(limit: int = 0) -> pd.DataFrame:
    """Our code with the published improved weights and gamma, against the published pictures of the LIME photographs.

    One row a photograph: size in pixels, largest and mean difference in grey levels, values that differ, of 3 a pixel.
    Says what to fetch, and returns no rows, where the photographs or weights are not at hand.
    """
    columns = ["photograph", "width", "height", "largest", "mean", "values_differing", "values"]
    if len(evaluation.at_hand("lime", "published-weights")) < 2:
        print(
            "LIME and the published weights are not at hand: run `zdce data fetch lime published-weights`"
        )
        return pd.DataFrame(columns=columns)
    enhancer = evaluation.Method("", "zero-dce-improved-published").enhancer("cpu")
    rows = []
    for sample in datasets.samples("lime", limit):
        ours = enhancer(sample.image())
        difference = np.abs(ours.astype(np.int16) - sample.published_result())
        height, width, _ = ours.shape
        counts = (
            int(difference.max()),
            float(difference.mean()),
            int((difference > 0).sum()),
            difference.size,
        )
        rows.append((sample.name, width, height, *counts))
    return pd.DataFrame(rows, columns=columns)


def short_training(arm: str, data: str, size: int, batch: int, steps: int, seed: int) -> Run:
    """Train an arm of the study from scratch for a few steps on the CPU; nothing is left on the disk but the record
    in the returned run. size: side of the photographs in pixels."""
    config = replace(
        experiments.ARMS[arm], data=data, size=size, batch=batch, steps=steps, seed=seed
    )
    photographs = datasets.training_set(data, size, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        return train(config, folder, photographs=photographs, progress=False)


def term_changes(record: pd.DataFrame, window: int) -> pd.DataFrame:
    """Each weighted loss term and their sum: mean of the first and the last ``window`` steps of a training record."""
    columns = [*TERMS, "loss"]
    first, last = record[columns].head(window).mean(), record[columns].tail(window).mean()
    return pd.DataFrame(
        {"term": columns, "first": first.array, "last": last.array, "ratio": (last / first).array}
    )


def epochs(name: str, photographs: int = 2002) -> pd.DataFrame:
    """The records of an arm's trainings by epoch beside the published curve: mean of the loss over all seeds, the
    smallest and largest mean of a seed, the smallest and largest loss of a batch.

    One row for the first epoch, the last, and each that the published curve states; empty if there is no record. The
    curve is that of the improved network; the other has gaps there.
    """
    spread = ["seed_lowest", "seed_highest", "batch_lowest", "batch_highest"]
    columns = ["network", "seeds", "epoch", "steps", "mean", *spread, "published", "difference"]
    records = experiments.shipped_records(name)
    if records is None:
        return pd.DataFrame(columns=columns)
    per_epoch = -(-photographs // experiments.ARMS[name].batch)
    epoch = (records.step // per_epoch + 1).rename("epoch")
    seeds = (
        records.groupby([epoch, "seed"]).loss.agg(["size", "mean", "min", "max"]).groupby("epoch")
    )
    figures = {"seeds": ("mean", "size"), "steps": ("size", "first"), "mean": ("mean", "mean")}
    ends = (("mean", "min"), ("mean", "max"), ("min", "min"), ("max", "max"))
    table = (
        seeds.agg(**figures, **dict(zip(spread, ends, strict=True)))
        .assign(network=name)
        .reset_index()
    )
    table["published"] = table.epoch.map(
        PUBLISHED_CURVE if name == "zero-dce-improved" else {}
    ).astype(float)
    table["difference"] = table["mean"] - table.published
    return table[table.epoch.isin([*PUBLISHED_CURVE, table.epoch.max()])][columns].reset_index(
        drop=True
    )


def training_losses(
    methods: Iterable[evaluation.Method], data: str, size: int = SIDE, limit: int = 0
) -> pd.DataFrame:
    """What trained networks reach of the loss that they were trained for: weighted terms and their sum, mean over
    photographs of the training set ``data`` at size × size pixels.

    methods: with the labels of ``evaluation.OURS`` or ``evaluation.PUBLISHED``; each is measured by the losses of its arm.
    limit: so many photographs, evenly spaced; 0 takes all. One row a method; n photographs.
    """
    images = datasets.training_set(data, size, progress=False).images
    chosen = images[
        np.arange(0, len(images), max(1, len(images) // limit) if limit else 1)[: limit or None]
    ]
    rows = []
    for method in methods:
        net, arm = (
            checkpoints.load(method.model).net,
            experiments.ARMS[method.model.removesuffix("-published")],
        )
        batches = []
        with torch.inference_mode():
            for image in torch.from_numpy(chosen).split(4):
                image = image.permute(0, 3, 1, 2).float() / 255
                enhanced, curves = net(image)
                terms = loss_terms(enhanced, image, curves, arm.loss)
                batches.append([len(image) * term.item() for term in terms.values()])
        means = np.sum(batches, axis=0) / len(chosen)
        row = {"weights": method.label, "data": data, "size": size, "n": len(chosen)}
        rows.append(row | dict(zip(TERMS, means, strict=True)) | {"loss": means.sum()})
    return pd.DataFrame(rows)


def trained() -> pd.DataFrame:
    """How long the shipped weights were trained: optimiser steps, those that the study takes, and their share."""
    rows = []
    for name in ("zero-dce", "zero-dce-improved"):
        run, whole = checkpoints.load(name).header["train"], experiments.ARMS[name].steps
        row = {
            "network": name,
            "steps": run["steps"],
            "study_steps": whole,
            "share": run["steps"] / whole,
        }
        rows.append(row | {"budget": experiments.budget(run)})
    return pd.DataFrame(rows)


def agreement(
    methods: Iterable[evaluation.Method], on: Iterable[str], limit: int = 0
) -> pd.DataFrame:
    """PSNR, SSIM and MAE of methods on the photographs of those sets ``on`` that have a reference: one row a pair.

    Columns as in METRICS; the matched ones after both means were made equal. limit: photographs a set, 0 takes all.
    """
    enhancers = {method.label: method.enhancer() for method in methods}
    table = []
    for name in on:
        for sample in datasets.samples(name, limit):
            reference = sample.reference()
            if reference is None:
                continue
            before = sample.image()
            for label, enhancer in enhancers.items():
                image = enhancer(before)
                matched = metrics.match_mean(image, reference)
                row = {
                    "dataset": name,
                    "photograph": sample.name,
                    "scene": sample.scene,
                    "method": label,
                }
                row |= {
                    f.__name__: f(image, reference)
                    for f in (metrics.psnr, metrics.ssim, metrics.mae)
                }
                row |= {
                    f"{f.__name__}_matched": f(matched, reference)
                    for f in (metrics.psnr, metrics.ssim)
                }
                table.append(row)
    return pd.DataFrame(table)


def ours_against_published(scores: pd.DataFrame) -> pd.DataFrame:
    """PSNR and SSIM of this project's weights minus those of the published ones, with the 95 % bootstrap interval.

    scores: as :func:`agreement` returns them. One row a data set, network and figure; none without published weights.
    """
    rows = []
    for ours, published in zip(evaluation.OURS, evaluation.PUBLISHED, strict=True):
        for dataset, part in scores.groupby("dataset", sort=False):
            if not {ours.label, published.label} <= set(part.method):
                continue
            for figure in ("psnr", "ssim"):
                mean, low, high = evaluation.paired_difference(
                    part, figure, ours.label, published.label
                )
                n = int((part.method == ours.label).sum())
                row = {"dataset": dataset, "network": ours.label, "figure": figure.upper(), "n": n}
                rows.append(row | {"ours_minus_published": mean, "low": low, "high": high})
    columns = ["dataset", "network", "figure", "n", "ours_minus_published", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


# ---- verdict -------------------------------------------------------------------------------------------------------


def claims(
    pictures: pd.DataFrame,
    curve: pd.DataFrame,
    reached: pd.DataFrame,
    differences: pd.DataFrame,
    files: pd.DataFrame,
    steps: pd.DataFrame,
) -> pd.DataFrame:
    """Claims R1 and N1 in parts, as :func:`zdce.study.claims.parts`: the rule, what was measured, and whether it held.

    pictures, curve, reached, differences, files, steps: the tables of :func:`published_pictures`, :func:`epochs`,
    :func:`training_losses`, :func:`ours_against_published`, :func:`file_sizes` and :func:`trained`.
    """
    before, after = files[files.weights == "published"].KB
    rows = [
        {"claim": "R1", "part": "pictures of the published weights", "budget": "published weights"}
        | _pictures(pictures),
        {"claim": "R1", "part": "losses of the training from scratch", "budget": _budget(steps)}
        | _losses(curve),
        {
            "claim": "R1",
            "part": "loss of our weights and of the published ones",
            "budget": _budget(steps),
        }
        | _reached(reached),
        {
            "claim": "R1",
            "part": "scores of the weights trained from scratch",
            "budget": _budget(steps),
        }
        | _scores(differences, steps.share.min()),
    ]
    for channels, rule, size, held in (
        (32, "312 – 316 KB", before, 312 <= before < 316.5),
        (16, "97 KB, rounded", after, round(after) == 97),
    ):
        about = {
            "part": f"published file with {channels} channels",
            "rule": rule,
            "measured": f"{size:.1f} KB",
        }
        rows.append(
            {"claim": "N1", "n": "1 file", "budget": "published weights", "held": held} | about
        )
    words = {True: "yes", False: "no", None: "not testable here"}
    return ledger.parts(row | {"held": words[row["held"]]} for row in rows)


def _budget(steps: pd.DataFrame) -> str:
    return "; ".join(f"{row.network}: {row.budget}" for row in steps.itertuples())


def _pictures(pictures: pd.DataFrame) -> dict:
    rule = f"no value off by more than {TOLERANCE['grey levels']} grey levels"
    if pictures.empty:
        return {"rule": rule, "measured": "photographs and weights are not at hand", "held": None}
    worst, n = int(pictures.largest.max()), f"{len(pictures)} photographs"
    return {
        "rule": rule,
        "measured": f"off by {worst} at most",
        "n": n,
        "held": worst <= TOLERANCE["grey levels"],
    }


def _losses(curve: pd.DataFrame) -> dict:
    """Not testable while the points reached are met, but not all are reached."""
    rule = f"epoch means within {TOLERANCE['loss']} of the published"
    stated = curve.dropna(subset="published")
    if stated.empty:
        return {"rule": rule, "measured": "no record of the shipped training", "held": None}
    worst = stated.loc[stated.difference.abs().idxmax()]
    row = {
        "rule": rule,
        "measured": f"off by {abs(worst.difference):.3f} at most, {len(stated)} of {len(PUBLISHED_CURVE)} points",
        "interval": f"seeds {worst.seed_lowest:.3f} – {worst.seed_highest:.3f}",
        "n": f"{stated.seeds.min()} seeds",
    }
    if abs(worst.difference) > TOLERANCE["loss"]:
        return row | {"held": False}
    return row | {"held": True if len(stated) == len(PUBLISHED_CURVE) else None}


def _reached(reached: pd.DataFrame) -> dict:
    rule = f"ours at most {TOLERANCE['loss']} above the published weights' on the same photographs"
    loss = reached.set_index("weights").loss
    both = zip(evaluation.OURS, evaluation.PUBLISHED, strict=True)
    pairs = [(ours.label, loss[ours.label] - loss[p.label]) for ours, p in both if p.label in loss]
    if not pairs:
        return {"rule": rule, "measured": "published weights are not at hand", "held": None}
    measured = ", ".join(f"{label} {difference:+.3f}" for label, difference in pairs)
    about = {"rule": rule, "measured": measured, "n": f"{reached.n.min()} photographs"}
    return about | {"held": max(difference for _, difference in pairs) <= TOLERANCE["loss"]}


def _scores(differences: pd.DataFrame, share: float) -> dict:
    """Not testable while the scores differ and the training took but a ``share`` of the study's steps."""
    rule = f"means within {TOLERANCE['PSNR']} dB and {TOLERANCE['SSIM']} of SSIM"
    if differences.empty:
        return {"rule": rule, "measured": "published weights are not at hand", "held": None}
    enough = differences[differences.n >= FEWEST]
    if enough.empty:
        return {"rule": rule, "measured": f"fewer than {FEWEST} photographs", "held": None}
    worst = enough.ours_minus_published.abs().groupby(enough.figure).max()
    psnr = enough[enough.figure == "PSNR"]
    psnr = psnr.loc[psnr.ours_minus_published.abs().idxmax()]
    row = {
        "rule": rule,
        "measured": f"off by {worst['PSNR']:.2f} dB and {worst['SSIM']:.3f} at most",
        "interval": f"{psnr.low:+.2f} – {psnr.high:+.2f} dB",
        "n": f"{enough.n.min()} photographs",
    }
    if worst["PSNR"] <= TOLERANCE["PSNR"] and worst["SSIM"] <= TOLERANCE["SSIM"]:
        return row | {"held": True}
    if share >= 1:
        return row | {"held": False}
    return row | {"measured": f"{row['measured']}, {share:.1%} trained", "held": None}


def findings(parts: pd.DataFrame, **tables: pd.DataFrame) -> list[str]:
    """The first notebook's findings as Markdown, one paragraph an entry, worded by the saved tables.

    parts: as :func:`claims`; tables: ``network``, ``training``, ``trained``, ``reached`` and ``scores``, as saved
    under 01.
    """
    network, training, trained, scores = (
        tables[name] for name in ("network", "training", "trained", "scores")
    )
    reached = tables["reached"].set_index("weights")
    lines = []
    for claim, part in parts.groupby("claim", sort=False):
        said = [f"**{claim} is {ledger.verdict(part.held)}.**"]
        for held, words in (
            ("yes", "Holds"),
            ("no", "Does not hold"),
            ("not testable here", "Not testable here"),
        ):
            each = [f"{row.part} ({row.measured})" for row in part[part.held == held].itertuples()]
            said += [f"{words}: {'; '.join(each)}."] if each else []
        lines.append(" ".join(said))
    equal = int((network.predicted == network.measured).sum())
    costs = network[network.quantity.str.startswith("multiply")].measured
    lines.append(
        f"{equal} of {len(network)} predictions of the networks equal the count in the running code. Half the channels "
        f"cost {costs.iloc[1] / costs.iloc[0]:.0%} of the multiply-adds."
    )
    loss = training.set_index("term").loc["loss"]
    lines.append(
        f"In the short training from scratch the loss went from {loss['first']:.3f} to {loss['last']:.3f}, "
        f"a factor of {loss['ratio']:.2f}."
    )
    each = (
        f"{row.network} {row.steps:,} of {row.study_steps:,} ({row.share:.1%})"
        for row in trained.itertuples()
    )
    lines.append(
        f"Steps behind the shipped weights, of those that the study takes: {'; '.join(each)}."
    )
    label = evaluation.PUBLISHED[1].label
    if label in reached.index:
        row, end = reached.loc[label], PUBLISHED_CURVE[max(PUBLISHED_CURVE)]
        ours = reached.loc[evaluation.OURS[1].label]
        lines.append(
            f"The published improved weights themselves have a mean loss of {row.loss:.3f} on {row.data} "
            f"(n = {row.n}), ours {ours.loss:.3f}. Of that, exposure takes {row.exposure:.3f} and {ours.exposure:.3f}, "
            f"smoothness {row.smoothness:.3f} and {ours.smoothness:.3f}."
        )
        if row.data == "sice-train" and abs(row.loss - end) > TOLERANCE["loss"]:
            lines.append(
                f"So the published weights do not lie where their own curve ends, at {end}: the training that was "
                "plotted had other losses, weights or photographs than those described, or the plot shows something "
                "else. Which of these cannot be told from here. A curve that its own weights miss cannot refute ours."
            )
    for name, part in scores.groupby("dataset", sort=False):
        each = (f"{row.method} {row.psnr:.2f} dB and {row.ssim:.3f}" for row in part.itertuples())
        lines.append(f"On {name} (n = {part.n.iloc[0]}), PSNR and SSIM: {'; '.join(each)}.")
    return lines

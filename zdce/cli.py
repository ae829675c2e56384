"""The ``zdce`` command. Each command imports what it needs when it runs, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from zdce.files import escape_control_characters

MODEL_HELP = "zero-dce-level (the default), zero-dce, zero-dce-improved, or a published peer; --model help lists all."

SPEED_HELP = "faithful: the network sees every pixel; fast: a reduced copy. Default: photos faithful, videos fast."


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zdce")
def main() -> None:
    """Brighten dark photographs with Zero-DCE, and rerun the study of it."""
    from zdce import memory

    memory.keep_freed()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What the user can mend ends in one line and exit code 1, without a traceback."""
    try:
        yield
    except OSError as error:  # a full or read-only disk, a missing or forbidden file
        told = error.filename and error.strerror
        raise click.ClickException(
            escape_control_characters(f"{error.filename}: {error.strerror}" if told else str(error))
        ) from None
    except (ValueError, RuntimeError) as error:
        raise click.ClickException(escape_control_characters(str(error))) from None


def _model(_context, _parameter, name: str | None) -> str | None:
    """``--model help`` prints the names; anything else is checked when it is loaded."""
    if name == "help":
        from zdce.checkpoints import MODELS

        for key, (title, _, _) in MODELS.items():
            click.echo(f"{key:30} {title}")
        sys.exit(0)
    return name


@main.command()
@click.argument(
    "sources",
    nargs=-1,
    required=True,
    metavar="PHOTO_VIDEO_OR_FOLDER...",
    type=click.Path(path_type=Path),
)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder, or a file for one source.",
)
@click.option("--model", callback=_model, help=MODEL_HELP)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A .safetensors, .pth or .pt in place of a model.",
)
@click.option(
    "--gamma", type=float, help="Post-processing; default: the model's own, 1 switches it off."
)
@click.option(
    "--strength",
    type=float,
    default=1.0,
    show_default=True,
    help="0 keeps the photo, 1 is the full effect.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@click.option("--speed", type=click.Choice(["faithful", "fast"]), help=SPEED_HELP)
@click.option(
    "--skip-done", is_flag=True, help="Leave sources alone whose output is there and not older."
)
@click.option(
    "--scheduler", metavar="ADDRESS", help="Enhance on a Dask cluster, such as tcp://host:8786."
)
def enhance(
    sources, out, model, weights, gamma, strength, device, speed, skip_done, scheduler
) -> None:
    """Brighten photographs and videos, and folders of them, into OUT; names and formats are kept."""
    from zdce import checkpoints
    from zdce.enhance import Enhancer
    from zdce.folders import enhance_files

    if model and weights:
        raise click.UsageError(
            "--model and --weights exclude each other: a weights file is a model of its own"
        )
    with _plain_errors():
        options = {
            "model": model or checkpoints.DEFAULT,
            "weights": weights,
            "gamma": gamma,
            "strength": strength,
        }
        enhancer = Enhancer(**options, device=device, speed=speed or "faithful")
        how = {
            "progress": sys.stderr.isatty(),
            "skip_done": skip_done,
            "scheduler": scheduler,
            "video_speed": speed,
        }
        outcome = enhance_files(sources, out, enhancer, **how)
    skipped = f", {len(outcome.skipped)} there already" if skip_done else ""
    click.echo(f"{len(outcome.written)} enhanced, {len(outcome.failed)} failed{skipped}")
    sys.exit(1 if outcome.failed else 0)


@main.command()
@click.option("--model", callback=_model, help=MODEL_HELP)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A .safetensors, .pth or .pt in place of a model.",
)
@click.option(
    "--gamma", type=float, help="Post-processing; default: the model's own, 1 switches it off."
)
@click.option("--format", "fmt", type=click.Choice(["onnx"]), default="onnx", show_default=True)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="File, such as zero-dce.onnx.",
)
def export(model, weights, gamma, fmt, out) -> None:
    """Write a network for programs without PyTorch; the file is compared with PyTorch before it counts."""
    from zdce import checkpoints
    from zdce import export as exports
    from zdce.postprocess import check_gamma

    if model and weights:
        raise click.UsageError(
            "--model and --weights exclude each other: a weights file is a model of its own"
        )
    with _plain_errors():
        if gamma is not None:
            check_gamma(gamma)
        difference = exports.to_onnx(
            checkpoints.load(weights or model or checkpoints.DEFAULT), out, gamma=gamma
        )
    click.echo(
        f"{out}: {fmt}, any height and width, largest difference from PyTorch {difference:.1g}"
    )


@main.command()
@click.option(
    "--arm", default="zero-dce-improved", show_default=True, help="A configuration of the study."
)
@click.option("--data", help="sice-train (the study's), bundled, or a folder of photographs.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the photographs.")
@click.option(
    "--steps", type=click.IntRange(1), help="Optimiser steps; default: 200 epochs of sice-train."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--size",
    type=click.IntRange(16),
    help="Side that photographs are resized to, pixels; default 256.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="Of the convolutions; default: the arm's.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the run; default: a name of its own in runs/.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option(
    "--save-every",
    type=click.FloatRange(0),
    default=60,
    show_default=True,
    help="Checkpoints, in seconds.",
)
@click.option(
    "--tensorboard", is_flag=True, help="Also write curves for: tensorboard --logdir runs"
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
def train(
    arm, data, epochs, steps, seed, size, precision, out, resume, save_every, tensorboard, device
) -> None:
    """Train one network from scratch; no reference photographs are needed."""
    from dataclasses import replace

    import torch

    from zdce.datasets import training_set
    from zdce.study.experiments import ARMS, BEYOND

    known = ARMS | BEYOND
    from zdce.training import train as run_training

    if epochs and steps:
        raise click.UsageError("--epochs and --steps exclude each other")
    if arm not in known:
        raise click.UsageError(f"--arm {arm}: unknown; choose one of {', '.join(known)}")
    changes = {"data": data, "steps": steps, "size": size, "seed": seed, "precision": precision}
    config = replace(
        known[arm], **{key: value for key, value in changes.items() if value is not None}
    )
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if (
        device == "cpu"
        and config.precision == "bfloat16"
        and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    ):
        click.echo(
            "this processor emulates bfloat16, slowly: --precision float32 trains faster", err=True
        )
    with _plain_errors():
        photographs = training_set(config.data, config.size)
        if epochs:
            config = replace(config, steps=epochs * -(-len(photographs) // config.batch))
        options = {
            "photographs": photographs,
            "checkpoint_seconds": save_every,
            "tensorboard": tensorboard,
        }
        run = run_training(config, out, resume=resume, device=device, **options)
    last = run.record.tail(max(1, len(run.record) // 10)).mean()
    click.echo(
        f"{run.weights}: {len(run.record)} steps, loss {last['loss']:.4f} (mean of the last tenth)"
    )


def _numbers(_context, _parameter, text: str | None) -> tuple[int, ...] | None:
    """``0,1,2`` as numbers."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else None
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: whole numbers with commas between them, such as 0,1,2"
        ) from None


@main.command()
@click.option(
    "--profile",
    default="quick",
    show_default=True,
    help="How long each training lasts: quick or study.",
)
@click.option("--seeds", callback=_numbers, help="Such as 0,1,2; default: the profile's own.")
@click.option("--arms", help="Only these configurations, with commas between them; default: all.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Trainings at a time; default: one for each processor core.",
)
@click.option(
    "--scheduler", metavar="ADDRESS", help="Train on a Dask cluster, such as tcp://host:8786."
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
def sweep(profile, seeds, arms, jobs, scheduler, device) -> None:
    """Train every configuration of the study; what was trained before is not trained again."""
    from zdce.study import experiments
    from zdce.study import sweep as sweeps

    with _plain_errors():
        configs = experiments.plan(profile, seeds, arms.split(",") if arms else None)
        failed = 0
        for number, each in enumerate(
            sweeps.sweep(configs, jobs=jobs, scheduler=scheduler, device=device), 1
        ):
            click.echo(f"[{number}/{len(configs)}] {each.line()}")
            failed += each.state == "failed"
            if each.state != "failed":
                experiments.keep_training(each.config, profile)
    sys.exit(1 if failed else 0)


@main.command()
@click.argument("more", nargs=-1, metavar="[NAME...]")
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="NAME...",
    help="Names or weights files.",
)
@click.option("--on", required=True, help="Data set: bundled, sice-pairs, lime, dicm or bursts.")
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=0,
    help="So many photographs, evenly spaced; 0 takes all.",
)
@click.option(
    "--csv", "file", type=click.Path(path_type=Path), help="Write a row for each photograph."
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
def evaluate(models, more, on, limit, file, device) -> None:
    """Score models on a data set and print the means; the plain input is scored beside them."""
    from zdce.files import atomic_write
    from zdce.study import evaluation

    with _plain_errors():
        rows = [evaluation.INPUT, *(evaluation.Method(name, name) for name in (*models, *more))]
        if on == "bursts":
            scores = evaluation.evaluate_bursts(rows, on, limit, device=device)
        else:
            scores = evaluation.evaluate(
                rows, on, limit, device=device, progress=sys.stderr.isatty()
            )
        if file:
            with atomic_write(file) as partial:
                scores.to_csv(partial, index=False, float_format="%.6g")
    click.echo(evaluation.summary(scores).T.to_string(float_format=lambda value: f"{value:.4f}"))


@main.command()
@click.option(
    "--profile",
    default="quick",
    show_default=True,
    help="Parameters: notebooks/profiles/<profile>.yaml.",
)
@click.option("--only", help="Numbers of notebooks, such as 01,06.")
@click.option(
    "--panels", type=click.Choice(["bundled", "datasets"]), help="Photographs shown in figures."
)
def report(profile, only, panels) -> None:
    """Run the notebooks and render reports/<profile>/index.html."""
    from zdce.study import readme
    from zdce.study import report as reports

    with _plain_errors():
        failures = reports.run(profile, only.split(",") if only else None, panels)
        if profile == readme.PROFILE and not failures:
            readme.write()
    sys.exit(1 if failures else 0)


@main.command()
@click.option(
    "--csv",
    "file",
    type=click.Path(path_type=Path),
    help="Write the table, settings and versions included.",
)
def speed(file) -> None:
    """Time all paths and published peers on this machine, in turn, at 600×400 and 4K (some minutes)."""
    from zdce.files import atomic_write
    from zdce.study import timing

    with _plain_errors():
        table, conditions = timing.compare()
        if file:
            with atomic_write(file) as partial:
                table.to_csv(partial, index=False, float_format="%.6g")
    click.echo(timing.as_text(table))
    click.echo(timing.contention(conditions))


@main.group()
def data() -> None:
    """List, fetch and verify the data sets."""


@data.command("list")
def data_list() -> None:
    """Every data set: whether it is at hand, files, size, terms."""
    from zdce import datasets

    for row in datasets.status():
        state = (
            "at hand"
            if row["at_hand"] == row["files"]
            else f"{row['at_hand']} of {row['files']} at hand"
        )
        click.echo(
            f"{row['name']:18} {row['files']:5} files {row['bytes'] / 1e6:7.1f} MB   {state:18} {row['title']}"
        )
        click.echo(f"{'':18} {row['licence']}; used for {row['use']}")


@data.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--mirror",
    help="Folder or http(s) address with the same paths; default: where each is published.",
)
@click.option(
    "--jobs", type=click.IntRange(1, 64), default=8, show_default=True, help="Downloads at a time."
)
def data_fetch(names, mirror, jobs) -> None:
    """Bring data sets ("all" for every one); each file is checked before it counts as there."""
    from zdce import datasets

    with _plain_errors():
        wanted = list(datasets.DATASETS) if "all" in names else names
        fetched = datasets.fetch(wanted, mirror=mirror, jobs=jobs)
    for path, reason in fetched.failed.items():
        click.echo(f"{path}: {reason}", err=True)
    counts = ", ".join(f"{len(getattr(fetched, kind))} {text}" for kind, text in FETCH_KINDS)
    click.echo(counts)
    sys.exit(1 if fetched.failed else 0)


FETCH_KINDS = (("fetched", "fetched"), ("kept", "there already"), ("failed", "failed"))


@data.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]")
def data_verify(names) -> None:
    """Check every file's sha256; without names, of the sets that are at hand."""
    from zdce import datasets

    with _plain_errors():
        wanted = names or [name for name in datasets.DATASETS if datasets.at_hand(name)]
        wrong = datasets.verify(wanted)
    for path, problem in wrong.items():
        click.echo(f"{path}: {problem}", err=True)
    click.echo(
        f"{', '.join(wanted)}: {len(wrong)} missing or wrong"
        if wrong
        else f"{', '.join(wanted)}: all right"
    )
    sys.exit(1 if wrong else 0)

"""The ``zdce`` command. Each command imports what it needs when it runs, so that ``--help`` answers
at once.
"""

import importlib.util
import sys
from pathlib import Path

import click

from zdce.files import atomic_write, escape_control_characters


class _PlainErrors(click.Group):
    """What the user can mend ends in one line and exit code 1, without a traceback."""

    def invoke(self, context):
        try:
            return super().invoke(context)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except (OSError, ValueError, RuntimeError) as error:
            line = str(error)
            if getattr(error, "filename", None) and error.strerror:  # a full disk, a missing file
                line = f"{error.filename}: {error.strerror}"
            raise click.ClickException(escape_control_characters(line)) from None


@click.group(cls=_PlainErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zdce")
def main() -> None:
    """Brighten dark photographs with Zero-DCE, and rerun the study of it."""
    from zdce import memory

    memory.keep_freed()


FILE = click.Path(path_type=Path)
model_option = click.option("--model", help="auto, zero-dce, ...; an unknown name lists all.")
weights_option = click.option("--weights", type=FILE, help="A .safetensors, .pth or .pt instead.")
gamma_option = click.option("--gamma", type=float, help="Default: the model's own; 1: none.")
device_option = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
scheduler_option = click.option("--scheduler", metavar="ADDRESS", help="Of a Dask cluster.")
csv_option = click.option("--csv", "file", type=FILE, help="Also write the table, a row a line.")


def _chosen(model: str | None, weights: Path | None) -> str | Path | None:
    if model and weights:
        raise click.UsageError("--model and --weights exclude each other")
    return model or weights


def _save(table, file: Path | None) -> None:
    """A table as CSV, where a file is named."""
    if file:
        with atomic_write(file) as partial:
            table.to_csv(partial, index=False, float_format="%.6g")


def _end(counts: str, failed: dict[str, str]) -> None:
    """What failed and why, how many there are, and the exit code."""
    for name, reason in failed.items():
        click.echo(f"{name}: {reason}", err=True)
    click.echo(f"{counts}, {len(failed)} failed")
    sys.exit(bool(failed))


@main.command(epilog="More: docs/enhance.md")
@click.argument("sources", nargs=-1, required=True, metavar="PHOTO_VIDEO_OR_FOLDER...", type=FILE)
@click.option("-o", "--out", required=True, type=FILE, help="Folder, or a file for one source.")
@model_option
@weights_option
@gamma_option
@click.option("--strength", type=float, default=1.0, help="1: full (default), 0: original.")
@device_option
@click.option(
    "--speed",
    type=click.Choice(["faithful", "fast"]),
    help="Networks see every pixel or a small copy. Default: photos faithful, videos fast.",
)
@click.option("--format", help="Write photos as jpg, png, tif, ...; or videos as mp4, ...")
@click.option("--quality", type=click.IntRange(1, 100), help="JPEG, WebP: 95; AVIF: 90.")
@click.option("--suffix", default="", help="Added to names: _bright makes a.jpg a_bright.jpg.")
@click.option("--compare", is_flag=True, help="Also write a before/after image, NAME_compare.jpg.")
@click.option("--skip-done", is_flag=True, help="Skip files whose output is up to date.")
@click.option("--dry-run", is_flag=True, help="Say what would be written where; write nothing.")
@scheduler_option
def enhance(sources, out, model, weights, gamma, strength, device, speed, **options) -> None:
    """Brighten photographs and videos, and folders of them, into OUT; names, places and formats are
    kept. Files of the same name are replaced, an input never. Default model: auto.
    """
    from zdce import checkpoints
    from zdce.enhance import Enhancer
    from zdce.folders import enhance_files

    how = {"gamma": gamma, "strength": strength, "device": device, "speed": speed or "faithful"}
    enhancer = Enhancer(_chosen(model, weights) or checkpoints.DEFAULT, **how)
    outcome = enhance_files(sources, out, enhancer, video_speed=speed, **options)
    for source, target in outcome.planned:
        click.echo(escape_control_characters(f"{source} -> {target}"))
    done = f"{len(outcome.written)} enhanced"
    done = f"{len(outcome.planned)} would be enhanced" if options["dry_run"] else done
    skipped = f", {len(outcome.skipped)} there already" * bool(outcome.skipped)
    click.echo(f"{done}, {len(outcome.failed)} failed{skipped}")
    click.echo("".join(f"{line}\n" for line in outcome.lines()), nl=False)
    if outcome.written and not importlib.util.find_spec("numba"):
        click.echo('pip install "zdce[fast]" makes this several times faster', err=True)
    sys.exit(bool(outcome.failed))


@main.command()
@model_option
@weights_option
@gamma_option
@click.option("-o", "--out", required=True, type=FILE, help="File, such as zero-dce.onnx.")
def export(model, weights, gamma, out) -> None:
    """Write a network (default: zero-dce-improved) for programs without PyTorch."""
    from zdce import checkpoints
    from zdce import export as exports

    network = checkpoints.load(_chosen(model, weights) or exports.DEFAULT)
    difference = exports.to_onnx(network, out, gamma=gamma)
    click.echo(f"{out}: any height and width, largest difference from PyTorch {difference:.1g}")


@main.command()
@click.option("--arm", default="zero-dce-improved", show_default=True, help="Experiment's name.")
@click.option("--data", help="sice-train (the study's), bundled, or a folder of photographs.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the photographs.")
@click.option("--steps", type=click.IntRange(1), help="Default: 200 epochs of sice-train.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--size", type=click.IntRange(16), help="Photographs become SIZE × SIZE, or 256.")
@click.option("--out", type=FILE, help="Folder of the run; default: a name of its own in runs/.")
@click.option("--weights", type=FILE, help="Weights to start from, in place of random values.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option("--save-every", type=click.FloatRange(0), default=60, help="Seconds.")
@click.option("--tensorboard", is_flag=True, help="Also curves for: tensorboard --logdir runs")
@device_option
def train(arm, epochs, out, weights, resume, save_every, tensorboard, device, **changes) -> None:
    """Train one network; no reference photographs are needed."""
    from dataclasses import replace

    from zdce import training
    from zdce.datasets import training_set
    from zdce.study.experiments import EXPERIMENTS

    if epochs and changes["steps"]:
        raise click.UsageError("--epochs and --steps exclude each other")
    if arm not in EXPERIMENTS:
        raise click.UsageError(f"--arm {arm}: unknown; choose one of {', '.join(EXPERIMENTS)}")
    wanted = {key: value for key, value in changes.items() if value is not None}
    config = replace(EXPERIMENTS[arm], **wanted)
    try:
        photographs = training_set(config.data, config.size)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}, or train on what is there: --data bundled") from None
    if epochs:
        config = replace(config, steps=epochs * -(-len(photographs) // config.batch))
    saving = training.Saving(seconds=save_every, tensorboard=tensorboard)
    start = {"weights": weights, "resume": resume, "photographs": photographs}
    run = training.train(config, out, **start, device=device, saving=saving)
    loss = run.record["loss"].tail(max(1, len(run.record) // 10)).mean()
    click.echo(f"{run.weights}: {len(run.record)} steps, loss {loss:.4f} (the last tenth's mean)")
    click.echo(f"{run.folder}/loss.png: the loss over the steps")


@main.command()
@click.option("--profile", default="quick", show_default=True, help="quick, short or study.")
@click.option("--seeds", help="Such as 0,1,2; default: the profile's own.")
@click.option("--arms", help="Only these experiments, with commas between them; default: all.")
@click.option("--jobs", type=click.IntRange(1), help="At a time; default: one a core, or a GPU.")
@scheduler_option
@device_option
def sweep(profile, seeds, arms, jobs, scheduler, device) -> None:
    """Train a profile's experiments; what was trained before is not trained again."""
    from zdce.study import experiments
    from zdce.study import sweep as sweeps

    numbers = tuple(map(int, seeds.split(","))) if seeds else None
    configs = experiments.plan(profile, numbers, arms.split(",") if arms else None)
    options = {"jobs": jobs, "scheduler": scheduler, "device": device}
    options["snapshots"] = experiments.BUDGETS[profile].snapshots
    failed = 0
    for number, each in enumerate(sweeps.sweep(configs, **options), 1):
        click.echo(f"[{number}/{len(configs)}] {each.line()}")
        failed += each.state == "failed"
        if each.state != "failed":
            experiments.keep_training(each.config, profile)
    sys.exit(bool(failed))


@main.command()
@click.argument("more", nargs=-1, metavar="[NAME...]")
@click.option("--model", "models", multiple=True, metavar="NAME...", help="Names or weights files.")
@click.option("--on", help="bundled, sice-pairs, lime, dicm, bursts, or a folder of low/ and high/")
@click.option("--pairs", nargs=2, type=FILE, metavar="LOW REFERENCE", help="Your own two folders.")
@click.option("--finished", multiple=True, type=FILE, help="Folder of another method's results.")
@csv_option
@device_option
def evaluate(models, more, on, pairs, finished, file, device) -> None:
    """Score models, finished pictures of other methods (with --pairs) and the plain input beside
    them. Photographs of several folders belong together by their names without suffix.
    """
    from zdce.study import evaluation

    if bool(on) == bool(pairs):
        raise click.UsageError("give --on DATASET or --pairs LOW REFERENCE, and not both")
    if on and Path(on, "low").is_dir():
        pairs = Path(on, "low"), Path(on, "high")
    rows = [evaluation.Method(name, name) for name in (*models, *more)]
    if pairs:
        scores = evaluation.evaluate_pairs(*pairs, rows, finished, device=device)
    elif finished or not rows:
        raise click.UsageError("--on wants a --model; --finished goes with --pairs")
    else:
        score = evaluation.evaluate_bursts if on == "bursts" else evaluation.evaluate
        scores = score([evaluation.INPUT, *rows], on, device=device)
    _save(scores, file)
    groups = scores.groupby("method", sort=False)
    means = groups.mean(numeric_only=True).dropna(axis="columns", how="all").assign(n=groups.size())
    click.echo(means.T.to_string(float_format="{:.4f}".format))


@main.command()
@click.option("--profile", default="quick", show_default=True, help="notebooks/profiles/NAME.yaml.")
@click.option("--only", help="Numbers of notebooks, such as 01,06.")
def report(profile, only) -> None:
    """Run the notebooks and render reports/<profile>/index.html."""
    from zdce.study import readme
    from zdce.study import report as reports

    failures = reports.run(profile, only.split(",") if only else None)
    if profile == readme.PROFILE and not failures:
        readme.write()
    sys.exit(bool(failures))


@main.command()
@csv_option
def speed(file) -> None:
    """Time engines, published peers and other ways to run the networks (some five minutes)."""
    from zdce.study import timing

    table, missing = timing.compare()
    _save(table, file)
    click.echo(timing.as_text(table, missing))


@main.group()
def data() -> None:
    """List, fetch and verify the data sets."""


@data.command("list")
def data_list() -> None:
    """Every data set: whether it is at hand, files, size, terms."""
    from zdce import datasets

    for name, each in datasets.DATASETS.items():
        files, absent = each.entries(), len(datasets.missing(name))
        size, there = sum(entry.size for entry in files) / 1e6, len(files) - absent
        click.echo(f"{name:18} {there:5} of {len(files):5} files {size:7.1f} MB   {each.title}")
        click.echo(f"{'':18} {each.licence}")


@data.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--mirror", help="Folder or http(s) address with the same paths.")
def data_fetch(names, mirror) -> None:
    """Bring data sets ("all" for every one); each file is checked before it counts as there."""
    from zdce import datasets, fetch

    wanted = list(datasets.DATASETS) if "all" in names else names
    done = fetch.fetch(wanted, mirror=mirror)
    _end(f"{len(done.fetched)} fetched, {len(done.kept)} there already", done.failed)


@data.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]")
def data_verify(names) -> None:
    """Check every file's sha256; without names, of the sets that are at hand."""
    from zdce import datasets, fetch

    wanted = names or [name for name in datasets.DATASETS if datasets.at_hand(name)]
    _end(f"verified {', '.join(wanted)}", fetch.verify(wanted))

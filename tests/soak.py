"""Long runs with faults, one table at the end: commands killed at random instants, thousands of
photographs, starved memory, a sweep under fire.

    python tests/soak.py [--kills 50] [--photographs 2000] [--only enhance,train] [--csv
    reports/study/soak.csv]

Every killed command is run to its end afterwards; its outputs must equal those of a run that
nothing disturbed, byte for byte, none may ever be there in part, none that was finished may be
lost, and no litter may stay beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from zdce import paths
from zdce.files import atomic_write

BAD = ["lost", "partial", "different", "litter"]
COLUMNS = ["what", "done", "times", "outputs", *BAD, "peak_MiB", "seconds"]
PEAK = """
import re, sys
from zdce.cli import main
try:
    main(sys.argv[1:])
finally:
    # Not of getrusage, which begins with what the process had that started this one.
    peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
    print("peak", int(peak) // 1024, file=sys.stderr)
"""


@dataclass
class Command:
    """A command that is killed. home: a folder of its own; words: of ``zdce``; outputs: files that
    it finishes.
    """

    name: str
    words: list[str]
    outputs: Callable[[Path], list[Path]]
    limit_MiB: int = 0

    def start(self, home: Path) -> subprocess.Popen:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "ZDCE_RUNS": str(home / "runs")}
        environment |= {"ZDCE_DATA": str(home / "data"), "PYTHONPATH": str(home)}
        words = [sys.executable, "-c", PEAK, *self.words]
        if self.limit_MiB:
            words = [
                "bash",
                "-c",
                f'ulimit -v {self.limit_MiB * 1024}; exec "$@"',
                "limited",
                *words,
            ]
        log = (home / "log.txt").open("a")
        return subprocess.Popen(
            words,
            cwd=home,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def finish(self, home: Path) -> float:
        """Run to the end; seconds. RuntimeError with the last lines that it said where it fails."""
        started = time.monotonic()
        if code := self.start(home).wait():
            raise RuntimeError(self.failure(home, code))
        return time.monotonic() - started

    def failure(self, home: Path, code: int) -> str:
        said = (home / "log.txt").read_text(errors="replace").splitlines()[-5:]
        return f"{self.name} ended with {code}: {' | '.join(said)}"

    def prints(self, home: Path) -> dict[str, str]:
        """sha256 of every output that is there."""
        files = [file for file in self.outputs(home) if file.is_file()]
        return {
            str(file.relative_to(home)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
        }


def clone(home: Path) -> Path:
    """A clone as far as commands can tell: the package, a small data set, one small notebook, some
    photographs.
    """
    shutil.copytree(paths.PACKAGE, home / "zdce", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "notebooks" / "profiles").mkdir(parents=True)
    (home / "notebooks" / "profiles" / "quick.yaml").write_text("01_first: {}\n")
    (home / "data").mkdir()
    (home / "mirror" / "files").mkdir(parents=True)
    photographs(home / "in", 24)
    lines = ["path,bytes,sha256,upstream_repository,upstream_commit,upstream_path,scene,reference"]
    for file in sorted((home / "in").iterdir()):
        data = file.read_bytes()
        # The names of a set that the package knows; its files are ours.
        place = f"data/test_data/LIME/{file.name}"
        (home / "mirror" / place).parent.mkdir(parents=True, exist_ok=True)
        (home / "mirror" / place).write_bytes(data)
        lines.append(f"{place},{len(data)},{hashlib.sha256(data).hexdigest()},a/b,0,x,,")
    (home / "data" / "manifest.csv").write_text("\n".join(lines) + "\n")
    cells = [
        new_markdown_cell("# First\nA question."),
        new_code_cell("count: int = 3  # rows", metadata={"tags": ["parameters"]}),
        new_code_cell("import pandas as pd\nfrom zdce.study import report"),
        new_code_cell("report.save_table(pd.DataFrame({'n': range(count)}), '01_counts')"),
        new_markdown_cell("## Findings"),
        new_code_cell("report.prose('It counts.')"),
        new_markdown_cell("## Limits and deviations\nNone."),
    ]
    book = new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    nbformat.write(book, home / "notebooks" / "01_first.ipynb")
    return home


def photographs(folder: Path, count: int, size: tuple[int, int] = (48, 64)) -> None:
    """Small JPEG photographs of rising brightness, 0000.jpg and on."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(count):
        pixels = np.clip(rng.normal(10 + 220 * (k % 24) / 23, 20, (*size, 3)), 0, 255).astype(
            np.uint8
        )
        Image.fromarray(pixels).save(folder / f"{k:04}.jpg")


def visible(folder: str, *patterns: str) -> Callable[[Path], list[Path]]:
    def files(home: Path) -> list[Path]:
        found = (file for pattern in patterns for file in (home / folder).rglob(pattern))
        return sorted(
            f for f in found if not any(part.startswith(".") for part in f.relative_to(home).parts)
        )

    return files


FINISHED = ("model.safetensors", "record.csv")
SMALL = ["--data", "in", "--size", "32", "--steps", "200", "--save-every", "0.1"]
COMMANDS = {
    command.name: command
    for command in (
        Command("enhance", ["enhance", "in", "-o", "out"], visible("out", "*.jpg")),
        Command(
            "train",
            ["train", "--arm", "channels-8", *SMALL, "--resume"],
            visible("runs", *FINISHED),
        ),
        Command(
            "sweep",
            ["sweep", "--arms", "channels-8,no-pool", "--jobs", "2"],
            visible("", *FINISHED, "*.csv.gz"),
        ),
        Command("report", ["report"], visible("reports", "*.csv", "*.ipynb", "*.html")),
        Command(
            "data fetch", ["data", "fetch", "lime", "--mirror", "mirror"], visible("data", "*.jpg")
        ),
    )
}


def killed(command: Command, kills: int, seed: int = 0) -> dict:
    """Kill ``command`` at ``kills`` instants drawn over its duration, starting it again each time;
    a row.
    """
    rng, started = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        alone, home = clone(Path(scratch) / "alone"), clone(Path(scratch) / "home")
        seconds = command.finish(alone)
        wanted = command.prints(alone)
        assert wanted, f"{command.name} made nothing"
        lost, partial, times, rounds, before = 0, 0, 0, 0, {}
        while times < kills:
            process = command.start(home)
            try:
                if code := process.wait(rng.uniform(0, 1.1 * seconds)):
                    raise RuntimeError(command.failure(home, code))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                times += 1
            there = command.prints(home)
            lost += len(set(before) - set(there))
            partial += sum(not _same(home, alone, name, there, wanted) for name in there)
            before = there
            if len(there) == len(wanted):  # all done: begin again
                rounds += 1
                home, before = clone(Path(scratch) / f"home-{rounds}"), {}
        command.finish(home)
        there = command.prints(home)
        different = len(set(wanted) ^ set(there))
        different += sum(
            not _same(home, alone, name, there, wanted) for name in set(wanted) & set(there)
        )
        counts = {"times": times, "outputs": len(wanted), "lost": lost, "partial": partial}
        done = "killed (SIGKILL) at random instants"
        return row(command.name, done, home, started, **counts, different=different)


def row(name: str, done: str, home: Path, started: float, **counts: int) -> dict:
    """A row of the table: what was done to ``zdce name``, and what became of its outputs."""
    found = {"what": f"zdce {name}", "done": done, "times": 1} | dict.fromkeys(BAD, 0) | counts
    found |= {"litter": litter(home), "peak_MiB": _peak(home) or _own_peak()}
    return found | {"seconds": round(time.monotonic() - started)}


def _same(home: Path, alone: Path, name: str, there: dict, wanted: dict) -> bool:
    """Whether an output equals that of the undisturbed run; of a notebook, what it holds, not when
    it was made; of a page, which tells its date and duration, whether it is whole.
    """
    if name.endswith(".html"):
        return name in wanted and (home / name).read_text("utf-8").rstrip().endswith("</html>")
    if not name.endswith(".ipynb"):
        return there[name] == wanted.get(name)
    try:
        cells = [
            json.loads((folder / name).read_text("utf-8"))["cells"] for folder in (home, alone)
        ]
    except ValueError:
        return False
    told = [[(cell["source"], cell.get("outputs")) for cell in book] for book in cells]
    return told[0] == told[1]


def litter(home: Path) -> int:
    """Unfinished files and folders that are left."""
    return len([*home.rglob(".*.part"), *home.rglob(".partial-*")])


def _peak(home: Path) -> int:
    """Most memory that a run of a command in ``home`` took, MiB."""
    log = home / "log.txt"
    told = log.read_text(errors="replace") if log.is_file() else ""
    return max(map(int, re.findall(r"^peak (\d+)$", told, re.MULTILINE)), default=0)


def _own_peak() -> int:
    """Most memory of one of this process's children so far, MiB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024


def load(count: int) -> dict:
    """``count`` photographs through ``zdce enhance``: every output there, and memory that does not
    grow with them.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        peaks = {}
        for number in (max(1, count // 10), count):
            home = clone(Path(scratch) / str(number))
            shutil.rmtree(home / "in")
            photographs(home / "in", number)
            COMMANDS["enhance"].finish(home)
            peaks[number] = _peak(home)
            missing = number - len(COMMANDS["enhance"].prints(home))
            unlike = [
                file
                for file in COMMANDS["enhance"].outputs(home)
                if not _reads_as(file, home / "in" / file.name)
            ]
        few, many = peaks.values()
        done = f"many photographs; {few} MiB for a tenth of them"
        counts = {"outputs": count, "lost": missing, "partial": len(unlike)}
        return row("enhance", done, home, started, **counts) | {"peak_MiB": many}


def _reads_as(file: Path, source: Path) -> bool:
    """Whether a photograph can be read to its end, has its source's size and is no copy of it."""
    try:
        with Image.open(file) as after, Image.open(source) as before:
            after.load()
            return after.size == before.size and file.read_bytes() != source.read_bytes()
    except OSError:
        return False


def starved(limit_MiB: int = 8192) -> dict:
    """A report under ``ulimit -v``."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        home, alone = clone(Path(scratch) / "home"), clone(Path(scratch) / "alone")
        plain = COMMANDS["report"]
        plain.finish(alone)
        limited = Command("report", plain.words, plain.outputs, limit_MiB)
        limited.finish(home)
        there, wanted = limited.prints(home), plain.prints(alone)
        different = sum(not _same(home, alone, name, there, wanted) for name in there)
        counts = {"outputs": len(wanted), "lost": len(set(wanted) - set(there))}
        done = f"under ulimit -v {limit_MiB} MiB"
        return row("report", done, home, started, **counts, different=different)


def under_fire(runs: int = 40, workers: int = 4, every: float = 4.0) -> dict:
    """A sweep of tiny trainings on a Dask cluster, one of whose workers is killed every few
    seconds.
    """
    from dataclasses import replace

    import torch
    from distributed import Client, LocalCluster

    from zdce.study import experiments, sweep
    from zdce.training import finished, train

    started, kills, over = time.monotonic(), [0], threading.Event()
    with tempfile.TemporaryDirectory() as scratch:
        home = clone(Path(scratch) / "home")
        os.environ |= {
            "ZDCE_RUNS": str(home / "runs"),
            "ZDCE_DATA": str(home / "data"),
            "OMP_NUM_THREADS": "1",
        }
        arm = replace(
            experiments.EXPERIMENTS["channels-8"],
            data=str(home / "in"),
            size=32,
            steps=150,
            precision="float32",
        )
        wanted = [replace(arm, seed=seed) for seed in range(runs)]

        def fire(address: str) -> None:
            with Client(address) as client:
                while not over.wait(every):
                    pids = list(client.run(os.getpid).values())
                    if pids:
                        os.kill(random.choice(pids), signal.SIGKILL)
                        kills[0] += 1

        with LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None
        ) as cluster:
            shooter = threading.Thread(target=fire, args=(cluster.scheduler_address,))
            shooter.start()
            outcomes = list(sweep.sweep(wanted, scheduler=cluster.scheduler_address))
            over.set()
            shooter.join()
        lost = sum(outcome.state != "trained" for outcome in outcomes) + runs - len(outcomes)
        partial = sum(not finished(config, sweep.folder(config)) for config in wanted) - lost
        for outcome in outcomes:
            if outcome.error:
                print(outcome.line(), file=sys.stderr)
        different = 0
        torch.set_num_threads(1)  # as the workers
        for config in wanted[:: max(1, runs // 5)]:  # five of them trained again, undisturbed
            again = train(config, home / "alone" / config.run_name(), progress=False)
            there = sweep.folder(config) / "model.safetensors"
            different += not there.is_file() or there.read_bytes() != again.weights.read_bytes()
        counts = {"times": kills[0], "outputs": runs, "lost": lost, "partial": max(0, partial)}
        done = f"{workers} workers, one killed every {every:g} s"
        return row("sweep", done, home, started, **counts, different=different)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="of each command")
    parser.add_argument("--photographs", type=int, default=2000)
    parser.add_argument("--only", help="of: " + ", ".join([*COMMANDS, "load", "starved", "fire"]))
    parser.add_argument("--csv", help="write the table; rows that are there of other commands stay")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], dict]] = {
        name: (lambda command=command: killed(command, arguments.kills))
        for name, command in COMMANDS.items()
    }
    parts |= {"load": lambda: load(arguments.photographs), "starved": starved, "fire": under_fire}
    chosen = arguments.only.split(",") if arguments.only else list(parts)
    rows = []
    for name in chosen:
        rows.append(parts[name]())
        print(
            pd.DataFrame(rows[-1:])[COLUMNS].to_string(index=False, header=len(rows) == 1),
            flush=True,
        )
        if arguments.csv:
            keep(rows[-1], Path(arguments.csv))
    sys.exit(int(pd.DataFrame(rows)[BAD].to_numpy().sum() > 0))


def keep(row: dict, file: Path) -> None:
    """Write ``row`` into the table ``file``, in place of the one of an earlier run, in the order of
    the parts.
    """

    def place(row: dict) -> tuple:
        return list(COMMANDS).index(row["what"].removeprefix("zdce ")), row["done"].split()[0]

    before = pd.read_csv(file).to_dict("records") if file.is_file() else []
    rows = [row, *(other for other in before if place(other) != place(row))]
    with atomic_write(file) as partial:
        pd.DataFrame(sorted(rows, key=place))[COLUMNS].to_csv(partial, index=False)


if __name__ == "__main__":
    main()

"""Long runs with faults, one table at the end: commands killed at random instants, thousands of
photographs, starved memory, a sweep under fire.

    python tests/soak.py [--kills 50] [--photographs 2000] [--only enhance,train] [--csv
    reports/study/soak.csv]

Every killed command is run to its end afterwards; its outputs must equal those of a run that
nothing disturbed, byte for byte, none may ever be there in part, none that was finished may be
lost, and no litter may stay beside them.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import pandas as pd
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pictures import photographs
from PIL import Image

from zdce import paths
from zdce.files import atomic_write

BAD = ["lost", "partial", "different", "litter"]
COLUMNS = ["what", "done", "times", "outputs", *BAD, "peak_MiB", "seconds"]
CHILD = """
import re, resource, sys
limit = int(sys.argv[1]) or resource.RLIM_INFINITY  # bytes of address space
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from zdce.cli import main
try:
    main(sys.argv[2:])
finally:
    # Not of getrusage, which begins with what the process had that started this one.
    peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
    print("peak", int(peak) // 1024, file=sys.stderr)
"""


def environment(home: Path) -> dict[str, str]:
    """For commands in the clone ``home``."""
    own = {"ZDCE_RUNS": str(home / "runs"), "ZDCE_DATA": str(home / "data")}
    return os.environ | own | {"PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}


def hashes(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """sha256 of every file, by its place in the folder."""
    digest = lambda file: hashlib.sha256(file.read_bytes()).hexdigest()  # noqa: E731
    return {str(file.relative_to(folder)): digest(file) for file in files}


@dataclass(frozen=True)
class Command:
    """A command that is killed. words: of ``zdce``; folder, patterns: of the files it finishes."""

    name: str
    words: list[str]
    folder: str
    patterns: tuple[str, ...]
    limit_MiB: int = 0

    def start(self, home: Path) -> subprocess.Popen:
        words = [sys.executable, "-c", CHILD, str(self.limit_MiB * 2**20), *self.words]
        pipes = {"stdout": (home / "log.txt").open("a"), "stderr": subprocess.STDOUT}
        how = {"cwd": home, "env": environment(home), "start_new_session": True}
        return subprocess.Popen(words, **pipes, **how)

    def finish(self, home: Path, process: subprocess.Popen | None = None) -> float:
        """Wait for the end; seconds. RuntimeError with the last lines that it said if it fails."""
        started = time.monotonic()
        if code := (process or self.start(home)).wait():
            said = (home / "log.txt").read_text(errors="replace").splitlines()[-5:]
            raise RuntimeError(f"{self.name} ended with {code}: {' | '.join(said)}")
        return time.monotonic() - started

    def outputs(self, home: Path) -> list[Path]:
        found = {file for each in self.patterns for file in (home / self.folder).rglob(each)}
        hidden = [file for file in found if "/." in f"/{file.relative_to(home)}"]
        return sorted(found - set(hidden))

    def prints(self, home: Path) -> dict[str, str]:
        """sha256 of every output that is there."""
        return hashes(home, self.outputs(home))


FINISHED = ("model.safetensors", "record.csv")
TRAIN = ["train", "--arm", "channels-8", "--data", "in", "--size", "32", "--steps", "200"]
SWEEP = ["sweep", "--arms", "channels-8,no-pool", "--jobs", "2"]
FETCH = ["data", "fetch", "lime", "--mirror", "mirror"]
COMMANDS = {
    command.name: command
    for command in (
        Command("enhance", ["enhance", "in", "-o", "out"], "out", ("*.jpg",)),
        Command("train", [*TRAIN, "--save-every", "0.1", "--resume"], "runs", FINISHED),
        Command("sweep", SWEEP, "", (*FINISHED, "*-seed*.safetensors", "*-seed*.npz")),
        Command("report", ["report"], "reports", ("*.csv", "*.ipynb", "*.html")),
        Command("data fetch", FETCH, "data", ("*.jpg",)),
    )
}


def clone(home: Path) -> Path:
    """A clone as far as commands can tell: the package, a small data set, one small notebook, some
    photographs.
    """
    shutil.copytree(paths.PACKAGE, home / "zdce", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "notebooks" / "profiles").mkdir(parents=True)
    (home / "notebooks" / "profiles" / "quick.yaml").write_text("01_first: {}\n")
    photographs(home / "in", 24)
    lime = home / "mirror" / "data" / "test_data" / "LIME"  # a set's name, and files of ours
    shutil.copytree(home / "in", lime)
    lines = ["path,bytes,sha256,upstream_repository,upstream_commit,upstream_path,scene,reference"]
    for file in sorted(lime.iterdir()):
        place, data = file.relative_to(home / "mirror"), file.read_bytes()
        lines.append(f"{place},{len(data)},{hashlib.sha256(data).hexdigest()},a/b,0,x,,")
    (home / "data").mkdir()
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
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = new_notebook(cells=cells, metadata=kernel)
    nbformat.write(book, home / "notebooks" / "01_first.ipynb")
    return home


def row(name: str, done: str, home: Path, started: float, **counts: int) -> dict:
    """A row of the table: what was done to ``zdce name``, and what became of its outputs."""
    log = home / "log.txt"
    said = log.read_text(errors="replace") if log.is_file() else ""
    peaks = [int(peak) for peak in re.findall(r"^peak (\d+)$", said, re.MULTILINE)]
    found = {"what": f"zdce {name}", "done": done, "times": 1} | dict.fromkeys(BAD, 0) | counts
    found |= {"litter": litter(home), "peak_MiB": max(peaks, default=0)}
    return found | {"seconds": round(time.monotonic() - started)}


def litter(home: Path) -> int:
    """Unfinished files and folders that are left."""
    return len([*home.rglob(".*.part"), *home.rglob(".partial-*")])


def _same(home: Path, alone: Path, name: str, there: dict, wanted: dict) -> bool:
    """Whether an output equals that of the undisturbed run; of a notebook, what it holds, not when
    it was made; of a page, which tells its date and duration, whether it is whole.
    """
    if name.endswith(".html"):
        return name in wanted and (home / name).read_text("utf-8").rstrip().endswith("</html>")
    if not name.endswith(".ipynb"):
        return there[name] == wanted.get(name)
    try:
        books = [json.loads((folder / name).read_text("utf-8")) for folder in (home, alone)]
    except ValueError:
        return False
    ours, theirs = ([(c["source"], c.get("outputs")) for c in book["cells"]] for book in books)
    return ours == theirs


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
        lost, partial, times, before = 0, 0, 0, {}
        while times < kills:
            process = command.start(home)
            try:
                process.wait(rng.uniform(0, 1.1 * seconds))
                command.finish(home, process)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                times += 1
            there = command.prints(home)
            lost += len(set(before) - set(there))
            partial += sum(not _same(home, alone, name, there, wanted) for name in there)
            before = there
            if len(there) == len(wanted):  # all done: begin again
                home, before = clone(Path(scratch) / f"home-{times}-{time.monotonic_ns()}"), {}
        command.finish(home)
        there = command.prints(home)
        counts = {"times": times, "outputs": len(wanted), "lost": lost, "partial": partial}
        counts["different"] = differing(home, alone, there, wanted)
        return row(command.name, "killed (SIGKILL) at random instants", home, started, **counts)


def differing(home: Path, alone: Path, there: dict, wanted: dict) -> int:
    both = set(there) & set(wanted)
    different = [name for name in both if not _same(home, alone, name, there, wanted)]
    return len(set(there) ^ set(wanted)) + len(different)


def load(count: int) -> dict:
    """``count`` photographs through ``zdce enhance``: every output there, and memory that does not
    grow with them.
    """
    started, rows = time.monotonic(), []
    for number in (max(1, count // 10), count):
        with tempfile.TemporaryDirectory() as scratch:
            home = clone(Path(scratch) / "home")
            shutil.rmtree(home / "in")
            photographs(home / "in", number)
            COMMANDS["enhance"].finish(home)
            outputs = COMMANDS["enhance"].outputs(home)
            for file in outputs:
                with Image.open(file) as whole:
                    whole.load()
            counts = {"outputs": number, "lost": number - len(outputs)}
            rows.append(row("enhance", "many photographs", home, started, **counts))
    few, many = rows
    return many | {"done": f"many photographs; {few['peak_MiB']} MiB for a tenth of them"}


def starved(limit_MiB: int = 8192) -> dict:
    """A report under ``ulimit -v``."""
    started, limited = time.monotonic(), replace(COMMANDS["report"], limit_MiB=limit_MiB)
    with tempfile.TemporaryDirectory() as scratch:
        home, alone = clone(Path(scratch) / "home"), clone(Path(scratch) / "alone")
        COMMANDS["report"].finish(alone)
        limited.finish(home)
        there, wanted = limited.prints(home), limited.prints(alone)
        counts = {"outputs": len(wanted), "lost": len(set(wanted) - set(there))}
        counts["different"] = differing(home, alone, there, wanted)
        return row("report", f"under ulimit -v {limit_MiB} MiB", home, started, **counts)


def under_fire(runs: int = 40, workers: int = 4, every: float = 4.0) -> dict:
    """A sweep of tiny trainings on a Dask cluster, one of whose workers is killed every few
    seconds.
    """
    import torch
    from distributed import Client, LocalCluster

    from zdce.study import experiments, sweep
    from zdce.training import finished, train

    started, kills, over = time.monotonic(), [], threading.Event()

    def fire(address: str) -> None:
        with Client(address) as client:
            while not over.wait(every):
                if pids := list(client.run(os.getpid).values()):
                    kills.append(random.choice(pids))
                    os.kill(kills[-1], signal.SIGKILL)

    with tempfile.TemporaryDirectory() as scratch:
        home = clone(Path(scratch) / "home")
        os.environ |= environment(home)
        tiny = {"data": str(home / "in"), "size": 32, "steps": 150, "precision": "float32"}
        tiny = replace(experiments.EXPERIMENTS["channels-8"], **tiny)
        wanted = [replace(tiny, seed=seed) for seed in range(runs)]
        with LocalCluster(workers, threads_per_worker=1, dashboard_address=None) as cluster:
            shooter = threading.Thread(target=fire, args=(cluster.scheduler_address,))
            shooter.start()
            outcomes = list(sweep.sweep(wanted, scheduler=cluster.scheduler_address))
            over.set()
            shooter.join()
        print(*(each.line() for each in outcomes if each.error), sep="\n", file=sys.stderr)
        lost = runs - sum(outcome.state == "trained" for outcome in outcomes)
        partial = sum(not finished(config, sweep.folder(config)) for config in wanted) - lost
        different = 0
        torch.set_num_threads(1)  # as the workers
        for config in wanted[:: max(1, runs // 5)]:  # five of them trained again, undisturbed
            again = train(config, home / "alone" / config.run_name(), progress=False)
            there = sweep.folder(config) / "model.safetensors"
            different += not there.is_file() or there.read_bytes() != again.weights.read_bytes()
        counts = {"times": len(kills), "outputs": runs, "lost": lost, "partial": max(0, partial)}
        done = f"{workers} workers, one killed every {every:g} s"
        return row("sweep", done, home, started, **counts, different=different)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="of each command")
    parser.add_argument("--photographs", type=int, default=2000)
    parser.add_argument("--only", help="of: " + ", ".join([*COMMANDS, "load", "starved", "fire"]))
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    others = {"load": lambda: load(arguments.photographs), "starved": starved, "fire": under_fire}
    rows = []
    for name in arguments.only.split(",") if arguments.only else [*COMMANDS, *others]:
        rows.append(others[name]() if name in others else killed(COMMANDS[name], arguments.kills))
        print(pd.DataFrame(rows[-1:])[COLUMNS].to_string(index=False), flush=True)
    table = pd.DataFrame(rows)[COLUMNS]
    if arguments.csv:
        with atomic_write(arguments.csv) as partial:
            table.to_csv(partial, index=False)
    sys.exit(bool(table[BAD].to_numpy().any()))


if __name__ == "__main__":
    main()

"""Full disks, two of one command at once, killed commands: a clear end or correct work."""

import json
import platform
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import soak

from zdce import paths

TMPFS = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
NO_DISKS = subprocess.run(TMPFS, capture_output=True, check=False).returncode
own_disk = pytest.mark.skipif(NO_DISKS, reason="needs disks of its own: `unshare -rm` not allowed")
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def clones(tmp_path_factory):
    """Makes clones of the project with small data, each in a folder of its own."""
    return lambda name: soak.clone(tmp_path_factory.mktemp(name))


def start(home: Path, *words: str, before: list[str] | None = None) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    words = [*(before or []), sys.executable, "-m", "zdce", *words]
    return subprocess.Popen(words, cwd=home, env=soak.environment(home), **pipes)


def end(process: subprocess.Popen) -> tuple[int, str]:
    """Its exit code and all that it said; never a traceback."""
    said, _ = process.communicate(timeout=2000)
    assert "Traceback" not in said, said
    return process.returncode, said


def on_a_disk(size: str, at: Path) -> list[str]:
    """Words before a command that give it a disk of its own at ``at``, of ``size`` or ``ro`` for
    read-only.
    """
    at.mkdir(parents=True, exist_ok=True)
    option = "ro" if size == "ro" else f"size={size}"
    mount = f'mount -t tmpfs -o {option} tmpfs "{at}" && exec "$@"'
    return ["unshare", "-rm", "sh", "-c", mount, "own"]


def hashes(folder: Path) -> dict[str, str]:
    return soak.hashes(folder, filter(Path.is_file, folder.rglob("*")))


WRITER = """
import sys
from zdce.files import atomic_write
for _ in range(300):
    with atomic_write(sys.argv[1]) as partial, partial.open("wb", buffering=0) as file:
        for _ in range(20):
            file.write(sys.argv[2].encode() * 1000)
"""


def test_many_writers_of_one_file_take_turns(tmp_path):
    target = tmp_path / "a.txt"
    words = [sys.executable, "-c", WRITER, str(target)]
    both = [
        subprocess.Popen([*words, letter], env=soak.environment(paths.root())) for letter in "ab"
    ]
    seen = set()
    while any(process.poll() is None for process in both):
        if target.exists():
            seen.add(target.read_text())
    assert [process.returncode for process in both] == [0, 0]
    assert seen and seen <= {letter * 20_000 for letter in "ab"}
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


# --- disks ----------------------------------------------------------------------------------------


TRAIN = ["train", "--arm", "channels-8", "--data", "in", "--steps", "3"]
SWEEP = ["sweep", "--arms", "channels-8", "--jobs", "1"]
FETCH = ["data", "fetch", "lime", "--mirror", "mirror"]


@own_disk
@pytest.mark.parametrize(
    ("words", "place", "sizes"),
    [
        ([*TRAIN, "--size", "32"], "runs", ("16k", "ro")),
        ([*TRAIN, "--size", "256"], "data/cache", ("16k",)),
        (FETCH, "data/test_data", ("16k", "ro")),
        (["report"], "reports", ("40k", "ro")),
        (["enhance", "in", "-o", "out"], "out", ("24k", "ro")),
        (SWEEP, "runs", ("16k", "ro")),
    ],
    ids=["train", "cache", "fetch", "report", "enhance", "sweep"],
)
def test_a_full_or_read_only_disk_ends_a_command_in_a_line(clones, words, place, sizes):
    home = clones("disk")
    for size in sizes:
        code, said = end(start(home, *words, before=on_a_disk(size, home / place)))
        reason = "Read-only file system" if size == "ro" else "No space left on device"
        assert code == 1 and reason in said and place.split("/")[0] in said, (size, said)


def test_a_limit_on_file_sizes_ends_a_training_and_keeps_the_last_checkpoint(clones):
    home = clones("limit")
    words = [*TRAIN[:-2], "--size", "32", "--out", "run", "--resume"]
    assert end(start(home, *words, "--steps", "2"))[0] == 0
    before, about = hashes(home / "run"), home / "run" / "run.json"
    ran = json.loads(about.read_text("utf-8"))
    limit = ["sh", "-c", 'trap "" XFSZ; ulimit -f 8; exec "$@"', "limited"]
    code, said = end(start(home, *words, "--steps", "4", before=limit))
    assert code == 1 and "run/checkpoint.safetensors: File too large" in said
    after, since = hashes(home / "run"), json.loads(about.read_text("utf-8"))
    assert after.pop("run.json") and before.pop("run.json") and after == before
    assert since.pop("seconds") >= ran.pop("seconds") and since == ran  # the time of the steps lost
    assert end(start(home, *words, "--steps", "4"))[0] == 0


def assert_equal(command: soak.Command, home: Path, alone: Path) -> None:
    """All outputs of ``command`` are in ``home``, as in ``alone``, and nothing unfinished beside
    them.
    """
    there, wanted = command.prints(home), command.prints(alone)
    assert wanted and not soak.differing(home, alone, there, wanted) and not soak.litter(home)


# --- two at once ----------------------------------------------------------------------------------

SHORT = soak.COMMANDS | {"sweep": replace(soak.COMMANDS["sweep"], words=SWEEP)}


@pytest.mark.parametrize("name", SHORT)
def test_two_of_one_command_at_once_do_what_one_does(clones, name):
    command, alone, home = SHORT[name], clones("alone"), clones("twice")
    assert end(start(alone, *command.words))[0] == 0
    both = [start(home, *command.words) for _ in range(2)]
    assert [end(process)[0] for process in both] == [0, 0]
    assert_equal(command, home, alone)


# --- short versions of the long runs --------------------------------------------------------------


def whole(row: dict) -> bool:
    """Whether outputs are there, and none lost, partial, different or unfinished."""
    return row["outputs"] > 0 and not any(row[column] for column in soak.BAD)


# Workers and processes of a sweep: in the tests of their own.
@pytest.mark.parametrize("name", SHORT)
def test_a_killed_command_loses_nothing(name):
    row = soak.killed(SHORT[name], kills=1, seed=3)
    assert row["times"] == 1 and whole(row), row


def test_many_photographs_take_no_more_memory_than_few():
    row = soak.load(60)
    few = int(re.search(r"(\d+) MiB", row["done"])[1])
    assert whole(row) and row["outputs"] == 60 and row["peak_MiB"] < few + 64, row


def test_a_report_under_a_limit_of_memory_is_the_same():
    row = soak.starved()
    assert row["peak_MiB"] > 0 and whole(row), row


REPORT = """
import sys
from pathlib import Path
from zdce import paths
from zdce.study import report
paths.reports = lambda profile="": Path(sys.argv[1]) / profile
report.read_profile = lambda profile: {}
sys.exit(len(report.run("quick", ["02"])))
"""


def test_a_report_made_twice_has_the_same_tables_to_the_byte(tmp_path):
    plain, words = soak.environment(paths.root()), [sys.executable, "-c", REPORT]
    someone = dict.fromkeys(("USER", "LOGNAME", "USERNAME"), "quillon")
    someone["HOME"] = str(tmp_path / "home" / "quillon")
    wanted = (("a", plain), ("b", plain | someone))
    both = [subprocess.Popen([*words, tmp_path / name], env=each) for name, each in wanted]
    assert [process.wait() for process in both] == [0, 0]
    one, other = (hashes(tmp_path / name / "quick" / "tables") for name in "ab")
    assert one and one == other
    made = [file for file in tmp_path.rglob("*") if file.suffix in (".html", ".ipynb", ".csv")]
    assert {file.suffix for file in made} == {".html", ".ipynb", ".csv"}
    for file in made:
        text = re.sub(r"[\w+/=]{200,}", "", file.read_text("utf-8"))  # pictures
        for name in (tmp_path, paths.root(), f"{Path.home()}/", "quillon", platform.node()):
            assert str(name) not in text, file.name

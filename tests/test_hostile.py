"""Hostile and odd photographs through the command: enhanced, or refused in one line; nothing lost,
nothing half.
"""

import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from hostile import EITHER, FINE, FORMATS, REFUSED, make, packed, picture, png
from pictures import encoded

from zdce import paths
from zdce.cli import main
from zdce.enhance import Enhancer
from zdce.files import escape_control_characters
from zdce.photos import read_photo

# The command in a process of its own, told how much memory it took.
COMMAND = """
import re, sys
from zdce.cli import main
try:
    main(sys.argv[1:])
finally:
    # Not of getrusage, which begins with what the process had that started this one.
    peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
    print("peak", int(peak) // 1024, file=sys.stderr)
"""


def enhance(*words) -> SimpleNamespace:
    """``zdce enhance`` in this process: its exit code and what it said."""
    result = CliRunner().invoke(main, ["enhance", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return SimpleNamespace(returncode=result.exit_code, stdout=result.stdout, stderr=result.stderr)


def in_a_process(*words, before: str = "", ahead=()) -> subprocess.CompletedProcess:
    """The same in a process of its own, after the Python lines ``before``, by the command
    ``ahead``.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(paths.PACKAGE.parent)}
    command = [*ahead, sys.executable, "-c", before + COMMAND, "enhance", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3000)


def memory(process) -> int:
    """Most that the command took, MiB."""
    return int(re.search(r"^peak (\d+)$", process.stderr, re.MULTILINE)[1])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Every hostile file, and what must become of it."""
    home = tmp_path_factory.mktemp("hostile")
    return home, make(home / "in")


@pytest.fixture(scope="module")
def done(corpus):
    """The whole corpus, once: what was wanted, the folders, and what the command said."""
    home, wanted = corpus
    before = {file.name: file.read_bytes() for file in (home / "in").iterdir()}
    process = enhance(home / "in", "-o", home / "out")
    after = {file.name: file.read_bytes() for file in (home / "in").iterdir()}
    assert after == before, "an input was touched"
    return wanted, home, process


def refusals(home, process) -> dict[str, str]:
    """File name → its line on stderr, where control characters of a name are written out."""
    lines, found = process.stderr.split("\n"), {}
    for file in (home / "in").iterdir():
        name = escape_control_characters(str(file))
        told = [line for line in lines if line.startswith(f"{name}: ")]
        assert len(told) <= 1, told
        if told:
            found[file.name] = told[0]
    return found


def test_every_file_is_enhanced_or_refused_in_one_line_and_nothing_else_is_said(done):
    wanted, home, process = done
    assert len(wanted) >= 200
    for outcome in (FINE, REFUSED, EITHER):
        suffixes = {name.rsplit(".", 1)[-1] for name, kind in wanted.items() if kind == outcome}
        assert suffixes >= set(FORMATS)
    assert {"--help.png", "-o.png", "$(touch x);`y`.png", "new\nline.png"} <= set(wanted)
    written, refused = {file.name for file in (home / "out").iterdir()}, refusals(home, process)
    assert not written & set(refused) and written | set(refused) == set(wanted)
    wrong = {name for name, kind in wanted.items() if (kind == FINE and name in refused)}
    wrong |= {name for name, kind in wanted.items() if (kind == REFUSED and name in written)}
    assert not wrong, {name: refused.get(name, "was enhanced") for name in sorted(wrong)}
    said = [line for line in process.stderr.split("\n") if line and not line.startswith("peak ")]
    assert sorted(said) == sorted(refused.values())
    assert process.stdout.splitlines()[0] == f"{len(written)} enhanced, {len(said)} failed"
    assert process.returncode == 1 and not (home / "x").exists() and not (home / "in/x").exists()


def test_outputs_are_whole_in_kind_and_what_the_enhancer_makes(done):
    wanted, home, _ = done
    enhancer, compared = Enhancer(), set()
    for file in (home / "out").iterdir():
        before, after = read_photo(home / "in" / file.name), read_photo(file)
        kinds = [
            (photo.pixels.shape, photo.pixels.dtype, photo.alpha is None, photo.gray)
            for photo in (before, after)
        ]
        assert kinds[0] == kinds[1], file.name
        suffix = file.suffix.lower()
        if wanted[file.name] == FINE and suffix in (".png", ".tif", ".bmp"):  # which lose nothing
            assert np.array_equal(after.pixels, enhancer(before).pixels), file.name
            assert after.alpha is None or np.array_equal(after.alpha, before.alpha), file.name
            compared.add(suffix)
    assert compared == {".png", ".tif", ".bmp"}


@pytest.mark.long
def test_memory_stays_below_two_gibibytes_and_decoders_say_nothing(corpus, done, tmp_path):
    process = in_a_process(corpus[0] / "in", "-o", tmp_path / "out")
    assert memory(process) < 2048 and process.returncode == 1
    assert process.stdout == done[2].stdout
    # LibRaw says what it found in damaged raw files, also amid our lines; it has no switch for it.
    libraw = r"unknown file: (Unexpected end of file|data corrupted at \d+)\n?"
    lines = re.sub(libraw, "", process.stderr).split("\n")
    said = [line for line in lines if line and not line.startswith("peak ")]
    assert sorted(said) == sorted(filter(None, done[2].stderr.split("\n")))


def test_odd_names_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["-o.png", "--help.png", "a b.png", "new\nline.png"]
    for name in names:
        (tmp_path / name).write_bytes(encoded(picture(), "PNG"))
    process = enhance("-o", "out", "--", *names)
    assert process.returncode == 0, process.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == set(names)
    process = enhance("-o", "out", "new\nmissing.png")
    assert process.returncode == 1
    told = r"new\nmissing.png: cannot be read: No such file or directory"
    assert process.stderr.split("\n")[0] == told


def test_an_output_that_is_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "one.png").write_bytes(encoded(picture(), "PNG"))
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "one.png").symlink_to(tmp_path / "precious")
    assert enhance(tmp_path / "one.png", "-o", tmp_path / "out").returncode == 0
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "out" / "one.png").is_symlink()


@pytest.mark.skipif(
    os.geteuid() == 0 and not shutil.which("setpriv"),
    reason="root may read everything: install setpriv (util-linux) or run as another user",
)
@pytest.mark.long
def test_an_unreadable_photograph_and_an_unreadable_folder(tmp_path):
    (tmp_path / "in" / "closed").mkdir(parents=True)
    for name in ("a.png", "b.png", "closed/c.png"):
        (tmp_path / "in" / name).write_bytes(encoded(picture(), "PNG"))
    (tmp_path / "in" / "a.png").chmod(0)
    (tmp_path / "in" / "closed").chmod(0)
    drop = "-dac_override,-dac_read_search"
    powers = ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}"]
    ahead = powers if os.geteuid() == 0 else ()
    process = in_a_process(tmp_path / "in", "-o", tmp_path / "out", ahead=ahead)
    (tmp_path / "in" / "closed").chmod(0o700)
    assert process.returncode == 1 and "Traceback" not in process.stderr, process.stderr
    told = refusals(tmp_path, process)
    assert set(told) == {"a.png", "closed"}
    assert all(line.endswith("cannot be read: Permission denied") for line in told.values())
    assert [file.name for file in (tmp_path / "out").rglob("*.png")] == ["b.png"]


@pytest.mark.long
def test_the_largest_well_packed_picture_that_is_read_stays_below_two_gibibytes(tmp_path):
    """It lies just below the limit; of what lies above, :func:`hostile.files` has some."""
    (tmp_path / "large.png").write_bytes(png(11_500, 11_500, packed(11_500, 11_500 * 4), color=6))
    process = in_a_process(tmp_path / "large.png", "-o", tmp_path / "out", "--speed", "fast")
    assert process.returncode == 0, process.stderr
    assert 1024 < memory(process) < 2048


NO_FILES = ("endless.png", "pipe.png", "pipe.mp4")


def test_links_out_of_the_folder_and_things_that_are_no_files(tmp_path):
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "private.png").write_bytes(encoded(picture(), "PNG"))
    (folder / "fine.png").write_bytes(encoded(picture(), "PNG"))
    (folder / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "round.png").symlink_to(folder / "round.png")
    (folder / "linked").symlink_to(elsewhere, target_is_directory=True)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "folder.png").mkdir()
    (folder / "endless.png").symlink_to("/dev/zero")
    (folder / "secret.png").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.png")  # whose opening waits for a writer
    os.mkfifo(folder / "pipe.mp4")
    with (folder / "sparse.tif").open("wb") as file:
        file.write(b"II*\0")
        file.truncate(2**36)
    process = enhance(folder, "-o", tmp_path / "out")
    assert process.returncode == 1
    refused = refusals(tmp_path, process)
    assert set(refused) == {"dangling.png", "round.png", "secret.png", "sparse.tif"} | set(NO_FILES)
    assert all("a pipe or a device" in refused[name] for name in NO_FILES)
    assert "larger than" in refused["sparse.tif"] and "root:" not in process.stderr
    assert [file.name for file in (tmp_path / "out").rglob("*")] == ["fine.png"]
    assert [file.name for file in elsewhere.iterdir()] == ["private.png"]


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
"""


@pytest.mark.long
def test_no_room_for_the_output_leaves_nothing_half(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "small.png").write_bytes(encoded(picture(4, 4), "PNG"))
    (tmp_path / "in" / "large.png").write_bytes(encoded(picture(200, 200), "PNG"))
    process = in_a_process(tmp_path / "in", "-o", tmp_path / "out", before=FULL)
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["small.png"]
    said = r"large\.png: cannot be written: File too large$"
    assert re.search(said, process.stderr, re.MULTILINE)


def test_an_output_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "one.png").write_bytes(encoded(picture(), "PNG"))
    (tmp_path / "taken").write_text("a file")
    process = enhance(tmp_path / "one.png", "-o", tmp_path / "taken" / "out")
    assert process.returncode != 0 and "Traceback" not in process.stderr
    assert len([line for line in process.stderr.splitlines() if "taken" in line]) == 1

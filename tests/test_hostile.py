"""Hostile and odd photographs through the command: enhanced, or refused in one line; nothing lost, nothing half."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from hostile import EITHER, FINE, FORMATS, REFUSED, encoded, make, picture

from zdce.photos import read_photo

# The command in a process of its own, told how much memory it took.
COMMAND = """
import resource, sys
from zdce.cli import main
try:
    main(sys.argv[1:])
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


def enhance(*words, before: str = "", **options) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", before + COMMAND, "enhance", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The whole corpus, once: what was wanted, the folders, and what the command said."""
    home = tmp_path_factory.mktemp("hostile")
    wanted = make(home / "in")
    before = {file.name: file.read_bytes() for file in (home / "in").iterdir()}
    process = enhance(home / "in", "-o", home / "out")
    assert {file.name: file.read_bytes() for file in (home / "in").iterdir()} == before, "an input was touched"
    return wanted, home, process


def refusals(home, process) -> dict[str, str]:
    """File name → its line on stderr."""
    lines, found = process.stderr.splitlines(keepends=True), {}
    text = "".join(lines)
    for file in (home / "in").iterdir():
        told = re.findall(rf"^{re.escape(str(file))}: .+$", text, re.MULTILINE)
        if told:
            assert len(told) == 1, told
            found[file.name] = told[0]
    return found


def test_the_corpus_is_large_and_of_every_format(done):
    wanted, _, _ = done
    assert len(wanted) >= 200
    for outcome in (FINE, REFUSED, EITHER):
        assert {name.rsplit(".", 1)[-1] for name, kind in wanted.items() if kind == outcome} >= set(FORMATS)


def test_every_file_is_enhanced_or_refused_in_one_line(done):
    wanted, home, process = done
    written, refused = {file.name for file in (home / "out").iterdir()}, refusals(home, process)
    assert not written & set(refused)
    assert written | set(refused) == set(wanted)
    wrong = {name for name, kind in wanted.items() if (kind == FINE and name in refused)}
    wrong |= {name for name, kind in wanted.items() if (kind == REFUSED and name in written)}
    assert not wrong, {name: refused.get(name, "was enhanced") for name in sorted(wrong)}


def test_no_traceback_and_the_exit_says_that_some_failed(done):
    _, _, process = done
    assert "Traceback" not in process.stderr + process.stdout
    assert process.returncode == 1


def test_outputs_are_whole_and_of_the_inputs_size(done):
    _, home, _ = done
    for file in (home / "out").iterdir():
        assert not file.name.endswith(".part")
        before, after = read_photo(home / "in" / file.name), read_photo(file)
        assert after.pixels.shape == before.pixels.shape and after.pixels.dtype == before.pixels.dtype, file.name
        assert (after.alpha is None) == (before.alpha is None) and after.gray == before.gray, file.name


def test_memory_stays_below_two_gibibytes(done):
    _, _, process = done
    assert int(re.search(r"^peak (\d+)$", process.stderr, re.MULTILINE)[1]) < 2048


def test_names_that_look_like_options_or_commands_are_names(done):
    wanted, home, _ = done
    assert {"--help.png", "-o.png", "$(touch x);`y`.png", "new\nline.png"} <= set(wanted)
    assert not (home / "x").exists() and not (home / "in" / "x").exists()


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
    process = enhance(folder, "-o", tmp_path / "out")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert set(refusals(tmp_path, process)) == {"dangling.png", "round.png"}
    written = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert written == {"fine.png"}
    assert [file.name for file in elsewhere.iterdir()] == ["private.png"]


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
"""


def test_no_room_for_the_output_leaves_nothing_half(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "small.png").write_bytes(encoded(picture(4, 4), "PNG"))
    (tmp_path / "in" / "large.png").write_bytes(encoded(picture(200, 200), "PNG"))
    process = enhance(tmp_path / "in", "-o", tmp_path / "out", before=FULL)
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["small.png"]
    assert re.search(r"large\.png: cannot be written: File too large$", process.stderr, re.MULTILINE)


def test_an_output_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "one.png").write_bytes(encoded(picture(), "PNG"))
    (tmp_path / "taken").write_text("a file")
    process = enhance(tmp_path / "one.png", "-o", tmp_path / "taken" / "out")
    assert process.returncode != 0 and "Traceback" not in process.stderr
    assert len([line for line in process.stderr.splitlines() if "taken" in line]) == 1

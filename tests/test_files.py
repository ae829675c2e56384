"""Files that appear whole or not at all, and folders that one process works in."""

import os
from pathlib import Path

import pytest

from zdce.files import atomic_write


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    os.umask(mask := os.umask(0))
    with atomic_write(tmp_path / "deep" / "a.txt") as partial:
        partial.write_text("whole")
        assert not (tmp_path / "deep" / "a.txt").exists()
    assert (tmp_path / "deep" / "a.txt").stat().st_mode & 0o777 == 0o666 & ~mask
    with pytest.raises(KeyError), atomic_write(tmp_path / "deep" / "a.txt") as partial:
        partial.write_text("half")
        raise KeyError
    assert [file.read_text() for file in (tmp_path / "deep").iterdir()] == ["whole"]


def test_what_lies_under_the_name_of_the_unfinished_file(tmp_path):
    """What a killed process left is overwritten to its end; a planted link is not followed."""
    with atomic_write(tmp_path / "a.txt") as partial:
        pass
    partial.write_text("left over, and longer")
    with atomic_write(tmp_path / "a.txt") as partial, partial.open("r+") as file:
        file.write("new")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a.txt": "new"}
    (tmp_path / "mine").write_text("mine")
    partial.symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"a\.txt"), atomic_write(tmp_path / "a.txt") as partial:
        partial.write_text("theirs")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    """Else a power cut could leave an empty file in place of a good one."""
    order, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("flushed"), fsync(handle)))
    monkeypatch.setattr(Path, "replace", lambda *of: (order.append("named"), replace(*of))[1])
    with atomic_write(tmp_path / "a.txt") as partial:
        partial.write_text("whole")
    assert order == ["flushed", "named"]

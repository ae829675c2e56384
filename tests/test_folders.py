"""Files and folders: what is written where, what is left alone, and what is told."""

import os
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from pictures import dark, encoded, heic, trained
from PIL import Image

from zdce import checkpoints, folders, photos
from zdce.enhance import Enhancer
from zdce.folders import enhance_files
from zdce.metadata import PROCESSING_SOFTWARE
from zdce.photos import Photo, PhotoError, read_photo, write_photo


class Brighter:
    """In an enhancer's place: half of the way to white."""

    options = {"model": "half-way", "weights": None}  # noqa: RUF012
    gamma, strength, speed, net = 1.15, 0.5, "faithful", None

    def __call__(self, photo):
        top = np.iinfo(photo.pixels.dtype).max
        return replace(photo, pixels=photo.pixels // 2 + photo.pixels.dtype.type(top // 2))


@pytest.fixture
def enhancer():
    return Brighter()


@pytest.fixture
def folder(tmp_path):
    """Photographs of several kinds, one broken, one file that is none, a hidden one, a folder
    below.
    """
    source, alpha = tmp_path / "in", dark()[..., 0]
    deep = Photo(dark(dtype=np.uint16), alpha.astype(np.uint16))
    write_photo(Photo(dark()), source / "a.jpg")
    write_photo(Photo(dark(), alpha), source / "b.PNG")
    write_photo(deep, source / "below" / "deeper" / "c.tif")
    write_photo(Photo(dark()[..., :1].repeat(3, axis=2), gray=True), source / "below" / "a.jpg")
    (source / "broken.png").write_bytes((source / "b.PNG").read_bytes()[:200])
    (source / "notes.txt").write_text("no photograph")
    (source / "._a.jpg").write_text("left behind by a file manager")
    return source


NAMES = ["a.jpg", "b.PNG", "below/a.jpg", "below/deeper/c.tif"]


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_keeps_names_formats_and_order_below(folder, tmp_path, enhancer, capsys):
    out = tmp_path / "out"
    outcome = enhance_files([folder], out, enhancer)
    assert outcome.written == [out / name for name in NAMES]
    assert sorted(str(path.relative_to(out)) for path in content(out)) == NAMES
    for name in NAMES:
        before, after = read_photo(folder / name), read_photo(out / name)
        for what in ("format", "gray"):
            assert getattr(before, what) == getattr(after, what)
        assert before.pixels.shape == after.pixels.shape
        assert before.pixels.dtype == after.pixels.dtype
        assert np.array_equal(before.alpha, after.alpha)
        assert after.pixels.mean() > 1.2 * before.pixels.mean()
    assert np.array_equal(read_photo(out / "b.PNG").pixels, enhancer(Photo(dark())).pixels)
    assert [source for source, _ in outcome.failed] == [folder / "broken.png"]
    assert outcome.left_out == {"TXT": 1, "hidden": 1}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{folder / 'broken.png'}: ")


def test_a_bad_file_or_too_little_memory_costs_one_photograph(folder, tmp_path, capsys):
    class Small(Brighter):
        def __call__(self, photo):
            if photo.alpha is not None and photo.pixels.dtype == np.uint8:
                raise RuntimeError("not enough memory\nlong story")
            if photo.gray:
                raise KeyError("a mistake of the program, not told as a bad photograph")
            return super().__call__(photo)

    names = ["notes.txt", "b.PNG", "missing.jpg", "a.jpg"]
    outcome = enhance_files([folder / n for n in names], tmp_path / "out", Small())
    assert outcome.written == [tmp_path / "out" / "a.jpg"]
    assert [source.name for source, _ in outcome.failed] == names[:3]
    assert outcome.failed[1][1] == f"{folder / 'b.PNG'}: not enough memory"
    error = capsys.readouterr().err
    assert "notes.txt: no photograph" in error and "missing.jpg: cannot be read" in error
    with pytest.raises(KeyError):
        enhance_files([folder / "below" / "a.jpg"], tmp_path / "out", Small())


def test_out_may_be_a_file_name_for_one_photograph(folder, tmp_path, enhancer):
    png = tmp_path / "new" / "bright.png"
    assert enhance_files([folder / "a.jpg"], png, enhancer).written == [png]
    assert read_photo(png).format == "PNG"
    outcome = enhance_files([folder / "a.jpg"], tmp_path / "bright.gif", enhancer)
    assert len(outcome.failed) == 1 and not (tmp_path / "bright.gif").exists()
    (tmp_path / "folder.jpg").mkdir()
    outcome = enhance_files([folder / "a.jpg"], tmp_path / "folder.jpg", enhancer)
    assert outcome.written == [tmp_path / "folder.jpg" / "a.jpg"]


ONE = r"would (overwrite|both be written)"
PLANS = [  # below a folder: sources, out, options, what is said
    (["in"], "in", {}, ONE),
    (["in"], "link", {}, ONE),
    (["in/a.jpg"], "in/a.jpg", {}, ONE),
    (["in/a.jpg"], "link.jpg", {}, ONE),
    (["in/b.PNG", "in/below/a.jpg", "in/a.jpg"], "in/below", {}, ONE),
    (["in/a.jpg", "in/below/a.jpg"], "out", {}, r"in/a\.jpg and .*below/a\.jpg would both be"),
    (["sheets"], "out", {"compare": True}, r"both be written to .*a_compare"),
    ([], "out.jpg", {}, "single photograph"),
    (["in"], "out.jpg", {}, "single photograph"),
    (["in/a.jpg", "in/b.PNG"], "out.jpg", {}, "single photograph"),
    (["in/a.jpg"], "out.jpg", {"suffix": "_b"}, "single photograph"),
    (["in/a.jpg"], "out", {"format": "gif"}, "format"),
    (["in/a.jpg"], "out", {"suffix": "../x"}, "Invalid name"),
]


@pytest.mark.parametrize(("sources", "out", "options", "words"), PLANS)
def test_plans_that_lose_something_or_say_nonsense_are_refused(
    folder, tmp_path, enhancer, sources, out, options, words
):
    for name in ("a.jpg", "a_compare.jpg"):
        write_photo(Photo(dark()), tmp_path / "sheets" / name)
    os.symlink(folder, tmp_path / "link")
    os.symlink(folder / "a.jpg", tmp_path / "link.jpg")
    before = content(tmp_path)
    with pytest.raises(ValueError, match=words):
        enhance_files([tmp_path / name for name in sources], tmp_path / out, enhancer, **options)
    assert content(tmp_path) == before and not (tmp_path / "out").exists()


def test_a_source_named_twice_is_enhanced_once_and_empty_folders_are_told(
    folder, tmp_path, enhancer
):
    (tmp_path / "empty").mkdir()
    sources = [folder / "a.jpg", folder / "a.jpg", tmp_path / "empty", folder]
    outcome = enhance_files(sources, tmp_path / "out", enhancer)
    assert len(outcome.written) == 4 and "empty: holds nothing" in outcome.failed[0][1]


def test_results_inside_the_folder_are_not_enhanced_again(folder, enhancer):
    first, again = (enhance_files([folder], folder / "below/bright", enhancer) for _ in range(2))
    assert first.written == again.written and len(again.written) == 4


def test_skip_done_leaves_alone_what_is_there_and_not_older(folder, tmp_path, enhancer):
    out = tmp_path / "out"
    enhance_files([folder / "a.jpg", folder / "b.PNG"], out, enhancer)
    os.utime(folder / "b.PNG", ns=(10**18 * 4, 10**18 * 4))  # changed since
    outcome = enhance_files([folder], out, enhancer, skip_done=True)
    assert outcome.skipped == [out / "a.jpg"] and len(outcome.failed) == 1
    assert outcome.written == [out / name for name in NAMES[1:]]


@pytest.mark.parametrize(("large", "seen"), [(0, [0, 1, 2]), (folders.LARGE, [0, 0, 0])])
def test_one_is_enhanced_at_a_time_and_a_large_one_is_in_memory_alone(
    tmp_path, monkeypatch, large, seen
):
    class Slow(Brighter):
        busy = False

        def __call__(self, photo):
            assert not self.busy
            self.busy = True
            time.sleep(0.3)
            self.busy = False
            return super().__call__(photo)

    monkeypatch.setattr(folders, "LARGE", large)
    out, written, sources = tmp_path / "out", [], [tmp_path / f"{n}.png" for n in range(3)]
    for source in sources:
        write_photo(Photo(dark()), source)

    def noted(*args, **options):
        written.append(len(content(out)))
        return read_photo(*args, **options)

    monkeypatch.setattr(folders, "read_photo", noted)
    assert enhance_files(sources, out, Slow()).written == [out / each.name for each in sources]
    assert written == seen, "how many were written when each was read"


@pytest.mark.long
def test_a_cluster_gives_what_this_machine_gives(folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    weights = tmp_path / "small.safetensors"
    checkpoints.save(weights, trained(pooling="overlapping"), "small", gamma=1.3)
    enhancer = Enhancer(weights=weights, device="cpu")
    enhance_files([folder], tmp_path / "here", enhancer, compare=True)
    how = {"processes": False, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(1, **how) as cluster:
        address = cluster.scheduler_address
        options = {"scheduler": address, "compare": True}
        there = enhance_files([folder], tmp_path / "there", enhancer, **options)
    here, found = (
        {path.relative_to(out): data for path, data in content(out).items()}
        for out in (tmp_path / "here", tmp_path / "there")
    )
    assert found == here and len(found) == 2 * len(there.written) == 8
    (source, reason) = there.failed[0]
    assert source == folder / "broken.png" and reason.startswith(f"{source}: ")


# Other formats, names, sheets


@pytest.mark.parametrize("suffix", [".PNG", "tif", "bmp"])
def test_a_format_of_one_s_own_choice_and_names_that_would_be_the_same(tmp_path, enhancer, suffix):
    for name in ("a.png", "b.jpg", "b.tif"):  # as a raw file beside its JPEG
        write_photo(Photo(dark()), tmp_path / "in" / name)
    outcome = enhance_files([tmp_path / "in"], tmp_path / "out", enhancer, format=suffix)
    plain = suffix.lower().removeprefix(".")
    other = "b.jpg" if plain == "tif" else "b.tif"
    names = {f"{name}.{plain}" for name in ("a", "b", other)}
    assert {path.name for path in outcome.written} == names
    for path in outcome.written:
        assert read_photo(path).format == photos.SUFFIXES[f".{plain}"]
        if plain != "bmp":  # settings are recorded
            with Image.open(path) as image:
                line = image.getexif()[PROCESSING_SOFTWARE]
            assert "half-way" in line and "gamma 1.15" in line and "strength 0.5" in line


def test_quality_makes_files_smaller(tmp_path, enhancer):
    write_photo(Photo(dark(64, 64)), tmp_path / "a.jpg")
    outs = {quality: tmp_path / f"{quality}.jpg" for quality in (20, 95)}
    for quality, out in outs.items():
        enhance_files([tmp_path / "a.jpg"], out, enhancer, quality=quality)
    assert outs[20].stat().st_size < outs[95].stat().st_size / 1.5


def test_a_suffix_allows_results_beside_their_photographs(folder, enhancer):
    before, options = content(folder), {"suffix": "_bright", "compare": True}
    first, again = (enhance_files([folder], folder, enhancer, **options) for _ in range(2))
    assert folder / "a_bright.jpg" in first.written and len(first.written) == 4
    assert again.written == first.written
    assert again.left_out["results of an earlier run"] == 8
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize(("size", "shape"), [((40, 50), (40, 104)), ((900, 2000), (360, 1604))])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_sheet_shows_before_and_after(tmp_path, enhancer, size, shape, dtype):
    wide = photos.color.profile(*photos.color.ADOBE)
    write_photo(Photo(dark(*size, dtype), icc=wide), tmp_path / "a.png")
    enhance_files([tmp_path / "a.png"], tmp_path / "out", enhancer, compare=True)
    sheet, half = read_photo(tmp_path / "out" / "a_compare.jpg"), shape[1] // 2
    assert sheet.pixels.shape == (*shape, 3) and sheet.icc is None
    assert sheet.pixels[:, half + 2 :].mean() > 1.5 * sheet.pixels[:, : half - 2].mean()


def test_a_dry_run_plans_and_writes_nothing(folder, tmp_path, enhancer):
    out, options = tmp_path / "out", {"format": "png", "suffix": "_b", "dry_run": True}
    outcome = enhance_files([folder], out, enhancer, **options)
    planned = dict(outcome.planned)
    assert planned[folder / "below" / "deeper" / "c.tif"] == out / "below" / "deeper" / "c_b.png"
    assert not out.exists() and not outcome.written and len(planned) == 5


# What is not taken


def test_every_file_that_is_left_out_is_counted_by_kind(tmp_path, enhancer):
    source = tmp_path / "in"
    write_photo(Photo(dark()), source / "a.jpg")
    for name in ("b.xmp", "c.xmp", "d.aae", "Thumbs", ".DS_Store", "e.HEIC", "f.nef", "g.gif"):
        (source / name).write_bytes(b"something")
    (source / ".thumbnails").mkdir()
    (source / "elsewhere").symlink_to(tmp_path, target_is_directory=True)
    outcome = enhance_files([source], tmp_path / "out", enhancer)
    assert len(outcome.written) == 1 and not outcome.failed
    (line,) = outcome.lines()
    for part in ("2 XMP", "1 AAE", "1 without suffix", "2 hidden", "1 links to folders", "1 GIF"):
        assert part in line
    assert "1 HEIC (" in line and "1 raw NEF (" in line


@pytest.mark.parametrize(
    ("name", "extra", "library"), [("a.HIF", "heif", "pillow_heif"), ("a.dng", "raw", "rawpy")]
)
def test_what_needs_an_extra_says_so(tmp_path, enhancer, monkeypatch, name, extra, library):
    (tmp_path / "in").mkdir()
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" if extra == "heif" else b"II*\0"
    (tmp_path / "in" / name).write_bytes(data)
    usual = photos.importlib.util.find_spec
    missing = lambda module: None if module == library else usual(module)  # noqa: E731
    monkeypatch.setattr(photos.importlib.util, "find_spec", missing)
    monkeypatch.setitem(sys.modules, library, None)
    for source in (tmp_path / "in", tmp_path / "in" / name):
        outcome = enhance_files([source], tmp_path / "out", enhancer, format="png")
        assert len(outcome.failed) == 1 and not outcome.written
        assert f"zdce[{extra}]" in "".join([outcome.failed[0][1], *outcome.lines()])
    with pytest.raises(PhotoError, match=rf"zdce\[{extra}\]"):
        read_photo(tmp_path / "in" / name)


def test_heic_becomes_what_is_asked_for(tmp_path, enhancer):
    path, out = tmp_path / "IMG_1.HEIC", tmp_path / "out"
    path.write_bytes(heic(dark(64, 48)))
    outcome = enhance_files([path], out, enhancer)
    assert not outcome.written and "add --format" in outcome.failed[0][1]
    outcome = enhance_files([path], out, enhancer, format="jpg")
    assert outcome.written == [out / "IMG_1.jpg"]


def test_what_cannot_travel_is_told_once_for_all(tmp_path, enhancer):
    sources = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    for source in sources:
        source.write_bytes(encoded(dark(), "JPEG", xmp=b"<x:xmpmeta>words</x:xmpmeta>"))
    outcome = enhance_files(sources, tmp_path / "out", enhancer, format="bmp")
    assert len(outcome.written) == 3
    assert outcome.lines() == ["a.jpg and 2 more: left out: XMP"]

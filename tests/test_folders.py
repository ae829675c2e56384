"""Files and folders: what is written where, what is left alone, and what is told."""

from __future__ import annotations

import io
import os
from dataclasses import replace

import numpy as np
import pytest
from pictures import dark, trained
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
    source = tmp_path / "in"
    alpha = dark()[..., 0]
    write_photo(Photo(dark()), source / "a.jpg")
    write_photo(Photo(dark(), alpha), source / "b.PNG")
    write_photo(
        Photo(dark(dtype=np.uint16), alpha.astype(np.uint16)), source / "below" / "deeper" / "c.tif"
    )
    write_photo(Photo(dark()[..., :1].repeat(3, axis=2), gray=True), source / "below" / "a.jpg")
    (source / "broken.png").write_bytes((source / "b.PNG").read_bytes()[:200])
    (source / "notes.txt").write_text("no photograph")
    (source / "._a.jpg").write_text("left behind by a file manager")
    return source


def test_a_folder_keeps_names_formats_and_order_below(folder, tmp_path, enhancer, capsys):
    out = tmp_path / "out"
    outcome = enhance_files([folder], out, enhancer, progress=False)
    names = ["a.jpg", "b.PNG", "below/a.jpg", "below/deeper/c.tif"]
    assert outcome.written == [out / name for name in names]
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == names
    for name in names:
        before, after = read_photo(folder / name), read_photo(out / name)
        assert (before.format, before.gray, before.pixels.shape) == (
            after.format,
            after.gray,
            after.pixels.shape,
        )
        assert before.pixels.dtype == after.pixels.dtype
        assert (before.alpha is None) == (after.alpha is None)
        assert before.alpha is None or np.array_equal(before.alpha, after.alpha)
        assert after.pixels.mean() > 1.2 * before.pixels.mean()
    assert np.array_equal(read_photo(out / "b.PNG").pixels, enhancer(Photo(dark())).pixels)
    assert [source for source, _ in outcome.failed] == [folder / "broken.png"]
    assert outcome.left_out == {"TXT": 1, "hidden": 1}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{folder / 'broken.png'}: ")


def test_one_bad_file_among_many_named(folder, tmp_path, enhancer, capsys):
    sources = [folder / "notes.txt", folder / "missing.jpg", folder / "a.jpg"]
    outcome = enhance_files(sources, tmp_path / "out", enhancer, progress=True)
    assert outcome.written == [tmp_path / "out" / "a.jpg"]
    assert [source.name for source, _ in outcome.failed] == ["notes.txt", "missing.jpg"]
    error = capsys.readouterr().err
    assert (
        "notes.txt: no photograph" in error
        and "missing.jpg: cannot be read" in error
        and "3/3" in error
    )


def test_running_out_of_memory_costs_one_photograph(folder, tmp_path, capsys):
    class Small(Brighter):
        def __call__(self, photo):
            if photo.alpha is not None and photo.pixels.dtype == np.uint8:
                raise RuntimeError("not enough memory\nlong story")
            return super().__call__(photo)

    sources = [folder / "b.PNG", folder / "a.jpg"]
    outcome = enhance_files(sources, tmp_path / "out", Small(), progress=False)
    assert outcome.failed == [(folder / "b.PNG", f"{folder / 'b.PNG'}: not enough memory")]
    assert len(outcome.written) == 1


def test_out_may_be_a_file_name_for_one_photograph(folder, tmp_path, enhancer):
    outcome = enhance_files(
        [folder / "a.jpg"], tmp_path / "new" / "bright.png", enhancer, progress=False
    )
    assert outcome.written == [tmp_path / "new" / "bright.png"]
    assert read_photo(tmp_path / "new" / "bright.png").format == "PNG"
    outcome = enhance_files(
        [folder / "below" / "deeper" / "c.tif"], tmp_path / "c.jpg", enhancer, progress=False
    )
    assert not outcome.written and "write .png, .tif" in outcome.failed[0][1]
    (tmp_path / "folder.jpg").mkdir()
    outcome = enhance_files([folder / "a.jpg"], tmp_path / "folder.jpg", enhancer, progress=False)
    assert outcome.written == [tmp_path / "folder.jpg" / "a.jpg"]


def test_inputs_are_never_overwritten(folder, tmp_path, enhancer):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    os.symlink(folder, tmp_path / "link")
    os.symlink(folder / "a.jpg", tmp_path / "link.jpg")
    for sources, out in [
        ([folder], folder),
        ([folder], tmp_path / "link"),
        ([folder / "a.jpg"], folder),
        ([folder / "a.jpg"], folder / "a.jpg"),
        ([folder / "a.jpg"], tmp_path / "link.jpg"),
        ([folder / "b.PNG", folder / "below" / "a.jpg", folder / "a.jpg"], folder / "below"),
    ]:
        with pytest.raises(ValueError, match=r"would (overwrite|both be written)"):
            enhance_files(sources, out, enhancer, progress=False)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_two_sources_may_not_share_an_output(folder, tmp_path, enhancer):
    with pytest.raises(
        ValueError, match=r"a\.jpg and .*below/a\.jpg would both be written to .*out/a\.jpg"
    ):
        enhance_files(
            [folder / "a.jpg", folder / "below" / "a.jpg"],
            tmp_path / "out",
            enhancer,
            progress=False,
        )
    assert not (tmp_path / "out").exists()
    outcome = enhance_files(
        [folder / "a.jpg", folder / "a.jpg", folder], tmp_path / "out", enhancer, progress=False
    )
    assert len(outcome.written) == 4  # named twice is done once


def test_results_inside_the_folder_are_not_enhanced_again(folder, enhancer):
    out = folder / "below" / "bright"
    first = enhance_files([folder], out, enhancer, progress=False)
    again = enhance_files([folder], out, enhancer, progress=False)
    assert first.written == again.written and len(again.written) == 4


def test_wrong_sources_and_outs(folder, tmp_path, enhancer, capsys):
    for sources, out, words in [
        ([], tmp_path / "out", "at least one"),
        ([folder], tmp_path / "out.jpg", "single photograph"),
        ([folder / "a.jpg", folder / "b.PNG"], tmp_path / "out.jpg", "single photograph"),
        ([folder / "a.jpg"], folder / "notes.txt", "without a photo suffix"),
    ]:
        with pytest.raises(ValueError, match=words):
            enhance_files(sources, out, enhancer, progress=False)
    (tmp_path / "empty").mkdir()
    outcome = enhance_files(
        [tmp_path / "empty", folder / "a.jpg"], tmp_path / "out", enhancer, progress=False
    )
    assert len(outcome.written) == 1 and "empty: holds no photographs" in outcome.failed[0][1]
    assert "holds no photographs" in capsys.readouterr().err


def test_skip_done_leaves_alone_what_is_there_and_not_older(folder, tmp_path, enhancer):
    out = tmp_path / "out"
    enhance_files([folder / "a.jpg", folder / "b.PNG"], out, enhancer, progress=False)
    os.utime(folder / "b.PNG", ns=(10**18 * 4, 10**18 * 4))  # changed since
    outcome = enhance_files([folder], out, enhancer, progress=False, skip_done=True)
    assert outcome.skipped == [out / "a.jpg"]
    assert outcome.written == [
        out / name for name in ("b.PNG", "below/a.jpg", "below/deeper/c.tif")
    ]
    assert len(outcome.failed) == 1


def test_a_large_photograph_is_in_memory_alone(folder, tmp_path, enhancer, monkeypatch):
    monkeypatch.setattr(folders, "LARGE", 0)
    log = []

    def noted(name, usual):
        def call(*args, **options):
            log.append(name)
            result = usual(*args, **options)
            log.append(name)
            return result

        return call

    monkeypatch.setattr(folders, "read_photo", noted("read", read_photo))
    monkeypatch.setattr(folders, "write_photo", noted("write", write_photo))
    outcome = enhance_files(
        [folder / "a.jpg", folder / "b.PNG"], tmp_path / "out", enhancer, progress=False
    )
    assert len(outcome.written) == 2
    assert log == ["read", "read", "write", "write"] * 2


def test_a_mistake_of_the_program_is_not_told_as_a_bad_photograph(
    folder, tmp_path, enhancer, monkeypatch
):
    def wrong(*_, **__):
        raise KeyError("a mistake")

    monkeypatch.setattr(folders, "write_photo", wrong)
    with pytest.raises(KeyError):
        enhance_files([folder / "a.jpg"], tmp_path / "out", enhancer, progress=False)


@pytest.mark.long
def test_a_cluster_gives_what_this_machine_gives(folder, tmp_path, capsys):
    distributed = pytest.importorskip("distributed")
    weights = tmp_path / "small.safetensors"
    checkpoints.save(weights, trained(pooling="overlapping"), "small", gamma=1.3)
    enhancer = Enhancer(weights=weights, device="cpu")
    here = enhance_files([folder], tmp_path / "here", enhancer, progress=False)
    with distributed.LocalCluster(
        1, processes=False, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        there = enhance_files(
            [folder], tmp_path / "there", enhancer, progress=False, scheduler=address
        )
    names = [path.relative_to(tmp_path / "here") for path in here.written]
    assert sorted(there.written) == sorted(tmp_path / "there" / name for name in names)
    for name in names:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert [source for source, _ in there.failed] == [folder / "broken.png"]
    assert (
        there.failed[0][1].startswith(f"{folder / 'broken.png'}: ")
        and "zdce-" not in there.failed[0][1]
    )


# Other formats, names, sheets


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif", "bmp"])
def test_a_format_of_one_s_own_choice(tmp_path, enhancer, suffix):
    for name in ("a.png", "b.jpg", "c.tif"):
        write_photo(Photo(dark()), tmp_path / "in" / name)
    outcome = enhance_files([tmp_path / "in"], tmp_path / "out", enhancer, format=suffix)
    assert sorted(path.name for path in outcome.written) == [f"{n}.{suffix}" for n in "abc"]
    for path in outcome.written:
        assert read_photo(path).format == photos.SUFFIXES[f".{suffix}"]


def test_quality_makes_files_smaller_and_must_be_one(tmp_path, enhancer):
    write_photo(Photo(dark(64, 64)), tmp_path / "a.jpg")
    for quality in (20, 95):
        enhance_files([tmp_path / "a.jpg"], tmp_path / str(quality), enhancer, quality=quality)
    sizes = [(tmp_path / str(quality) / "a.jpg").stat().st_size for quality in (20, 95)]
    assert sizes[0] < sizes[1] / 2
    for wrong in ({"quality": 0}, {"quality": 101}, {"format": "gif"}, {"suffix": "../x"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            enhance_files([tmp_path / "a.jpg"], tmp_path / "wrong", enhancer, **wrong)
    assert not (tmp_path / "wrong").exists()


def test_a_suffix_allows_results_beside_their_photographs(folder, enhancer):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    first = enhance_files([folder], folder, enhancer, suffix="_bright", compare=True)
    assert folder / "a_bright.jpg" in first.written and len(first.written) == 4
    again = enhance_files([folder], folder, enhancer, suffix="_bright", compare=True)
    assert again.written == first.written
    assert again.left_out["results of an earlier run"] == 8
    assert {p: p.read_bytes() for p in before} == before


def test_a_raw_file_beside_its_jpeg_takes_a_name_of_its_own(tmp_path, enhancer):
    for name in ("a.jpg", "a.png", "a.tif"):
        write_photo(Photo(dark()), tmp_path / "in" / name)
    outcome = enhance_files([tmp_path / "in"], tmp_path / "out", enhancer, format="jpg")
    names = sorted(path.name for path in outcome.written)
    assert names == ["a.jpg", "a.png", "a.tif.jpg"] or names == ["a.jpg", "a.png.jpg", "a.tif.jpg"]


def test_a_sheet_shows_before_and_after(tmp_path, enhancer):
    for dtype, name in ((np.uint8, "a.png"), (np.uint16, "b.png")):
        write_photo(Photo(dark(40, 50, dtype)), tmp_path / name)
        enhance_files([tmp_path / name], tmp_path / "out", enhancer, compare=True)
        sheet = read_photo(tmp_path / "out" / f"{name[0]}_compare.jpg").pixels
        assert sheet.shape == (40, 50 + 4 + 50, 3)
        assert sheet[:, 54:].mean() > 1.5 * sheet[:, :50].mean()
    write_photo(Photo(dark(900, 2000)), tmp_path / "large.jpg")
    enhance_files([tmp_path / "large.jpg"], tmp_path / "out", enhancer, compare=True)
    assert max(read_photo(tmp_path / "out" / "large_compare.jpg").pixels.shape) <= 2 * 800 + 4


def test_a_sheet_falls_on_no_photograph(tmp_path, enhancer):
    for name in ("a.jpg", "a_compare.jpg"):
        write_photo(Photo(dark()), tmp_path / "in" / name)
    with pytest.raises(ValueError, match=r"a_compare\.jpg is the output of"):
        enhance_files([tmp_path / "in"], tmp_path / "out", enhancer, compare=True)
    with pytest.raises(ValueError, match="would overwrite the input"):
        enhance_files(
            [tmp_path / "in" / "a.jpg", tmp_path / "in" / "a_compare.jpg"],
            tmp_path / "in",
            enhancer,
            compare=True,
            suffix="",
        )
    assert not (tmp_path / "out").exists()


def test_a_dry_run_plans_and_writes_nothing(folder, tmp_path, enhancer):
    out = tmp_path / "out"
    outcome = enhance_files([folder], out, enhancer, dry_run=True, format="png", suffix="_b")
    planned = dict(outcome.planned)
    assert planned[folder / "a.jpg"] == out / "a_b.png"
    assert planned[folder / "below" / "deeper" / "c.tif"] == out / "below" / "deeper" / "c_b.png"
    assert not out.exists() and not outcome.written and len(planned) == 5


def test_settings_are_recorded(tmp_path, enhancer):
    for suffix in ("jpg", "png", "tif", "webp", "avif"):
        write_photo(Photo(dark()), tmp_path / f"a.{suffix}")
        enhance_files([tmp_path / f"a.{suffix}"], tmp_path / "out", enhancer)
        with Image.open(tmp_path / "out" / f"a.{suffix}") as image:
            line = image.getexif()[PROCESSING_SOFTWARE]
        assert "half-way" in line and "gamma 1.15" in line and "strength 0.5" in line


# What is not taken


def test_every_file_that_is_left_out_is_counted_by_kind(tmp_path, enhancer):
    source = tmp_path / "in"
    write_photo(Photo(dark()), source / "a.jpg")
    for name in ("b.xmp", "c.xmp", "d.aae", "Thumbs", ".DS_Store", "e.HEIC", "f.nef", "g.gif"):
        (source / name).write_bytes(b"something")
    outcome = enhance_files([source], tmp_path / "out", enhancer)
    assert len(outcome.written) == 1 and not outcome.failed
    (line,) = outcome.lines()
    for part in ("2 XMP", "1 AAE", "1 without suffix", "1 hidden", "1 HEIC (", "1 NEF (", "1 GIF"):
        assert part in line


@pytest.mark.parametrize(
    ("name", "extra", "library"),
    [
        ("a.heic", "heif", "pillow_heif"),
        ("a.HIF", "heif", "pillow_heif"),
        ("a.dng", "raw", "rawpy"),
    ],
)
def test_what_needs_an_extra_says_so(tmp_path, enhancer, monkeypatch, name, extra, library):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" if extra == "heif" else b"II*\0"
    )
    usual = photos.importlib.util.find_spec
    missing = lambda module: None if module == library else usual(module)  # noqa: E731
    monkeypatch.setattr(photos.importlib.util, "find_spec", missing)
    monkeypatch.setitem(__import__("sys").modules, library, None)
    for source in (tmp_path / "in", tmp_path / "in" / name):
        for options in ({}, {"format": "png"}):
            outcome = enhance_files([source], tmp_path / "out", enhancer, **options)
            assert not outcome.written and f"zdce[{extra}]" in outcome.failed[0][1]
            assert "damaged" not in outcome.failed[0][1]
    with pytest.raises(PhotoError, match=rf"zdce\[{extra}\]"):
        read_photo(tmp_path / "in" / name)


def test_heic_becomes_what_is_asked_for(tmp_path, enhancer):
    heif = pytest.importorskip(
        "pillow_heif", reason='the extra brings it back: pip install "zdce[heif]"'
    )
    heif.from_pillow(Image.fromarray(dark(64, 48))).save(tmp_path / "IMG_1.HEIC", quality=95)
    outcome = enhance_files([tmp_path / "IMG_1.HEIC"], tmp_path / "out", enhancer)
    assert not outcome.written and "add --format" in outcome.failed[0][1]
    outcome = enhance_files([tmp_path / "IMG_1.HEIC"], tmp_path / "out", enhancer, format="jpg")
    assert outcome.written == [tmp_path / "out" / "IMG_1.jpg"]
    assert read_photo(outcome.written[0]).pixels.shape == (64, 48, 3)


def test_what_cannot_travel_is_told_once_for_all(tmp_path, enhancer):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        buffer = io.BytesIO()
        Image.fromarray(dark()).save(buffer, "JPEG", xmp=b"<x:xmpmeta>words</x:xmpmeta>")
        (tmp_path / name).write_bytes(buffer.getvalue())
    outcome = enhance_files(
        sorted(tmp_path.glob("*.jpg")), tmp_path / "out", enhancer, format="bmp"
    )
    assert len(outcome.written) == 3
    (line,) = outcome.lines()
    assert line == "a.jpg and 2 more: left out: XMP"

"""Data sets: the manifest, what is made from it, and fetching that never counts a bad file as
there.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from zdce import datasets, fetch, paths
from zdce.camera import Camera, expose

HEADER = [
    "path",
    "bytes",
    "sha256",
    "upstream_repository",
    "upstream_commit",
    "upstream_path",
    "scene",
    "reference",
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty data folder and no mirror."""
    monkeypatch.setenv("ZDCE_DATA", str(tmp_path / "home"))
    monkeypatch.setattr(paths, "mirror", lambda: None)
    return tmp_path / "home"


@pytest.fixture
def small(home, tmp_path, monkeypatch):
    """A manifest of eight made-up files, four weights and four frames; their bytes by path."""
    rng = np.random.default_rng(0)
    names = [f"weights/w{i}.pth" for i in range(4)] + [f"data/bursts/7_{i}_.png" for i in range(4)]
    content = {name: rng.bytes(5000 + 100 * i) for i, name in enumerate(names)}
    write_manifest(tmp_path, monkeypatch, content)
    monkeypatch.setattr(fetch, "PAUSE", 0.01)
    return content


def write_manifest(tmp_path, monkeypatch, content):
    file = tmp_path / f"manifest-{len(list(tmp_path.glob('manifest-*')))}.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEADER)
        for path, data in content.items():
            sha = hashlib.sha256(data).hexdigest()
            writer.writerow(
                [path, len(data), sha, "someone/some-repo", "c0ffee", f"Net++/{path}", "", ""]
            )
    monkeypatch.setattr(paths, "manifest", lambda: file)


class Server:
    """A loopback HTTP server of the given files; ``faults[path]`` is called in place of a plain
    answer.
    """

    def __init__(self, content):
        self.content, self.faults, self.requests = content, {}, Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = unquote(self.path).lstrip("/")
                outer.requests[path] += 1
                fault = outer.faults.get(path)
                if fault:
                    fault(self, outer.content.get(path, b""), outer.requests[path])
                elif path in outer.content:
                    answer(self, 200, outer.content[path])
                else:
                    answer(self, 404, b"no such file")

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


def answer(handler, code, body, length=None, headers=()):
    handler.send_response(code)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers:
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def serve():
    servers = []

    def start(content):
        servers.append(Server(content))
        return servers[-1]

    yield start
    for each in servers:
        each.server.shutdown()
        each.server.server_close()


def kept(home):
    """Every file under the data folder, hidden and partial ones too."""
    return sorted(file.relative_to(home).as_posix() for file in home.rglob("*") if file.is_file())


# --- manifest and sets ----------------------------------------------------------------------------


def test_counts_and_sizes_are_the_published_ones():
    # sice-pairs: 250 low frames and the references of 95 scenes
    assert (datasets.DATASETS["sice-train"].files, datasets.DATASETS["sice-pairs"].files) == (
        2002,
        345,
    )
    assert datasets.DATASETS["sice-train"].size == 73_484_915
    assert datasets.DATASETS["bundled"].size == 0
    owned = {entry.path for each in datasets.DATASETS.values() for entry in each.entries()}
    assert owned == set(datasets.manifest()), "every file of the manifest belongs to a set"


def test_data_page_states_the_same_counts_and_sizes():
    page = (paths.root() / "data" / "README.md").read_text(encoding="utf-8")
    for name, each in datasets.DATASETS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"| {each.files:,} | {each.size:,} |" in row
    assert all(f"| `{photo}` |" in page for photo in datasets.BUNDLED)


def test_origin_quotes_the_path_and_names_the_commit():
    entry = datasets.manifest()["data/train_data/1.jpg"]
    home = f"{datasets.ORIGIN}/{entry.repository}/{entry.commit}"
    assert entry.origin == f"{home}/Zero-DCE%2B%2B/data/train_data/1.jpg"
    for each in datasets.manifest().values():
        assert len(each.commit) == 40 and len(each.sha256) == 64


def test_manifest_is_the_mirror_s_with_the_pairs(shared):
    with (shared / "manifest.csv").open(newline="") as file:
        theirs = [tuple(row) for row in csv.reader(file)]
    with paths.manifest().open(newline="") as file:
        ours = [tuple(row) for row in csv.reader(file)]
    assert [row[:6] for row in ours] == theirs
    with (shared / "data" / "sice_pairs.csv").open(newline="") as file:
        pairs = [(row["scene"], row["low"], row["reference"]) for row in csv.DictReader(file)]
    samples = datasets.samples("sice-pairs")
    assert [(s.scene, s.name, s.reference_path.rpartition("/")[2]) for s in samples] == pairs


def test_training_photographs_come_in_numeric_order():
    assert [sample.name for sample in datasets.samples("sice-train")] == [
        f"{i}.jpg" for i in range(1, 2003)
    ]


def test_limit_is_evenly_spaced_and_distinct():
    every = datasets.samples("sice-pairs")
    for limit in (1, 7, 100, 249):
        places = [every.index(sample) for sample in datasets.samples("sice-pairs", limit)]
        assert len(places) == limit and min(places) >= 0
        gaps = np.diff(places)
        assert limit == 1 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)
    assert datasets.samples("sice-pairs", 1000) == every
    assert {s.scene for s in datasets.samples("bundled", 5)} == set(datasets.BUNDLED)
    with pytest.raises(ValueError, match="limit=-1"):
        datasets.samples("lime", -1)


@pytest.mark.parametrize("call", [datasets.samples, datasets.at_hand, fetch.fetch, fetch.verify])
def test_an_unknown_set_is_refused_with_the_known_ones(call):
    with pytest.raises(ValueError, match="name='limes' is no data set; known: bundled, sice-train"):
        call("limes")


@pytest.mark.parametrize("name", ["published-weights", "niqe-model"])
def test_sets_without_photographs_say_so(name):
    with pytest.raises(ValueError, match="holds no photographs"):
        datasets.samples(name)


# --- finding files --------------------------------------------------------------------------------


def test_find_prefers_the_data_folder_and_names_the_set_to_fetch(
    small, home, tmp_path, monkeypatch
):
    path = "weights/w0.pth"
    with pytest.raises(FileNotFoundError, match="zdce data fetch published-weights"):
        datasets.find(path)
    mirror = tmp_path / "mirror"
    (mirror / "weights").mkdir(parents=True)
    (mirror / path).write_bytes(small[path])
    monkeypatch.setattr(paths, "mirror", lambda: str(mirror))
    assert datasets.find(path) == mirror / path
    (home / "weights").mkdir(parents=True)
    (home / path).write_bytes(small[path][:-1])
    assert datasets.find(path) == mirror / path, "a file of the wrong size does not count"
    (home / path).write_bytes(small[path])
    assert datasets.find(path) == home / path
    assert not datasets.at_hand("published-weights") and datasets.at_hand("bundled")
    with pytest.raises(FileNotFoundError, match=r"notes\.txt"):
        datasets.find("data/notes.txt")


def test_a_mirror_folder_with_other_bytes_is_not_read_from(small, tmp_path, monkeypatch):
    path, mirror = "weights/w0.pth", tmp_path / "mirror"
    (mirror / "weights").mkdir(parents=True)
    monkeypatch.setattr(paths, "mirror", lambda: str(mirror))
    (mirror / path).write_bytes(small[path][::-1])  # as many, and others
    with pytest.raises(FileNotFoundError, match="another file lies at"):
        datasets.find(path)
    (mirror / path).write_bytes(small[path])
    assert datasets.find(path) == mirror / path
    (mirror / path).write_bytes(small[path][::-1])  # exchanged after it was found
    os.utime(mirror / path, (1, 1))
    with pytest.raises(FileNotFoundError):
        datasets.find(path)


def test_an_address_is_no_place_to_find_files(small, home, monkeypatch):
    monkeypatch.setattr(paths, "mirror", lambda: "http://127.0.0.1:9/")
    with pytest.raises(FileNotFoundError):
        datasets.find("weights/w0.pth")


# --- bundled photographs --------------------------------------------------------------------------


def test_bundled_photographs_need_no_file_and_no_network(home, monkeypatch):
    import skimage.data._fetchers as fetchers

    monkeypatch.setattr(fetchers, "_image_fetcher", None)  # scikit-image's own downloads
    datasets._clean.cache_clear()
    for photo in datasets.BUNDLED:
        pixels = datasets._clean(photo)
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        assert max(pixels.shape) <= datasets.BUNDLED_SIDE
    assert not home.exists()


def test_bundled_samples_are_seeded_dark_and_keep_a_clean_reference():
    by_scene = {}
    for sample in datasets.samples("bundled", 6):
        image, reference = sample.image(), sample.reference()
        assert image.dtype == np.uint8 and image.shape == reference.shape
        assert np.array_equal(image, sample.image())
        by_scene.setdefault(sample.scene, []).append(
            (sample.stops, image.mean() / reference.mean())
        )
    for exposures in by_scene.values():
        ratios = [ratio for _, ratio in sorted(exposures)]
        assert ratios == sorted(ratios, reverse=True) and ratios[0] < 0.6


def test_reference_can_be_written_on_without_spoiling_the_next():
    sample = datasets.samples("bundled")[0]
    first = sample.reference()
    before = first.copy()
    first[:] = 0
    assert np.array_equal(sample.reference(), before)


@pytest.mark.parametrize("level", [40, 120, 230])
def test_camera_noise_follows_its_formula(level):
    camera = Camera()
    flat = np.full((200, 200, 3), level, np.uint8)
    linear = ((level / 255 + 0.055) / 1.055) ** 2.4
    shot = expose(flat, 3, seed=1) / 255
    measured = np.where(shot <= 0.04045, shot / 12.92, ((shot + 0.055) / 1.055) ** 2.4)
    electrons = linear * camera.white / 8
    assert measured.mean() == pytest.approx(linear / 8, rel=0.02)
    expected = (electrons + camera.read_noise**2) ** 0.5 / camera.white
    step = (
        1 / 255 / (0.4396 * (linear / 8) ** -0.583 if linear / 8 > 0.0031308 else 12.92)
    )  # of the 8-bit rounding
    assert measured.std() == pytest.approx((expected**2 + step**2 / 12) ** 0.5, rel=0.05)


def test_over_exposure_clips():
    grey = np.full((32, 32, 3), 200, np.uint8)
    assert (expose(grey, -2, seed=0) == 255).all()
    assert expose(grey, 0, seed=0).mean() == pytest.approx(200, abs=1)


def test_bundled_bursts_differ_by_independent_noise():
    scenes = datasets.bursts("bundled")
    assert list(scenes) == list(datasets.BUNDLED) and all(
        len(frames) == 4 for frames in scenes.values()
    )
    a, b, c, _ = (frame.astype(float) for frame in scenes["chelsea"])
    x, y = (a - b).ravel(), (a - c).ravel()
    assert 1 < x.std() < 5
    assert np.corrcoef(x, y)[0, 1] == pytest.approx(
        0.5, abs=0.02
    )  # a is in both; b and c are independent
    with pytest.raises(ValueError, match="has no bursts"):
        datasets.bursts("lime")


# --- real photographs -----------------------------------------------------------------------------


def test_real_sets_read_from_the_mirror(shared, monkeypatch, tmp_path):
    monkeypatch.setenv("ZDCE_DATA", str(tmp_path))
    monkeypatch.setenv("ZDCE_MIRROR", str(shared))
    sample = datasets.samples("lime")[0]
    assert sample.reference() is None
    assert sample.image().shape == sample.published_result().shape
    assert sample.published_result().mean() > sample.image().mean()
    pair = datasets.samples("sice-pairs")[0]
    assert pair.image().mean() == pytest.approx(15.14, abs=0.5)
    assert pair.reference().mean() == pytest.approx(119.54, abs=0.5)
    assert pair.published_result() is None
    scenes = datasets.bursts("bursts")
    assert len(scenes) == 6 and {len(frames) for frames in scenes.values()} == {4}
    assert len(datasets.samples("dicm")) == 64 and datasets.at_hand("sice-train")


def test_fetch_from_a_folder_copies_checks_and_verifies(shared, home):
    names = ["published-weights", "bursts", "niqe-model"]
    first = fetch.fetch(names, mirror=shared, progress=False)
    assert (len(first.fetched), len(first.kept), first.failed) == (31, 0, {})
    assert (home / "weights" / "zero_dce_Epoch99.pth").stat().st_size == 320_017
    assert len(kept(home)) == 31 and fetch.verify(names) == {}
    assert all(datasets.at_hand(name) for name in names)
    again = fetch.fetch(names, mirror=shared, progress=False)
    assert (len(again.fetched), len(again.kept)) == (0, 31)
    rows = {row["name"]: row for row in datasets.status()}
    assert rows["bursts"]["where"] == "data folder" and rows["bursts"]["at_hand"] == 24
    assert rows["dicm"]["where"] == "not fetched" and rows["bundled"]["where"] == "installed"


# --- fetching over HTTP ---------------------------------------------------------------------------


def test_fetch_from_the_origin_quotes_plus_signs(small, home, serve, monkeypatch):
    server = serve({f"someone/some-repo/c0ffee/Net++/{path}": data for path, data in small.items()})
    monkeypatch.setattr(datasets, "ORIGIN", server.address)
    result = fetch.fetch(["published-weights", "bursts"], progress=False)
    assert sorted(result.fetched) == sorted(small) and not result.failed
    assert (home / "bursts" / "7_0_.png").read_bytes() == small["data/bursts/7_0_.png"]


def test_bad_answers_leave_no_file_and_stop_no_other(small, home, serve, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT", 0.5)
    server = serve(small)
    flipped = bytes([small["weights/w1.pth"][0] ^ 1]) + small["weights/w1.pth"][1:]
    server.faults = {
        "weights/w0.pth": lambda h, body, n: answer(
            h, 200, body[:1000], length=len(body)
        ),  # broken off
        "weights/w1.pth": lambda h, body, n: answer(h, 200, flipped),  # right size, wrong bytes
        "weights/w2.pth": lambda h, body, n: answer(h, 404, b"gone"),
        "weights/w3.pth": lambda h, body, n: answer(h, 500 if n == 1 else 200, body),  # passes
        "data/bursts/7_0_.png": lambda h, body, n: answer(h, 200, body[:-1]),  # short, and says so
        "data/bursts/7_1_.png": lambda h, body, n: time.sleep(0.8),  # no answer in time
    }
    result = fetch.fetch(
        ["published-weights", "bursts"], mirror=server.address + "/", progress=False
    )
    good = ["data/bursts/7_2_.png", "data/bursts/7_3_.png", "weights/w3.pth"]
    assert sorted(result.fetched) == good
    assert kept(home) == ["bursts/7_2_.png", "bursts/7_3_.png", "weights/w3.pth"], (
        "no partial file stays"
    )
    assert set(result.failed) == set(small) - set(good)
    assert "broken off" in result.failed["weights/w0.pth"]
    assert (
        "sha256" in result.failed["weights/w1.pth"]
        and "5100 bytes" in result.failed["weights/w1.pth"]
    )
    assert "HTTP 404" in result.failed["weights/w2.pth"]
    assert "5399 bytes" in result.failed["data/bursts/7_0_.png"]
    assert "no connection" in result.failed["data/bursts/7_1_.png"]
    assert server.requests["weights/w2.pth"] == 1, "a file that is not there is asked for once"
    assert (
        server.requests["weights/w0.pth"] == fetch.ATTEMPTS
        and server.requests["weights/w3.pth"] == 2
    )
    assert fetch.verify("published-weights") == dict.fromkeys(
        ["weights/w0.pth", "weights/w1.pth", "weights/w2.pth"], "missing"
    )


def test_a_server_cannot_fill_the_disk_nor_hold_up_for_ever(
    small, home, serve, monkeypatch, tmp_path
):
    sent = []

    def flood(handler, body, _):
        handler.send_response(200)
        handler.end_headers()  # no length: as much as it likes
        with contextlib.suppress(OSError):
            for _ in range(2000):
                handler.wfile.write(bytes(1 << 16))
                sent.append(1 << 16)

    def trickle(handler, body, _):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            for k in range(200):
                handler.wfile.write(body[20 * k : 20 * k + 20])
                handler.wfile.flush()
                threading.Event().wait(0.02)  # not time.sleep, which other tests replace

    monkeypatch.setattr(fetch, "TIMEOUT", 2)
    monkeypatch.setattr(fetch, "SLOWEST", 1e6)
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    server = serve(small)
    server.faults = {"weights/w0.pth": flood, "weights/w1.pth": trickle}
    elsewhere = [("Location", "file:///etc/passwd")]
    server.faults["weights/w2.pth"] = lambda h, body, n: answer(h, 302, b"", headers=elsewhere)
    result = fetch.fetch("published-weights", mirror=server.address, progress=False)
    assert result.fetched == ["weights/w3.pth"] and kept(home) == ["weights/w3.pth"]
    assert "more than the 5000 bytes" in result.failed["weights/w0.pth"] and sum(sent) < 2000 * (
        1 << 16
    )
    assert (
        result.failed["weights/w1.pth"] == "too slow"
        and "InvalidSchema" in result.failed["weights/w2.pth"]
    )


def test_redirects_are_followed_to_right_bytes_alone_and_not_for_ever(
    small, home, serve, monkeypatch
):
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    server, other = serve(small), serve({"right": small["weights/w0.pth"], "wrong": b"x" * 5100})

    def to(address):
        return lambda handler, body, n: answer(handler, 302, b"", headers=[("Location", address)])

    server.faults = {
        "weights/w0.pth": to(f"{other.address}/right"),
        "weights/w1.pth": to(f"{other.address}/wrong"),
        "weights/w2.pth": to("/weights/w2.pth"),  # round and round
        "weights/w3.pth": to("http://127.0.0.1:9/../../../etc/passwd"),
    }
    result = fetch.fetch("published-weights", mirror=server.address, progress=False)
    assert result.fetched == ["weights/w0.pth"] and kept(home) == ["weights/w0.pth"]
    assert (
        "sha256" in result.failed["weights/w1.pth"]
        and "Redirects" in result.failed["weights/w2.pth"]
    )
    assert (
        server.requests["weights/w2.pth"] < 50
        and "no connection" in result.failed["weights/w3.pth"]
    )


def test_a_folder_with_other_files_gives_none(small, home, tmp_path):
    for path, content in small.items():
        place = tmp_path / "other" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content * 2)
    result = fetch.fetch("bursts", mirror=tmp_path / "other", progress=False)
    assert (
        not result.fetched and kept(home) == [] and "expected" in next(iter(result.failed.values()))
    )


def test_a_second_fetch_asks_only_for_what_is_missing(small, home, serve):
    server = serve(small)
    server.faults["weights/w1.pth"] = lambda h, body, n: answer(h, 404, b"")
    fetch.fetch("published-weights", mirror=server.address, progress=False)
    (home / "weights" / "w2.pth").write_bytes(
        b"x" * len(small["weights/w2.pth"])
    )  # spoiled later, same size
    assert fetch.verify("published-weights") == {
        "weights/w1.pth": "missing",
        "weights/w2.pth": "wrong sha256",
    }
    server.faults.clear()
    server.requests.clear()
    result = fetch.fetch("published-weights", mirror=server.address, progress=False)
    assert server.requests == {"weights/w1.pth": 1, "weights/w2.pth": 1}
    assert sorted(result.kept) == ["weights/w0.pth", "weights/w3.pth"] and not result.failed
    assert fetch.verify("published-weights") == {} and datasets.at_hand("published-weights")


def test_a_failed_replacement_keeps_what_was_there(small, home, serve):
    (home / "weights").mkdir(parents=True)
    (home / "weights" / "w0.pth").write_bytes(b"mine")
    server = serve({})
    assert len(fetch.fetch("published-weights", mirror=server.address, progress=False).failed) == 4
    assert (home / "weights" / "w0.pth").read_bytes() == b"mine"
    assert fetch.verify("published-weights")["weights/w0.pth"] == "4 bytes instead of 5000"


def test_a_server_that_asks_for_patience_gets_it(small, home, serve, monkeypatch):
    waits = []
    monkeypatch.setattr(fetch.time, "sleep", waits.append)
    server = serve(small)
    server.faults["weights/w0.pth"] = lambda h, body, n: (
        answer(h, 429, b"", headers=[("Retry-After", "7")]) if n == 1 else answer(h, 200, body)
    )
    assert not fetch.fetch("published-weights", mirror=server.address, progress=False).failed
    assert waits == [7]


def test_without_a_connection_the_rest_is_not_tried(home, tmp_path, monkeypatch):
    content = {f"weights/{i}.pth": b"abc" for i in range(60)}
    write_manifest(tmp_path, monkeypatch, content)
    monkeypatch.setattr(fetch, "PAUSE", 0.001)
    result = fetch.fetch("published-weights", mirror="http://127.0.0.1:9", jobs=2, progress=False)
    assert set(result.failed) == set(content)
    tried = [reason for reason in result.failed.values() if reason.startswith("no connection")]
    assert fetch.UNREACHABLE <= len(tried) < 20
    assert kept(home) == []


@pytest.mark.parametrize(
    "path",
    [
        "data/../../escaped.pth",
        "weights/../../escaped.pth",
        "/etc/escaped.pth",
        "data/bursts/..\\..\\escaped.pth",
    ],
)
def test_paths_cannot_leave_the_data_folder(path, home, tmp_path, serve, monkeypatch):
    write_manifest(tmp_path, monkeypatch, {path: b"bad", "weights/good.pth": b"good"})
    everything = datasets.DataSet(
        "published-weights", "", "", "", "", starts=("data", "weights", "/")
    )
    monkeypatch.setitem(datasets.DATASETS, "published-weights", everything)
    server = serve({path: b"bad", "weights/good.pth": b"good"})
    result = fetch.fetch("published-weights", mirror=server.address, progress=False)
    assert result.fetched == ["weights/good.pth"] and "does not lie under" in result.failed[path]
    assert kept(home) == ["weights/good.pth"]
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_mirror_that_is_nothing_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match="neither a folder nor an http"):
        fetch.fetch("bursts", mirror=tmp_path / "nowhere")
    result = fetch.fetch("bursts", mirror=tmp_path, progress=False)
    assert len(result.failed) == 4 and all(
        "not in the mirror" in reason for reason in result.failed.values()
    )


def test_progress_is_shown(small, home, serve, capsys):
    fetch.fetch("bursts", mirror=serve(small).address)
    assert "4/4" in capsys.readouterr().out


# --- training sets --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Three photographs named so that text order and numeric order differ."""
    rng = np.random.default_rng(0)
    place = tmp_path / "my photos"
    (place / "sub").mkdir(parents=True)
    for name, size in [("10.png", (40, 30)), ("9.png", (64, 64)), ("sub/1.JPG", (50, 20))]:
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(place / name)
    (place / "notes.txt").write_text("no photograph")
    (place / ".hidden.png").write_text("no photograph")
    return place


def test_training_folder_is_resized_once_and_found_again(folder, home, monkeypatch):
    made = datasets.training_set(folder, size=32, progress=False)
    assert made.names == ["9.png", "10.png", "sub/1.JPG"] and len(made) == 3
    assert isinstance(made.images, np.memmap) and made.images.shape == (3, 32, 32, 3)
    with Image.open(folder / "10.png") as image:
        assert np.array_equal(
            made.images[1], np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS))
        )
    monkeypatch.setattr(datasets, "_build_cache", None)  # a second call that built again would fail
    assert np.array_equal(datasets.training_set(str(folder), size=32).images, made.images)


def test_training_folder_with_a_deep_photograph_keeps_its_tones(home, tmp_path):
    place = tmp_path / "deep"
    place.mkdir()
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(place / "ramp.png")
    made = datasets.training_set(place, size=64, progress=False)
    assert np.abs(made.images[0, ..., 0] - ramp / 257).max() <= 1


def test_training_folder_that_changed_is_read_anew(folder, home):
    before = datasets.training_set(folder, size=16, progress=False).images.copy()
    Image.new("RGB", (40, 30), "white").save(folder / "10.png")
    os.utime(folder / "10.png", (1, 1))
    after = datasets.training_set(folder, size=16, progress=False).images
    assert (after[1] == 255).all() and np.array_equal(after[0], before[0])


def test_training_refuses_what_it_cannot_use(folder, home, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"empty: no photographs to train on; it needs files ending in \.jpg"
    ):
        datasets.training_set(tmp_path / "empty")
    with pytest.raises(ValueError, match="'nowhere' is neither a folder nor one of"):
        datasets.training_set("nowhere")
    with pytest.raises(ValueError, match="'sice-pairs' is for scoring"):
        datasets.training_set("sice-pairs")
    with pytest.raises(ValueError, match="size=0"):
        datasets.training_set(folder, size=0)
    (folder / "broken.jpg").write_bytes(b"no photograph")
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        datasets.training_set(folder, size=16, progress=False)
    assert not [file for file in kept(home) if "cache" in file], "a failed build leaves nothing"


def test_training_photographs_without_the_over_exposed(home):
    whole = datasets.training_set("bundled", 16, progress=False)
    rest = datasets.training_set("bundled-not-over", 16, progress=False)
    means = dict(zip(whole.names, whole.images[:, ::4, ::4].mean(axis=(1, 2, 3)), strict=True))
    assert rest.names == [name for name in whole.names if means[name] <= 170]
    assert 0 < len(rest) < len(whole)
    for name, image in zip(rest.names, rest.images, strict=True):
        assert np.array_equal(image, whole.images[whole.names.index(name)])
    assert "no over-exposed photographs" in datasets.exposure_warning(rest.images)


def test_bundled_training_set_has_both_exposures(home):
    made = datasets.training_set("bundled", size=32, progress=False)
    assert made.images.shape == (40, 32, 32, 3) and len(set(made.names)) == 40
    assert datasets.exposure_warning(made.images) is None
    dark = [i for i, name in enumerate(made.names) if name.endswith(("-2ev", "-3ev", "-4ev"))]
    assert datasets.exposure_warning(made.images[dark]) == (
        "no over-exposed photographs among 15: expect washed-out bright areas"
    )
    assert "no under-exposed photographs among 40" in datasets.exposure_warning(
        np.full((40, 8, 8, 3), 200, np.uint8)
    )


def test_sice_train_reads_in_published_order(shared, home, monkeypatch):
    monkeypatch.setattr(paths, "mirror", lambda: str(shared))
    wanted = [datasets.samples("sice-train")[i] for i in (0, 1, 9)]
    monkeypatch.setattr(
        datasets, "samples", lambda name: wanted
    )  # all 2,002 would take too long here
    made = datasets.training_set("sice-train", size=64, progress=False)
    assert made.names == ["1.jpg", "2.jpg", "10.jpg"]
    assert made.images[1].mean() < made.images[0].mean()


def test_halves_of_the_pairs_are_whole_scenes_and_about_equal():
    scenes = [entry.scene for entry in datasets.DATASETS["sice-pairs"].entries() if entry.scene]
    parts = {part: datasets.samples("sice-pairs", part=part) for part in datasets.HALVES}
    assert sum(map(len, parts.values())) == len(scenes) == 250
    assert not {s.scene for s in parts["choosing"]} & {s.scene for s in parts["reporting"]}
    assert min(map(len, parts.values())) > 100

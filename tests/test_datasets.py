"""Data sets: the manifest, what is made from it, and fetching that never counts a bad file as
there.
"""

import contextlib
import hashlib
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from zdce import datasets, fetch, paths
from zdce.camera import CAMERA, expose


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty data folder and no mirror."""
    monkeypatch.setenv("ZDCE_DATA", str(tmp_path / "home"))
    monkeypatch.delenv("ZDCE_MIRROR", raising=False)
    return tmp_path / "home"


@pytest.fixture
def small(home, monkeypatch):
    """A manifest of eight made-up files, four weights and four frames; their bytes by path."""
    rng = np.random.default_rng(0)
    names = [f"weights/w{i}.pth" for i in range(4)] + [f"data/bursts/7_{i}_.png" for i in range(4)]
    content = {name: rng.bytes(5000 + 100 * i) for i, name in enumerate(names)}
    publish(monkeypatch, content)
    monkeypatch.setattr(fetch, "PAUSE", 0.01)
    return content


def publish(monkeypatch, content: dict[str, bytes]) -> None:
    entries = {
        path: datasets.Entry(
            path, len(data), hashlib.sha256(data).hexdigest(), "some/repo", "c0ffee", f"++/{path}"
        )
        for path, data in content.items()
    }
    monkeypatch.setattr(datasets, "manifest", lambda: entries)


def write(file: Path, data: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def answer(handler, code: int, body: bytes = b"", length: int | None = None, **headers) -> None:
    handler.send_response(code)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def serve():
    """Starts a loopback HTTP server of the given files and tells its address and how often each was
    asked for; ``faults[path]`` is called in place of a plain answer.
    """
    servers = []

    def start(content: dict[str, bytes], faults=()):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = unquote(self.path).lstrip("/")
                asked[path] += 1
                if path in faults:
                    faults[path](self, content[path], asked[path])
                else:
                    answer(self, 200 if path in content else 404, content.get(path, b""))

            def log_message(self, *args):
                pass

        asked = Counter()
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}", asked

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


def kept(home) -> list[str]:
    """Every file under the data folder, hidden and partial ones too."""
    return sorted(file.relative_to(home).as_posix() for file in home.rglob("*") if file.is_file())


# --- manifest and sets ----------------------------------------------------------------------------


def test_counts_and_sizes_are_the_published_ones_and_those_of_the_data_page():
    page = (paths.root() / "data" / "README.md").read_text(encoding="utf-8")
    counts = {name: each.entries() for name, each in datasets.DATASETS.items()}
    assert (len(counts["sice-train"]), len(counts["sice-pairs"])) == (2002, 250 + 95)
    for name, entries in counts.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        files = len(entries) or len(datasets.BUNDLED)
        assert f"| {files:,} | {sum(entry.size for entry in entries):,} |" in row
    owned = {entry.path for entries in counts.values() for entry in entries}
    assert owned == set(datasets.manifest()), "every file of the manifest belongs to a set"
    assert all(f"| `{photo}` |" in page for photo in datasets.BUNDLED)


def test_samples_come_in_numeric_order_evenly_spaced_and_in_halves_of_whole_scenes():
    names = [sample.name for sample in datasets.samples("sice-train")]
    assert names == [f"{i}.jpg" for i in range(1, 2003)]
    every = datasets.samples("sice-pairs")
    for limit in (7, 100, 249):
        gaps = np.diff([every.index(sample) for sample in datasets.samples("sice-pairs", limit)])
        assert len(gaps) == limit - 1 and gaps.min() >= 1 and gaps.max() - gaps.min() <= 1
    assert datasets.samples("sice-pairs", 1000) == every
    assert {s.scene for s in datasets.samples("bundled", 5)} == set(datasets.BUNDLED)
    parts = {part: datasets.samples("sice-pairs", part=part) for part in datasets.HALVES}
    assert sum(map(len, parts.values())) == 250 and min(map(len, parts.values())) > 100
    assert not {s.scene for s in parts["choosing"]} & {s.scene for s in parts["reporting"]}


@pytest.mark.parametrize(
    ("call", "name", "words"),
    [
        (fetch.fetch, "limes", "name='limes' is no data set; known: bundled, sice-train"),
        (datasets.samples, "niqe-model", "holds no photographs"),
        (datasets.bursts, "lime", "has no bursts"),
        (datasets.training_set, "nowhere", "'nowhere': train on sice-train, bundled or a folder"),
        (datasets.training_set, "sice-pairs", "'sice-pairs': train on"),
    ],
)
def test_unknown_sets_and_those_that_hold_something_else_say_so(call, name, words):
    with pytest.raises(ValueError, match=words):
        call(name)


# --- finding files --------------------------------------------------------------------------------


def test_find_takes_right_files_alone_the_data_folder_first_and_names_the_set_to_fetch(
    small, home, tmp_path, monkeypatch
):
    path, right = "weights/w0.pth", small["weights/w0.pth"]
    monkeypatch.setenv("ZDCE_MIRROR", "http://127.0.0.1:9/")  # an address is no place to look into
    with pytest.raises(FileNotFoundError, match="zdce data fetch published-weights"):
        datasets.find(path)
    monkeypatch.setenv("ZDCE_MIRROR", str(tmp_path / "mirror"))
    mirror = write(tmp_path / "mirror" / path, right[::-1])  # as many bytes, and others
    with pytest.raises(FileNotFoundError, match="wrong sha256"):
        datasets.find(path)
    write(mirror, right)
    assert datasets.find(path) == mirror
    write(home / path, right[:-1])
    assert datasets.find(path) == mirror, "a file of the wrong size does not count"
    write(home / path, right)
    assert datasets.find(path) == home / path
    assert not datasets.at_hand("published-weights") and datasets.at_hand("bundled")
    with pytest.raises(FileNotFoundError, match="notes"):
        datasets.find("data/notes.txt")


# --- bundled photographs --------------------------------------------------------------------------


def test_bundled_samples_need_no_network_are_seeded_dark_and_differ_by_noise_alone(
    home, monkeypatch
):
    import skimage.data._fetchers as fetchers

    monkeypatch.setattr(fetchers, "_image_fetcher", None)  # scikit-image's own downloads
    datasets._clean.cache_clear()
    ratios = {}
    for sample in datasets.samples("bundled"):
        image, reference = sample.image(), sample.reference()
        assert image.dtype == np.uint8 and image.shape == reference.shape
        assert max(image.shape) <= datasets.BUNDLED_SIDE and image.shape[2] == 3
        assert np.array_equal(image, sample.image())
        ratios.setdefault(sample.scene, []).append(image.mean() / reference.mean())
    for exposures in ratios.values():  # two, three, four stops under
        assert exposures == sorted(exposures, reverse=True) and exposures[0] < 0.6
    a, b, c, _ = (frame.astype(float) for frame in datasets.bursts("bundled")["chelsea"])
    assert np.corrcoef((a - b).ravel(), (a - c).ravel())[0, 1] == pytest.approx(0.5, abs=0.02)
    assert not home.exists()


@pytest.mark.parametrize("level", [40, 120])
def test_camera_noise_follows_its_formula(level):
    flat = np.full((200, 200, 3), level, np.uint8)
    light = ((level / 255 + 0.055) / 1.055) ** 2.4 / 8
    shot = expose(flat, 3, seed=1) / 255
    measured = np.where(shot <= 0.04045, shot / 12.92, ((shot + 0.055) / 1.055) ** 2.4)
    assert measured.mean() == pytest.approx(light, rel=0.02)
    expected = (light * CAMERA.white + CAMERA.read_noise**2) ** 0.5 / CAMERA.white
    slope = 0.4396 * light**-0.583 if light > 0.0031308 else 12.92
    step = 1 / 255 / slope  # of the 8-bit rounding
    assert measured.std() == pytest.approx((expected**2 + step**2 / 12) ** 0.5, rel=0.05)
    assert expose(flat, 0, seed=0).mean() == pytest.approx(level, abs=1)
    assert level < 100 or (expose(flat, -3, seed=0) == 255).all()  # over-exposure clips


def test_real_sets_read_from_the_mirror(shared, monkeypatch, tmp_path):
    monkeypatch.setenv("ZDCE_DATA", str(tmp_path))
    photo, pair = datasets.samples("lime")[0], datasets.samples("sice-pairs")[0]
    assert photo.reference() is None
    assert photo.image().shape == photo.published_result().shape
    assert pair.image().mean() == pytest.approx(15.14, abs=0.5)
    assert pair.reference().mean() == pytest.approx(119.54, abs=0.5)
    assert {len(frames) for frames in datasets.bursts("bursts").values()} == {4}


# --- fetching -------------------------------------------------------------------------------------


def test_fetch_from_a_folder_copies_checks_and_verifies(shared, home):
    names = ["published-weights", "bursts", "niqe-model"]
    first = fetch.fetch(names, mirror=shared, progress=False)
    assert (len(first.fetched), len(first.kept), first.failed) == (31, 0, {})
    assert len(kept(home)) == 31 and fetch.verify(names) == {}
    assert all(datasets.at_hand(name) for name in names) and not datasets.at_hand("dicm")
    again = fetch.fetch(names, mirror=shared, progress=False)
    assert (len(again.fetched), len(again.kept)) == (0, 31)


def test_fetch_from_the_origin_quotes_plus_signs_and_shows_progress(
    small, home, serve, monkeypatch, capsys
):
    address, _ = serve({f"some/repo/c0ffee/++/{path}": data for path, data in small.items()})
    monkeypatch.setattr(fetch, "ORIGIN", address)
    result = fetch.fetch(["published-weights", "bursts"])
    assert sorted(result.fetched) == sorted(small) and not result.failed
    assert (home / "bursts" / "7_0_.png").read_bytes() == small["data/bursts/7_0_.png"]
    assert "8/8" in capsys.readouterr().out


def pieces(piece: bytes, count: int, pause: float):
    """So many of them, no length said."""

    def act(handler, *_):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(count):
                handler.wfile.write(piece)
                time.sleep(pause)

    return act


def once(code, **headers):
    return lambda h, body, n: answer(h, code if n == 1 else 200, body, **headers)


def to(place):
    """Sends elsewhere; ``#`` stands for the server's port."""
    return lambda h, *_: answer(h, 302, Location=place.replace("#", str(h.server.server_port)))


# What the server does → the reason of the failure, none where it passes, and how often it is asked
FAULTS = {
    "short": (lambda h, body, n: answer(h, 200, body[:99], len(body)), "broken: IncompleteRead", 3),
    "other bytes": (lambda h, body, n: answer(h, 200, body[::-1]), "wrong sha256", 3),
    "gone": (lambda h, body, n: answer(h, 404, b"gone"), "404", 1),
    "passing": (once(500), None, 2),
    "patience": (once(429, Retry_After="1"), None, 2),
    "no answer": (lambda h, body, n: time.sleep(0.8), "timed out", 3),
    "flood": (pieces(bytes(1 << 16), 2000, 0), "more than the 5000 bytes", 3),
    "trickle": (pieces(bytes(25), 200, 0.02), "too slow", 3),
    "redirect": (to("http://localhost:#/right"), None, 1),
    "round and round": (to("/weights/w0.pth"), "redirects", 50),
    "a file of this machine": (to("file:///etc/passwd"), "connection adapters", 3),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_answers_leave_no_file_and_stop_no_other(small, home, serve, monkeypatch, fault):
    monkeypatch.setattr(fetch, "TIMEOUT", 0.5)
    monkeypatch.setattr(fetch, "SLOWEST", 1e5)
    path, (act, reason, often) = "weights/w0.pth", FAULTS[fault]
    address, asked = serve(small | {"right": small[path]}, {path: act})
    began = time.monotonic()
    result = fetch.fetch("published-weights", mirror=address + "/", progress=False)
    weights = [name for name in small if name.startswith("weights/")]
    good = weights[reason is not None :]
    assert sorted(result.fetched) == kept(home) == good, "no partial file stays"
    assert reason is None or reason in result.failed[path]
    assert set(result.failed) == set(weights) - set(good) == set(fetch.verify("published-weights"))
    assert asked[path] <= often and (often > 3 or asked[path] == often)
    assert fault != "patience" or time.monotonic() - began > 1


def test_a_second_fetch_asks_only_for_what_is_missing_or_spoiled(small, home, serve):
    file = write(home / "weights" / "w0.pth", b"mine")
    result = fetch.fetch("published-weights", mirror=serve({})[0], progress=False)
    assert len(result.failed) == 4 and file.read_bytes() == b"mine", "replaced by right bytes alone"
    fetch.fetch("published-weights", mirror=serve(small)[0], progress=False)
    (home / "weights" / "w1.pth").unlink()
    write(home / "weights" / "w2.pth", b"x" * len(small["weights/w2.pth"]))
    write(home / "weights" / "w3.pth", b"short")
    wrong = ["missing", "wrong sha256", "5 bytes instead of 5300"]
    assert list(fetch.verify("published-weights").values()) == wrong
    address, asked = serve(small)
    result = fetch.fetch("published-weights", mirror=address, progress=False)
    assert asked == {f"weights/w{i}.pth": 1 for i in (1, 2, 3)}
    assert result.kept == ["weights/w0.pth"] and not result.failed
    assert fetch.verify("published-weights") == {} and datasets.at_hand("published-weights")


def test_without_a_connection_the_rest_is_not_tried(home, monkeypatch):
    content = {f"weights/{i}.pth": b"abc" for i in range(60)}
    publish(monkeypatch, content)
    monkeypatch.setattr(fetch, "PAUSE", 0.001)
    result = fetch.fetch("published-weights", mirror="http://127.0.0.1:9", progress=False)
    assert set(result.failed) == set(content) and kept(home) == []
    tried = [reason for reason in result.failed.values() if "refused" in reason]
    assert fetch.UNREACHABLE <= len(tried) < 30


def test_a_mirror_that_is_nothing_or_has_other_files_gives_none(small, home, tmp_path):
    with pytest.raises(ValueError, match="neither a folder nor an http"):
        fetch.fetch("bursts", mirror=tmp_path / "nowhere")
    write(tmp_path / "data/bursts/7_0_.png", b"other")
    failed = fetch.fetch("bursts", mirror=tmp_path, progress=False).failed
    assert [reason.split(" ", 1)[0] for reason in failed.values()] == ["5", *3 * ["missing"]]
    assert kept(home) == []


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


def test_training_folder_is_resized_once_and_read_anew_where_it_changed(folder, home, monkeypatch):
    made = datasets.training_set(folder, size=32, progress=False)
    assert made.names == ["9.png", "10.png", "sub/1.JPG"] and len(made) == 3
    assert isinstance(made.images, np.memmap) and made.images.shape == (3, 32, 32, 3)
    with Image.open(folder / "10.png") as image:
        resized = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS))
    assert np.array_equal(made.images[1], resized)
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "read_8bit", lambda file: 1 / 0)  # nothing is read a second time
        again = datasets.training_set(str(folder), size=32, progress=False)
    assert np.array_equal(again.images, made.images)
    ramp = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    Image.fromarray(ramp).save(folder / "10.png")
    after = datasets.training_set(folder, size=32, progress=False).images
    assert np.abs(after[1, ..., 0] - ramp / 257).max() <= 1, "deep photographs keep their tones"
    assert np.array_equal(after[0], made.images[0])


def test_training_refuses_what_it_cannot_use(folder, home, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no photographs to train on"):
        datasets.training_set(tmp_path / "empty")
    (folder / "broken.jpg").write_bytes(b"no photograph")
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        datasets.training_set(folder, size=16, progress=False)
    assert not [file for file in kept(home) if "cache" in file], "a failed build leaves nothing"


def test_bundled_training_set_has_both_exposures_and_goes_without_the_over_exposed(home):
    whole = datasets.training_set("bundled", size=16, progress=False)
    assert whole.images.shape == (40, 16, 16, 3) and len(set(whole.names)) == 40
    assert not datasets.exposure_warning(whole.images)
    bright = np.full((40, 8, 8, 3), 200, np.uint8)
    assert "no under-exposed photographs among 40" in datasets.exposure_warning(bright)
    rest = datasets.training_set("bundled-not-over", 16, progress=False)
    means = whole.images[:, ::4, ::4].mean(axis=(1, 2, 3))
    assert rest.names == [n for n, m in zip(whole.names, means, strict=True) if m <= 170]
    assert 0 < len(rest) < len(whole)
    assert np.array_equal(rest.images, whole.images[means <= 170])
    lacking = f"no over-exposed photographs among {len(rest)}: expect washed-out bright areas"
    assert datasets.exposure_warning(rest.images) == lacking

"""Weights on disk: round trips, published files, and everything that must be refused."""

from __future__ import annotations

import json
import os
import pickle
import resource
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from zdce import checkpoints, datasets, paths
from zdce.checkpoints import MODELS, CheckpointError, load, read, save, write_atomically
from zdce.model import (
    ZERO_DCE,
    ZERO_DCE_IMPROVED,
    CurveNet,
    NetConfig,
    count_parameters,
)
from zdce.peers import ZERO_DCE_PP, SciNet

PUBLISHED = {  # file → (network, gamma)
    "zero_dce_Epoch99.pth": (ZERO_DCE, 1.0),
    "zero_dce_improved_pre-train.pth": (ZERO_DCE_IMPROVED, 1.15),
    "zero_dce_pp_Epoch99.pth": (ZERO_DCE_PP, 1.0),
    "sci_easy.pt": (None, 1.0),
    "sci_medium.pt": (None, 1.0),
    "sci_difficult.pt": (None, 1.0),
}


def refused(path: Path, *words: str) -> None:
    """``path`` gives one line that names it and says ``words``."""
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert all(word in message for word in words), message


def weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


# ---- our own files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        NetConfig(width=3),
        NetConfig(width=16, pooling="overlapping"),
        NetConfig(width=16, pooling="none"),  # shapes alone would be taken for the improved network
        NetConfig(width=2, pooling="stride2", upsampling="transposed", pools=3, iterations=4),
        NetConfig(width=4, separable=True, shared_curves=True, iterations=5, scale=3.0),
    ],
    ids=str,
)
def test_round_trip(tmp_path, config):
    net, file = CurveNet(config), tmp_path / "new" / "folder" / "net.safetensors"
    save(file, net, "mine", gamma=1.3, train={"steps": 7, "data": "grün"})
    model = read(file)
    assert (model.name, model.gamma, model.file) == ("mine", 1.3, file)
    assert model.net.config == config
    assert model.header["train"] == {"steps": 7, "data": "grün"}
    assert not model.net.training
    assert all(
        torch.equal(tensor, model.net.state_dict()[name])
        for name, tensor in net.state_dict().items()
    )


def test_fields_of_networks_that_are_gone_are_passed_over_where_they_did_nothing(tmp_path):
    file, gone = tmp_path / "net.safetensors", {"fixed_size": None, "level": 0.0, "light": False}
    header = {"net": {"width": 2} | gone}
    write_atomically(file, weights(CurveNet(width=2)), {"zdce": json.dumps(header)})
    assert read(file).net.config == NetConfig(width=2)


def test_file_is_safetensors_with_its_configuration_inside_and_no_pickle(tmp_path):
    file = tmp_path / "net.safetensors"
    save(file, CurveNet(width=2), "mine")
    length = int.from_bytes(file.read_bytes()[:8], "little")
    header = json.loads(file.read_bytes()[8 : 8 + length])
    assert json.loads(header["__metadata__"]["zdce"]) == {
        "name": "mine",
        "gamma": 1.0,
        "net": {
            "width": 2,
            "iterations": 8,
            "pooling": "none",
            "pools": 1,
            "upsampling": "bilinear",
            "separable": False,
            "shared_curves": False,
            "scale": 1.0,
        },
    }
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(file.read_bytes())
    with safe_open(file, framework="pt") as opened:
        assert set(opened.keys()) == set(CurveNet(width=2).state_dict())


def test_same_network_gives_the_same_bytes(tmp_path):
    net = CurveNet(width=2)
    for name in ("a", "b"):
        save(tmp_path / name, net, "mine", seed=3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("config", "gamma"),
    [
        (ZERO_DCE, 1.0),
        (ZERO_DCE_IMPROVED, 1.15),
        (NetConfig(width=16), 1.0),
        (NetConfig(width=32, pooling="overlapping"), 1.0),
        (NetConfig(width=16, pooling="overlapping", separable=True), 1.0),
    ],
    ids=str,
)
def test_default_gamma_goes_with_the_improved_network_alone(tmp_path, config, gamma):
    file = tmp_path / "net.safetensors"
    header = {
        "net": {"width": config.width, "pooling": config.pooling, "separable": config.separable}
    }
    write_atomically(file, weights(CurveNet(config)), {"zdce": json.dumps(header)})
    assert read(file).gamma == gamma


def test_shipped_models_load():
    for name, config, gamma in (
        ("zero-dce", ZERO_DCE, 1.0),
        ("zero-dce-improved", ZERO_DCE_IMPROVED, 1.15),
    ):
        if not (paths.weights() / f"{name}.safetensors").is_file():
            pytest.skip("weights of this project are not there yet")
        model = load(name)
        assert (model.name, model.gamma, model.net.config) == (name, gamma, config)
        image = torch.full((1, 3, 32, 32), 0.1)
        assert model.net(image)[0].mean() > 0.15  # a dark image becomes brighter


def test_the_default_has_no_weights_and_old_names_say_what_took_their_place():
    model = load(checkpoints.DEFAULT)
    assert model.name == "auto" and model.file is None
    assert model.net(torch.full((1, 3, 32, 32), 0.1))[0].mean() > 0.15
    for name in ("zero-dce-context", "zero-dce-night", "zero-dce-level"):
        with pytest.raises(CheckpointError, match="'auto' took its place") as caught:
            load(name)
        assert "\n" not in str(caught.value)


# ---- published files -----------------------------------------------------------------------------


@pytest.mark.parametrize("file", PUBLISHED)
def test_published_file_is_told_by_its_shapes(shared, file):
    config, gamma = PUBLISHED[file]
    model = read(shared / "weights" / file)
    assert model.gamma == gamma
    assert not model.net.training
    if config is None:
        assert isinstance(model.net, SciNet)
        assert model.name == file.removesuffix(".pt").replace("_", "-")
    else:
        assert model.net.config == config
    with torch.no_grad():
        enhanced, _ = model.net(torch.full((1, 3, 24, 32), 0.1))
    assert enhanced.shape == (1, 3, 24, 32)
    assert enhanced.mean() > 0.15 and enhanced.max() <= 1


def test_published_weights_arrive_unchanged(shared):
    file = shared / "weights" / "zero_dce_Epoch99.pth"
    assert file.stat().st_size == 320_017
    published = torch.load(file, weights_only=True, map_location="cpu")
    net = read(file).net
    assert set(published) == set(net.state_dict())
    assert all(torch.equal(tensor, published[name]) for name, tensor in net.state_dict().items())
    improved = shared / "weights" / "zero_dce_improved_pre-train.pth"
    assert improved.stat().st_size == 99_295
    assert count_parameters(read(improved).net) == 23_592


def test_every_published_name_loads(shared, monkeypatch):
    monkeypatch.setattr(datasets, "find", lambda path: shared / path)
    for name in MODELS:
        if name not in ("zero-dce", "zero-dce-improved"):
            model = load(name)
            assert model.name == name
            assert model.gamma == (1.15 if name == "zero-dce-improved-published" else 1.0)
    assert load("zero-dce++-12x").net.config.scale == 12
    assert load("zero-dce++").net.config.scale == 1


def test_published_file_with_data_parallel_prefix(tmp_path):
    net, file = CurveNet(width=4, shared_curves=True), tmp_path / "net.pth"
    torch.save({f"module.{name}": tensor for name, tensor in net.state_dict().items()}, file)
    model = read(file)
    assert model.net.config == NetConfig(width=4, shared_curves=True)
    assert torch.equal(model.net.e_conv7.bias, net.e_conv7.bias)


@pytest.mark.parametrize("iterations", [2, 6, 8])
def test_iterations_are_told_by_the_last_layer(tmp_path, iterations):
    torch.save(weights(CurveNet(width=4, iterations=iterations)), tmp_path / "net.pth")
    assert read(tmp_path / "net.pth").net.config.iterations == iterations


# ---- refused -------------------------------------------------------------------------------------


class Malicious:
    """Unpickling this would make a folder."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_malicious_pickle_is_refused_and_not_run(tmp_path, kind, suffix):
    trap, file = tmp_path / "trap", tmp_path / f"net{suffix}"
    content = {**weights(CurveNet(width=2)), "extra": Malicious(trap)}
    if kind == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    refused(file)
    assert not trap.exists()
    if kind == "torch" and suffix != ".safetensors":  # the trap works where it is let
        torch.load(file, weights_only=False)
        assert trap.exists()


def test_refusal_gives_no_advice_to_load_unsafely(tmp_path):
    torch.save(CurveNet(width=2), tmp_path / "net.pth")  # a whole module in place of its tensors
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path / "net.pth")
    assert "weights_only" not in str(caught.value) and "\x1b" not in str(caught.value)
    assert "state_dict()" in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" * 20, bytes(1000), b"\x80\x02}q\x00."]
)
def test_garbage_is_refused(tmp_path, content, suffix):
    file = tmp_path / f"net{suffix}"
    file.write_bytes(content)
    refused(file)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_file_is_refused(tmp_path, suffix):
    file = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save(weights(CurveNet(width=2)), file)
    else:
        save(file, CurveNet(width=2), "mine")
    whole = file.read_bytes()
    for share in (0.02, 0.3, 0.7, 0.99):
        file.write_bytes(whole[: int(share * len(whole))])
        refused(file)


def test_missing_file_is_refused(tmp_path):
    refused(tmp_path / "none.pth", "no such weights file")
    (tmp_path / "folder.pth").mkdir()
    refused(tmp_path / "folder.pth", "no such weights file")


def test_unknown_name_is_refused():
    with pytest.raises(
        CheckpointError,
        match=r"'zero-dec' is unknown: choose one of auto, zero-dce, .*sci-difficult",
    ):
        load("zero-dec")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_that_are_not_finite_are_refused(tmp_path, suffix, value):
    net, file = CurveNet(width=2), tmp_path / f"net{suffix}"
    with torch.no_grad():
        net.e_conv4.bias[1] = value
    if suffix == ".pth":
        torch.save(weights(net), file)
    else:
        save(file, net, "mine")
    refused(file, "NaN or infinite")


def test_wrong_shapes_are_refused(tmp_path):
    file = tmp_path / "net.pth"
    good = weights(CurveNet(width=4))
    for change, word in [
        ({"e_conv4.weight": torch.zeros(4, 5, 3, 3)}, "e_conv4.weight"),
        ({"e_conv4.bias": None}, "e_conv4.bias"),
        ({"stranger": torch.zeros(1)}, "stranger"),
        ({"e_conv7.weight": torch.zeros(25, 8, 3, 3)}, "25 curve channels"),
        ({"e_conv7.weight": torch.zeros(0, 8, 3, 3)}, "0 curve channels"),
        ({"e_conv1.weight": torch.tensor(1.0)}, "0 hidden"),
        ({"e_conv1.weight": None}, "no tensor e_conv1.weight"),
    ]:
        torch.save({k: v for k, v in {**good, **change}.items() if v is not None}, file)
        refused(file, word)


@pytest.mark.parametrize(
    "content", [[torch.zeros(3)], {"a": 3}, {1: torch.zeros(3)}, torch.zeros(3), {}], ids=repr
)
def test_files_of_something_else_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    refused(tmp_path / "net.pth")


def test_sci_file_with_a_missing_or_wrong_tensor_is_refused(tmp_path):
    file = tmp_path / "sci.pt"
    good = {f"enhance.{name}": tensor for name, tensor in weights(SciNet()).items()}
    torch.save(good, file)
    assert isinstance(read(file).net, SciNet)
    torch.save({k: v for k, v in good.items() if k != "enhance.conv.1.running_mean"}, file)
    refused(file, "enhance.conv.1.running_mean")
    torch.save({**good, "enhance.in_conv.0.weight": torch.zeros(8, 3, 3, 3)}, file)
    refused(file, "in_conv.0.weight")


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ('{"net": {"width": 2, "colour": 3}}', "colour"),
        ('{"net": {"width": 2, "fixed_size": 32}}', "fixed_size"),
        ('{"net": {"width": 0}}', "width=0"),
        ('{"net": {"width": 3}}', "e_conv"),
        ('{"net": {"width": 2}, "gamma": "much"}', "gamma='much'"),
        ('{"net": {"width": 2}, "gamma": 0}', "gamma=0"),
        ('{"net": {"width": 2}, "gamma": NaN}', "gamma=nan"),
        ('{"name": "mine"}', "net"),
        ('{"step": 4, "train": {}}', "state of a training"),
        ("[1, 2]", "JSON object"),
        ("{", "not a readable"),
    ],
)
def test_unusable_header_is_refused(tmp_path, header, word):
    file = tmp_path / "net.safetensors"
    write_atomically(file, weights(CurveNet(width=2)), {"zdce": header})
    refused(file, word)


@pytest.mark.parametrize("length", [2**20, 2**33, 2**63 - 1, 2**64 - 1])
def test_a_header_longer_than_its_file_is_refused_at_once(tmp_path, length):
    file = tmp_path / "net.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + b'{"a": {}}' + bytes(1000))
    refused(file, "not a readable")


def test_a_header_of_gigabytes_that_is_there_is_refused_at_once(tmp_path):
    file = tmp_path / "net.safetensors"
    with file.open("wb") as stream:
        stream.write((3 * 2**30).to_bytes(8, "little") + b'{"a": {}}')
        stream.truncate(4 * 2**30)  # holes: nothing of it takes room
    refused(file, "too large")
    os.truncate(file, checkpoints.MAX_BYTES)
    refused(file, "not a readable")


def safetensors_file(file: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**40]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]},
    ],
    ids=str,
)
def test_shapes_that_lie_are_refused(tmp_path, tensor):
    refused(
        safetensors_file(tmp_path / "net.safetensors", {"e_conv1.weight": tensor}, bytes(8)),
        "not a readable",
    )


def test_a_header_nested_without_end_is_refused(tmp_path):
    refused(
        safetensors_file(tmp_path / "net.safetensors", b'{"a":' + b"[" * 100_000), "not a readable"
    )
    file = tmp_path / "zdce.safetensors"
    write_atomically(file, weights(CurveNet(width=2)), {"zdce": "[" * 100_000})
    refused(file, "not a readable")


@pytest.mark.parametrize(
    "net",
    [
        {"width": 10**5},  # 360 GB in its fourth layer
        {"width": 10**9},
        {"width": 2.5},
        {"width": "2"},
        {"width": 2, "iterations": 10**9},
        [2],
    ],
    ids=str,
)
def test_a_network_that_its_file_does_not_hold_is_refused_before_room_is_made_for_it(tmp_path, net):
    file = tmp_path / "net.safetensors"
    write_atomically(file, weights(CurveNet(width=2)), {"zdce": json.dumps({"net": net})})
    before = peak_MiB()
    refused(file)
    assert peak_MiB() < before + 64


def peak_MiB() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def test_few_numbers_repeated_into_terabytes_are_refused(tmp_path):
    one, file = torch.zeros(1), tmp_path / "net.pth"
    wide = {
        "e_conv1.weight": one.expand(10**5, 3, 3, 3),
        "e_conv4.weight": one.expand(10**6, 10**6),
    }
    torch.save({**weights(CurveNet(width=2)), **wide}, file)
    assert file.stat().st_size < 10**5
    before = peak_MiB()
    refused(file, "larger than what the file holds")
    assert peak_MiB() < before + 64


def test_tensors_without_numbers_are_refused(tmp_path):
    torch.save(
        {**weights(CurveNet(width=2)), "e_conv1.bias": torch.empty(2, device="meta")},
        tmp_path / "meta.pth",
    )
    refused(tmp_path / "meta.pth")
    torch.save(
        {**weights(CurveNet(width=2)), "e_conv1.bias": torch.zeros(2).to_sparse()},
        tmp_path / "sparse.pth",
    )
    refused(tmp_path / "sparse.pth")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    torch.save(weights(CurveNet(width=2)), tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "net.pth", "w") as packed,
    ):
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part), zipfile.ZIP_DEFLATED)
        packed.writestr("archive/data/99", bytes(2**26), zipfile.ZIP_DEFLATED)
    assert read(tmp_path / "plain.pth") and (tmp_path / "net.pth").stat().st_size < 2**20
    refused(tmp_path / "net.pth", "refused")


# ---- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", ["fsync", "replace", "serialise"])
def test_failed_writing_keeps_the_old_file_and_leaves_nothing_beside_it(
    tmp_path, monkeypatch, fails
):
    file = tmp_path / "net.safetensors"
    save(file, CurveNet(width=2), "old")
    before = file.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    target = {
        "fsync": (os, "fsync"),
        "replace": (Path, "replace"),
        "serialise": (safetensors.torch, "save"),
    }[fails]
    monkeypatch.setattr(*target, full)
    with pytest.raises(OSError, match="No space left"):
        save(file, CurveNet(width=3), "new")
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [file.name]
    monkeypatch.undo()
    assert read(file).name == "old"


def test_written_file_is_flushed_before_it_takes_its_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd)))
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (order.append("replace"), replace(self, to))[1]
    )
    checkpoints.save(tmp_path / "net.safetensors", CurveNet(width=2), "mine")
    assert order == ["fsync", "replace"]

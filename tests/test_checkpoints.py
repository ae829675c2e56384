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

from zdce import checkpoints, datasets
from zdce.checkpoints import MODELS, CheckpointError, load, read, save
from zdce.model import ZERO_DCE, ZERO_DCE_IMPROVED, CurveNet, NetConfig
from zdce.peers import ZERO_DCE_PP, SciNet

SUFFIXES = pytest.mark.parametrize("suffix", [".pth", ".safetensors"])


def refused(path: Path, *words: str) -> None:
    """``path`` gives one line that names it and says ``words``."""
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert all(word in message for word in words), message


def weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def small(file: Path, header: str = "", change: dict | None = None) -> Path:
    """Weights of width 2 with that header, some tensors changed, or left out where None."""
    tensors = weights(CurveNet(width=2)) | (change or {})
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if file.suffix == ".safetensors":
        file.write_bytes(safetensors.torch.save(tensors, {"zdce": header} if header else None))
    else:
        torch.save(tensors, file)
    return file


def bright(net: torch.nn.Module) -> bool:
    """Whether a dark image becomes brighter."""
    with torch.no_grad():
        enhanced, _ = net(torch.full((1, 3, 24, 32), 0.1))
    return enhanced.shape == (1, 3, 24, 32) and enhanced.mean() > 0.15 and enhanced.max() <= 1


# ---- our own files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        NetConfig(width=3),
        ZERO_DCE_IMPROVED,
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
    assert model.net.config == config and not model.net.training
    assert model.header["train"] == {"steps": 7, "data": "grün"}
    assert checkpoints.fingerprint(file) == checkpoints.fingerprint(net.state_dict())
    assert checkpoints.fingerprint(model.net.state_dict()) == checkpoints.fingerprint(file)
    assert all(parameter.requires_grad for parameter in model.net.parameters())
    save(tmp_path / "again", net, "mine", gamma=1.3, train={"steps": 7, "data": "grün"})
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_file_is_safetensors_with_its_configuration_inside_and_no_pickle(tmp_path):
    file = tmp_path / "net.safetensors"
    save(file, CurveNet(width=2), "mine")
    with safe_open(file, framework="pt") as opened:
        assert set(opened.keys()) == set(CurveNet(width=2).state_dict())
        header = json.loads(opened.metadata()["zdce"])
    assert (header["name"], header["gamma"]) == ("mine", 1.0)
    assert NetConfig(**header["net"]) == NetConfig(width=2)
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(file.read_bytes())


def test_fields_of_networks_that_are_gone_are_passed_over_where_they_did_nothing(tmp_path):
    header = {"net": {"width": 2, "fixed_size": None, "level": 0.0, "light": False}}
    file = small(tmp_path / "net.safetensors", json.dumps(header))
    assert read(file).net.config == NetConfig(width=2)


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
    net = {"width": config.width, "pooling": config.pooling, "separable": config.separable}
    checkpoints.write_tensors(file, weights(CurveNet(config)), {"net": net})
    assert read(file).gamma == gamma


@pytest.mark.parametrize(
    ("name", "config", "gamma"),
    [("zero-dce", ZERO_DCE, 1.0), ("zero-dce-improved", ZERO_DCE_IMPROVED, 1.15)],
)
def test_shipped_models_load(name, config, gamma):
    model = load(name)
    assert (model.name, model.gamma, model.net.config) == (name, gamma, config)
    assert bright(model.net)


def test_the_default_has_no_weights_and_unknown_or_old_names_say_what_there_is():
    model = load(checkpoints.DEFAULT)
    assert model.name == "auto" and model.file is None and bright(model.net)
    for name in ("zero-dce-context", "zero-dce-night", "zero-dce-level"):
        with pytest.raises(CheckpointError, match="'auto' took its place"):
            load(name)
    known = "'zero-dec' is unknown: choose one of auto, zero-dce, .*sci-difficult"
    with pytest.raises(CheckpointError, match=known):
        load("zero-dec")


# ---- published files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "config", "size"),
    [
        ("zero_dce_Epoch99.pth", ZERO_DCE, 320_017),
        ("zero_dce_improved_pre-train.pth", ZERO_DCE_IMPROVED, 99_295),
        ("zero_dce_pp_Epoch99.pth", ZERO_DCE_PP, None),
        ("sci_easy.pt", None, None),
        ("sci_medium.pt", None, None),
        ("sci_difficult.pt", None, None),
    ],
)
def test_published_file_is_told_by_its_shapes_and_arrives_unchanged(shared, file, config, size):
    file = shared / "weights" / file
    assert size in (None, file.stat().st_size)
    model, published = read(file), torch.load(file, weights_only=True, map_location="cpu")
    assert model.gamma == (1.15 if config == ZERO_DCE_IMPROVED else 1.0)
    assert not model.net.training and bright(model.net)
    if config is None:
        assert isinstance(model.net, SciNet) and model.name == file.stem.replace("_", "-")
        published = {name.removeprefix("enhance."): tensor for name, tensor in published.items()}
    else:
        assert model.net.config == config and set(published) == set(model.net.state_dict())
    for name, tensor in model.net.state_dict().items():
        assert torch.equal(tensor, published[name])


def test_every_published_name_loads(shared, monkeypatch):
    monkeypatch.setattr(datasets, "find", lambda path: shared / path)
    for name in MODELS:
        assert load(name).name == name
    assert load("zero-dce-improved-published").gamma == 1.15
    assert load("zero-dce++-12x").net.config.scale == 12
    assert load("zero-dce++").net.config.scale == 1


@pytest.mark.parametrize(
    "config",
    [
        NetConfig(width=4, shared_curves=True),
        NetConfig(width=4, iterations=2),
        NetConfig(width=4, iterations=6),
    ],
    ids=str,
)
def test_iterations_are_told_by_the_last_layer_and_prefixes_dropped(tmp_path, config):
    net = CurveNet(config)
    tensors = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save(tensors, tmp_path / "net.pth")  # as of a network trained on several devices
    model = read(tmp_path / "net.pth")
    assert model.net.config == config
    assert torch.equal(model.net.e_conv7.bias, net.e_conv7.bias)


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


@SUFFIXES
def test_garbage_truncated_and_missing_files_are_refused(tmp_path, suffix):
    file = small(tmp_path / f"net{suffix}")
    whole = file.read_bytes()
    garbage = [b"", b"hello", b"\x89PNG\r\n\x1a\n" * 20, bytes(1000), b"\x80\x02}q\x00."]
    for content in [*garbage, *(whole[: int(s * len(whole))] for s in (0.02, 0.3, 0.7, 0.99))]:
        file.write_bytes(content)
        refused(file)
    file.unlink()
    refused(file, "no such weights file")
    file.mkdir()
    refused(file, "no such weights file")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@SUFFIXES
def test_weights_that_are_not_finite_are_refused(tmp_path, suffix, value):
    bias = {"e_conv4.bias": torch.tensor([0.0, value])}
    refused(small(tmp_path / f"net{suffix}", change=bias), "NaN or infinite")


@pytest.mark.parametrize(
    ("name", "tensor", "word"),
    [
        ("e_conv4.weight", torch.zeros(2, 5, 3, 3), "e_conv4.weight"),
        ("e_conv4.bias", None, "e_conv4.bias"),
        ("stranger", torch.zeros(1), "stranger"),
        ("e_conv7.weight", torch.zeros(25, 4, 3, 3), "25 curve channels"),
        ("e_conv7.weight", torch.zeros(0, 4, 3, 3), "0 curve channels"),
        ("e_conv1.weight", torch.tensor(1.0), "0 hidden"),
        ("e_conv1.weight", None, "no tensor e_conv1.weight"),
        ("e_conv1.bias", torch.empty(2, device="meta"), ""),  # no numbers
        ("e_conv1.bias", torch.zeros(2).to_sparse(), ""),
    ],
)
def test_wrong_tensors_are_refused(tmp_path, name, tensor, word):
    refused(small(tmp_path / "net.pth", change={name: tensor}), word)


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
    refused(file, "conv.1.running_mean")
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
        ("[" * 100_000, "not a readable"),
    ],
)
def test_unusable_header_is_refused(tmp_path, header, word):
    refused(small(tmp_path / "net.safetensors", header), word)


@pytest.mark.parametrize(
    ("length", "size", "word"),
    [
        (2**20, 1000, "not a readable"),
        (2**33, 1000, "not a readable"),
        (2**63 - 1, 1000, "not a readable"),
        (2**64 - 1, 1000, "not a readable"),
        (3 * 2**30, 4 * 2**30, "too large"),  # all of it there, in holes that take no room
        (3 * 2**30, checkpoints.MAX_BYTES, "not a readable"),
    ],
)
def test_a_header_of_gigabytes_is_refused_at_once(tmp_path, length, size, word):
    file = tmp_path / "net.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + b'{"a": {}}')
    os.truncate(file, size)
    refused(file, word)


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**40]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]},
        None,  # nested without end
    ],
    ids=str,
)
def test_shapes_that_lie_are_refused(tmp_path, tensor):
    text = json.dumps({"e_conv1.weight": tensor}) if tensor else '{"a":' + "[" * 100_000
    file = tmp_path / "net.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text.encode() + bytes(8))
    refused(file, "not a readable")


def peak_MiB() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


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
    file = small(tmp_path / "net.safetensors", json.dumps({"net": net}))
    before = peak_MiB()
    refused(file)
    assert peak_MiB() < before + 64


def test_few_numbers_repeated_into_terabytes_are_refused(tmp_path):
    one = torch.zeros(1)
    wide = {"e_conv1.weight": one.expand(10**5, 3, 3, 3)}
    wide["e_conv4.weight"] = one.expand(10**6, 10**6)
    file = small(tmp_path / "net.pth", change=wide)
    assert file.stat().st_size < 10**5
    before = peak_MiB()
    refused(file, "larger than what the file holds")
    assert peak_MiB() < before + 64


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    file = tmp_path / "net.pth"
    with (
        zipfile.ZipFile(small(tmp_path / "plain.pth")) as plain,
        zipfile.ZipFile(file, "w") as packed,
    ):
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part), zipfile.ZIP_DEFLATED)
        packed.writestr("archive/data/99", bytes(2**26), zipfile.ZIP_DEFLATED)
    assert read(tmp_path / "plain.pth") and file.stat().st_size < 2**20
    refused(file, "refused")


# ---- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "function"), [(os, "fsync"), (Path, "replace"), (safetensors.torch, "save")]
)
def test_failed_writing_keeps_the_old_file_and_leaves_nothing_beside_it(
    tmp_path, monkeypatch, module, function
):
    file = tmp_path / "net.safetensors"
    save(file, CurveNet(width=2), "old")
    before = file.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(module, function, full)
        save(file, CurveNet(width=3), "new")
    assert file.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [file.name]

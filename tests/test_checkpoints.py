"""Weights on disk: round trips, published files, and everything that must be refused."""

import io
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


def weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def ours(header: str = "", **change) -> bytes:
    """A safetensors file of width 2 with that header, some tensors changed."""
    tensors = weights(CurveNet(width=2)) | change
    return safetensors.torch.save(tensors, {"zdce": header} if header else None)


def pickled(content) -> bytes:
    """A file as it is published."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def changed(name: str = "", tensor: torch.Tensor | None = None) -> bytes:
    """A published file of width 2 in which one tensor is another, or left out."""
    tensors = weights(CurveNet(width=2)) | {name: tensor}
    return pickled({name: tensor for name, tensor in tensors.items() if tensor is not None})


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
    assert all(parameter.requires_grad for parameter in model.net.parameters())
    with safe_open(file, framework="pt") as opened:  # as others read it
        assert set(opened.keys()) == set(net.state_dict())
        assert NetConfig(**json.loads(opened.metadata()["zdce"])["net"]) == config


@pytest.mark.parametrize(
    ("header", "config", "gamma"),
    [
        ({}, ZERO_DCE, 1.0),
        ({"fixed_size": None}, ZERO_DCE, 1.0),  # files of earlier versions
        ({"width": 16, "pooling": "overlapping"}, ZERO_DCE_IMPROVED, 1.15),
        ({"width": 16}, NetConfig(width=16), 1.0),
        ({"width": 3, "pooling": "overlapping"}, NetConfig(width=3, pooling="overlapping"), 1.0),
    ],
    ids=str,
)
def test_default_gamma_goes_with_the_improved_network_alone(tmp_path, header, config, gamma):
    file = tmp_path / "net.safetensors"
    checkpoints.write_tensors(file, weights(CurveNet(config)), {"net": header})
    assert (read(file).net.config, read(file).gamma) == (config, gamma)


def test_what_ships_loads_and_unknown_names_say_what_there_is():
    model = load(checkpoints.DEFAULT)
    assert model.name == "auto" and model.file is None and bright(model.net)
    for name, config in (("zero-dce", ZERO_DCE), ("zero-dce-improved", ZERO_DCE_IMPROVED)):
        model = load(name)
        assert (model.name, model.net.config) == (name, config) and bright(model.net)
    with pytest.raises(CheckpointError, match=r"'zero-dec' is unknown, .* auto, .*sci-difficult"):
        load("zero-dec")


# ---- published files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("zero_dce_Epoch99.pth", ZERO_DCE),
        ("zero_dce_improved_pre-train.pth", ZERO_DCE_IMPROVED),
        ("zero_dce_pp_Epoch99.pth", ZERO_DCE_PP),
        ("sci_easy.pt", None),
        ("sci_medium.pt", None),
        ("sci_difficult.pt", None),
    ],
)
def test_published_file_is_told_by_its_shapes_and_arrives_unchanged(shared, file, config):
    file = shared / "weights" / file
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
    assert load("zero-dce++-12x").net.config.scale == 12


@pytest.mark.parametrize(
    "fields", [{"shared_curves": True}, {"iterations": 2}, {"iterations": 6}], ids=str
)
def test_iterations_are_told_by_the_last_layer_and_prefixes_dropped(tmp_path, fields):
    net = CurveNet(width=4, **fields)
    tensors = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save(tensors, tmp_path / "net.pth")  # as of a network trained on several devices
    model = read(tmp_path / "net.pth")
    assert model.net.config == net.config
    assert torch.equal(model.net.e_conv7.bias, net.e_conv7.bias)


# ---- refused -------------------------------------------------------------------------------------


def refused(file: Path, content: bytes, word: str = "", size: int | None = None) -> None:
    """Such a file, made ``size`` bytes long by holes, gives one line that names it and says
    ``word``, and no room is made for what it claims.
    """
    file.write_bytes(content)
    if size:
        os.truncate(file, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError) as caught:
        read(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and "\n" not in message and "\x1b" not in message
    assert word in message and "weights_only" not in message, message  # nor is advice given to
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**16  # KiB


class Malicious:
    """Unpickling this would make a folder."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("made", [pickled, pickle.dumps])
def test_malicious_pickle_is_refused_and_not_run(tmp_path, made, suffix):
    trap, file = tmp_path / "trap", tmp_path / f"net{suffix}"
    refused(file, made({**weights(CurveNet(width=2)), "extra": Malicious(trap)}))
    assert not trap.exists()
    if made is pickled and suffix != ".safetensors":  # the trap works where it is let
        torch.load(file, weights_only=False)
        assert trap.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_garbage_truncated_and_missing_files_are_refused(tmp_path, suffix):
    file = tmp_path / f"net{suffix}"
    whole = ours() if suffix == ".safetensors" else changed()
    garbage = [b"", b"hello", b"\x89PNG\r\n\x1a\n" * 20, bytes(1000), b"\x80\x02}q\x00."]
    for content in [*garbage, *(whole[: int(s * len(whole))] for s in (0.02, 0.3, 0.7, 0.99))]:
        refused(file, content)
    file.unlink()
    for make in (lambda: None, file.mkdir):
        make()
        with pytest.raises(CheckpointError, match="no such weights file"):
            read(file)


SCI = {f"enhance.{name}": tensor for name, tensor in SciNet().state_dict().items()}
WITHOUT_A_MEAN = {name: SCI[name] for name in SCI if name != "enhance.conv.1.running_mean"}
NANS = torch.tensor([0, torch.nan])


def holes(length: int, text: str = '{"a": {}}', more: int = 1000) -> bytes:
    """The begin of a safetensors file that says how long its header is, and that header."""
    return length.to_bytes(8, "little") + text.encode() + bytes(more)


def lying(shape: str, end: int, kind: str = "F32") -> bytes:
    """A safetensors file of 8 bytes of numbers, whose header tells otherwise."""
    about = f'"dtype": "{kind}", "shape": [{shape}], "data_offsets": [0, {end}]'
    text = f'{{"e_conv1.weight": {{{about}}}}}'
    return holes(len(text), text, 8)


PUBLISHED = [
    (changed("e_conv4.weight", torch.zeros(2, 5, 3, 3)), "e_conv4.weight"),
    (changed("e_conv4.bias"), "e_conv4.bias"),
    (changed("e_conv4.bias", NANS), "NaN or infinite"),
    (changed("stranger", torch.zeros(1)), "stranger"),
    (changed("e_conv7.weight", torch.zeros(25, 4, 3, 3)), "25 curve channels"),
    (changed("e_conv1.weight", torch.tensor(1.0)), "0 hidden"),
    (changed("e_conv1.weight"), "no tensor e_conv1.weight"),
    (changed("e_conv1.bias", torch.empty(2, device="meta")), ""),  # no numbers
    (changed("e_conv1.bias", torch.zeros(2).to_sparse()), ""),
    (changed("e_conv4.weight", torch.zeros(1).expand(10**6, 10**6)), "than what the file holds"),
    (pickled([torch.zeros(3)]), ""),
    (pickled({1: torch.zeros(3)}), ""),
    (pickled({}), ""),
    (pickled(CurveNet(width=2)), ""),  # a whole module in place of its tensors
    (pickled(WITHOUT_A_MEAN), ""),
    (pickled(SCI | {"enhance.in_conv.0.weight": torch.zeros(8, 3, 3, 3)}), ""),
]
OURS = [
    (ours(**{"e_conv4.bias": NANS}), "NaN or infinite"),
    (ours('{"net": {"width": 2, "colour": 3}}'), "colour"),
    (ours('{"net": {"width": 0}}'), "width=0"),
    (ours('{"net": {"width": 2, "fixed_size": 256}}'), "fixed_size"),
    (ours('{"net": {"width": 3}}'), "e_conv"),
    (ours('{"net": {"width": 1000000000}}'), ""),
    (ours('{"net": {"width": 2.5}}'), ""),
    (ours('{"net": {"width": 2, "iterations": 1000000000}}'), ""),
    (ours('{"net": [2]}'), ""),
    (ours('{"net": {"width": 2}, "gamma": "much"}'), "gamma='much'"),
    (ours('{"net": {"width": 2}, "gamma": NaN}'), "gamma=nan"),
    (ours('{"step": 4, "train": {}}'), "take model.safetensors"),
    (ours("[1, 2]"), "JSON object"),
    *((ours(header), "not a readable") for header in ("{", "[" * 100_000)),
    *((holes(length), "not a readable") for length in (2**20, 2**64 - 1)),
    (holes(100_005, '{"a":' + "[" * 100_000, 8), "not a readable"),
    *((lying(shape, 8), "not a readable") for shape in ("1099511627776", "-2")),
    (lying("2", 1099511627776), "not a readable"),
    (lying("2", 8, "F99"), "not a readable"),
]


@pytest.mark.parametrize("number", range(len(PUBLISHED)))
def test_published_files_of_something_else_are_refused(tmp_path, number):
    refused(tmp_path / "net.pth", *PUBLISHED[number])
    (tmp_path / "sci.pt").write_bytes(pickled(SCI))
    assert isinstance(read(tmp_path / "sci.pt").net, SciNet)


@pytest.mark.parametrize("number", range(len(OURS)))
def test_files_of_ours_that_lie_are_refused(tmp_path, number):
    refused(tmp_path / "net.safetensors", *OURS[number])


def test_a_header_of_gigabytes_is_refused_at_once(tmp_path):
    for size, word in ((4 * 2**30, "too large"), (checkpoints.MAX_BYTES, "not a readable")):
        refused(tmp_path / "net.safetensors", holes(3 * 2**30), word, size)  # holes take no room


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    plain, squeezed = io.BytesIO(changed()), io.BytesIO()
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
        new.writestr("archive/data/99", bytes(2**26))
    assert len(squeezed.getvalue()) < 2**20
    refused(tmp_path / "net.pth", squeezed.getvalue(), "refused")

"""Weights on disk: ours with their configuration inside, published ones read without unpickling.

A ``.safetensors`` of ours carries one JSON text under ``zdce`` in its header: the network's
configuration, the model's name, its default gamma, and for trained weights the training
configuration. A published ``.pth`` or ``.pt`` carries none; its architecture is told from the
tensors' names and shapes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from zdce import datasets, paths
from zdce.auto import AutoCurve
from zdce.files import atomic_write
from zdce.model import ZERO_DCE, ZERO_DCE_IMPROVED, CurveNet, NetConfig
from zdce.peers import ZERO_DCE_PP, SciNet

IMPROVED_GAMMA = 1.15  # the improved study's post-processing
MAX_BYTES = 2**26  # of a weights file; the largest of these networks takes 320 KB


class CheckpointError(ValueError):
    """A weights file that cannot be used; one line that names the file."""


@dataclass(frozen=True)
class Model:
    """A network ready to run.

    net: :class:`~zdce.model.CurveNet`, :class:`~zdce.auto.AutoCurve` or :class:`~zdce.peers.SciNet`
    in evaluation mode, (N, 3, H, W) in [0, 1] → (enhanced, curves or illumination). gamma: the
    post-processing it goes with (1: none). file: of its weights, None for ``auto``. header: the
    file's configuration, empty for published files.
    """

    name: str
    net: nn.Module
    gamma: float
    file: Path | None
    header: dict


# name → (title, file: below zdce/weights/ or a path of the data manifest, network or None to read
# it from the file)
MODELS: dict[str, tuple[str, str, NetConfig | None]] = {
    "auto": ("the curve alone, one number a photograph, no network: the default", "", None),
    "zero-dce": ("Zero-DCE, trained here", "zero-dce.safetensors", None),
    "zero-dce-improved": ("improved Zero-DCE, trained here", "zero-dce-improved.safetensors", None),
    "zero-dce-published": ("Zero-DCE, published weights", "weights/zero_dce_Epoch99.pth", ZERO_DCE),
    "zero-dce-improved-published": (
        "improved Zero-DCE, published weights",
        "weights/zero_dce_improved_pre-train.pth",
        ZERO_DCE_IMPROVED,
    ),
    "zero-dce++": ("Zero-DCE++, published weights", "weights/zero_dce_pp_Epoch99.pth", ZERO_DCE_PP),
    "zero-dce++-12x": (
        "Zero-DCE++ estimating at 1/12, published weights",
        "weights/zero_dce_pp_Epoch99.pth",
        replace(ZERO_DCE_PP, scale=12.0),
    ),
    "sci-easy": ("SCI easy, published weights", "weights/sci_easy.pt", None),
    "sci-medium": ("SCI medium, published weights", "weights/sci_medium.pt", None),
    "sci-difficult": ("SCI difficult, published weights", "weights/sci_difficult.pt", None),
}


GONE = ("zero-dce-context", "zero-dce-night", "zero-dce-level")  # networks of earlier versions
DEFAULT = "auto"  # what enhances where nobody says otherwise


def load(name_or_path: str | os.PathLike) -> Model:
    """The model of that name (see :data:`MODELS`), or the weights file of that path.

    Raises :class:`CheckpointError` for an unknown name or an unusable file, FileNotFoundError for
    published weights that were not fetched yet.
    """
    text = os.fspath(name_or_path)
    if text in MODELS:
        _, file, config = MODELS[text]
        if not file:
            return Model(text, AutoCurve().eval(), 1.0, None, {})
        if file.startswith("weights/"):
            return replace(read(datasets.find(file), config), name=text)
        return read(paths.weights() / file)
    if Path(text).suffix.lower() in (".safetensors", ".pth", ".pt"):
        return read(text)
    what = "gone, 'auto' took its place" if text in GONE else "unknown"
    raise CheckpointError(
        f"model {text!r} is {what}: choose one of {', '.join(MODELS)}, or give a weights file"
    )


def read(path: str | os.PathLike, config: NetConfig | None = None) -> Model:
    """The weights file at ``path`` as a :class:`Model`; ``config`` overrules what shapes alone
    cannot tell. Raises :class:`CheckpointError`.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise CheckpointError(f"{path}: {size} bytes, too large for weights of these networks")
    ours = path.suffix.lower() == ".safetensors"
    tensors, header = read_tensors(path) if ours else (_unpickled(path), {})
    try:
        return _model(path, tensors, header, config)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {str(error).splitlines()[-1].strip()}") from None


def _model(path: Path, tensors: dict[str, Tensor], header: dict, config: NetConfig | None) -> Model:
    """The network of tensors from anywhere; errors say what is wrong with them."""
    if not all(map(_held, tensors.values())):
        raise ValueError("tensors larger than what the file holds of them")
    if not all(torch.isfinite(tensor.float()).all() for tensor in tensors.values()):
        raise ValueError("holds NaN or infinite weights")
    if "enhance.in_conv.0.weight" in tensors:
        net = SciNet()
        own = {name.removeprefix("enhance."): tensor for name, tensor in tensors.items()}
        net.load_state_dict({name: own[name] for name in net.state_dict() if name in own})
        return Model(path.stem.replace("_", "-"), net.eval(), 1.0, path, {})
    config = config or (_config_from_header(header) if header else _config_from_shapes(tensors))
    with torch.device("meta"):  # no room is made for what the file does not hold
        net = CurveNet(config)
    plain = {"memory_format": torch.contiguous_format}
    own = {name: tensor.float().clone(**plain) for name, tensor in tensors.items()}
    net.load_state_dict(own, assign=True)
    improved = (config.width, config.pooling, config.separable) == (16, "overlapping", False)
    gamma = header.get("gamma", IMPROVED_GAMMA if improved else 1.0)
    if not isinstance(gamma, int | float) or not 0 < gamma < math.inf:
        raise ValueError(f"gamma={gamma!r} in the header: must be a number above 0")
    name = "zero-dce-improved" if improved else "zero-dce++" if config.separable else "zero-dce"
    return Model(header.get("name") or name, net.eval(), float(gamma), path, header)


def _held(tensor: Tensor) -> bool:
    """Whether all numbers of ``tensor`` are there: a few, repeated, could pass for terabytes."""
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _config_from_shapes(tensors: dict[str, Tensor]) -> NetConfig:
    """Architecture of a file without a header, from the tensors' names and shapes.

    Pooling has no weights and leaves no trace; 16 channels are taken for the improved study's
    network, the only published one of that width.
    """
    separable = "e_conv1.point_conv.weight" in tensors
    first, last = (f"e_conv{n}.{'point_conv.' * separable}weight" for n in (1, 7))
    if first not in tensors or last not in tensors:
        raise ValueError(f"neither a Zero-DCE, Zero-DCE++ nor SCI network (no tensor {first})")
    width, out = (tensors[key].shape[0] if tensors[key].ndim == 4 else 0 for key in (first, last))
    if width < 1 or out < 3 or out % 3:
        raise ValueError(f"{width} hidden and {out} curve channels; needs 1, and a multiple of 3")
    return NetConfig(
        width=width,
        iterations=8 if out == 3 else out // 3,
        shared_curves=out == 3,
        separable=separable,
        pooling="overlapping" if width == 16 and not separable else "none",
    )


def _config_from_header(header: dict) -> NetConfig:
    if "net" not in header and "step" in header:
        raise ValueError("the state of a training, not a model; take model.safetensors beside it")
    try:
        net, known = dict(header["net"]), {field.name for field in fields(NetConfig)}
        # Files of earlier versions name fields of networks that are gone, which did nothing here.
        return NetConfig(**{key: net[key] for key in net if key in known or net[key]})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"configuration in the header is not usable: {error}") from None


def _unpickled(path: Path) -> dict[str, Tensor]:
    """Named tensors of a published file; no code in it is run."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                if sum(part.file_size for part in file.infolist()) > path.stat().st_size:
                    raise ValueError("compressed")
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name.removeprefix("module."): tensor.detach() for name, tensor in tensors.items()}
    # damaged files raise nearly anything: IndexError, TypeError, UnicodeDecodeError, ...
    except Exception as error:
        # The framework's own text is not passed on: it advises to load the file unsafely.
        why = f"refused, damaged or more than named tensors ({type(error).__name__})"
        raise CheckpointError(f"{path}: {why}; save the network's state_dict() alone") from None


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """Tensors and JSON header of a ``.safetensors``; :class:`CheckpointError` for anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("zdce") or "{}")
            names = file.keys()  # of safe_open, which cannot be iterated itself
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header must be a JSON object, not {header!r}")
    return tensors, header


def write_tensors(path: str | os.PathLike, tensors: dict[str, Tensor], header: dict) -> None:
    """Tensors and a JSON header as ``.safetensors``, in one step (never a partial file)."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as partial:
        text = json.dumps(header, sort_keys=True)
        partial.write_bytes(safetensors.torch.save(plain, {"zdce": text}))


def save(path: str | os.PathLike, net: CurveNet, name: str, gamma: float = 1.0, **header) -> None:
    """Write ``net`` as ``.safetensors`` with its configuration inside, in one step."""
    about = {"name": name, "gamma": gamma, "net": asdict(net.config), **header}
    write_tensors(path, net.state_dict(), about)


def fingerprint(weights: str | os.PathLike | dict[str, Tensor]) -> str:
    """16 hexadecimal digits of the sha256 of a network's tensors (names, shapes, values), whatever
    the header of their file. weights: a ``.safetensors`` or a network's ``state_dict()``.
    """
    tensors = weights if isinstance(weights, dict) else safetensors.torch.load_file(weights)
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]

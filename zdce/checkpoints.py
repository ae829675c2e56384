"""Weights on disk: ours with their configuration inside, published ones read without unpickling.

A ``.safetensors`` of ours carries a JSON text under ``zdce``: the configuration of the network and
of its training, its name and default gamma. A published ``.pth`` or ``.pt`` carries none; its
architecture is told from the tensors' names and shapes.
"""

import hashlib
import json
import math
import os
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from zdce import datasets, paths
from zdce.auto import AutoCurve
from zdce.files import atomic_write
from zdce.model import CurveNet, NetConfig
from zdce.peers import SciNet

IMPROVED_GAMMA = 1.15  # the improved study's post-processing
MAX_BYTES = 2**26  # of a weights file; the largest of these networks takes 320 KB


class CheckpointError(ValueError):
    """A weights file that cannot be used; one line that names the file."""


@dataclass(frozen=True)
class Model:
    """A network ready to run: (N, 3, H, W) in [0, 1] → (enhanced, curves or illumination).

    gamma: the post-processing it goes with (1: none). file: of its weights, None for ``auto``.
    header: the file's configuration, empty for published files.
    """

    name: str
    net: nn.Module
    gamma: float
    file: Path | None
    header: dict


# name → file of its weights: below zdce/weights/, or a path of the data manifest
MODELS = {
    "auto": "",  # the curve alone, one number a photograph, no network: the default
    "zero-dce": "zero-dce.safetensors",  # these two trained here
    "zero-dce-improved": "zero-dce-improved.safetensors",
    "zero-dce-published": "weights/zero_dce_Epoch99.pth",
    "zero-dce-improved-published": "weights/zero_dce_improved_pre-train.pth",
    "zero-dce++": "weights/zero_dce_pp_Epoch99.pth",
    "zero-dce++-12x": "weights/zero_dce_pp_Epoch99.pth",  # estimating at 1/12
    "sci-easy": "weights/sci_easy.pt",
    "sci-medium": "weights/sci_medium.pt",
    "sci-difficult": "weights/sci_difficult.pt",
}
DEFAULT = "auto"  # what enhances where nobody says otherwise


def load(name_or_path: str | os.PathLike) -> Model:
    """The model of that name (see :data:`MODELS`), or the weights file of that path.

    Raises :class:`CheckpointError` for an unknown name or an unusable file, FileNotFoundError for
    published weights that were not fetched yet.
    """
    text = os.fspath(name_or_path)
    if text == "auto":
        return Model(text, AutoCurve().eval(), 1.0, None, {})
    if text in MODELS:
        file = MODELS[text]
        place = datasets.find(file) if file.startswith("weights/") else paths.weights() / file
        model = replace(read(place), name=text)
        if text.endswith("-12x"):
            model.net.config = replace(model.net.config, scale=12.0)
        return model
    if Path(text).suffix.lower() in (".safetensors", ".pth", ".pt"):
        return read(text)
    raise CheckpointError(
        f"model {text!r} is unknown, and no weights file: choose one of {', '.join(MODELS)}, "
        "or give a .safetensors, .pth or .pt file"
    )


def read(path: str | os.PathLike) -> Model:
    """The weights file at ``path`` as a :class:`Model`. Raises :class:`CheckpointError`."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise CheckpointError(f"{path}: {size} bytes, too large for weights of these networks")
    ours = path.suffix.lower() == ".safetensors"
    tensors, header = read_tensors(path) if ours else (_unpickled(path), {})
    try:
        return _model(path, tensors, header)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {str(error).splitlines()[-1].strip()}") from None


def _model(path: Path, tensors: dict[str, Tensor], header: dict) -> Model:
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
    if header and "net" not in header:
        raise ValueError("no network; of a training, take model.safetensors")
    # Earlier versions wrote a field that did nothing there.
    own = {k: v for k, v in dict(header.get("net", {})).items() if v is not None}
    config = NetConfig(**own) if header else _config_from_shapes(tensors)
    with torch.device("meta"):  # no room is made for what the file does not hold
        net = CurveNet(config)
    plain = {"memory_format": torch.contiguous_format}
    own = {name: tensor.float().clone(**plain) for name, tensor in tensors.items()}
    net.load_state_dict(own, assign=True)
    improved = (config.width, config.pooling, config.separable) == (16, "overlapping", False)
    gamma = header.get("gamma", IMPROVED_GAMMA if improved else 1.0)
    if not isinstance(gamma, int | float) or not 0 < gamma < math.inf:
        raise ValueError(f"gamma={gamma!r} in the header: must be a number above 0")
    return Model(header.get("name") or path.stem, net.eval(), float(gamma), path, header)


def _held(tensor: Tensor) -> bool:
    """Whether all numbers of ``tensor`` are there: a few, repeated, could pass for terabytes."""
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _config_from_shapes(tensors: dict[str, Tensor]) -> NetConfig:
    """Architecture of a file without a header. Pooling has no weights and leaves no trace; 16
    channels are taken for the improved study's network, the only published one of that width.
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


def _unpickled(path: Path) -> dict[str, Tensor]:
    """Named tensors of a published file; no code in it is run."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                if sum(part.file_size for part in file.infolist()) > path.stat().st_size:
                    raise ValueError("compressed")
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name.removeprefix("module."): tensor.detach() for name, tensor in tensors.items()}
    except Exception as error:  # damaged files raise nearly anything
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
        if not isinstance(header, dict):
            raise ValueError("the header is no JSON object")
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None
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
    """16 hexadecimal digits of the sha256 of a network's tensors (names, shapes, values), of a
    ``.safetensors`` or a ``state_dict()``.
    """
    tensors = weights if isinstance(weights, dict) else safetensors.torch.load_file(weights)
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]

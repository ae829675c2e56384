"""Inference engines on the faithful network, in turn on the same machine: which is worth its
weight?

    python benchmarks/engines.py [--rounds 9] [--models zero-dce-improved,zero-dce] [--csv FILE]

Every engine enhances the same 600×400 photograph from 8 bits to 8 bits in a process of its own, and
they take turns (``zdce.study.timing``). Engines that are not installed are left out and named. ONNX
Runtime comes with the extra ``export``; OpenVINO belongs to no extra (pip install openvino), since
nothing but this benchmark calls it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np
import pandas as pd

from zdce import paths
from zdce.study import timing as speed
from zdce.study.timing import Version

# engine → the package that it needs, and what it is
ENGINES = {
    "plain": ("torch", "PyTorch, 32 bits, as published"),
    "compiled": ("torch", "torch.compile, 32 bits"),
    "compiled bf16": ("torch", "torch.compile, channels last, convolutions in bfloat16"),
    "ONNX Runtime": ("onnxruntime", "ONNX Runtime, 32 bits"),
    "OpenVINO": ("openvino", "OpenVINO, 32 bits"),
    "OpenVINO bf16": ("openvino", "OpenVINO, bfloat16"),
    "faithful": ("numba", "zdce's own machine code, 32 bits"),
}


def engine(version: Version):
    """What enhances (H, W, 3) uint8, rounded and through the gamma table, on this engine; called in
    its process.
    """
    import torch

    from zdce import checkpoints, export
    from zdce.enhance import Enhancer
    from zdce.photos import to_pixels, to_tensor
    from zdce.postprocess import apply_gamma

    name = version.path
    if name == "faithful":
        return Enhancer(version.model, device="cpu")
    model = checkpoints.load(version.model)
    net = model.net.eval()
    if name == "plain":
        run = lambda image: net(image)[0]  # noqa: E731
    elif name == "compiled":
        compiled = torch.compile(net, dynamic=False)
        run = lambda image: compiled(image)[0]  # noqa: E731
    elif name == "compiled bf16":
        compiled = torch.compile(net.to(memory_format=torch.channels_last), dynamic=False)

        def run(image):
            with torch.autocast("cpu", torch.bfloat16):
                return compiled(image.contiguous(memory_format=torch.channels_last))[0]
    else:
        file = Path(tempfile.mkdtemp(prefix="zdce-engines-")) / "network.onnx"
        export.to_onnx(model, file, gamma=1)
        if name == "ONNX Runtime":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = version.threads
            session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )

            def run(image, session=session):
                return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

        else:
            import openvino

            core = openvino.Core()
            kind = "bf16" if name.endswith("bf16") else "f32"
            settings = {"INFERENCE_NUM_THREADS": version.threads, "INFERENCE_PRECISION_HINT": kind}
            graph = core.read_model(file)
            graph.reshape([1, 3, 400, 600])  # a fixed size, which it compiles best for
            compiled = core.compile_model(graph, "CPU", settings | {"PERFORMANCE_HINT": "LATENCY"})
            run = lambda image: torch.from_numpy(compiled(image.numpy())[0].copy())  # noqa: E731
    return lambda pixels: apply_gamma(to_pixels(run(to_tensor(pixels))), model.gamma)


def steps(version: Version):
    """As ``zdce.study.timing.steps``: one stage that counts, and the result on disk where the
    benchmark asks for it.
    """
    from zdce.photos import read_photo

    enhance = engine(version)

    def encode(pixels):
        np.save(os.environ["ZDCE_ENGINES"] + f"/{version.label}.npy", pixels)

    return {
        "decode": lambda file: read_photo(file).pixels,
        "network": enhance,
        "encode": encode,
    }, lambda: None


def serve() -> None:
    """The worker process of one engine."""
    speed.steps = steps
    speed._serve()


class Worker(speed.Worker):
    """A process that runs one engine."""

    here = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {here!r}); import engines; engines.serve()"


def measured(model: str, engines: list[str], rounds: int) -> pd.DataFrame:
    """One row an engine: median ms, its ratio to the first engine within each turn, and how far
    results lie apart.
    """
    versions = [Version(name, model, path=name) for name in engines]
    folder = os.environ["ZDCE_ENGINES"]
    with speed.Workers(versions, Worker) as workers:
        times = speed.measure(workers, workers.files(speed.sized_photographs([0.24])), rounds)
        conditions, memory = workers.conditions(), workers.memory()
        results = {name: np.load(f"{folder}/{name}.npy").astype(int) for name in engines}
    table = speed.summary(times, engines[0]).drop(columns="photograph").merge(memory, on="version")
    apart = {
        name: np.abs(result - results[engines[0]]).max(axis=2) for name, result in results.items()
    }
    table["within_1"] = table["version"].map(
        {name: (each <= 1).mean() for name, each in apart.items()}
    )
    table["furthest"] = table["version"].map({name: each.max() for name, each in apart.items()})
    table["package"] = [
        f"{ENGINES[name][0]} {version_of(ENGINES[name][0])}" for name in table["version"]
    ]
    table["what"] = [ENGINES[name][1] for name in table["version"]]
    return table.rename(columns={"version": "engine"}).assign(model=model, threads=2, **conditions)


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--rounds", type=int, default=9)
    words.add_argument("--models", default="zero-dce-improved,zero-dce")
    words.add_argument("--csv", type=Path, default=paths.reports("study") / "speed" / "engines.csv")
    asked = words.parse_args()
    there = [name for name, (package, _) in ENGINES.items() if importlib.util.find_spec(package)]
    print(
        "not installed:",
        ", ".join(sorted({ENGINES[name][0] for name in set(ENGINES) - set(there)})) or "none",
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ZDCE_ENGINES"] = folder  # where the worker processes leave their results
        table = pd.concat(
            [measured(model, there, asked.rounds) for model in asked.models.split(",")]
        )
    asked.csv.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(asked.csv, index=False, float_format="%.5g")
    print(
        table[
            ["model", "engine", "ms", "ratio", "ratio_low", "ratio_high", "within_1", "peak_mb"]
        ].to_string()
    )
    print(speed.contention(table.iloc[-1].to_dict()))


if __name__ == "__main__":
    main()

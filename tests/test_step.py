"""The captured step, on the processor with stand-ins for what a GPU records and replays."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zdce.datasets import TrainingSet
from zdce.step import State
from zdce.study.experiments import EXPERIMENTS


@pytest.fixture
def gpu(monkeypatch):
    """Graphs that hold what is launched while they are captured, and launch it when replayed."""
    capturing, launch = [], State.launch

    @contextmanager
    def graph(held, **_how):
        capturing.append(held)
        yield
        capturing.remove(held)

    def launched(state, count):
        if not capturing:
            return launch(state, count)
        capturing[0].replay = lambda: launch(state, count)

    stream = SimpleNamespace(wait_stream=lambda _: None, synchronize=lambda: None)
    stand_ins = {"graph": graph, "CUDAGraph": lambda: SimpleNamespace(pool=lambda: None)}
    stand_ins |= {"Stream": lambda _: stream, "current_stream": lambda _: stream}
    stand_ins |= {"stream": lambda _: nullcontext(), "synchronize": lambda _: None}
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(State, "launch", launched)


@pytest.mark.parametrize(("steps", "done"), [(1, 0), (9, 0), (9, 5)])
def test_what_is_captured_goes_on_as_if_it_had_not_been(gpu, steps, done):
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    photographs = TrainingSet(images, [str(k) for k in range(7)])
    config = replace(EXPERIMENTS["zero-dce-improved"], size=32, steps=steps, batch=2)
    plain, captured = (State(config, torch.device("cpu"), "float32", photographs) for _ in "ab")
    for _ in range(done):
        plain.advance()
    captured.restore(plain.tensors())
    captured.capture()
    assert sorted(captured.graphs) == [1, 2]  # the last batch of an epoch is smaller
    for _ in range(done, steps):
        plain.advance()
        captured.advance()
    np.testing.assert_array_equal(captured.record, plain.record)
    for name, tensor in plain.held.items():
        assert torch.equal(tensor, captured.held[name]), name

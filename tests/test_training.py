"""Training: repeatable to the bit, resumable at any instant, and loud when something goes wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from zdce import checkpoints, paths, training
from zdce.datasets import TrainingSet, training_set
from zdce.losses import IMPROVED, RELEASED, TERMS, LossConfig, loss_terms
from zdce.model import CurveNet, NetConfig
from zdce.step import (
    COLUMNS,
    Captured,
    State,
    TrainConfig,
    TrainingError,
    batches,
    loss_function,
)
from zdce.study.experiments import EXPERIMENTS
from zdce.training import Run, Saving, finished, train

OFTEN = Saving(seconds=0)

PHOTOGRAPHS, SIZE, BATCH, STEPS = 7, 64, 2, 30
PER_EPOCH = 4  # 7 photographs in batches of 2: three whole batches and one of a single photograph


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> TrainingSet:
    """Seven generated pictures of different sizes and brightness, read as any folder is."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for k, level in enumerate(np.linspace(20, 235, PHOTOGRAPHS)):
        small = np.clip(rng.normal(level, 25, (6, 8, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(small).resize((60 + k, 45 - k), Image.Resampling.BICUBIC).save(
            folder / f"{k}.png"
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZDCE_DATA", str(tmp_path_factory.mktemp("data")))
        return training_set(folder, SIZE, progress=False)


CONFIG = TrainConfig(
    name="small",
    net=NetConfig(width=4, pooling="overlapping"),
    data="bundled",
    size=SIZE,
    batch=BATCH,
    steps=STEPS,
    precision="float32",
)


def quick(config, out, photographs, **more) -> Run:
    return train(config, out, photographs=photographs, progress=False, **more)


@pytest.fixture(scope="module")
def whole(photographs, tmp_path_factory) -> Run:
    """The uninterrupted run that all others are compared with."""
    torch.set_num_threads(1)
    return quick(CONFIG, tmp_path_factory.mktemp("whole"), photographs)


def assert_same(a: Run, b: Run) -> None:
    """Weights, record and files of two runs are equal bit for bit."""
    for name, tensor in a.net.state_dict().items():
        assert torch.equal(tensor, b.net.state_dict()[name]), name
    pd.testing.assert_frame_equal(a.record, b.record, check_exact=True)
    for file in ("model.safetensors", "record.csv", "checkpoint.safetensors"):
        assert (a.folder / file).read_bytes() == (b.folder / file).read_bytes(), file


def steps_done(checkpoint) -> int:
    with safe_open(checkpoint, framework="pt") as file:
        return json.loads(file.metadata()["zdce"])["step"]


def stop_at(monkeypatch, step: int, what=None) -> None:
    """Let ``what(state)`` happen, by default an interruption, before that step."""
    advance = training.State.advance

    def stopping(state, *arguments):
        if state.step == step:
            if what is None:
                raise KeyboardInterrupt
            what(state)
        advance(state, *arguments)

    monkeypatch.setattr(training.State, "advance", stopping)


# ---- the same again ------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bits(photographs, whole, tmp_path):
    torch.manual_seed(99)  # the surroundings' random state does not matter …
    np.random.seed(99)
    before = torch.get_rng_state()
    assert_same(whole, quick(CONFIG, tmp_path, photographs))
    assert torch.equal(before, torch.get_rng_state())  # … nor is it touched


def test_another_seed_gives_other_weights_and_another_order(photographs, whole, tmp_path):
    other = quick(replace(CONFIG, seed=1, steps=2), tmp_path, photographs)
    assert not torch.equal(other.net.e_conv1.weight, whole.net.e_conv1.weight)
    assert not np.array_equal(next(batches(50, 5, 0)), next(batches(50, 5, 1)))


@pytest.mark.parametrize("step", [1, PER_EPOCH, PER_EPOCH + 1, STEPS - 1])
def test_interrupted_and_resumed_equals_uninterrupted(
    photographs, whole, tmp_path, monkeypatch, step
):
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            quick(CONFIG, tmp_path, photographs, saving=OFTEN)
    assert steps_done(tmp_path / "checkpoint.safetensors") == step
    assert not (tmp_path / "model.safetensors").exists()
    assert_same(whole, quick(CONFIG, tmp_path, photographs, resume=True))


def test_bfloat16_is_resumed_to_the_bit_and_stays_near_float32(
    photographs, whole, tmp_path, monkeypatch
):
    half = replace(CONFIG, precision="bfloat16", steps=6)
    straight = quick(half, tmp_path / "straight", photographs)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            quick(half, tmp_path / "stopped", photographs, saving=OFTEN)
    assert_same(straight, quick(half, tmp_path / "stopped", photographs, resume=True))
    full = whole.record.head(6)
    assert not straight.record.equals(full)
    np.testing.assert_allclose(straight.record["loss"], full["loss"], rtol=2e-3)


CHILD = """
import sys, time
import numpy as np, torch
from pathlib import Path
from zdce import training
from zdce.datasets import TrainingSet
from zdce.model import NetConfig
from zdce.step import TrainConfig
torch.set_num_threads(1)
advance = training.State.advance
training.State.advance = lambda state, *rest: (time.sleep(0.02), advance(state, *rest))
images = np.load(sys.argv[1])
config = TrainConfig(name="small", net=NetConfig(width=4, pooling="overlapping"), data="bundled",
                              size=64, batch=2, steps=30, precision="float32")
photographs = TrainingSet(images, [f"{k}.png" for k in range(len(images))])
training.train(config, sys.argv[2], photographs=photographs,
               progress=False, saving=training.Saving(0.05))
"""


@pytest.mark.long
def test_killed_process_is_resumed_to_the_bit(photographs, whole, tmp_path):
    np.save(tmp_path / "images.npy", photographs.images)
    out = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path / "images.npy", out], env=environment
    )
    try:
        for _ in range(6000):
            if (out / "checkpoint.safetensors").exists() and steps_done(
                out / "checkpoint.safetensors"
            ) >= 5:
                break
            assert child.poll() is None, "the training ended before it could be killed"
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert 5 <= steps_done(out / "checkpoint.safetensors") < STEPS
    assert not (out / "model.safetensors").exists()
    assert_same(whole, quick(CONFIG, out, photographs, resume=True))


def test_resume_without_a_checkpoint_starts_anew_and_says_so(photographs, whole, tmp_path, capsys):
    run = train(CONFIG, tmp_path / "new", photographs=photographs, resume=True)
    assert_same(whole, run)
    (run.folder / "checkpoint.safetensors").unlink()  # a model alone is no beginning either
    assert_same(whole, train(CONFIG, run.folder, photographs=photographs, resume=True))
    assert capsys.readouterr().out.count("no checkpoint to go on from; starts anew") == 2


def test_finished_run_is_returned_as_it_is(photographs, tmp_path):
    config = replace(CONFIG, steps=5)
    first = quick(config, tmp_path, photographs)
    times = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    nothing = TrainingSet(np.zeros((0, SIZE, SIZE, 3), np.uint8), [])
    again = quick(config, tmp_path, nothing, resume=True)
    assert_same(first, again)
    assert times == {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}


def test_finished_run_goes_on_when_steps_are_raised(photographs, whole, tmp_path):
    quick(replace(CONFIG, steps=9), tmp_path, photographs)
    assert_same(whole, quick(CONFIG, tmp_path, photographs, resume=True))


WAITING = """
import sys
from zdce.files import lock
from pathlib import Path
with lock(Path(sys.argv[1]), "trains"):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_train_into_one_folder(photographs, whole, tmp_path, capsys):
    environment = {**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent)}
    words = [sys.executable, "-c", WAITING, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, env=environment, text=True, **pipes) as other:
        assert other.stdout.readline() == "mine\n"
        runs = []
        waiting = threading.Thread(target=lambda: runs.append(quick(CONFIG, tmp_path, photographs)))
        waiting.start()
        time.sleep(0.5)
        assert not list(tmp_path.iterdir())
        assert not runs
        other.kill()  # a lock that outlived its process would be worse than none
        waiting.join(60)
    assert_same(whole, runs[0])
    assert "another process trains here; waiting for it" in capsys.readouterr().out


def test_tensorboard_shows_every_step_once(photographs, whole, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        with pytest.raises(KeyboardInterrupt):
            quick(CONFIG, tmp_path, photographs, saving=Saving(0, tensorboard=True))
    quick(CONFIG, tmp_path, photographs, saving=Saving(tensorboard=True), resume=True)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["scalars"]) == sorted(COLUMNS)
    for column in COLUMNS:
        scalars = events.Scalars(column)
        assert [event.step for event in scalars] == list(range(STEPS))
        np.testing.assert_allclose(
            [event.value for event in scalars], whole.record[column], rtol=1e-6
        )


def test_without_resume_a_run_starts_anew(photographs, tmp_path):
    config = replace(CONFIG, steps=3)
    quick(replace(config, seed=5), tmp_path / "a", photographs)
    assert_same(
        quick(config, tmp_path / "b", photographs), quick(config, tmp_path / "a", photographs)
    )


# ---- what a run leaves ---------------------------------------------------------------------------


def test_record_has_every_step_and_the_model_its_training(whole):
    table = pd.read_csv(whole.folder / "record.csv", index_col="step")
    assert list(table.index) == list(range(STEPS))
    np.testing.assert_allclose(table.to_numpy(), whole.record.to_numpy(), rtol=1e-5)
    np.testing.assert_allclose(table[list(TERMS)].sum(axis=1), table["loss"], rtol=1e-5)
    model = checkpoints.read(whole.weights)
    assert model.header["train"] == CONFIG.header()
    assert checkpoints.fingerprint(whole.weights) == checkpoints.fingerprint(model.net.state_dict())


def test_snapshots_are_the_weights_of_shorter_trainings(photographs, whole, tmp_path):
    run = quick(CONFIG, tmp_path, photographs, saving=Saving(snapshots=(PER_EPOCH, 9)))
    assert_same(whole, run)
    for steps, name in ((PER_EPOCH, "small-seed0-epoch001"), (9, "small-seed0-epoch002")):
        shorter = quick(replace(CONFIG, steps=steps), tmp_path / str(steps), photographs)
        kept = run.folder / "snapshots" / f"{name}.safetensors"
        assert kept.read_bytes() == shorter.weights.read_bytes()


def test_a_folder_of_ones_own_leaves_a_picture(photographs, tmp_path):
    run = quick(replace(CONFIG, data="pictures", steps=5), tmp_path, photographs)
    assert Image.open(run.picture).width > 400


# ---- other beginnings ---------------------------------------------------------------------------


def test_training_goes_on_from_given_weights(photographs, whole, tmp_path):
    config = replace(CONFIG, steps=1, learning_rate=1e-12)
    run = quick(config, tmp_path / "a", photographs, weights=whole.weights)
    for name, tensor in run.net.state_dict().items():
        torch.testing.assert_close(tensor, whole.net.state_dict()[name], rtol=0, atol=1e-9)
    assert run.config.start == checkpoints.fingerprint(whole.weights)
    assert run.config.run_name() != config.run_name()
    with pytest.raises(TrainingError, match="another start"):
        quick(config, tmp_path / "a", photographs, resume=True)
    with pytest.raises(TrainingError, match="another network than small's"):
        quick(replace(CONFIG, net=NetConfig()), tmp_path, photographs, weights=whole.weights)


@pytest.mark.parametrize("native", [True, False])
def test_a_number_format_is_never_emulated_unless_asked_for(
    photographs, tmp_path, monkeypatch, native
):
    monkeypatch.setattr(training, "native_bfloat16", lambda device: native)
    run = quick(replace(CONFIG, steps=2, precision="auto"), tmp_path, photographs)
    assert run.precision == ("bfloat16" if native else "float32")
    assert json.loads((tmp_path / "run.json").read_text())["precision"] == run.precision
    assert finished(
        replace(CONFIG, steps=2, precision="auto"), tmp_path
    )  # equal configurations stay equal
    monkeypatch.setattr(training, "native_bfloat16", lambda device: not native)
    further = quick(replace(CONFIG, steps=4, precision="auto"), tmp_path, photographs, resume=True)
    assert further.precision == run.precision


# ---- order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "batch"), [(7, 2), (8, 4), (3, 8), (1, 1), (2002, 8)])
def test_every_photograph_is_seen_once_an_epoch(count, batch):
    per_epoch = -(-count // batch)
    source = batches(count, batch, seed=3)
    epochs = [[next(source) for _ in range(per_epoch)] for _ in range(3)]
    for epoch in epochs:
        assert sorted(np.concatenate(epoch)) == list(range(count))
        assert [len(numbers) for numbers in epoch[:-1]] == [batch] * (per_epoch - 1)
        assert len(epoch[-1]) == (count % batch or batch)
    if count > 3:
        assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))


def test_batches_from_any_step_on_are_those_of_the_beginning():
    source = batches(7, 2, seed=3)
    everything = [next(source) for _ in range(15)]
    for start in range(12):
        later = batches(7, 2, seed=3, start=start)
        assert all(np.array_equal(next(later), everything[k]) for k in range(start, start + 3))


# ---- the arithmetic ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zero-dce-improved", "stride2-transposed", "paper-losses"])
def test_both_forms_of_the_step_equal_the_plain_loop_to_the_bit(photographs, name):
    """The form that a GPU captures, launched step by step on the processor, and the usual one."""
    config = replace(EXPERIMENTS[name], size=SIZE, steps=9, batch=BATCH)
    torch.manual_seed(config.seed)
    net = CurveNet(config.net)
    adam = torch.optim.Adam(net.parameters(), lr=1e-4, weight_decay=1e-4)
    for _, numbers in zip(range(9), batches(PHOTOGRAPHS, BATCH, config.seed), strict=False):
        image = torch.from_numpy(photographs.images[numbers]).permute(0, 3, 1, 2).float() / 255
        enhanced, curves = net(image)
        adam.zero_grad()
        sum(loss_terms(enhanced, image, curves, config.loss).values()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip)
        adam.step()
    processor = torch.device("cpu")
    usual = State(config, processor, "float32", photographs)
    resident = Captured(config, processor, "float32", photographs, capture=False)
    for state in (usual, resident):
        for _ in range(9):
            state.advance()
        state.settle()
        for key, tensor in net.state_dict().items():
            assert torch.equal(tensor, state.parameters[key]), key
    np.testing.assert_array_equal(usual.record, resident.record)


@pytest.mark.long  # a compiler is called
def test_the_compiled_loss_is_the_loss(photographs):
    config = EXPERIMENTS["zero-dce-improved"]
    function = loss_function(config.net, config.loss, "float32", torch.device("cpu"))
    parameters = dict(CurveNet(config.net).named_parameters())
    image = torch.from_numpy(photographs.images[:2]).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(
        torch.compile(function)(parameters, image), function(parameters, image)
    )


def test_a_resident_training_goes_on_where_it_was_saved(photographs, tmp_path):
    about = (replace(CONFIG, steps=9), torch.device("cpu"), "float32", photographs)
    straight, stopped, again = (Captured(*about, capture=False) for _ in range(3))
    for _ in range(9):
        straight.advance()
    for _ in range(5):
        stopped.advance()
    stopped.settle()
    stopped.save(tmp_path / "checkpoint.safetensors")
    header, tensors = training._read_checkpoint(tmp_path / "checkpoint.safetensors", about[0])
    again.restore(tmp_path / "checkpoint.safetensors", header["step"], tensors)
    for _ in range(4):
        again.advance()
    np.testing.assert_array_equal(
        straight.settle(), np.concatenate([stopped.record, again.settle()])
    )
    for name, tensor in straight.parameters.items():
        assert torch.equal(tensor, again.parameters[name])


def test_a_resident_training_names_the_step_at_fault(photographs):
    images = photographs.images.astype(np.float32)
    images[3] = np.nan
    bad = TrainingSet(images, photographs.names)
    state = Captured(CONFIG, torch.device("cpu"), "float32", bad, capture=False)
    for _ in range(STEPS):
        state.advance()
    step = next(k for k, b in enumerate(batches(PHOTOGRAPHS, BATCH, 0)) if 3 in b)
    with pytest.raises(TrainingError, match=rf"^step {step}: spatial is nan, .*3\.png"):
        state.settle()


def test_two_steps_equal_adam_by_hand(photographs, tmp_path):
    config = replace(
        CONFIG, steps=2, batch=PHOTOGRAPHS, learning_rate=1e-3, weight_decay=0.05, clip=0.02
    )
    run = quick(config, tmp_path, photographs)
    torch.manual_seed(config.seed)
    net = CurveNet(config.net)
    image = torch.from_numpy(np.array(photographs.images)).permute(0, 3, 1, 2).float() / 255
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in net.parameters()]
    for step in (1, 2):
        enhanced, curves = net(image)
        loss = sum(loss_terms(enhanced, image, curves, RELEASED).values())
        assert run.record["loss"][step - 1] == pytest.approx(loss.item(), rel=1e-5)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        assert norm > config.clip  # so that clipping is at work
        assert run.record["gradient_norm"][step - 1] == pytest.approx(norm.item(), rel=1e-4)
        for p, g, (mean, square) in zip(net.parameters(), gradients, moments, strict=True):
            g = g * config.clip / (norm + 1e-6) + config.weight_decay * p.detach()
            mean.mul_(0.9).add_(0.1 * g)
            square.mul_(0.999).add_(0.001 * g * g)
            change = (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
            p.data -= config.learning_rate * change
    for name, p in net.named_parameters():
        torch.testing.assert_close(run.net.state_dict()[name], p.detach(), rtol=1e-4, atol=1e-6)


def test_loss_goes_down_and_dark_photographs_become_brighter(photographs, tmp_path):
    dark = TrainingSet(np.array(photographs.images[:3]), photographs.names[:3])
    config = replace(CONFIG, steps=60, batch=3, learning_rate=1e-2, net=NetConfig(width=8))
    run = quick(config, tmp_path, dark)
    assert run.record["loss"].iloc[-5:].mean() < 0.6 * run.record["loss"].iloc[:5].mean()
    image = torch.from_numpy(dark.images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        enhanced = run.net(image)[0]
    assert enhanced.mean() > image.mean() + 0.1
    assert abs(enhanced.mean() - 0.6) < abs(image.mean() - 0.6)


# ---- faults --------------------------------------------------------------------------------------


def test_broken_photograph_stops_the_training_at_once(photographs, tmp_path):
    images = photographs.images.astype(np.float32)
    images[3, 5, 5, 1] = np.nan
    bad = TrainingSet(images, photographs.names)
    order = list(
        np.concatenate(
            [b for b, _ in zip(batches(PHOTOGRAPHS, BATCH, 0), range(PER_EPOCH), strict=False)]
        )
    )
    step = order.index(3) // BATCH
    assert step > 0, "choose another photograph: a checkpoint before the fault is wanted"
    batch = [photographs.names[k] for k in sorted(order[step * BATCH : (step + 1) * BATCH])]
    with pytest.raises(TrainingError) as caught:
        quick(CONFIG, tmp_path, bad, saving=OFTEN)
    assert str(caught.value) == f"step {step}: spatial is nan, photographs {', '.join(batch)}"
    assert steps_done(tmp_path / "checkpoint.safetensors") == step
    assert not (tmp_path / "model.safetensors").exists()


def nan_weight(state) -> None:
    state.net.e_conv3.weight.data[0, 0, 0, 0] = torch.nan


def nan_gradient(state) -> None:
    state.net.e_conv3.weight.register_hook(lambda gradient: gradient * torch.nan)


@pytest.mark.parametrize(
    ("fault", "term"), [(nan_weight, "spatial"), (nan_gradient, "gradient norm")]
)
def test_fault_in_the_network_keeps_the_last_good_checkpoint(
    photographs, whole, tmp_path, monkeypatch, fault, term
):
    with monkeypatch.context() as patch:
        stop_at(patch, 6, fault)
        with pytest.raises(
            TrainingError, match=rf"^step 6: {term} is nan, photographs \d\.png, \d\.png$"
        ):
            quick(CONFIG, tmp_path, photographs, saving=OFTEN)
    assert steps_done(tmp_path / "checkpoint.safetensors") == 6
    assert_same(whole, quick(CONFIG, tmp_path, photographs, resume=True))


def test_the_term_at_fault_is_named(photographs, tmp_path):
    config = replace(CONFIG, loss=LossConfig(spatial=0, smoothness=1e39))
    with pytest.raises(TrainingError, match=r"^step 0: smoothness is inf"):
        quick(config, tmp_path, photographs)


def test_weights_lost_in_the_last_step_are_not_saved(photographs, tmp_path):
    quick(replace(CONFIG, steps=2), tmp_path, photographs)
    before = (
        (tmp_path / "model.safetensors").read_bytes(),
        (tmp_path / "checkpoint.safetensors").read_bytes(),
    )
    with pytest.raises(TrainingError, match="step 1: weights are not finite"):
        quick(replace(CONFIG, steps=1, learning_rate=float("inf")), tmp_path, photographs)
    assert before == (
        (tmp_path / "model.safetensors").read_bytes(),
        (tmp_path / "checkpoint.safetensors").read_bytes(),
    )


OTHER = {
    "net": NetConfig(width=4),
    "loss": IMPROVED,
    "data": "elsewhere",
    "size": 48,
    "batch": 3,
    "learning_rate": 2e-4,
    "weight_decay": 0.0,
    "precision": "bfloat16",
    "seed": 1,
}


def test_resume_with_another_configuration_is_refused(photographs, whole):
    before = {file: file.read_bytes() for file in whole.folder.iterdir()}
    for name, value in OTHER.items():
        other = replace(CONFIG, **{name: value})
        assert other.run_name() != CONFIG.run_name()
        with pytest.raises(TrainingError, match=f"another {name}; choose another folder"):
            quick(other, whole.folder, photographs, resume=True)
    with pytest.raises(TrainingError, match="already at step 30, beyond steps=8"):
        quick(replace(CONFIG, steps=8), whole.folder, photographs, resume=True)
    assert before == {file: file.read_bytes() for file in whole.folder.iterdir()}


@pytest.mark.parametrize("damage", ["garbage", "truncated", "model"])
def test_resume_from_a_damaged_checkpoint_is_refused(photographs, whole, tmp_path, damage):
    good = (whole.folder / "checkpoint.safetensors").read_bytes()
    model = whole.weights.read_bytes()
    content = {"garbage": b"no checkpoint", "truncated": good[: len(good) // 2], "model": model}[
        damage
    ]
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(content)
    with pytest.raises(TrainingError, match=f"{checkpoint}: damaged, or no checkpoint"):
        quick(CONFIG, tmp_path, photographs, resume=True)
    assert checkpoint.read_bytes() == content


def test_photographs_of_another_size_are_refused(photographs, tmp_path):
    with pytest.raises(ValueError, match="size=48"):
        quick(replace(CONFIG, size=48), tmp_path, photographs)


def test_folder_without_photographs_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no photographs to train on"):
        train(replace(CONFIG, data=str(tmp_path / "empty")), tmp_path / "run", progress=False)


# ---- configuration -------------------------------------------------------------------------------


def test_run_goes_to_its_own_folder_by_default(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("ZDCE_RUNS", str(tmp_path))
    config = replace(CONFIG, steps=1)
    assert quick(config, None, photographs).folder == tmp_path / config.run_name()


@pytest.mark.parametrize("wrong", [{"size": 15}, {"batch": 0}, {"steps": 0}])
def test_wrong_configurations_are_named(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}: must be"):
        replace(CONFIG, **wrong)
    with pytest.raises(ValueError, match="precision='half': choose one of auto, float32, bfloat16"):
        replace(CONFIG, precision="half")


# ---- what is printed -----------------------------------------------------------------------------


def test_exposure_warning_is_printed(photographs, tmp_path, capsys):
    config = replace(CONFIG, steps=1)
    dark = TrainingSet(photographs.images[:3], photographs.names[:3])
    train(config, tmp_path / "dark", photographs=dark)
    assert (
        "warning: no over-exposed photographs among 3: expect washed-out bright areas\n"
        in capsys.readouterr().out
    )
    train(config, tmp_path / "all", photographs=photographs)
    printed = capsys.readouterr().out
    assert "warning" not in printed
    assert re.search(
        r"[\r\n]epoch 0.25: spatial \d\.\d{4}, exposure \d\.\d{4}, color .* gradient_norm \d",
        printed,
    )
    quick(config, tmp_path / "quiet", dark)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""

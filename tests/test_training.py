"""Training: repeatable to the bit, resumable at any instant, and loud when something goes wrong."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pandas as pd
import pictures
import pytest
import torch
from PIL import Image

from zdce import checkpoints, training
from zdce.datasets import TrainingSet, training_set
from zdce.losses import IMPROVED, TERMS, loss_terms
from zdce.model import CurveNet, NetConfig
from zdce.study.experiments import EXPERIMENTS
from zdce.training import (
    COLUMNS,
    Run,
    Saving,
    State,
    TrainConfig,
    TrainingError,
    batches,
    finished,
    train,
)

OFTEN = Saving(seconds=0)
CPU = torch.device("cpu")
PHOTOGRAPHS, SIZE, BATCH, STEPS = 7, 64, 2, 30
PER_EPOCH = 4  # 7 photographs in batches of 2: three whole batches and one of a single photograph
CONFIG = TrainConfig(
    name="small",
    net=NetConfig(width=4, pooling="overlapping"),
    data="bundled",
    size=SIZE,
    batch=BATCH,
    steps=STEPS,
    precision="float32",
)


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
    pictures.photographs(folder, PHOTOGRAPHS, "png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZDCE_DATA", str(tmp_path_factory.mktemp("data")))
        return training_set(folder, SIZE, progress=False)


@pytest.fixture(scope="module")
def whole(photographs, tmp_path_factory) -> Run:
    """The uninterrupted run that all others are compared with."""
    torch.set_num_threads(1)
    return quick(CONFIG, tmp_path_factory.mktemp("whole"), photographs)


def quick(config, out, photographs, **more) -> Run:
    return train(config, out, photographs=photographs, progress=False, **more)


def broken(photographs, number: int) -> TrainingSet:
    """The photographs, one of which has a value that is no number."""
    images = photographs.images.astype(np.float32)
    images[number, 5, 5, 1] = np.nan
    return TrainingSet(images, photographs.names)


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255


def assert_same(a: Run, b: Run) -> None:
    """Weights, record and files of two runs are equal bit for bit."""
    for name, values in a.net.state_dict().items():
        assert torch.equal(values, b.net.state_dict()[name]), name
    pd.testing.assert_frame_equal(a.record, b.record, check_exact=True)
    for file in ("model.safetensors", "record.csv", "checkpoint.safetensors"):
        assert (a.folder / file).read_bytes() == (b.folder / file).read_bytes(), file


def steps_done(folder) -> int:
    file = folder / "checkpoint.safetensors"
    return checkpoints.read_tensors(file)[1]["step"] if file.exists() else 0


def stopped(monkeypatch, step: int, config, out, photographs, **more) -> None:
    """A training that is interrupted before that step."""
    advance = State.advance

    def stopping(state):
        if state.step == step:
            raise KeyboardInterrupt
        advance(state)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(State, "advance", stopping)
        quick(config, out, photographs, **{"saving": OFTEN} | more)
    assert steps_done(out) == step and not (out / "model.safetensors").exists()


# ---- the same again ------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bits_another_seed_others(photographs, whole, tmp_path):
    torch.manual_seed(99)  # the surroundings' random state does not matter …
    before = torch.get_rng_state()
    assert_same(whole, quick(CONFIG, tmp_path / "a", photographs))
    assert torch.equal(before, torch.get_rng_state())  # … nor is it touched
    other = quick(replace(CONFIG, seed=1, steps=2), tmp_path / "b", photographs)
    assert not torch.equal(other.net.e_conv1.weight, whole.net.e_conv1.weight)
    assert not np.array_equal(next(batches(50, 5, 0)), next(batches(50, 5, 1)))
    again = quick(CONFIG, tmp_path / "b", photographs)  # without resume it starts anew
    assert_same(whole, again)


@pytest.mark.parametrize("step", [1, PER_EPOCH, PER_EPOCH + 1, STEPS - 1])
def test_interrupted_and_resumed_equals_uninterrupted(
    photographs, whole, tmp_path, monkeypatch, step
):
    stopped(monkeypatch, step, CONFIG, tmp_path, photographs)
    assert_same(whole, quick(CONFIG, tmp_path, photographs, resume=True))


def test_bfloat16_is_resumed_to_the_bit_and_stays_near_float32(
    photographs, whole, tmp_path, monkeypatch
):
    half = replace(CONFIG, precision="bfloat16", steps=6)
    straight = quick(half, tmp_path / "straight", photographs)
    stopped(monkeypatch, 3, half, tmp_path / "stopped", photographs)
    assert_same(straight, quick(half, tmp_path / "stopped", photographs, resume=True))
    full = whole.record.head(6)
    assert not straight.record.equals(full)
    np.testing.assert_allclose(straight.record["loss"], full["loss"], rtol=2e-3)


def test_resume_without_a_checkpoint_starts_anew_and_says_so(photographs, whole, tmp_path, capsys):
    run = train(CONFIG, tmp_path / "new", photographs=photographs, resume=True)
    assert_same(whole, run)
    (run.folder / "checkpoint.safetensors").unlink()  # a model alone is no beginning either
    assert_same(whole, train(CONFIG, run.folder, photographs=photographs, resume=True))
    assert capsys.readouterr().out.count("no checkpoint to go on from; starts anew") == 2


def test_finished_run_is_returned_as_it_is_and_goes_on_when_steps_are_raised(
    photographs, whole, tmp_path
):
    config = replace(CONFIG, steps=9)
    first = quick(config, tmp_path, photographs)
    times = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    nothing = TrainingSet(np.zeros((0, SIZE, SIZE, 3), np.uint8), [])
    assert_same(first, quick(config, tmp_path, nothing, resume=True))
    assert times == {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert_same(whole, quick(CONFIG, tmp_path, photographs, resume=True))


# ---- what a run leaves ---------------------------------------------------------------------------


def test_record_has_every_step_and_the_model_its_training(whole):
    table = pd.read_csv(whole.folder / "record.csv", index_col="step")
    assert list(table.index) == list(range(STEPS))
    np.testing.assert_allclose(table.to_numpy(), whole.record.to_numpy(), rtol=1e-5)
    np.testing.assert_allclose(table[list(TERMS)].sum(axis=1), table["loss"], rtol=1e-5)
    model = checkpoints.read(whole.weights)
    assert model.header["train"] == CONFIG.header()


def test_snapshots_are_the_weights_of_shorter_trainings(photographs, whole, tmp_path):
    run = quick(CONFIG, tmp_path, photographs, saving=Saving(snapshots=(PER_EPOCH, 9)))
    assert_same(whole, run)
    for steps, epoch in ((PER_EPOCH, 1), (9, 2)):
        shorter = quick(replace(CONFIG, steps=steps), tmp_path / str(steps), photographs)
        kept = run.folder / "snapshots" / training.weights_name("small", 0, epoch)
        assert kept.read_bytes() == shorter.weights.read_bytes()


def test_tensorboard_shows_every_step_once(photographs, whole, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = Saving(0, tensorboard=True)
    stopped(monkeypatch, 12, CONFIG, tmp_path, photographs, saving=shown)
    quick(CONFIG, tmp_path, photographs, saving=Saving(tensorboard=True), resume=True)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["scalars"]) == sorted(COLUMNS)
    for column in COLUMNS:
        steps, values = zip(*((e.step, e.value) for e in events.Scalars(column)), strict=True)
        assert steps == tuple(range(STEPS))
        np.testing.assert_allclose(values, whole.record[column], rtol=1e-6)


def test_a_folder_of_ones_own_leaves_a_picture_and_lines(
    photographs, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("ZDCE_RUNS", str(tmp_path / "runs"))
    config = replace(CONFIG, data="pictures", steps=1)
    run = train(config, photographs=photographs)
    assert run.folder == tmp_path / "runs" / config.run_name()
    assert Image.open(run.folder / "loss.png").width > 400
    printed = capsys.readouterr().out
    assert "warning" not in printed and "loss=" in printed
    dark = TrainingSet(photographs.images[:3], photographs.names[:3])
    train(config, tmp_path / "dark", photographs=dark)
    assert "warning: no over-exposed photographs among 3" in capsys.readouterr().out
    quick(config, tmp_path / "quiet", dark)
    assert not any(capsys.readouterr())


# ---- other beginnings ---------------------------------------------------------------------------


def test_training_goes_on_from_given_weights(photographs, whole, tmp_path):
    config = replace(CONFIG, steps=1, learning_rate=1e-12)
    run = quick(config, tmp_path / "a", photographs, weights=whole.weights)
    for name, values in run.net.state_dict().items():
        torch.testing.assert_close(values, whole.net.state_dict()[name], rtol=0, atol=1e-9)
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
    config = replace(CONFIG, steps=2, precision="auto")
    monkeypatch.setattr(training, "native_bfloat16", lambda device: native)
    run = quick(config, tmp_path, photographs)
    precision = checkpoints.read(run.weights).header["precision"]
    assert precision == ("bfloat16" if native else "float32")
    assert json.loads((tmp_path / "run.json").read_text())["precision"] == precision
    assert finished(config, tmp_path)  # equal configurations stay equal
    monkeypatch.setattr(training, "native_bfloat16", lambda device: not native)
    further = quick(replace(config, steps=4), tmp_path, photographs, resume=True)
    assert checkpoints.read(further.weights).header["precision"] == precision


# ---- order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "batch"), [(7, 2), (8, 4), (3, 8), (1, 1), (2002, 8)])
def test_every_photograph_is_seen_once_an_epoch(count, batch):
    per_epoch = -(-count // batch)
    every = list(islice(batches(count, batch, seed=3), 3 * per_epoch))
    epochs = [every[k : k + per_epoch] for k in range(0, len(every), per_epoch)]
    for epoch in epochs:
        assert sorted(np.concatenate(epoch)) == list(range(count))
        assert [len(numbers) for numbers in epoch[:-1]] == [batch] * (per_epoch - 1)
    assert count <= 3 or not np.array_equal(*map(np.concatenate, epochs[:2]))


# ---- the arithmetic ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zero-dce-improved", "stride2-transposed", "paper-losses"])
def test_the_step_equals_the_plain_loop_to_the_bit(photographs, name):
    config = replace(EXPERIMENTS[name], size=SIZE, steps=9, batch=BATCH)
    torch.manual_seed(config.seed)
    net = CurveNet(config.net)
    adam = torch.optim.Adam(net.parameters(), lr=1e-4, weight_decay=1e-4)
    rows = []
    for numbers in islice(batches(PHOTOGRAPHS, BATCH, config.seed), 9):
        image = tensor(photographs.images[numbers])
        enhanced, curves = net(image)
        adam.zero_grad()
        terms = list(loss_terms(enhanced, image, curves, config.loss).values())
        sum(terms).backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip)
        adam.step()
        rows.append([value.item() for value in (*terms, sum(terms), norm)])
    state = State(config, CPU, "float32", photographs)
    for _ in range(9):
        state.advance()
    for key, values in net.state_dict().items():
        assert torch.equal(values, state.net.state_dict()[key]), key
    assert state.record == rows


@pytest.mark.long  # a compiler is called
def test_the_compiled_loss_is_the_loss(photographs):
    config = replace(EXPERIMENTS["zero-dce-improved"], size=SIZE, batch=BATCH)
    state = State(config, CPU, "float32", photographs)
    image = tensor(photographs.images[:2])
    torch.testing.assert_close(torch.compile(state.values)(image), state.values(image))


# ---- faults --------------------------------------------------------------------------------------


def test_broken_photograph_stops_the_training_at_once(photographs, tmp_path):
    step, numbers = next((k, b) for k, b in enumerate(batches(PHOTOGRAPHS, BATCH, 0)) if 3 in b)
    assert step > 0, "choose another photograph: a checkpoint before the fault is wanted"
    said = f"step {step}: spatial is nan, photographs "
    said += ", ".join(photographs.names[k] for k in numbers)
    with pytest.raises(TrainingError) as caught:
        quick(CONFIG, tmp_path, broken(photographs, 3), saving=OFTEN)
    assert str(caught.value) == said
    assert steps_done(tmp_path) == step and not (tmp_path / "model.safetensors").exists()


def test_fault_in_the_network_keeps_the_last_good_checkpoint(
    photographs, whole, tmp_path, monkeypatch
):
    advance = State.advance

    def failing(state):
        if state.step == 6:
            state.net.e_conv3.weight.register_hook(lambda gradient: gradient * torch.nan)
        advance(state)

    with monkeypatch.context() as patch:
        patch.setattr(State, "advance", failing)
        with pytest.raises(TrainingError, match=r"^step 6: gradient norm is nan, photographs \d"):
            quick(CONFIG, tmp_path, photographs, saving=OFTEN)
    assert steps_done(tmp_path) == 6
    assert_same(whole, quick(CONFIG, tmp_path, photographs, resume=True))


OTHER = {"net": NetConfig(width=4), "loss": IMPROVED, "data": "elsewhere", "batch": 3, "seed": 1}


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
    content = {"truncated": good[: len(good) // 2], "model": whole.weights.read_bytes()}
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(content.get(damage, b"no checkpoint"))
    before = checkpoint.read_bytes()
    with pytest.raises(TrainingError, match=f"{checkpoint}: damaged, or no checkpoint"):
        quick(CONFIG, tmp_path, photographs, resume=True)
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 15}, "size=15: must be"),
        ({"batch": 0}, "batch=0: must be"),
        ({"steps": 0}, "steps=0: must be"),
        ({"precision": "half"}, "precision='half'"),
    ],
)
def test_wrong_configurations_are_named(photographs, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        quick(replace(CONFIG, **change), tmp_path, photographs)

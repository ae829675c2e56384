"""The first notebook's predictions agree with running code, and its verdicts follow from its tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from zdce import checkpoints, datasets
from zdce.checkpoints import Model
from zdce.losses import loss_terms
from zdce.model import CurveNet, NetConfig, count_parameters, multiply_adds
from zdce.study import evaluation, experiments, reproduction


@pytest.mark.parametrize("width", [8, 16, 32])
def test_layers_by_hand_are_those_of_the_network(width):
    plan, net = reproduction.layers(NetConfig(width=width)), CurveNet(width=width)
    assert plan.weights.sum() + plan.biases.sum() == count_parameters(net)
    assert plan.weights.sum() * 256**2 == multiply_adds(net, 256, 256)


@pytest.mark.parametrize(("pools", "side"), [(0, 15), (1, 17), (3, 21)])
def test_receptive_field_is_measured(pools, side):
    torch.manual_seed(0)
    net = CurveNet(width=16, pooling="overlapping" if pools else "none", pools=max(1, pools))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert reproduction.receptive_field(net) == side
    assert all((before[name] == tensor).all() for name, tensor in net.state_dict().items())


def test_curve_keeps_its_promises_up_to_one():
    facts = reproduction.curve_facts((-1, 0.5, 1, 1.5)).set_index("alpha")
    assert facts.loc[
        [-1, 0.5, 1], ["black stays 0", "white stays 1", "monotonic", "stays in 0 – 1"]
    ].all(axis=None)
    assert not facts.loc[1.5, "monotonic"] and not facts.loc[1.5, "stays in 0 – 1"]
    assert facts.loc[1, "slope measured"] == 256
    assert facts.loc[[0.5, 1, 1.5], "ratio"].to_numpy() == pytest.approx(1)


def test_released_color_gradient_fails_at_grey_alone():
    table = reproduction.color_gradients().set_index("image")
    assert list(table.index[table["released gradient"] == "not a number"]) == ["black", "grey"]
    assert (table.loc[["black", "grey"], "ours gradient"] == "0").all()
    assert (table["released value"] == table["ours value"]).all()
    assert (
        (table["released gradient"] == table["ours gradient"]).loc[["nearly grey", "reddish"]].all()
    )


def test_shares_of_either_form_sum_to_one():
    photograph = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    table = reproduction.loss_forms(Model("", CurveNet(width=4), 1.0, None, {}), photograph)
    assert table.groupby("form").share.sum().to_numpy() == pytest.approx(1)


def test_published_files_have_the_stated_sizes():
    sizes = reproduction.file_sizes()
    assert sizes[sizes.weights == "published"].measured.tolist() == [320_017, 99_295]


def test_epochs_of_records(monkeypatch):
    loss = np.r_[np.full(501, 1.0), np.full(501 * 18, 0.8), np.full(501, 0.7), np.full(10, 0.5)]
    record = pd.DataFrame({"step": range(len(loss)), "loss": loss})
    records = pd.concat([record.assign(seed=0), record.assign(seed=1, loss=record.loss + 0.02)])
    monkeypatch.setattr(experiments, "shipped_records", lambda name: records)
    table = reproduction.epochs("zero-dce-improved")
    assert table.epoch.tolist() == [1, 20, 21] and table.steps.tolist() == [501, 501, 10]
    assert table.seeds.tolist() == [2, 2, 2]
    assert table["mean"].to_numpy() == pytest.approx([1.01, 0.71, 0.51])
    assert table.seed_lowest.to_numpy() == pytest.approx([1.0, 0.7, 0.5])
    assert table.batch_highest.to_numpy() == pytest.approx([1.02, 0.72, 0.52])
    assert table.difference.to_numpy() == pytest.approx([-0.05, -0.01, np.nan], nan_ok=True)


def test_losses_reached_are_those_of_the_training():
    methods = evaluation.methods(evaluation.OURS[:2])[1:]
    table = reproduction.training_losses(methods, "bundled", 32, limit=7).set_index("weights")
    assert table.n.tolist() == [7, 7]
    images = datasets.training_set("bundled", 32, progress=False).images[np.arange(0, 40, 5)[:7]]
    image = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    for name in ("zero-dce", "zero-dce-improved"):
        with torch.inference_mode():
            enhanced, curves = checkpoints.load(name).net(image)
            terms = loss_terms(enhanced, image, curves, experiments.ARMS[name].loss)
        for term, value in terms.items():
            assert table.loc[name, term] == pytest.approx(value.item(), rel=1e-4)
        assert table.loc[name, "loss"] == pytest.approx(sum(terms.values()).item(), rel=1e-4)


def tables(
    largest=(1, 2),
    off=(0.0, 0.0, 0.0, 0.0),
    psnr=0.1,
    n=5,
    sizes=(320_017, 99_295),
    share=1.0,
    reached=0.9,
):
    curve = pd.DataFrame(
        {"published": 0.7, "difference": off, "seed_lowest": 0.6, "seed_highest": 0.8, "seeds": 3}
    )
    labels = [m.label for m in (evaluation.OURS[1], evaluation.PUBLISHED[1])]
    losses = pd.DataFrame({"weights": labels, "loss": [reached, 0.91], "n": 8})
    differences = pd.DataFrame(
        {"figure": ["PSNR", "SSIM"], "ours_minus_published": [psnr, -0.01], "n": n}
    )
    differences = differences.assign(low=-0.1, high=0.1)
    files = pd.DataFrame({"weights": "published", "KB": [size / 1024 for size in sizes]})
    steps = pd.DataFrame(
        {"network": ["a", "b"], "share": [1.0, share], "budget": "5 steps × 4 at 64 px, seed 0"}
    )
    return pd.DataFrame({"largest": largest}), curve, losses, differences, files, steps


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({}, ["yes", "yes", "yes", "yes", "yes", "yes"]),
        ({"largest": (0, 3)}, ["no", "yes", "yes", "yes", "yes", "yes"]),
        ({"off": (0.0, -0.06, 0.0, 0.0)}, ["yes", "no", "yes", "yes", "yes", "yes"]),
        ({"off": (0.0, 0.01)}, ["yes", "not testable here", "yes", "yes", "yes", "yes"]),
        ({"psnr": -0.6}, ["yes", "yes", "yes", "no", "yes", "yes"]),
        ({"psnr": -0.6, "n": 4}, ["yes", "yes", "yes", "not testable here", "yes", "yes"]),
        ({"psnr": -0.6, "share": 0.5}, ["yes", "yes", "yes", "not testable here", "yes", "yes"]),
        ({"psnr": 0.4, "share": 0.5}, ["yes", "yes", "yes", "yes", "yes", "yes"]),
        ({"sizes": (330_000, 99_295)}, ["yes", "yes", "yes", "yes", "no", "yes"]),
        (
            {"largest": (), "off": ()},
            ["not testable here", "not testable here", "yes", "yes", "yes", "yes"],
        ),
        ({"reached": 0.97}, ["yes", "yes", "no", "yes", "yes", "yes"]),
    ],
)
def test_claims_follow_from_tables(changes, held):
    assert reproduction.claims(*tables(**changes)).held.tolist() == held

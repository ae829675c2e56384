"""Figures: what they are made of, how they reach a page, and their alt text."""

import base64
import io
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from zdce.study import plots


def photograph(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def chart(values: np.ndarray):
    figure, axes = plots.figure()
    axes.plot(values)
    return figure


@pytest.mark.parametrize(
    ("kind", "fig"),
    [
        ("jpeg", plots.panel([photograph(), photograph(seed=1)], ["a", "b"])),
        ("png", chart(np.arange(100.0))),
    ],
)
def test_a_figure_reaches_the_notebook_with_alt_text_and_name(kind, fig):
    picture = plots.show(fig, alt="Two photographs\n or a line", name="01_loss")
    assert Image.open(io.BytesIO(picture.data)).format == kind.upper()
    data, about = picture._repr_mimebundle_()
    expected = {"alt": "Two photographs or a line", "name": "01_loss"}
    assert about[f"image/{kind}"] == expected | {"width": round(100 * fig.get_figwidth())}
    assert base64.b64decode(data[f"image/{kind}"]) == picture.data
    assert data["text/plain"] == "[figure] Two photographs or a line"


def test_same_figure_gives_the_same_bytes_and_needs_an_alt_text():
    first, second = (plots.show(chart(np.arange(50.0) ** 2), alt="x").data for _ in range(2))
    assert first == second
    with pytest.raises(ValueError, match="alt"):
        plots.show(plots.figure()[0], alt="  ")


def test_panel_lays_rows_out_and_enlarges_where_the_first_row_is_framed():
    row = [photograph(), photograph(seed=1)[..., 0]]  # the second a map, shown in grey
    fig = plots.panel([row, row], ["before", "after"], ["first", "second"], (10, 15, 20))
    assert [axes.get_title() for axes in fig.axes[:2]] == ["before", "after"]
    assert [axes.get_ylabel() for axes in fig.axes[::2]] == ["first", "second", "crop"]
    np.testing.assert_array_equal(fig.axes[0].images[0].get_array(), row[0])
    np.testing.assert_array_equal(fig.axes[5].images[0].get_array(), row[1][15:35, 10:30])
    assert [len(axes.patches) for axes in fig.axes] == [2, 2, 0, 0, 0, 0]  # white on black
    image = fig.axes[1].images[0]
    assert image.get_cmap().name == "gray" and image.get_clim() == (0, 255)


def test_lines_differ_in_lightness_or_dash():
    """Printed in grey, two neighbours in the cycle are still told apart."""
    cycle = list(plots.STYLE["axes.prop_cycle"])
    lightness = [float(np.dot(to_rgb(entry["color"]), (0.299, 0.587, 0.114))) for entry in cycle]
    for (one, light), (other, dark) in combinations(zip(cycle, lightness, strict=True), 2):
        assert abs(light - dark) >= 0.1 or one["linestyle"] != other["linestyle"]

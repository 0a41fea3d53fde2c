from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from genkit.artifacts.caption import captioned
from genkit.errors import Code, DataError
from genkit.parts import grid as module
from genkit.parts.grid import grid, titled_grids
from raising import raises_code


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn."""
    drawn = []
    render = module.png_of

    def keep(figure):
        drawn.append(figure)
        return render(figure)

    monkeypatch.setattr(module, "png_of", keep)
    return drawn


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def bluish(path):
    shown = pixels(path).astype(int)
    return (shown[..., 2] - shown[..., 0] > 60) & (shown[..., 2] > 120)


def test_tiny_images_are_enlarged_by_whole_pixels(tmp_path):
    images = torch.stack([torch.full((1, 8, 8), v) for v in (-1.0, 0.0, 1.0, 0.5)])
    images[0, 0, 0, 0] = 1.0
    (tmp_path / "grid.png").write_bytes(grid(images))
    shown = pixels(tmp_path / "grid.png")
    scale = 38  # the least factor at which 2 columns of 8 pixels are at least 600 wide
    assert shown.shape == (2 * 8 * scale + 2, 2 * 8 * scale + 2, 3)
    assert (shown[:scale, :scale] == 255).all()
    assert (shown[:scale, scale : 2 * scale] == 0).all()
    below = 8 * scale + 2
    assert shown[20, below + 20].tolist() == [128, 128, 128]  # 0 lies in the middle of the range
    assert shown[below + 20, 20].tolist() == [255, 255, 255]
    assert shown[below + 20, below + 20].tolist() == [191, 191, 191]


def test_images_lie_in_rows_from_left_to_right(tmp_path):
    values = torch.linspace(-1, 1, 5)
    (tmp_path / "grid.png").write_bytes(grid(values[:, None, None, None].expand(-1, 1, 200, 200)))
    shown = pixels(tmp_path / "grid.png")
    assert shown.shape == (2 * 200 + 2, 3 * 200 + 2 * 2, 3)
    grey = [int(shown[y, x, 0]) for y in (50, 252) for x in (50, 252, 454)]
    assert grey == [0, 64, 128, 191, 255, 255]  # the sixth place is empty, so white


def test_at_most_a_hundred_images_are_shown(tmp_path):
    (tmp_path / "grid.png").write_bytes(grid(torch.zeros(150, 1, 60, 60)))
    assert pixels(tmp_path / "grid.png").shape == (10 * 60 + 9 * 2, 10 * 60 + 9 * 2, 3)


def test_three_channels_are_a_colour_and_others_show_the_first(tmp_path):
    red = torch.full((1, 3, 4, 4), -1.0)
    red[:, 0] = 1
    (tmp_path / "red.png").write_bytes(grid(red))
    assert pixels(tmp_path / "red.png")[0, 0].tolist() == [255, 0, 0]
    (tmp_path / "first.png").write_bytes(grid(red[:, :2]))
    assert pixels(tmp_path / "first.png")[0, 0].tolist() == [255, 255, 255]


def test_values_outside_the_range_are_clipped(tmp_path):
    (tmp_path / "grid.png").write_bytes(grid(torch.tensor([3.0, -3.0])[:, None, None, None]))
    shown = pixels(tmp_path / "grid.png")
    assert shown[0, 0, 0] == 255
    assert shown[0, -1, 0] == 0


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_vectors_are_a_plot(tmp_path, dimensions):
    points = torch.randn(50, dimensions, generator=torch.Generator().manual_seed(0))
    (tmp_path / "points.png").write_bytes(grid(points))
    assert bluish(tmp_path / "points.png").sum() > 100


def test_points_keep_their_proportions(tmp_path):
    # Four corners of a square must be as far apart across as they are down.
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    (tmp_path / "points.png").write_bytes(grid(corners))
    ys, xs = np.nonzero(bluish(tmp_path / "points.png"))
    assert np.ptp(xs) == pytest.approx(np.ptp(ys), abs=2)


def test_a_value_that_is_not_finite_is_named(tmp_path):
    images = torch.zeros(3, 1, 2, 2)
    images[1, 0, 1, 1] = float("nan")
    with raises_code(DataError, Code.NOT_FINITE, "sample 1", "nan"):
        (tmp_path / "grid.png").write_bytes(grid(images))
    assert not list(tmp_path.iterdir())


def test_equal_pictures_are_equal_bytes(tmp_path):
    points = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(grid(points))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


# --- several sets beside each other ---------------------------------------------------------


def test_sets_of_images_are_beside_each_other_with_their_titles(tmp_path):
    black, white = (torch.full((4, 1, 300, 300), value) for value in (-1.0, 1.0))
    (tmp_path / "both.png").write_bytes(titled_grids({"real": black, "samples": white}))
    both = np.array(Image.open(tmp_path / "both.png").convert("L"))
    (tmp_path / "one.png").write_bytes(grid(black))
    one = np.array(Image.open(tmp_path / "one.png").convert("L"))
    above = both.shape[0] - one.shape[0]
    np.testing.assert_array_equal(both[above:, : one.shape[1]], one)
    assert (both[above:, one.shape[1] :] == 255).all()
    titles = both[:above]
    assert (titles[:, :100] < 128).any()
    assert (titles[:, one.shape[1] :] < 128).any()


def test_sets_of_points_share_a_plot(tmp_path, figures):
    parts = {"real": torch.zeros(3, 2), "samples": torch.ones(2, 2)}
    titled_grids(parts)
    (axes,) = figures[-1].axes
    assert [len(points.get_offsets()) for points in axes.collections] == [3, 2]
    (legend,) = figures[-1].legends
    assert [text.get_text() for text in legend.get_texts()] == list(parts)


def test_a_sample_that_is_not_finite_is_refused_beside_others():
    with raises_code(DataError, Code.NOT_FINITE, "sample 1"):
        titled_grids(
            {"real": torch.zeros(2, 2), "samples": torch.tensor([[0.0, 0], [math.nan, 0]])}
        )


# --- captions -------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 2_000])
def test_a_caption_is_below_the_picture(width):
    picture = Image.new("RGB", (width, 50), "red")
    content = io.BytesIO()
    picture.save(content, format="png")
    drawn = np.array(Image.open(io.BytesIO(captioned(content.getvalue(), "run edm, seed 0"))))
    assert (drawn[:50, :width] == (255, 0, 0)).all()
    below = drawn[50:]
    assert (below < 128).all(axis=2).any()
    assert (below[:, -3:] == 255).all()  # the text is not cut off
    assert drawn.shape[1] >= width


def test_what_is_no_picture_has_no_caption():
    assert captioned(b"png", "run edm") == b"png"

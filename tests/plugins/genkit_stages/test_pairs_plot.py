from __future__ import annotations

import math
import random

import matplotlib.image
import pytest

from genkit_stages import pairs_plot as pairs
from genkit_stages.pairs_plot import pairs_plot

DIMENSIONS = 64


@pytest.fixture
def panels(monkeypatch, tmp_path):
    """Draw rows; return the axes by title, each title up to its colon."""
    figures = []
    render = pairs.png_of

    def keep(figure):
        figures.append(figure)
        return render(figure)

    monkeypatch.setattr(pairs, "png_of", keep)

    def draw(rows, dimensions=DIMENSIONS):
        (tmp_path / "pairs.png").write_bytes(pairs_plot(rows, dimensions))
        # Text of 10 points has at least 12 pixels on a page of 1,000 pixels.
        assert matplotlib.image.imread(tmp_path / "pairs.png").shape[1] <= 1_600
        return {axes.get_title("left").split(":")[0]: axes for axes in figures[-1].axes}

    return draw


def pools(count, gap=None, parts=None, size=512):
    """Rows of pools whose noise is Gaussian, as the train stage logs them."""
    generator = random.Random(0)  # noqa: S311, no secret depends on it
    error = 1 / math.sqrt(size * DIMENSIONS)
    return [
        {
            "pool": k,
            "images": k * size,
            "pairs": size,
            "cost_before": 10.0,
            "cost_after": 9.0,
            "reduction": 0.1,
            "seconds_solving": 0.25,
            "seconds_waited": 0.5 if k == 0 else 0.0,
            "gap": gap,
            "parts": parts,
            "noises": size,
            "noise_mean": generator.gauss(0, error),
            "noise_variance": 1 + generator.gauss(0, error * math.sqrt(2)),
            "noise_worst": max(abs(generator.gauss(0, 1)) for _ in range(DIMENSIONS)),
        }
        for k in range(count)
    ]


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


DISTANCE, NOISE = "Distance", "Moments of the assigned noise"
GAP, PARTS = "Total cost", "Groups that are coupled separately"


def test_pools_show_distances_and_noise(panels):
    found = panels(pools(4))
    assert list(found) == [DISTANCE, NOISE]
    drawn = lines(found[DISTANCE])
    assert list(drawn["assigned noise"].get_xdata()) == [0, 512, 1024, 1536]
    assert list(drawn["assigned noise"].get_ydata()) == [9.0] * 4
    assert list(drawn["random pairs"].get_ydata()) == [10.0] * 4
    assert found[DISTANCE].figure.get_suptitle().startswith("Pairs are 10.0% closer than random")
    assert all(axes.get_xlim() == (0, 2048) for axes in found.values())


def test_the_verdict_is_in_words(panels):
    def verdict(rows):
        return panels(rows)[NOISE].figure.get_suptitle()

    rows = pools(9)
    assert verdict(rows).endswith("No significant deviation of the noise from N(0, I).")
    assert verdict(rows[:7]).endswith("Too few pools for a test of the noise.")
    skewed = [{**row, "noise_mean": 0.5} for row in rows]
    assert verdict(skewed).endswith("The assigned noise is not N(0, I).")
    assert verdict([]) == "No pairs yet"


def test_noise_is_drawn_in_its_standard_errors(panels):
    rows = pools(1)
    # A mean of 512 * 64 = 2**15 values has a standard error of 2**-7.5, their variance of 2**-7.
    rows[0] |= {"noise_mean": 3 * 2**-7.5, "noise_variance": 1 - 5 * 2**-7, "noise_worst": 2.5}
    drawn = lines(panels(rows)[NOISE])
    assert drawn["mean"].get_ydata() == pytest.approx([3])
    assert drawn["variance"].get_ydata() == pytest.approx([-5])
    assert drawn["worst dimension"].get_ydata() == pytest.approx([2.5])


def test_gaussian_noise_lies_in_the_bands(panels):
    axes = panels(pools(199))[NOISE]
    bands = [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in axes.patches]
    inside, worst = bands
    assert inside == pytest.approx((-2.5758, 2.5758), abs=1e-4)
    for name, (low, high) in {"mean": inside, "variance": inside, "worst dimension": worst}.items():
        values = lines(axes)[name].get_ydata()
        assert sum(low <= value <= high for value in values) >= 0.96 * len(values)


def test_gap_and_parts_are_drawn_where_a_coupler_tells_them(panels):
    found = panels(pools(3, gap=0.002, parts=[1, 5, 9]))
    assert list(found) == [DISTANCE, NOISE, GAP, PARTS]
    assert found[GAP].get_title("left").endswith("at most 0.2 % above min")
    assert list(lines(found[GAP])["gap"].get_ydata()) == [0.002] * 3
    sizes = {name: line.get_ydata()[0] for name, line in lines(found[PARTS]).items()}
    assert sizes == {"smallest": 1, "median": 5, "largest": 9}
    assert list(panels(pools(3, parts=[1, 5, 9]))) == [DISTANCE, NOISE, PARTS]


def test_pairs_that_are_proven_best_are_called_so(panels):
    found = panels(pools(2, gap=0.0))
    assert GAP not in found
    assert found[DISTANCE].get_title("left").endswith("optimal for its cost")
    partly = panels(pools(2, gap=0.0) + pools(1))
    assert "optimal" not in partly[DISTANCE].get_title("left")


def test_many_pools_share_points_and_show_their_range(panels):
    rows = pools(1000)
    rows[7]["cost_before"] = 20.0
    axes = panels(rows)[DISTANCE]
    unpaired = lines(axes)["random pairs"]
    assert len(unpaired.get_xdata()) == 200
    assert unpaired.get_xdata()[1] == 7 * 512  # of the pools 5 to 9
    assert unpaired.get_ydata()[1] == pytest.approx((4 * 10 + 20) / 5)
    top = max(path.vertices[:, 1].max() for path in axes.collections[0].get_paths())
    assert top == 20.0


def test_other_rows_of_the_log_are_left_out(panels):
    rows = [{"images": 256, "loss": 1.0}, *pools(2), {"images": 512, "loss": 0.5}]
    assert len(lines(panels(rows)[DISTANCE])["assigned noise"].get_xdata()) == 2


@pytest.mark.parametrize("count", [0, 1])
def test_few_pools_are_drawn(panels, count):
    assert list(panels(pools(count))) == [DISTANCE, NOISE]


def test_the_picture_does_not_depend_on_the_clock():
    rows = pools(3)
    slow = [{**row, "seconds_solving": 7.0, "seconds_waited": 3.0} for row in rows]
    assert pairs_plot(slow, DIMENSIONS) == pairs_plot(rows, DIMENSIONS)

"""Rows of the loss by noise level, its lower bound, and the picture of both."""

import json
import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from genkit.api import run_recipe
from genkit.independent import Random
from genkit.interfaces import NoiseDistribution
from genkit.random import generator
from genkit.train.by_quantile import BINS
from genkit.types import Batch
from genkit_aot.hungarian import Hungarian
from genkit_data.flip import Flip
from genkit_edm.denoising import Denoising
from genkit_edm.edm import EdmPreconditioner, LogNormal
from genkit_edm.edm2.uncertainty import UncertaintyDenoising
from genkit_edm.mlp import Mlp
from genkit_metrics.classification import Classification
from genkit_stages import loss_by_sigma_plot as plot_module
from genkit_stages.loss_by_sigma import bound_by_sigma, by_sigma
from genkit_stages.loss_by_sigma_plot import loss_by_sigma_plot

RECIPE = """
name = "by-sigma"
data = {{ use = "moons", items = 300 }}

[[stage]]
id = "denoiser"
use = "train"
images = {images}
batch_size = 64
micro_batch = 24
network = {{ use = "mlp", width = 8, blocks = 1 }}
objective = {{ use = "denoising" }}
coupler = {{ use = "{coupler}" }}
"""

OBJECTIVE = Denoising(noise_distribution=LogNormal())


@dataclass(frozen=True, kw_only=True)
class TwoLevels(NoiseDistribution):
    """Half of the draws at 1, half at 4."""

    def quantile(self, u):
        return torch.where(u < 0.5, 1.0, 4.0).double()


def sums(losses, counts):
    return torch.stack([torch.tensor(losses), torch.tensor(counts)]).double()


# --- rows -----------------------------------------------------------------------------------


def test_losses_belong_to_the_median_levels_of_their_bins():
    found = by_sigma(OBJECTIVE, sums([float(k) for k in range(BINS)], [2.0] * BINS))
    middles = (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
    levels = LogNormal().quantile(middles).tolist()
    assert [float(level) for level in found] == pytest.approx(levels, rel=1e-3)
    assert list(found.values()) == [k / 2 for k in range(BINS)]


def test_an_empty_bin_is_left_out():
    found = by_sigma(OBJECTIVE, sums([1.0] * BINS, [0.0] * 3 + [1.0] * (BINS - 3)))
    assert len(found) == BINS - 3


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_is_left_out(value):
    found = by_sigma(OBJECTIVE, sums([value] * 3 + [1.0] * (BINS - 3), [1.0] * BINS))
    assert len(found) == BINS - 3


def test_bins_of_one_level_are_joined_by_their_numbers_of_items():
    objective = Denoising(noise_distribution=TwoLevels())
    counts = [1.0, 3.0] * (BINS // 2)
    found = by_sigma(objective, sums([2.0, 0.0] * (BINS // 2), counts))
    assert found == {"1": 0.5, "4": 0.5}


def test_an_objective_without_noise_levels_has_no_such_losses():
    assert by_sigma(Classification(), sums([1.0] * BINS, [1.0] * BINS)) == {}


# --- the bound ------------------------------------------------------------------------------


def bound(objective=OBJECTIVE, total=2_000, items=50, conditional=False, **parts):
    data = torch.randn((items, 2), generator=generator(0))
    batch = Batch(data, labels=torch.arange(items))
    stream = {"coupler": Random(), "augmentation": None, "total": total, "data": batch, **parts}
    network = Mlp(preconditioner=EdmPreconditioner(), class_conditional=conditional)
    return bound_by_sigma(network, objective, SimpleNamespace(**stream), generator(1))


def test_the_bound_has_the_levels_of_the_losses():
    losses = by_sigma(OBJECTIVE, sums([1.0] * BINS, [1.0] * BINS))
    assert bound().keys() == losses.keys()
    assert max(bound().values()) > 0.1


def test_a_network_that_is_given_the_class_can_have_a_lower_loss():
    assert max(bound(conditional=True).values()) < 1e-9  # each item is a class of its own


def test_bytes_are_decoded():
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 1, 4, 4)
    decoded = images.float() / 127.5 - 1
    assert bound(data=Batch(images)) == bound(data=Batch(decoded))


@pytest.mark.parametrize(
    "parts",
    [
        {"coupler": Hungarian()},
        {"coupler": type("Picky", (Random,), {"bijective": False})()},
        {"augmentation": Flip()},
        {"objective": UncertaintyDenoising(noise_distribution=LogNormal())},
        {"objective": type("Told", (Denoising,), {"conditions": frozenset({"realness"})})(
            noise_distribution=LogNormal()
        )},
        {"objective": Classification()},
        {"total": 200},
        {"data": Batch(torch.zeros(1).expand(200_000, 500))},
    ],
)  # fmt: skip
def test_no_bound_is_stated_where_none_is_known(parts):
    assert bound(**parts) == {}


# --- runs -----------------------------------------------------------------------------------


def rows_of(folder):
    text = (folder / "01-denoiser" / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("coupler", ["random", "hungarian"])
def test_a_run_has_the_rows_and_the_picture(tmp_path, coupler):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(images=6_000, coupler=coupler), encoding="utf-8")
    run_recipe(recipe, out=tmp_path / "run", device="cpu")

    rows = rows_of(tmp_path / "run")
    losses = [row for row in rows if "loss_by_sigma" in row]
    assert len(losses) == 16
    assert losses[0]["images"] == 384  # the first batch that reaches 375
    assert losses[-1]["images"] == 6_000
    # Bins hold equally many items but for chance, so that their mean is about the mean loss.
    logged = [row["loss"] for row in rows if row.get("images", 0) > 5_000 and "loss" in row]
    late = [loss for row in losses[-3:] for loss in row["loss_by_sigma"].values()]
    assert sum(late) / len(late) == pytest.approx(sum(logged) / len(logged), rel=0.15)
    bounds = [row for row in rows if "loss_bound_by_sigma" in row]
    assert [row["images"] for row in bounds] == ([0] if coupler == "random" else [])
    assert (tmp_path / "run" / "01-denoiser" / "loss-by-sigma.png").stat().st_size > 0


# --- the picture ----------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    render = plot_module.png_of

    def keep(figure):
        figures.append(figure)
        return render(figure)

    monkeypatch.setattr(plot_module, "png_of", keep)
    return figures


def row(images, *losses):
    return {"images": images, "loss_by_sigma": dict(zip(("0.1", "1", "10"), losses, strict=False))}


def test_the_first_quarter_is_compared_with_the_last_and_the_bound(drawn):
    rows = [row(k * 1_000, 8.0 - k, 1.0, 4.0) for k in range(1, 8)]
    rows.append(row(8_000, 2.0, 3.0))  # a bin of the last row is empty
    loss_by_sigma_plot(rows, {"0.1": 0.0, "1": 0.1, "10": 1.0})
    (axes,) = drawn[0].axes
    early, late, bound = axes.get_lines()
    assert early.get_xdata().tolist() == [0.1, 1, 10]
    assert early.get_ydata().tolist() == [6.5, 1, 4]  # two of eight rows
    assert late.get_ydata().tolist() == [1.5, 2, 4]
    assert bound.get_ydata().tolist() == [0, 0.1, 1]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylim()[0] == 0.5  # whatever the bound
    texts = [text.get_text() for text in axes.texts]
    assert sorted(texts) == ["images 0 to 2 k", "images 6 k to 8 k", "lower bound"]


def test_a_single_row_is_one_line(drawn):
    loss_by_sigma_plot([row(64, -1.0, 0.5, 2.0)], {})
    (axes,) = drawn[0].axes
    assert [line.get_label() for line in axes.get_lines()] == ["images 0 to 64"]
    assert axes.get_yscale() == "linear"

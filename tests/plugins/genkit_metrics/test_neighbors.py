from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
from scipy.spatial import cKDTree

from genkit.random import generator
from genkit_metrics import neighbors
from genkit_metrics.neighbors import manifold_scores, nearest

CPU = torch.device("cpu")
SCRIPT = runpy.run_path(str(Path(__file__).with_name("prdc_golden.py")))
GOLDEN = json.loads(SCRIPT["FILE"].read_text(encoding="utf-8"))


@pytest.fixture(params=[512, 64])
def _block(request, monkeypatch):
    """Blocks that hold all items, and blocks of which the last is not full."""
    monkeypatch.setattr(neighbors, "BLOCK", request.param)


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("golden", GOLDEN, ids=lambda g: f"{g['case']}-{g['neighbors']}")
def test_equals_the_packages_prdc_and_torch_fidelity(golden):
    real, fake = map(torch.from_numpy, SCRIPT["items"](golden["case"]))
    found = manifold_scores(real, fake, golden["neighbors"], CPU)
    assert found == pytest.approx(golden["prdc"], rel=1e-12)
    # torch-fidelity's balls are closed, and it averages in float32.
    for name, score in golden["torch-fidelity"].items():
        assert found[name] == pytest.approx(score, rel=1e-6)


def test_the_golden_scores_tell_the_cases_apart():
    assert len({tuple(golden["prdc"].values()) for golden in GOLDEN}) == len(GOLDEN) == 12


@pytest.mark.usefixtures("_block")
def test_nearest_neighbors_are_those_of_a_tree():
    draw = generator(0, "items")
    queries, items = (torch.randn(n, 5, generator=draw) for n in (150, 130))
    distances, indices = nearest(queries, items, 4, CPU)
    found, places = cKDTree(items.double().numpy()).query(queries.double().numpy(), 4)
    assert torch.equal(indices, torch.from_numpy(places))
    torch.testing.assert_close(distances, torch.from_numpy(found), rtol=1e-9, atol=0)


@pytest.mark.usefixtures("_block")
def test_an_item_is_not_its_own_neighbor():
    items = torch.randn(200, 3, generator=generator(0, "items"))
    some = torch.tensor([199, 0, 130])
    distances, indices = nearest(items[some], items, 1, CPU, own=some)
    found, places = cKDTree(items.double().numpy()).query(items[some].double().numpy(), 2)
    assert torch.equal(indices[:, 0], torch.from_numpy(places[:, 1]))
    torch.testing.assert_close(distances[:, 0], torch.from_numpy(found[:, 1]), rtol=1e-9, atol=0)

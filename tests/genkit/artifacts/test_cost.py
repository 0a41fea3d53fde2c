"""The file of costs: what is written is read, and it is no result of a stage."""

from __future__ import annotations

import pytest

from genkit.artifacts import Artifact, Record, SamplingCost, SamplingCosts
from genkit.artifacts.layout import require_file_name, results_in
from genkit.errors import Code, DataError, PluginError
from raising import raises_code

COST = SamplingCost(
    settings={"schedule.steps": 5},
    images=8,
    calls={"denoiser": 9, "discriminator": 4.5},
    nfe_equivalents=11.25,
    gflop_per_image=None,
    gflop_per_call=0.5,
    seconds_per_image=None,
    images_timed=0,
    device="cpu, x86",
    threads=1,
    processes=2,
    batch_size=None,
    notes=["nothing was timed"],
)


def test_costs_are_read_as_they_were_written(tmp_path):
    Record("samples", tmp_path, None).cost(COST, COST)
    assert list(SamplingCosts.load(tmp_path / "cost.json").rows) == [COST, COST]
    assert results_in(tmp_path) == {}


def test_another_rank_writes_none(tmp_path):
    Record("samples", tmp_path, None, is_main=False).cost(COST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": [{"images": 3}]}'])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "cost.json"
    path.write_text(content)
    with raises_code(DataError, Code.UNREADABLE, path):
        SamplingCosts.load(path)


def test_no_other_artifact_has_its_name(tmp_path):
    class Other(Artifact):
        name, suffix = "cost", ".json"

        def save(self, path):
            raise NotImplementedError

        @classmethod
        def load(cls, path):
            raise NotImplementedError

    with raises_code(PluginError, Code.INVALID_NAME, "Other", "cost.json"):
        require_file_name(Other)

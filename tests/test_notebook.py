"""The notebook of the tutorial runs, cell after cell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import genkit

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial" / "from-python.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


@pytest.mark.usefixtures("coarse_pictures")
def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "notebook"}
    for number, cell in enumerate(CODE, 1):
        code = compile("".join(cell["source"]), f"cell {number}", "exec", dont_inherit=True)
        exec(code, names)  # noqa: S102
    assert isinstance(names["result"], genkit.Result)
    assert torch.equal(names["states"][-1], names["samples"])
    assert "20,000 of 20,000 images" in capsys.readouterr().out


def test_the_notebook_is_stored_with_its_outputs():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    shown = [kind for cell in CODE for out in cell["outputs"] for kind in out.get("data", ())]
    assert "text/html" in shown  # the table and the picture of the result


def test_the_notebook_is_linked_from_the_index():
    index = NOTEBOOK.parents[1] / "index.md"
    assert "tutorial/from-python.ipynb" in index.read_text(encoding="utf-8")

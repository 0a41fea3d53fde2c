"""Declarations of components, read without the libraries that they compute with."""

import json
import subprocess
import sys

import pytest

HEAD = """
import json
from dataclasses import dataclass
from genkit.plugin.declarations import declared
from genkit.plugin.manager import load_plugins

registry = load_plugins().registry

def read():
    {body}

print(json.dumps(declared(read, registry)))
"""


def answer(body):
    """Return what a function of these lines answers in a process without torch."""
    code = HEAD.format(body=body.strip().replace("\n", "\n    "))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_every_component_of_genkit_can_be_described():
    found = answer("""
from genkit.report.components import description
return [description(registry, entry)["name"] for entry in registry.entries()]
""")
    assert {"coupler hungarian", "denoiser ddpmpp", "stage train", "schedule vp"} <= set(found)


def test_code_around_a_placeholder_runs():
    assert (
        answer("""
import typing, torch
from torch import Tensor, nn

Layer = typing.TypeVar("Layer", nn.Linear, nn.Conv2d)

class Net(nn.Module, torch.utils.data.Dataset[int]):
    @torch.no_grad()
    def forward(self, x: Tensor | None) -> Tensor: ...

return Net.__name__
""")
        == "Net"
    )


@pytest.mark.parametrize(
    "body",
    [
        "import torch; return 'old' if torch.__version__ < '2' else 'new'",
        "import torch; return 'GPU' if torch.cuda.is_available() else 'CPU'",
        "import torch; return float(torch.pi)",
        "import torch; return f'{torch.float32}'",
        "import torch; return len(torch.zeros(3))",
        "import torch; return [1 for _ in torch.zeros(3)]",
        "import torch; return 1 if torch.pi == 3 else 2",
        "import torch; return 2 * torch.pi",
        "import torch; return torch.pi",
        "import torch\ntry: return int(torch.pi)\nexcept Exception: return 3",
        "import nowhere; return 1",
        """
import torch
from genkit.interfaces import Coupler

@dataclass(frozen=True, kw_only=True)
class Mine(torch.Base, Coupler):
    size: int = 1

return Mine.__name__
""",
    ],
)
def test_what_needs_a_value_of_a_library_has_no_answer(body):
    assert answer(body) is None

"""Declarations of components, read without the libraries that they compute with."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict

import pytest

from genkit.commands.recipes import declared_mistakes
from genkit.errors import Code, RecipeError
from genkit.plugin.manager import OURS, load_plugins
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source
from genkit.report.components import description
from recipes import QUICK

pytestmark = pytest.mark.slow

HEAD = """
import json, os, signal, sys, threading
from dataclasses import dataclass
from genkit.plugin import declarations
from genkit.plugin.manager import OURS, load_plugins

plugins = load_plugins()

def read(registry):
    {body}

{before}
print(json.dumps(declarations.declared(read, plugins.registry)))
"""


def answer(body, before="", given=None):
    """Return what a function of these lines answers in a process without torch."""
    code = HEAD.format(body=body.strip().replace("\n", "\n    "), before=before)
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(done.stdout)


def of_json(value):
    return json.loads(json.dumps(value))


def test_genkits_own_components_have_the_same_settings_with_placeholders():
    found = answer("""
from genkit.report.components import description
own = [entry for entry in registry.entries() if entry.owner.distribution == OURS]
return [description(registry, entry) for entry in own]
""")
    registry = load_plugins().registry
    own = [entry for entry in registry.entries() if entry.owner.distribution == OURS]
    assert len(own) > 100
    assert found == of_json([description(registry, entry) for entry in own])


BROKEN = {
    "key": QUICK.replace("images =", "imagess ="),
    "component": QUICK.replace('"mlp"', '"mlq"'),
    "type": QUICK.replace("images = 100", 'images = "many"'),
    "range": QUICK.replace("images = 100", "images = 0"),
    "nested": QUICK + 'callbacks = [{ use = "preview", images = 1 }]\n',
    "missing": QUICK.replace("images = 100", ""),
    "reference": QUICK + '[[stage]]\nid = "x"\nuse = "sample"\ndenoiser = "denoise"\n',
    "several": QUICK.replace("images = 100", "images = 0\nseed = -1\nbatch = 3"),
}


@pytest.fixture(scope="module")
def forked_mistakes():
    return answer(
        """
from genkit.commands.recipes import declared_mistakes
from genkit.recipe.source import Source
own = type(plugins)(registry, plugins.loaded, plugins.failed)
sources = {name: Source.parse(text) for name, text in given.items()}
return {name: declared_mistakes(source, own, [], []) for name, source in sources.items()}
""",
        "given = json.load(sys.stdin)",
        BROKEN,
    )


@pytest.mark.parametrize("name", BROKEN)
def test_mistakes_are_the_same_with_placeholders(name, forked_mistakes):
    text = BROKEN[name]
    with pytest.raises(RecipeError) as caught:
        load_recipe(Source.parse(text), load_plugins())
    assert forked_mistakes[name] == of_json([asdict(m) for m in caught.value.mistakes])


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
        "import torch; return getattr(torch, '__version__', '0')",
        "import torch\ntry: return int(torch.pi)\nexcept: return 3",
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


def test_an_attribute_of_a_placeholder_is_one_object():
    assert answer("""
import torch
names = {torch.float32: "float32", torch.nn.Linear: "linear"}
return [torch.float32 is torch.float32, names[torch.float32], names[torch.nn.Linear]]
""") == [True, "float32", "linear"]


def test_what_code_prints_is_left_to_the_real_import():
    assert answer('print("noise", flush=True); os.system("echo noise"); return 1') == 1


@pytest.mark.parametrize(
    "before",
    [
        "sys.modules['torch'] = json",
        "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    ],
)
def test_only_a_process_without_torch_and_threads_is_forked(before):
    assert answer("return 1", before) is None


def test_a_process_that_cannot_be_forked_gives_no_answer():
    assert answer("return 1", "os.fork = lambda: os.open('/no/such/file', 0)") is None


def test_a_signal_of_ended_processes_may_be_ignored():
    assert answer("return 1", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)") == 1


def test_a_process_that_code_starts_is_not_awaited():
    started = answer("""
child = os.fork()
if child == 0:
    signal.pause()
return child
""")
    os.kill(started, signal.SIGKILL)


def test_a_process_that_hangs_is_ended():
    assert answer("signal.pause()", "declarations.MOST_SECONDS = 0.5") is None


@pytest.mark.parametrize("written", ["12", "[1\\n"])
def test_half_an_answer_is_none(written):
    assert answer(f'os.fdopen = lambda to, _: (os.write(to, b"{written}"), os._exit(0))') is None


GUARDED = """
from dataclasses import dataclass
from typing import Literal

from genkit.plugin import Coupler, setting

try:
    import toy_broken
    Mode = Literal["fast"]
except Exception:
    Mode = Literal["slow"]

@dataclass(frozen=True, kw_only=True)
class Guarded(Coupler):
    bijective = True
    mode: Mode = setting("slow", doc="speed of the pairing")

    def bind(self, inputs): ...
"""

HOOK = """
from genkit.plugin import hookimpl

@hookimpl
def genkit_register(registry):
    registry.add("coupler", "guarded", "toy_guarded_parts:Guarded")
"""


@pytest.fixture
def guarded(install, tmp_path, monkeypatch):
    """Install a plugin whose settings depend on whether a library can be imported."""
    install("guarded", HOOK)
    (tmp_path / "toy_guarded_parts.py").write_text(GUARDED)
    (tmp_path / "toy_broken.py").write_text("raise OSError('undefined symbol')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


@pytest.mark.usefixtures("guarded")
def test_a_component_of_another_distribution_is_read_with_its_libraries(tmp_path):
    text = QUICK + 'coupler = { use = "guarded", mode = "slow" }\n'
    (tmp_path / "guarded.toml").write_text(text)
    command = [sys.executable, "-m", "genkit", "validate", "guarded.toml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_mistakes_besides_a_component_that_cannot_be_loaded_are_left_to_the_real_check(install):
    install("absent", HOOK.replace("toy_guarded_parts", "toy_nowhere"))
    text = QUICK.replace("images =", "imagess =")
    both = text + 'coupler = "guarded"\n'
    plugins = load_plugins()

    def codes(text):
        found = declared_mistakes(Source.parse(text), plugins, [], [])
        return {mistake["problem"]["code"] for mistake in found}

    assert codes(text) == {Code.UNKNOWN_KEY, Code.MISSING_KEY}
    assert codes(both) == set()

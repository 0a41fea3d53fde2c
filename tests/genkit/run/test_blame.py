"""Errors of a third-party plugin name it; those of the machine and of genkit do not."""

from __future__ import annotations

import pytest

from genkit.errors import Code, PluginError, UsageError
from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import Owner, Registration
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source
from genkit.run.engine import execute
from genkit.run.progress import Progress
from raising import raises_code

pytestmark = pytest.mark.slow

ODD = """
from genkit.interfaces import Coupler
from genkit.tensors import pairwise_cost
from genkit.types import Pairs

class Odd(Coupler):
    bijective = True

    def pair(self, batch, noise, generator):
        {body}
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """Return the plugins with a third-party coupler `odd` whose body is given."""

    def make(body):
        name = f"odd_{tmp_path.name}"  # a module that no other test has imported
        (tmp_path / f"{name}.py").write_text(ODD.format(body=body))
        monkeypatch.syspath_prepend(tmp_path)
        plugins = load_plugins()
        registration = Registration(Owner("odd", "genkit-odd", "0.3"))
        registration.add("coupler", "odd", f"{name}:Odd")
        plugins.registry.accept(registration)
        return plugins

    return make


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return batch.images", ("AttributeError", "'images'")),
        ("return Pairs(1)", ("TypeError",)),
        ("return pairwise_cost(None, noise)", ()),  # inside of the core, called wrongly
        ("import torch; return torch.zeros(2) @ torch.zeros(3)", ("RuntimeError",)),
        ("open('/nowhere/at/all')", ("FileNotFoundError",)),
        ("raise SystemExit(0)", ("SystemExit",)),
    ],
)
def test_an_error_of_a_plugin_names_it(tiny, tmp_path, odd, body, said):
    plugins = odd(body)
    source = Source.parse(
        tiny.train.replace("objective", 'coupler = { use = "odd" }\nobjective', 1)
    )
    recipe = load_recipe(source, plugins)
    with raises_code(PluginError, Code.PLUGIN, *said) as caught:
        execute(recipe, plugins, tmp_path / "run", "cpu", Progress())
    text = str(caught.value)
    assert "plugin odd (genkit-odd 0.3)" in text
    assert f"odd_{tmp_path.name}.py, line 10" in text
    assert text.startswith("stage denoiser: ")
    assert caught.value.exit_code == 2
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('raise OSError(28, "No space left on device")', Code.IO_ERROR),
        ("raise MemoryError", Code.OUT_OF_MEMORY),
    ],
)
def test_errors_of_the_machine_are_not_the_plugins(tiny, tmp_path, odd, body, code):
    plugins = odd(body)
    source = Source.parse(
        tiny.train.replace("objective", 'coupler = { use = "odd" }\nobjective', 1)
    )
    with raises_code(UsageError, code) as caught:
        execute(load_recipe(source, plugins), plugins, tmp_path / "run", "cpu", Progress())
    assert "plugin odd" not in str(caught.value)


def test_a_package_of_several_plugins_names_all(tiny, tmp_path, odd):
    plugins = odd("return batch.images")
    registration = Registration(Owner("other", "genkit-other", "1"))
    registration.add("coupler", "other", f"odd_{tmp_path.name}:Odd")
    plugins.registry.accept(registration)
    text = tiny.train.replace("objective", 'coupler = { use = "odd" }\nobjective', 1)
    both = "plugin odd (genkit-odd 0.3)", "plugin other (genkit-other 1)"
    with raises_code(PluginError, Code.PLUGIN, *both, "AttributeError"):
        execute(
            load_recipe(Source.parse(text), plugins),
            plugins,
            tmp_path / "run",
            "cpu",
            Progress(),
        )


def test_an_error_of_genkits_own_plugins_is_left_as_it_is(tiny, monkeypatch):
    def pair(*arguments):
        raise KeyError("a mistake of ours")

    monkeypatch.setattr("genkit.independent.Random.pair", pair)
    with pytest.raises(KeyError, match="a mistake of ours"):
        tiny.run(tiny.train)

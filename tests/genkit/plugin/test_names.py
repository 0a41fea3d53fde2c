"""The one import for authors of plugins."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import genkit.plugin
from genkit import interfaces


def test_every_name_is_there():
    for name in dir(genkit.plugin):
        assert getattr(genkit.plugin, name) is not None
    assert not hasattr(genkit.plugin, "Nothing")


def test_a_type_checker_sees_every_name():
    tree = ast.parse(inspect.getsource(genkit.plugin))
    seen = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert set(genkit.plugin._NAMES) <= seen


def test_no_base_of_a_component_is_forgotten():
    public = {
        name
        for name, value in vars(interfaces).items()
        if isinstance(value, type) and value.__module__.startswith("genkit.interfaces.")
    }
    assert public <= set(dir(genkit.plugin))


def test_no_name_stands_for_two_things():
    names = [name for names in genkit.plugin._NAMES.values() for name in names.split()]
    assert len(names) == len(set(names))


def test_what_a_plugin_needs_to_register_imports_no_torch():
    code = (
        "import sys\n"
        "from genkit.plugin import DataError, Registration, UsageError, hookimpl\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "from genkit.plugin import Coupler\n"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

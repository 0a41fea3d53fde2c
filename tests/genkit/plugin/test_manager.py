from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from genkit.errors import Code, PluginError
from genkit.plugin.manager import Plugins, load_plugins
from raising import raises_code

HOOK = """
from genkit.plugin import hookimpl

@hookimpl
def genkit_register(registry):
    registry.add("coupler", "{name}", "{module}:Nothing")
"""

COMMAND = """
from genkit.plugin import hookimpl

@hookimpl
def genkit_commands(app):
    @app.command()
    def greet(): ...
"""

Install = Callable[..., None]


def hook(name: str, module: str = "toy_module") -> str:
    return HOOK.format(name=name, module=module)


def failure(plugins: Plugins, distribution: str) -> str:
    (status,) = [s for s in plugins.failed if s.owner.distribution == distribution]
    assert status.entries == ()
    return status.reason


def test_first_party_plugins_are_loaded_like_strangers() -> None:
    plugins = load_plugins()
    assert plugins.failed == ()
    assert {s.owner.distribution for s in plugins.loaded} >= {"genkit-diffusion"}
    entry = plugins.registry.find(["coupler"], "random")
    assert entry.owner.plugin == "genkit"
    assert plugins.registry.load(entry).__name__ == "Random"


def test_a_stranger_is_loaded_with_distribution_and_version(install: Install) -> None:
    install("toy-box", hook("toy"), plugin="toys")
    plugins = load_plugins()
    (status,) = [s for s in plugins.loaded if s.owner.distribution == "toy-box"]
    assert str(status.owner) == "plugin toys (toy-box 1.5)"
    assert [e.name for e in status.entries] == ["toy"]
    assert plugins.registry.find(["coupler"], "toy").owner == status.owner


def test_metadata_are_read_again_only_after_a_change(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    def installed() -> set[str]:
        return {status.owner.distribution for status in load_plugins().loaded}

    reads, distributions = [], metadata.distributions
    monkeypatch.setattr(metadata, "distributions", lambda: reads.append(1) or distributions())
    for name in ("toy-box", "toy-crate"):
        install(name, hook(name))
        assert name in installed()
        assert name in installed()  # the first import of the module changed the folder
        count = len(reads)
        assert name in installed()
        assert len(reads) == count


def test_an_object_can_be_a_plugin(install: Install) -> None:
    code = """
from genkit.plugin import hookimpl
class Plugin:
    @hookimpl
    def genkit_register(self, registry):
        registry.add("coupler", "toy", "a:B")
plugin = Plugin()
"""
    install("toy-box", code, value="toy_toy_box:plugin")
    assert load_plugins().registry.find(["coupler"], "toy")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no\\nluck')", "RuntimeError: no luck"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import genkit_no_such_module", "ModuleNotFoundError: "),
        ("def broken(:", "SyntaxError: "),
        (COMMAND.replace("(app)", "()"), "genkit_commands must have the argument app; write def"),
        (
            COMMAND.replace("genkit_commands(app)", "genkit_after_run()"),
            "genkit_after_run must have the argument folder; write def",
        ),
        (COMMAND.replace("app.command", "app.comand"), "AttributeError: "),
        (COMMAND.replace("greet()", "greet(name: bytearray | set)"), "AssertionError: "),
        ("x = 1", "has no hook; decorate genkit_register with @hookimpl"),
        ("def genkit_register(registry): ...", "has no hook"),
        (hook("toy").replace("(registry)", "(registry, more)"), "PluginValidationError: "),
        (
            hook("toy").replace("(registry)", "()"),
            "genkit_register must have the argument registry",
        ),
        (hook("toy").replace("genkit_register", "genkit_regster"), "unknown hook 'genkit_regster'"),
        (hook("toy") + "    raise ValueError('late')", "ValueError: late"),
        (hook("toy") + "    raise SystemExit", "SystemExit"),
        (hook("toy").replace('"coupler"', '"couplr"'), 'unknown kind "couplr" of "toy"; did you'),
        (hook("toy").replace('"coupler"', '"sigma-distribution"'), 'mean "noise-distribution"?'),
        (hook("Toy"), 'got "Toy"; write lower-case letters'),
        (hook("toy").replace(":Nothing", ""), 'got "toy_module"; write'),
        (hook("toy") * 1 + '    registry.add("coupler", "toy", "a:B")', "is added twice"),
    ],
)
def test_a_failing_plugin_is_isolated(install: Install, code: str, reason: str) -> None:
    install("a-bad", code)
    install("b-good", hook("good"))
    plugins = load_plugins()
    assert reason in failure(plugins, "a-bad")
    assert "\n" not in failure(plugins, "a-bad")
    assert "b-good" in [s.owner.distribution for s in plugins.loaded]
    with raises_code(PluginError, Code.UNKNOWN_COMPONENT, '"toy"', "a-bad 1.5"):
        plugins.registry.find(["coupler"], "toy")


def test_a_taken_name_refuses_the_whole_plugin_and_names_both(install: Install) -> None:
    install("a-first", hook("toy"))
    install("b-second", hook("other") + '    registry.add("coupler", "toy", "a:B")')
    plugins = load_plugins()
    reason = failure(plugins, "b-second")
    assert "plugin a-first (a-first 1.5)" in reason
    assert "plugin b-second (b-second 1.5)" in reason
    assert plugins.registry.find(["coupler"], "toy").owner.plugin == "a-first"
    with pytest.raises(PluginError):
        plugins.registry.find(["coupler"], "other")


def test_nobody_takes_a_name_of_genkit(install: Install) -> None:
    install("aaa", hook("random"))
    plugins = load_plugins()
    assert "already registered by plugin genkit (genkit-diffusion" in failure(plugins, "aaa")


def test_a_damaged_distribution_is_isolated(install: Install, tmp_path: Path) -> None:
    install("a-bad", "")
    (tmp_path / "a_bad-1.5.dist-info/entry_points.txt").write_text("[genkit.plugins]\nx\n[y")
    install("b-good", hook("good"))
    install("c-bad", "")
    (tmp_path / "c_bad-1.5.dist-info/entry_points.txt").write_bytes(b"[genkit.plugins]\n\xff")
    plugins = load_plugins()
    assert plugins.registry.find(["coupler"], "good")
    assert "a-bad" not in [s.owner.distribution for s in plugins.loaded]


def test_every_call_starts_anew(install: Install) -> None:
    assert load_plugins().registry is not load_plugins().registry
    first = load_plugins()
    install("later", hook("later"))
    assert load_plugins().registry.find(["coupler"], "later")
    with pytest.raises(PluginError):
        first.registry.find(["coupler"], "later")


def test_loading_plugins_imports_nothing_heavy() -> None:
    code = (
        "import sys; from genkit.plugin.manager import load_plugins; assert load_plugins().loaded;"
        "print([m for m in ('torch', 'ot', 'scipy', 'torchmetrics', 'numpy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

"""Commands that answer quickly: which libraries they import."""

import subprocess
import sys

import pytest

from recipes import QUICK

pytestmark = pytest.mark.slow

HEAVY = {"matplotlib", "ot", "scipy", "sympy", "torch._dynamo", "torchmetrics"}


def ran(*arguments, among, cwd=None):
    """Return the exit code of a command, which of some modules it imported, and its output."""
    code = (
        "import sys\n"
        "from genkit.cli import main\n"
        f"try: main({list(arguments)!r})\n"
        f"finally: print('FOUND', *sorted({among!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd)
    output, _, found = done.stdout.rpartition("FOUND")
    return done.returncode, found.split(), output + done.stderr


@pytest.mark.parametrize("recipe", ["edm2", "edm_aot_cond_dg"])
def test_a_recipe_is_checked_without_libraries_that_only_a_run_uses(recipe):
    """The networks of the two draw their initial weights in all ways of genkit's own networks."""
    assert ran("validate", recipe, among=HEAVY)[:2] == (0, [])


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("images = 100", "images = [", "syntax"),
        ("images =", "imagess =", "unknown-key"),
        ('"digits"', '"digit"', "unknown-component"),
        ('"mlp"', '"mlq"', "unknown-component"),
        ("images = 100", 'images = "many"', "wrong-type"),
        ("images = 100", "images = 0", "out-of-range"),
        ('use = "mlp"', 'use = "mlp", wide = true', "unknown-key"),
        (
            "images = 100",
            'images = 100\ncallbacks = [{ use = "preview", images = 1 }]',
            "unknown-key",
        ),
    ],
)
def test_mistakes_that_declarations_show_are_reported_without_torch(tmp_path, old, new, code):
    (tmp_path / "quick.toml").write_text(QUICK.replace(old, new))
    done, found, text = ran("validate", "quick.toml", among={"torch", *HEAVY}, cwd=tmp_path)
    assert (done, found) == (2, [])
    assert f"[{code}]" in text


def test_a_tracker_that_is_no_table_is_reported_without_torch(tmp_path):
    (tmp_path / "quick.toml").write_text(QUICK)
    arguments = ("run", "quick.toml", "--track", "{ use =")
    done, found, text = ran(*arguments, among={"torch", *HEAVY}, cwd=tmp_path)
    assert (done, found) == (2, [])
    assert "--track" in text


def test_settings_are_shown_without_torch():
    done, found, text = ran("show", "heun", among={"torch", *HEAVY})
    assert (done, found) == (0, [])
    assert "solver heun" in text


def test_plugins_are_listed_without_torch():
    assert ran("list-plugins", among={"torch", *HEAVY})[:2] == (0, [])


def test_a_run_says_at_once_that_its_recipe_is_checked(tmp_path):
    (tmp_path / "quick.toml").write_text(f"{QUICK}batch_size = 32\nmicro_batch = 64\n")
    _, _, output = ran("run", "quick.toml", among=HEAVY, cwd=tmp_path)
    assert output.startswith("quick.toml: ")

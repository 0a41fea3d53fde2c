"""Commands that answer quickly: which libraries they import."""

import subprocess
import sys

import pytest

HEAVY = {"matplotlib", "ot", "scipy", "sympy", "torch._dynamo", "torchmetrics"}


def imported_by(*arguments, among=HEAVY, cwd=None):
    """Return the exit code of a command, and which of some modules it imported."""
    code = (
        "import sys\n"
        "from genkit.cli import main\n"
        f"try: main({list(arguments)!r})\n"
        f"finally: print('FOUND', *sorted(set({sorted(among)!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd)
    *_, last = done.stdout.splitlines()
    return done.returncode, last.split()[1:]


@pytest.mark.parametrize("recipe", ["edm2", "edm_aot_cond_dg"])
def test_a_recipe_is_checked_without_libraries_that_only_a_run_uses(recipe):
    """The networks of the two draw their initial weights in all ways of genkit's own networks."""
    assert imported_by("validate", recipe) == (0, [])

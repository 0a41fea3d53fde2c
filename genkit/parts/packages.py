"""Packages that a component needs and genkit does not: extras, installed when they are wanted."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from genkit.errors import Code, Problem


def missing_packages(modules: Sequence[str], extra: str) -> Iterator[Problem]:
    """Yield a problem if a module cannot be found; none is imported.

    For the method ``check`` of a component.

    Args:
        modules: top-level modules that the component imports.
        extra: extra of the distribution ``genkit-diffusion`` that installs them.
    """
    missing = [name for name in modules if name not in sys.modules and find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        reason = f"needs {' and '.join(missing)}, which {are} not installed"
        yield Problem((), reason, installing(extra), Code.MISSING_PACKAGE)


def installing(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'genkit-diffusion[{extra}]'"

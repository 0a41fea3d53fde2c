"""Optional packages that some components require, installed by extras of the distribution."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec

from genkit.errors import Code, Problem


def missing_packages(modules: Sequence[str], extra: str) -> Iterator[Problem]:
    """Yield a problem if a module cannot be found, without importing it.

    Intended for the method ``check`` of a component.

    Args:
        modules: top-level modules that the component imports.
        extra: extra of the distribution ``genkit-diffusion`` that installs them.
    """
    missing = [name for name in modules if name not in sys.modules and find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        reason = f"requires {' and '.join(missing)}, which {are} not installed"
        yield Problem((), reason, install_command(extra), Code.MISSING_PACKAGE)


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra.

    The command lists the packages themselves, since genkit-diffusion is not on a package index.
    """
    marker = f"extra == '{extra}'"
    required = metadata.requires("genkit-diffusion") or ()
    wanted = [line.partition(";")[0].strip() for line in required if marker in line]
    return "pip install " + " ".join(f"'{name}'" for name in wanted)

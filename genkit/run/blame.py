"""Errors raised in the code of third-party plugins, reported with the name of the plugin."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from genkit.errors import GenkitError, PluginError
from genkit.machine import is_of_the_disk, is_out_of_memory
from genkit.plugin.manager import OURS
from genkit.plugin.registry import Owner, Registry


@contextmanager
def plugin_errors(registry: Registry) -> Iterator[None]:
    """Convert an error from a third-party plugin's code to one that names the plugin.

    Errors of genkit, of its own plugins and of the machine pass unchanged.

    Raises:
        PluginError: the error, with plugin, distribution, version, file and line.
    """
    try:
        yield
    except GenkitError:
        raise
    except (Exception, SystemExit) as error:
        owner, where = _blamed(error, registry)
        if owner is None or is_of_the_disk(error) or is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())[:500]
        raise PluginError(
            f"{owner} raised {type(error).__name__}: {text} ({where}); report it to the author of "
            "the plugin, with the output of the same command and --traceback"
        ) from error


def _blamed(error: BaseException, registry: Registry) -> tuple[Owner | None, str]:
    """Return the third-party plugin whose code is innermost in a traceback, and the place."""
    found, where = None, ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        # A package of several plugins does not identify one.
        owners = registry.packages.get(module.partition(".")[0], set())
        owner = next(iter(owners)) if len(owners) == 1 else None
        if owner is not None and owner.distribution != OURS:
            found, where = owner, f"{frame.f_code.co_filename}, line {line}"
    return found, where

"""Whether ``torch.compile`` can work on this machine."""

from __future__ import annotations

import torch

from genkit.errors import Code, UsageError


def require_compiler(device: torch.device) -> None:
    """Compile something very small, so that a missing compiler is told before training begins.

    Raises:
        UsageError: there is no working compiler for the device.
    """
    try:
        torch.compile(torch.nn.SiLU())(torch.ones(2, device=device))
    except Exception as error:
        # What goes wrong depends on the compiler; its first words are what helps.
        reason = str(error).strip().partition("\n")[0]
        needed = "triton and a C compiler" if device.type == "cuda" else "a C++ compiler"
        raise UsageError(
            f"compile = true needs {needed} that works: {type(error).__name__}: {reason}; "
            "install it, or write compile = false",
            Code.MISSING_PACKAGE,
        ) from error

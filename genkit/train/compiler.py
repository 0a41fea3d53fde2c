"""Check that ``torch.compile`` works on this machine."""

from __future__ import annotations

import torch

from genkit.errors import Code, UsageError


def require_compiler(device: torch.device) -> None:
    """Compile a tiny module, so that a missing compiler is reported before training begins.

    Raises:
        UsageError: no compiler works for the device.
    """
    try:
        torch.compile(torch.nn.SiLU())(torch.ones(2, device=device))
    except Exception as error:
        # Any error: its type depends on the compiler. The first line of its message helps most.
        reason = str(error).strip().partition("\n")[0]
        needed = "triton and C compiler" if device.type == "cuda" else "C++ compiler"
        raise UsageError(
            f"compile = true requires a working {needed}, got {type(error).__name__}: {reason}; "
            "install it, or write compile = false",
            Code.MISSING_PACKAGE,
        ) from error

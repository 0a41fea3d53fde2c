"""Errors of the machine: a full disk, full memory."""

from __future__ import annotations

import errno

import torch

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


def is_of_the_disk(error: BaseException) -> bool:
    """Whether an error says that a disk is full, damaged or closed to the user."""
    return isinstance(error, OSError) and error.errno in _OF_THE_DISK


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of its GPU is full."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)

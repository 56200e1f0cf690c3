"""Memory that the fused operators keep from call to call (csrc/ops/memory.h).

A result or workspace that is freed waits for the next call that wants about its size, so that a
call on a large image does not pay the system for every page. Importing this module loads the native
one; ImportError names the command that builds it.
"""

import torch

from starlight.ops import native

native.load()


def kept_bytes() -> int:
    """Bytes held for later calls; what living tensors use is not among them."""
    return torch.ops.starlight.kept_bytes()


def release_kept() -> None:
    """Give back to the system all that is held for later calls. Living tensors are not touched."""
    torch.ops.starlight.release_kept()


def set_kept_limit(limit: int) -> None:
    """The most bytes to hold from now on; 0 holds nothing. ValueError for a negative limit.

    It starts at 1 GiB, or at STARLIGHT_KEPT_MB megabytes where the environment has it.
    """
    torch.ops.starlight.set_kept_limit(limit)

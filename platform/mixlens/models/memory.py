"""Memory of a process that runs a model on the CPU."""

import ctypes

# From malloc.h of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Make this process keep memory that it frees, instead of giving it back to the kernel.

    Every forward pass frees and allocates the same tensors, and the kernel would clear each page
    anew: about a tenth of a training step of the built-in model, for no less memory at the peak.
    Does nothing where the C library is not glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)

"""Memory that a process keeps is not cleared anew by the kernel."""

import subprocess
import sys

import pytest

# Page faults of ten rounds in which 128 MiB are allocated, written and freed: 32,768 pages a round.
SCRIPT = """
import ctypes, resource, sys
import torch
from mixlens.models import keep_freed_memory
# Blocks of more than 128 KiB come from the kernel and go back to it, as at the start of a process;
# later it depends on what happens to lie at the end of the heap.
M_MMAP_THRESHOLD = -3
ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 << 10)
if sys.argv[1] == "keep":
    keep_freed_memory()
def rounds(count):
    for _ in range(count):
        [torch.ones(2 << 20) for _ in range(16)]
rounds(3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
rounds(10)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc gives memory back like this")
def test_freed_memory_is_used_again_without_page_faults():
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", SCRIPT, how]))
        for how in ("keep", "give")
    }
    # Huge pages make fewer faults of the same bytes, so only the ratio counts.
    assert faults["keep"] < faults["give"] / 5

"""A CPU computes in bf16 only where it has instructions for it."""

import re
from pathlib import Path

import pytest
import torch

from mixlens.models.precision import computes_in_bf16

CPU_INFO = Path("/proc/cpuinfo")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_who_asks_for_fp32_gets_it(device: str):
    assert computes_in_bf16("fp32", device) is False


def test_a_gpu_computes_in_what_is_asked_for():
    assert computes_in_bf16("bf16", "cuda") is True


@pytest.mark.skipif(
    not CPU_INFO.exists() or "flags" not in CPU_INFO.read_text(),
    reason="only Linux on x86 tells the instructions of a CPU in this way",
)
def test_a_cpu_does_where_its_instructions_allow():
    flags = set(re.search(r"^flags\s*:(.*)$", CPU_INFO.read_text(), re.M)[1].split())
    wide = {"avx512bw", "avx512vl", "avx512dq"} <= flags
    assert computes_in_bf16("bf16", "cpu") is wide or "avx_ne_convert" in flags


@pytest.mark.parametrize("can", [True, False])
def test_a_cpu_is_asked_and_a_torch_without_its_library_says_no(monkeypatch, can: bool):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: can)
    assert computes_in_bf16("bf16", "cpu") is can
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert computes_in_bf16("bf16", "cpu") is False

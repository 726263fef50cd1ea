"""Nominal speed of GPUs, and what share of it a run uses."""

import re

TERA = 1e12
# Dense peak of matrix products in fp16 with fp32 sums, which is also that in bf16 where there is
# one, from the vendor's data sheets, by `torch.cuda.get_device_name`. The first match counts.
_PEAKS: tuple[tuple[str, float, bool], ...] = (
    # name, TFLOP/s, whether it has bf16 too
    (r"B200", 2250, True),
    (r"H200 NVL", 835, True),
    (r"H200", 989, True),
    (r"H100 NVL", 835, True),
    (r"H100 PCIe", 756, True),
    (r"H100 80GB HBM3|H100 SXM5?", 989, True),
    (r"A100", 312, True),
    (r"A10G", 70, True),
    (r"L40S", 362, True),
    (r"L4", 121, True),
    (r"RTX 4090", 165, True),
    (r"RTX 3090", 71, True),
    (r"RTX A6000", 155, True),
    (r"V100-SXM2", 125, False),
    (r"V100-PCIE", 112, False),
    (r"Tesla T4", 65, False),
)
# A slice of a GPU, or a slower one of nearly the same name.
_NOT_THAT = re.compile(r"MIG|Laptop|Ti\b|4090 D|Max-Q")


def peak_flops(device_name: str, precision: str = "bf16") -> float | None:
    """FLOP/s that a GPU can reach in matrix products by its data sheet; None where unknown.

    Args:
        device_name: what `torch.cuda.get_device_name` says.
        precision: "bf16", or "fp16", which V100 and T4 have alone. Of fp32 nothing is known here,
            because torch decides whether it runs as TF32.
    """
    if precision not in ("bf16", "fp16") or _NOT_THAT.search(device_name):
        return None
    for name, tera, has_bf16 in _PEAKS:
        if re.search(rf"\b(?:{name})(?![A-Za-z0-9])", device_name):
            return tera * TERA if has_bf16 or precision == "fp16" else None
    return None


def mfu(model_flops: float, seconds: float, peak: float | None) -> float | None:
    """Model FLOPs utilisation (PaLM, appendix B); None where the peak is unknown.

    Args:
        model_flops: of one device in that time, as `StepFlops.model` counts them.
        seconds: how long they took.
        peak: of one device, FLOP/s.
    """
    return None if peak is None else model_flops / seconds / peak

"""In which number type matrix products are computed."""

import torch


def computes_in_bf16(precision: str, device_type: str) -> bool:
    """Whether a run that asks for "bf16" gets it on this machine.

    CPUs without instructions for it (AVX-512 or better) take some sixty times as long for a product
    in bf16 as in fp32; there such a run computes in fp32, which is nearer to what is meant and
    needs no more memory, because its weights are fp32 anyway.
    """
    if precision != "bf16" or device_type != "cpu":
        return precision == "bf16"
    # A torch built without oneDNN does not even have the operator.
    library = torch.backends.mkldnn.is_available()
    return library and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

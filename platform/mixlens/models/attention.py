"""Attention in plain matrix products that keeps its scores in the precision of the values.

For CPUs: their fused kernel has a slow bf16 backward pass, and the eager attention of transformers
takes every score to fp32 and back, which costs more than the products of a small model.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

PLAIN = "mixlens_plain"


def plain_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch groups keys width"],
    value: Float[Tensor, "batch groups keys width"],
    attention_mask: Shaped[Tensor, "batch #heads queries keys"] | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Float[Tensor, "batch queries heads width"], Float[Tensor, "batch heads queries keys"]]:
    """Softmax attention; in fp32 the same as eager, in bf16 with a softmax rounded to bf16.

    Grouped keys and values are repeated. A mask is True where a query sees a key, or what is added
    to the scores. Returns the output and the attention weights.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    # Autocast would take the softmax to fp32; the CPU kernel sums in fp32 anyway.
    with torch.autocast(query.device.type, enabled=False):
        query, key = query.to(value.dtype), key.to(value.dtype)
        scores = (query * scaling) @ key.transpose(2, 3)
        if attention_mask is not None:
            lowest = torch.finfo(scores.dtype).min
            if attention_mask.dtype == torch.bool:
                scores = scores.masked_fill(~attention_mask, lowest)
            else:
                # Rounded to bf16 the lowest fp32 is infinite, and a row of padding no number.
                scores = scores + attention_mask.clamp(min=lowest).to(scores.dtype)
        weights = scores.softmax(-1)
        if dropout and module.training:
            weights = nn.functional.dropout(weights, dropout)
        return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register(PLAIN, plain_attention)
AttentionMaskInterface.register(PLAIN, eager_mask)

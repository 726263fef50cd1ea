"""What is learned: every answer token, given what stands before it."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from mixlens.models.turns import IGNORED


def before_answers(labels: Int[Tensor, "batch seq"]) -> Int[Tensor, " places"]:
    """The places behind which any row has an answer token: only their logits are needed.

    Most of a row is image and question, and logits have a width of the whole vocabulary.
    """
    return (labels[:, 1:] != IGNORED).any(0).nonzero()[:, 0]


def answer_loss_sum(
    logits: Float[Tensor, "batch places vocab"], wanted: Int[Tensor, "batch places"]
) -> Float[Tensor, ""]:
    """Cross-entropy, in nats, of each answer token given what stands before it, summed.

    Args:
        logits: at the places before the answers.
        wanted: the tokens behind these places; -100 where a row has no answer there. Only the
            logits of the others are brought to fp32.
    """
    answers = wanted != IGNORED
    return nn.functional.cross_entropy(logits[answers].float(), wanted[answers], reduction="sum")


def count_answers(labels: Int[Tensor, "batch seq"]) -> Int[Tensor, ""]:
    """Positions whose token is predicted from an earlier one and counts for the loss."""
    return (labels[:, 1:] != IGNORED).sum()

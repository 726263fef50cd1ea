"""The loss: a list of named terms, each a mean over the global batch; answers come first.

Another term is a `Term`, given to `mixlens.training.loop.train`: nothing else has to know of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixlens.models import Batch
from mixlens.models.capture import Place
from mixlens.models.turns import IGNORED


@dataclass(frozen=True)
class Pass:
    """A forward pass over a micro-batch, as terms see it.

    Attributes:
        batch: as the adapter made it, labels included, on the device of the model.
        before: the places of `logits`: those behind which any row has an answer token.
        logits: in the type that the model computes in.
        states: the hidden states that terms have asked for, with their gradients.
    """

    batch: Batch
    before: Int[Tensor, " places"]
    logits: Float[Tensor, "rows places vocab"]
    states: Mapping[Place, Tensor]


@dataclass(frozen=True)
class Term:
    """A part of the loss: `weight` times a mean over everything that the global batch counts.

    Attributes:
        name: the journal has the mean, without the weight, as `loss/<name>` if there are several.
        count: how many things of a micro-batch the mean is over, such as answer tokens or images.
            It is asked before any forward pass: gradients of each micro-batch are divided by the
            count of the global batch, so that workers and accumulation do not matter.
        sum: what is added up over these things, in fp32; a batch that counts none adds zero.
        weight: of the mean in the loss.
        states: the hidden states that `sum` reads (see `mixlens.models.capture`).
    """

    name: str
    count: Callable[[Batch], Int[Tensor, ""]]
    sum: Callable[[Pass], Float[Tensor, ""]]
    weight: float = 1.0
    states: tuple[Place, ...] = ()


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


CROSS_ENTROPY = Term(
    name="cross_entropy",
    count=lambda batch: count_answers(batch["labels"]),
    sum=lambda seen: answer_loss_sum(seen.logits, seen.batch["labels"][:, seen.before + 1]),
)


def counts(objective: Sequence[Term], batches: Sequence[Batch]) -> list[int]:
    """How many things each term's mean is over, of these micro-batches together."""
    return [int(torch.stack([term.count(batch) for batch in batches]).sum()) for term in objective]


def shares(
    objective: Sequence[Term], seen: Pass, counted: Sequence[int]
) -> Float[Tensor, " terms"]:
    """What a micro-batch adds to the mean of each term, without the weights.

    `counted` has a count a term, of the whole global batch; a mean over nothing is zero.
    """
    pairs = zip(objective, counted, strict=True)
    return torch.stack([term.sum(seen) / max(count, 1) for term, count in pairs])


def weighted(objective: Sequence[Term], means: Float[Tensor, " terms"]) -> Float[Tensor, ""]:
    """The loss, or a micro-batch's share of it, of the means of its terms."""
    return (means * means.new_tensor([term.weight for term in objective])).sum()


def losses(objective: Sequence[Term], means: Float[Tensor, " terms"]) -> dict[str, float]:
    """What the journal has of a step: the loss, and the mean of each term if there are several."""
    terms = zip(objective, means.tolist(), strict=True)
    named = {f"loss/{term.name}": mean for term, mean in terms} if len(objective) > 1 else {}
    return {"loss": float(weighted(objective, means))} | named

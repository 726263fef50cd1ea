"""Which part of a model each of its parameters belongs to."""

from torch import nn

from mixlens.errors import CheckpointError, explain
from mixlens.models.adapter import Towers
from mixlens.spec import Tower


def tower_of(model: nn.Module, towers: Towers) -> dict[str, Tower]:
    """The tower of every named parameter of `model`; of several that hold it, the last.

    Raises:
        CheckpointError: a parameter belongs to none.
    """
    owner: dict[int, Tower] = {}
    for tower, parts in towers.items():
        for part in parts:
            weights = [part] if isinstance(part, nn.Parameter) else part.parameters()
            owner.update({id(weight): tower for weight in weights})
    named = dict(model.named_parameters())
    lost = [name for name, parameter in named.items() if id(parameter) not in owner]
    if lost:
        raise CheckpointError(
            explain(
                "model", lost[:3], f"{len(lost)} parameters belong to no tower of its family",
                "Use a model of a supported family without extra parts.",
            )
        )  # fmt: skip
    return {name: owner[id(parameter)] for name, parameter in named.items()}

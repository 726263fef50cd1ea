"""Hand out the hidden states of a forward pass as the layers run, with their gradients."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixlens.models.vlm import VLM

States = Literal["vision", "language", "keys_values"]
Place = tuple[States, int]
VISION_LAYER = -1

Take = Callable[[States, int, Tensor], None]


@contextmanager
def capture(vlm: VLM, take: Take) -> Iterator[None]:
    """Call `take(states, layer, tensor)` for each hidden state of every forward pass inside.

    In the order in which they are made:

    * ("vision", -1, [..., width]): what the vision encoder gives the projector;
    * ("language", 0, [batch, seq, width]): what enters the first decoder block, so the projected
      visual tokens and the embeddings of the text;
    * ("language", l, [batch, seq, width]): what decoder block l puts out, 1 to the number of
      blocks. The last is not yet normalised, unlike `hidden_states[-1]` of transformers.

    Of decoders that read the image by cross-attention also

    * ("keys_values", 0, [..., width]): what the projector gives;
    * ("keys_values", l, [images, tokens, key and value width]): the keys (as attention takes them)
      beside the values that block l, from 1, reads, before the block's own output.

    Nothing is kept: when `take` returns, its states are as short-lived as without capture. They are
    the model's own tensors: gradients flow through them unless the caller has switched these off,
    and they must not be written to.
    """
    blocks = vlm.adapter.blocks(vlm.model)["language"]
    readers = vlm.adapter.cross_attention(vlm.model)
    projector = vlm.adapter.projector(vlm.model)

    def entering(states: States, layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            take(states, layer, _states(args[0] if args else kwargs["hidden_states"]))

        return hook

    def leaving(states: States, layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            take(states, layer, _states(output))

        return hook

    handles = [
        projector.register_forward_pre_hook(entering("vision", VISION_LAYER), with_kwargs=True),
        blocks[0].register_forward_pre_hook(entering("language", 0), with_kwargs=True),
    ]
    if readers:
        handles.append(projector.register_forward_hook(leaving("keys_values", 0)))
    for block, (keys, values) in readers.items():
        pair = _Pair(take, block + 1)
        handles.append(keys.register_forward_hook(pair.keys))
        handles.append(values.register_forward_hook(pair.values))
    handles += [
        block.register_forward_hook(leaving("language", i + 1)) for i, block in enumerate(blocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def keep(vlm: VLM, places: Collection[Place]) -> Iterator[dict[Place, Tensor]]:
    """The states at some places of the one forward pass inside, by (states, layer).

    With no places the pass is left as it is.
    """
    kept: dict[Place, Tensor] = {}

    def take(states: States, layer: int, tensor: Tensor) -> None:
        if (states, layer) in places:
            kept[states, layer] = tensor

    with capture(vlm, take) if places else nullcontext():
        yield kept


class _Pair:
    """Takes the keys and the values of one block, whichever is made first, as one state.

    Values may still be split into the parts of their image; keys are not.
    """

    def __init__(self, take: Take, layer: int) -> None:
        self.take, self.layer = take, layer
        self.held: dict[str, Tensor] = {}

    def keys(
        self, module: nn.Module, args: Any, output: Float[Tensor, "images heads tokens width"]
    ) -> None:
        self._hold("keys", output.transpose(1, 2).flatten(2))

    def values(
        self, module: nn.Module, args: Any, output: Float[Tensor, "parts tokens width"]
    ) -> None:
        self._hold("values", output)

    def _hold(self, name: str, states: Tensor) -> None:
        self.held[name] = states
        if len(self.held) == 2:
            keys = self.held["keys"]
            values = self.held["values"].reshape(*keys.shape[:2], -1)
            joined = torch.cat([keys, values], -1)
            self.held.clear()
            self.take("keys_values", self.layer, joined)


def _states(value: Any) -> Tensor:
    """The hidden states in what a module takes or gives: a tensor, or the first of a tuple."""
    found: Tensor = value[0] if isinstance(value, tuple | list) else value
    return found

"""Hand out the hidden states of a forward pass as the layers run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from mixlens.models import Vllm

Stack = Literal["vision", "language"]
VISION_LAYER = -1

Take = Callable[[Stack, int, Tensor], None]


@contextmanager
def capture(vllm: Vllm, take: Take) -> Iterator[None]:
    """Call `take(stack, layer, states)` for each hidden state of every forward pass inside.

    In the order in which they are made:

    * ("vision", -1, [images, tokens, width]): what the vision encoder gives the projector;
    * ("language", 0, [batch, seq, width]): what enters the first decoder block, so the projected
      visual tokens and the embeddings of the text;
    * ("language", l, [batch, seq, width]): what decoder block l puts out, 1 to the number of
      blocks. The last is not yet normalised, unlike `hidden_states[-1]` of transformers.

    Nothing is kept: when `take` returns, its states are as short-lived as without capture.
    """
    blocks = vllm.adapter.blocks(vllm.model)["language"]

    def entering(stack: Stack, layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            take(stack, layer, _states(args[0] if args else kwargs["hidden_states"]))

        return hook

    def leaving(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            take("language", layer, _states(output))

        return hook

    handles = [
        vllm.adapter.projector(vllm.model).register_forward_pre_hook(
            entering("vision", VISION_LAYER), with_kwargs=True
        ),
        blocks[0].register_forward_pre_hook(entering("language", 0), with_kwargs=True),
    ]
    handles += [block.register_forward_hook(leaving(i + 1)) for i, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _states(value: Any) -> Tensor:
    """The hidden states in what a module takes or gives: a tensor, or the first of a tuple."""
    return (value[0] if isinstance(value, tuple | list) else value).detach()

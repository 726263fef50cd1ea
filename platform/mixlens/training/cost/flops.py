"""Floating-point operations of a forward pass and of a training step, in closed form.

Two for each multiply-accumulate of a matrix product, as in Kaplan et al. (2020, "Scaling laws for
neural language models") and appendix B of PaLM (Chowdhery et al. 2022); norms, activations,
softmax, embeddings and the optimiser are left out, as there. Attention is counted in full, without
halving it for causality: a kernel that is given a mask computes what the mask then hides.
"""

from dataclasses import dataclass

from mixlens.training.cost.setting import Setting, gradient_reaches
from mixlens.training.cost.shape import OTHER, Block, ModelShape, Place, Product
from mixlens.training.cost.tokens import RowTokens

FUSED_BACKWARD = 2.5  # of the forward pass: scores, and a gradient for each of four products


@dataclass(frozen=True)
class Flops:
    """Operations by tower: of matrix products with weights, and of attention."""

    products: dict[str, float]
    attention: dict[str, float]

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self.products.values()) + sum(self.attention.values())


@dataclass(frozen=True)
class StepFlops:
    """Operations of forward and backward pass over some rows.

    Attributes:
        forward: of the forward pass alone.
        model: what the mathematics needs, the number that a model FLOPs utilisation is of: no
            recomputation, and no weight gradients of what is frozen.
        hardware: what the device computes: with activation checkpointing the blocks' forward pass
            twice, and with fused attention its scores once more.
    """

    forward: Flops
    model: float
    hardware: float


def forward_flops(shape: ModelShape, tokens: RowTokens, rows: float = 1) -> Flops:
    """Of a forward pass over `rows` rows with `tokens` each."""
    products = dict.fromkeys(shape.parameters, 0.0)
    attention = dict.fromkeys(shape.parameters, 0.0)
    for product in shape.products:
        products[product.tower] += rows * 2 * product.weights * count(tokens, product.place)
    for block in shape.blocks:
        attention[block.tower] += rows * _scores(block, tokens)
    attention[_pooling_tower(shape)] += rows * _pooling(shape, tokens)
    return Flops(products, attention)


def step_flops(
    shape: ModelShape, tokens: RowTokens, setting: Setting, rows: float = 1
) -> StepFlops:
    """Of forward and backward pass over `rows` rows with `tokens` each.

    A product's backward pass is another product of the same size for the gradient of its input
    where anything in front of it is trained, and one more for the gradient of its weights where
    these are. Adapters of rank r add r * (inputs + outputs) weights, which are trained.
    """
    reached = gradient_reaches(shape, setting)
    model = again = 0.0

    def add(product: Product, input_gradient: bool, used: bool = True) -> float:
        """The product's share of `model`; returns its forward pass, adapter included."""
        forward = 2.0 * product.weights * count(tokens, product.place)
        cost = forward * (1 + (used and input_gradient))
        cost += forward * (used and setting.trains_weights(product.tower))
        adapter = 0.0
        if setting.lora_rank and setting.adapts(product):
            adapter = 2.0 * setting.lora_rank * (product.inputs + product.outputs)
            adapter *= count(tokens, product.place)
            cost += adapter * (3 if used else 1)
        nonlocal model
        model += cost
        return forward + adapter

    behind_vision = setting.trains("vision")
    ignored = len([block for block in shape.blocks if block.encoder]) - shape.ignored_blocks
    extra = 0.0
    for index, (block, reaches) in enumerate(zip(shape.blocks, reached, strict=True)):
        used = not (block.encoder and index >= ignored)
        forward = 0.0
        for product in block.products:
            of_visual = block.cross and product.place == "projected"
            gradient = reaches and (not of_visual or behind_vision or setting.trains("projector"))
            forward += add(product, gradient, used)
        scores = _scores(block, tokens)
        model += scores * (3 if reaches else 1)
        if reaches:
            extra += (FUSED_BACKWARD - 2) * scores if setting.attention == "fused" else 0.0
            if block.checkpoints:
                again += forward + scores - _left_out(block, tokens, setting)
    for product in shape.others:
        first = product.place == "encoder" and product.tower == "vision"
        gradient = {
            "encoder": not first and behind_vision,
            "projected": behind_vision or _trained_before(product, shape, setting),
            "decoder": False,
            "logits": reached[-1] or setting.trains("language"),
        }[product.place]
        add(product, gradient)
    pooling = _pooling(shape, tokens)
    model += pooling * (3 if behind_vision or setting.trains("projector") else 1)

    hardware = model + extra + (again if setting.activation_checkpointing else 0.0)
    return StepFlops(
        forward_flops(shape, tokens, rows), model=rows * model, hardware=rows * hardware
    )


def count(tokens: RowTokens, place: Place) -> int:
    """How many tokens of a row a product is computed at."""
    return {
        "encoder": tokens.encoder,
        "projected": tokens.projected,
        "decoder": tokens.decoder,
        "logits": tokens.logits,
    }[place]


def attended(block: Block, tokens: RowTokens) -> tuple[int, float]:
    """Queries of a row, and keys that each of them is compared with.

    Windows count as full ones; those at an image's edge may be smaller.
    """
    if block.encoder:
        length = tokens.encoder_length
        return tokens.encoder, min(block.window or length, length)
    return tokens.decoder, tokens.projected if block.cross else tokens.decoder


def _scores(block: Block, tokens: RowTokens) -> float:
    """Of queries with keys, and of the weights with values, of a row."""
    queries, keys = attended(block, tokens)
    return 4.0 * block.heads * block.head_width * queries * keys


def _left_out(block: Block, tokens: RowTokens, setting: Setting) -> float:
    """What recomputing a block spares: torch ends it when it has everything that was kept.

    That is in front of the last product, or of the second half of its adapter, unless a norm
    follows. The products that DeepSpeed puts in place at stage 3 keep what they need afterwards.
    """
    outside = [kind for kind, _, of_attention in block.norms if not of_attention]
    if len(outside) > 2 or setting.zero_stage == 3:
        return 0.0
    last = block.falling
    inputs = setting.lora_rank or 0 if setting.adapts(last) else last.inputs
    return 2.0 * inputs * last.outputs * count(tokens, last.place)


def _pooling(shape: ModelShape, tokens: RowTokens) -> float:
    """Of a projector that pools by attention: every encoder token is a key of one query."""
    keys = [p for p in shape.others if p.tower == "projector" and p.name.endswith("k_proj")]
    return sum(4.0 * key.outputs * tokens.encoder for key in keys)


def _pooling_tower(shape: ModelShape) -> str:
    return "projector" if "projector" in shape.parameters else OTHER


def _trained_before(product: Product, shape: ModelShape, setting: Setting) -> bool:
    """Whether something of the projector's own lies in front of `product` and is trained."""
    mine = [p for p in shape.others if p.place == "projected" and p.tower == product.tower]
    return bool(mine) and product is not mine[0] and setting.trains(product.tower)

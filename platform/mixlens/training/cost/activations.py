"""What autograd keeps from the forward pass of a micro-batch until the backward pass needs it.

Counted operation by operation as the modules of transformers compute, in the way in which
Korthikanti et al. (2022, "Reducing activation recomputation in large transformer models") count
one layer of a transformer; their figure of 34 bytes a token and unit of width is that of another
implementation (fp16, fused norms, dropout), so none of their constants stand here.

Small things are left out: statistics of norms, rotary tables, token ids, labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mixlens.training.cost.flops import attended, count
from mixlens.training.cost.setting import Setting, adapter_parameters, gradient_reaches
from mixlens.training.cost.shape import Block, ModelShape, Norm, Product
from mixlens.training.cost.tokens import RowTokens

FP32 = 4


@dataclass(frozen=True)
class BlockBytes:
    """Bytes of a transformer block.

    Attributes:
        kept: until its backward pass, from the forward pass on.
        again: in its backward pass, once it was recomputed; 0 without checkpointing.
        working: gradients of activations in its backward pass.
        trained: no bytes but trained parameters, whose gradients its backward pass leaves behind.
    """

    kept: float
    again: float
    working: float
    trained: int


@dataclass(frozen=True)
class Activations:
    """Bytes of a micro-batch.

    Attributes:
        blocks: of each transformer block that the backward pass reaches, in the order they run.
        others: kept by everything else: patch embedding, projector, last norm, output layer.
        casts: copies of the weights of everything else in the type of the matrix products.
        forward_casts: such copies of blocks that live until the end of the forward pass alone.
        logits: in the forward pass: of all positions, and of answers in fp32 twice.
        loss: in the backward pass of the loss.
        masks: of the decoder, in the type that is added to scores.
    """

    blocks: tuple[BlockBytes, ...]
    others: float
    casts: float
    forward_casts: float
    logits: float
    loss: float
    masks: float

    @property
    def kept(self) -> float:
        """Bytes that autograd holds at the end of the forward pass."""
        return sum(block.kept for block in self.blocks) + self.others + self.casts


def activations(shape: ModelShape, tokens: RowTokens, setting: Setting) -> Activations:
    """Bytes that a micro-batch of rows with `tokens` each takes beside the model's states."""
    rows, held = setting.micro_batch, setting.compute_bytes
    reached = gradient_reaches(shape, setting)
    blocks = []
    for block, reaches in zip(shape.blocks, reached, strict=True):
        if not reaches:
            continue
        here = rows * (tokens.encoder if block.encoder else tokens.decoder)
        of_row = kept_by_block(block, tokens, setting)
        saved = rows * of_row.all + _casts(block.products, setting)
        entered = float(here * block.width * setting.weight_bytes)
        checkpoints = setting.activation_checkpointing and block.checkpoints
        blocks.append(
            BlockBytes(
                kept=entered if checkpoints else saved,
                again=saved if checkpoints else 0.0,
                working=_working(block, of_row, tokens, setting),
                trained=_trained(block, setting),
            )
        )
    forward_casts = 0.0
    if setting.activation_checkpointing:
        inside = [p for block in shape.blocks if block.checkpoints for p in block.products]
        forward_casts = _casts([p for p in inside if setting.trains_weights(p.tower)], setting)

    logits = rows * tokens.logits * shape.vocabulary
    answers = rows * tokens.answers * shape.vocabulary
    return Activations(
        blocks=tuple(blocks),
        others=rows * _other_bytes(shape, tokens, setting, reached[-1]),
        casts=_casts([p for p in shape.others if _needed(p, setting)], setting),
        forward_casts=forward_casts,
        # Chosen answers in the type of the logits, their fp32 copy, and its log-softmax.
        logits=float(logits * held + answers * (held + (FP32 if held == FP32 else 2 * FP32))),
        # The log-softmax, its gradient, that in the type of the logits, and that of all positions.
        loss=float(answers * (2 * FP32 + (0 if held == FP32 else held)) + logits * held),
        masks=float(rows * tokens.decoder**2 * (1 if setting.attention == "fused" else FP32)),
    )


def _trained(block: Block, setting: Setting) -> int:
    """Trained parameters of a block."""
    if setting.trains_weights(block.tower):
        return block.parameters
    rank = setting.lora_rank or 0
    return sum(adapter_parameters(p, rank) for p in block.products if setting.adapts(p))


@dataclass(frozen=True)
class KeptByBlock:
    """Bytes that autograd keeps of a block for one row, by when the backward pass frees them.

    Attributes:
        mlp: before it comes to the attention.
        behind_scores: when it has come to the scores: values, and the input of the product behind.
        rest: after that.
    """

    mlp: float
    behind_scores: float
    rest: float

    @property
    def all(self) -> float:
        return self.mlp + self.behind_scores + self.rest


def kept_by_block(block: Block, tokens: RowTokens, setting: Setting) -> KeptByBlock:
    """Bytes that autograd keeps of one block for one row."""
    held = setting.compute_bytes
    here = tokens.encoder if block.encoder else tokens.decoder
    trained = setting.trains_weights(block.tower)

    def norms(inside: bool) -> float:
        widths = [(kind, w) for kind, w, of_attention in block.norms if of_attention == inside]
        return here * sum(_norm_bytes(kind, w, setting, trained) for kind, w in widths)

    def adapters(products: Sequence[Product]) -> float:
        adapted = [product for product in products if setting.adapts(product)]
        return sum(count(tokens, p.place) * held for p in adapted) * (setting.lora_rank or 0.0)

    # Half of the norms of the stream stand before the MLP, and half before the attention.
    stream = norms(inside=False) / 2
    # What goes into the activation and, if it is a product of two, what comes out and the other.
    inner = here * block.inner * held * ((3 if block.gated else 1) + block.quick)
    mlp = stream + inner + _inputs(block.rising, tokens, setting)
    mlp += _inputs([block.falling], tokens, setting) + adapters([*block.rising, block.falling])
    if trained:
        mlp += here * block.width * held * min(block.gates, 2)
    behind, before = _attention_bytes(block, tokens, setting)
    rest = stream + norms(inside=True) + before + _inputs(block.attending, tokens, setting)
    return KeptByBlock(mlp, behind + adapters([block.mixing]), rest + adapters(block.attending))


def _norm_bytes(kind: Norm, width: int, setting: Setting, trained: bool) -> float:
    """Bytes a token: the input, in fp32 for RMS norms, and what a trained scale multiplies."""
    stream = setting.weight_bytes  # the type of the residual stream
    if kind == "layer":
        return width * stream
    scaled = FP32 if kind == "rms_wide" else stream
    return width * (FP32 + (scaled if trained else 0))


def _inputs(products: Sequence[Product], tokens: RowTokens, setting: Setting) -> float:
    """Bytes of the inputs of products that have the same input, where their weights need it.

    One tensor serves all of them, unless each casts it for itself or draws its own dropout.
    """
    kept = [p for p in products if setting.trains_weights(p.tower) or setting.adapts(p)]
    if not kept:
        return 0.0
    sizes = [count(tokens, p.place) * p.inputs for p in kept]
    bytes_each = setting.compute_bytes
    behind_norm = len(products) > 1 or products[0].name.rsplit(".", 1)[-1] in ("qkv", "fc1")
    apart = setting.autocast and behind_norm
    if setting.lora_rank and setting.lora_dropout:
        # What comes out of the dropout, and its mask: of bits' bytes on GPUs, of numbers on CPUs.
        mask = 1 if setting.device == "cuda" else bytes_each
        return float(sum(size * (bytes_each + mask) for size in sizes))
    return float(bytes_each * (sum(sizes) if apart else max(sizes)))


def _attention_bytes(block: Block, tokens: RowTokens, setting: Setting) -> tuple[float, float]:
    """Bytes of one row: of values and what comes out; of queries, keys and scores."""
    held, wide = setting.compute_bytes, block.heads * block.head_width
    here = tokens.encoder if block.encoder else tokens.decoder
    there = tokens.projected if block.cross else here  # where keys and values come from
    # Keys and values are repeated for every head, except by fused kernels without a mask.
    fused, masked = setting.attention == "fused", not block.encoder and setting.masked
    repeated = block.kv_heads * block.head_width if fused and not masked else wide
    before = float(held * (here * wide + there * repeated))
    behind = float(held * there * repeated)
    if block.fused_qkv:
        behind += held * here * 2 * wide  # values are a view of queries, keys and values
    queries, keys = attended(block, tokens)
    scores = float(queries * keys)
    if fused:
        behind += held * here * wide + FP32 * here * block.heads
        before += held * scores if masked else 0.0  # the mask, made into something to add
        return behind, before
    before += block.heads * scores * held
    if setting.attention == "eager" and held != FP32:
        before += block.heads * scores * FP32
    mixed = setting.trains_weights(block.mixing.tower) or setting.adapts(block.mixing)
    return behind + held * here * wide * mixed, before


def _working(block: Block, kept: KeptByBlock, tokens: RowTokens, setting: Setting) -> float:
    """Bytes that the backward pass of a block adds at most to what it kept, of all rows.

    First the MLP's: the gradients of its inner states. Then, when some of what was kept is gone,
    those of the attention's weights and of its scores, unless a fused kernel makes none. Encoders
    with fused queries, keys and values (Qwen-VL's kind) attend in one image or window at a time.
    """
    rows, held = setting.micro_batch, setting.compute_bytes
    here = tokens.encoder if block.encoder else tokens.decoder
    stream = here * block.width * setting.weight_bytes
    mlp = float(held * here * block.inner * (3 if block.gated else 2) + 2 * stream)
    if setting.attention == "fused":
        return rows * mlp
    queries, keys = attended(block, tokens)
    at_once = keys * keys if block.fused_qkv else rows * queries * keys
    scores = 2.0 * held * block.heads * at_once + rows * stream
    return max(rows * mlp, scores - rows * (kept.mlp + kept.behind_scores))


def _needed(product: Product, setting: Setting) -> bool:
    """Whether the backward pass goes through a product outside of blocks."""
    if product.place == "logits":
        return True
    if setting.trains_weights(product.tower):
        return True
    return product.tower == "projector" and setting.trains("vision")


def _casts(products: Sequence[Product], setting: Setting) -> float:
    if not setting.autocast:
        return 0.0
    return float(setting.compute_bytes * sum(product.weights for product in products))


def _other_bytes(
    shape: ModelShape, tokens: RowTokens, setting: Setting, decoder_reached: bool
) -> float:
    """Bytes that autograd keeps outside of blocks, of one row."""
    held = setting.compute_bytes
    kept = 0.0
    for product in shape.others:
        reached = (
            decoder_reached
            if product.place == "logits"
            else (
                setting.trains(product.tower)
                or (product.tower == "projector" and setting.trains("vision"))
            )
        )
        if not reached:
            continue
        kept += _inputs([product], tokens, setting)
        if product.tower == "projector":
            kept += count(tokens, product.place) * product.outputs * held
    for kind, width, place in shape.norms:
        tower = {"encoder": "vision", "projected": "projector"}.get(place, "language")
        reached = decoder_reached if tower == "language" else setting.trains(tower)
        if reached:
            kept += count(tokens, place) * _norm_bytes(
                kind, width, setting, setting.trains_weights(tower)
            )
    return kept

"""What a vision LLM is made of, counted on the meta device: its weights are never needed."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from mixlens.models import meta_model

# Where a matrix product takes place: at the tokens of the encoder, of the projector's output, of
# the decoder, or at the positions with logits.
Place = Literal["encoder", "projected", "decoder", "logits"]
Norm = Literal["layer", "rms", "rms_wide"]
Part = nn.Module | nn.Parameter
Towers = Callable[[Any], Mapping[Any, Sequence[Part]]]

COLOURS = 3
OTHER = "other"  # parameters of no tower, such as the line-break embedding of LLaVA-NeXT
_CROSS, _QKV = re.compile("CrossAttention"), frozenset({"q_proj", "k_proj", "v_proj", "qkv"})


@dataclass(frozen=True)
class Product:
    """A matrix product (or patch convolution) with weights of the model.

    Attributes:
        name: of its module.
        tower: what it belongs to.
        place: at which tokens it is computed.
        inputs: width of what goes in, as far as autograd keeps it.
        outputs: width of what comes out.
        adaptable: whether LoRA puts an adapter beside it.
    """

    name: str
    tower: str
    place: Place
    inputs: int
    outputs: int
    adaptable: bool

    @property
    def weights(self) -> int:
        """Weights, which is also multiply-accumulates a token."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Block:
    """A transformer block.

    Attributes:
        tower: what it belongs to; "cross_attention" where that is a tower of its own.
        encoder: whether it is one of the vision tower.
        width: of its hidden states.
        heads, kv_heads, head_width: of its attention.
        cross: whether its keys are the projector's output.
        window: tokens that attend to each other where that is less than the sequence.
        fused_qkv: whether queries, keys and values come out of one product.
        attending: products that make queries, keys and values.
        mixing: the product behind the attention.
        rising: products into the MLP's inner width.
        falling: the product out of it.
        inner: the MLP's inner width.
        gated: whether that is a product of two.
        quick: whether its activation keeps two tensors (QuickGELU) instead of one.
        norms: kind and width of what is normalised, and whether it is inside the attention.
        gates: learned scales of the width of the hidden states or single numbers.
        checkpoints: whether activation checkpointing applies to it, as to most families' blocks.
        parameters: of the block in all.
    """

    tower: str
    encoder: bool
    width: int
    heads: int
    kv_heads: int
    head_width: int
    cross: bool
    window: int | None
    fused_qkv: bool
    attending: tuple[Product, ...]
    mixing: Product
    rising: tuple[Product, ...]
    falling: Product
    gated: bool
    quick: bool
    norms: tuple[tuple[Norm, int, bool], ...]
    gates: int
    checkpoints: bool
    parameters: int

    @property
    def inner(self) -> int:
        return self.falling.inputs

    @property
    def products(self) -> tuple[Product, ...]:
        return (*self.attending, self.mixing, *self.rising, self.falling)


@dataclass(frozen=True)
class ModelShape:
    """A model's parts.

    Attributes:
        parameters: by tower, shared ones once.
        largest: parameters of the largest tensor.
        blocks: those of the vision tower, then those of the decoder, in the order they run.
        others: products outside of blocks, in the order they run: patch embedding, projector,
            output layer.
        ignored_blocks: blocks at the vision tower's end whose output nothing uses.
        norms: kind, width and place of what is normalised outside of blocks.
        vocabulary: logits a position.
        tied: whether the output layer is the embedding.
        unworked: modules that are counted as parameters but as no work (see `shape_of`).
    """

    parameters: dict[str, int]
    largest: int
    blocks: tuple[Block, ...]
    others: tuple[Product, ...]
    ignored_blocks: int
    norms: tuple[tuple[Norm, int, Place], ...]
    vocabulary: int
    tied: bool
    unworked: tuple[str, ...] = field(default=())

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())

    @property
    def products(self) -> tuple[Product, ...]:
        """Every product, those of blocks first."""
        return (*(p for block in self.blocks for p in block.products), *self.others)

    @property
    def joint(self) -> bool:
        """Whether visual tokens stand in the decoder's sequence."""
        return not any(block.cross for block in self.blocks)

    def products_per_token(self) -> dict[str, int]:
        """Multiply-accumulates a token of each tower, as the sum over its products."""
        sums: dict[str, int] = {}
        for product in self.products:
            sums[product.tower] = sums.get(product.tower, 0) + product.weights
        return sums


def model_shape(config: Any, towers: Towers) -> ModelShape:
    """The shape of the model that a transformers `config` describes.

    Takes no memory to speak of and a few seconds at most, also for 90 billion parameters.
    """
    model = meta_model(config)
    return shape_of(model, towers(model))


def shape_of(model: Any, towers: Mapping[Any, Sequence[Part]]) -> ModelShape:
    """The shape of a transformers model; a module in a later tower is taken out of earlier ones.

    Pooling heads behind a vision tower count as parameters alone: they run on one token an image,
    and nothing uses what they put out.
    """
    owner = {
        id(module): tower
        for tower, parts in towers.items()
        for part in parts
        if isinstance(part, nn.Module)
        for module in part.modules()
    }
    owner_of = _parameter_owners(towers)
    parameters: dict[str, int] = dict.fromkeys(towers, 0)
    for parameter in model.parameters():
        tower = owner_of.get(id(parameter), OTHER)
        parameters[tower] = parameters.get(tower, 0) + parameter.numel()

    names = {id(module): name for name, module in model.named_modules()}
    heads = [m for m in model.modules() if type(m).__name__.endswith("PoolingHead")]
    seen = {id(module) for head in heads for module in head.modules()}
    blocks = []
    for stack in [m for m in model.modules() if isinstance(m, nn.ModuleList)]:
        for index, block in enumerate(stack):
            attention = _attention(block)
            if attention is None or id(block) in seen:
                continue
            seen |= {id(module) for module in block.modules()}
            # A tower of cross-attention may hold the whole block or its attention alone.
            tower = owner.get(id(block), OTHER)
            blocks.append(_block(block, attention, tower, owner, names, _window(model, index)))

    output = model.get_output_embeddings()
    others = []
    norms: list[tuple[Norm, int, Place]] = []
    for module in model.modules():
        if id(module) in seen:
            continue
        tower, name = owner.get(id(module), OTHER), names[id(module)]
        place: Place = _place(module, name, tower, is_output=module is output)
        others += _products(module, name, tower, place, adaptable=module is not output)
        if (kind := _norm(module)) is not None:
            norms.append((kind, module.weight.numel(), place))
    order = {"encoder": 0, "projected": 1, "decoder": 2, "logits": 3}
    return ModelShape(
        parameters=parameters,
        largest=max(parameter.numel() for parameter in model.parameters()),
        blocks=tuple(sorted(blocks, key=lambda block: not block.encoder)),
        others=tuple(sorted(others, key=lambda product: order[product.place])),
        ignored_blocks=_ignored_blocks(model.config),
        norms=tuple(norms),
        vocabulary=output.weight.shape[0],
        tied=output.weight is model.get_input_embeddings().weight,
        unworked=tuple(names[id(head)] for head in heads),
    )


def _parameter_owners(towers: Mapping[str, Sequence[Part]]) -> dict[int, str]:
    owners: dict[int, str] = {}
    for tower, parts in towers.items():
        for part in parts:
            whole = part.parameters() if isinstance(part, nn.Module) else [part]
            owners |= {id(parameter): tower for parameter in whole}
    return owners


def _attention(block: nn.Module) -> nn.Module | None:
    """The attention of a transformer block; None for anything else."""
    for module in block.modules():
        if not _QKV.isdisjoint(name for name, _ in module.named_children()):
            return module
    return None


def _block(
    block: nn.Module,
    attention: Any,
    tower: str,
    owner: dict[int, str],
    names: dict[int, str],
    window: int | None,
) -> Block:
    encoder = tower == "vision"
    cross = bool(_CROSS.search(type(attention).__name__))
    here: Place = "encoder" if encoder else "decoder"
    inside = {id(module) for module in attention.modules()}
    attending, rising, ends = [], [], []
    for name, linear in block.named_modules():
        if not isinstance(linear, nn.Linear):
            continue
        leaf = name.rsplit(".", 1)[-1]
        at: Place = "projected" if cross and leaf in ("k_proj", "v_proj") else here
        of = owner.get(id(linear), OTHER)
        product = Product(names[id(linear)], of, at, linear.in_features, linear.out_features, True)
        if id(linear) in inside and leaf in _QKV:
            attending.append(product)
        elif id(linear) in inside or "down" in leaf or "fc2" in leaf:
            ends.append((id(linear) in inside, product))
        else:
            rising.append(product)
    (mixing,) = [product for attends, product in ends if attends]
    (falling,) = [product for attends, product in ends if not attends]
    fused = len(attending) == 1
    head_width = int(attention.head_dim)
    heads = attending[0].outputs // head_width // (3 if fused else 1)
    by_leaf = {product.name.rsplit(".", 1)[-1]: product for product in attending}
    heads = heads if fused else by_leaf["q_proj"].outputs // head_width
    kv_heads = heads if fused else by_leaf["k_proj"].outputs // head_width
    of_heads = {"q_norm": heads * head_width, "k_norm": kv_heads * head_width}
    norms = tuple(
        (
            kind,
            of_heads.get(name.rsplit(".", 1)[-1], module.weight.numel()),
            id(module) in inside,
        )
        for name, module in block.named_modules()
        if (kind := _norm(module)) is not None
    )
    own = [parameter for module in block.modules() for parameter in _bare(module)]
    return Block(
        tower=tower,
        encoder=encoder,
        width=mixing.outputs,
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        cross=cross,
        window=window if encoder else None,
        fused_qkv=fused,
        attending=tuple(attending),
        mixing=mixing,
        rising=tuple(rising),
        falling=falling,
        gated=sum(product.outputs for product in rising) == 2 * falling.inputs,
        quick=any("QuickGELU" in type(module).__name__ for module in block.modules()),
        norms=norms,
        gates=len(own),
        checkpoints=hasattr(block, "gradient_checkpointing"),
        parameters=sum(parameter.numel() for parameter in block.parameters()),
    )


def _bare(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module of a block that is neither a linear layer nor a norm."""
    if isinstance(module, nn.Linear) or _norm(module) is not None:
        return []
    return list(module.parameters(recurse=False))


def _norm(module: nn.Module) -> Norm | None:
    if isinstance(module, nn.LayerNorm):
        return "layer"
    if type(module).__name__.endswith("RMSNorm"):
        # Gemma scales in fp32 and rounds after that; everybody else rounds first.
        return "rms_wide" if type(module).__name__.startswith("Gemma") else "rms"
    return None


def _place(module: nn.Module, name: str, tower: str, is_output: bool) -> Place:
    """Where a module outside of blocks runs."""
    if is_output:
        return "logits"
    if tower == "vision":
        # A convolution over features, not pixels, merges neighbours into the visual tokens.
        merges = isinstance(module, nn.Conv2d | nn.Conv3d) and module.in_channels > COLOURS
        return "projected" if merges else "encoder"
    if tower == "projector":
        # Pooling by attention (Molmo 2): one query a visual token, keys from all encoder tokens.
        return "encoder" if name.endswith(("k_proj", "v_proj")) else "projected"
    return "decoder"


def _products(
    module: nn.Module, name: str, tower: str, place: Place, adaptable: bool
) -> list[Product]:
    """The products that a module outside of blocks computes itself."""
    if isinstance(module, nn.Linear):
        return [Product(name, tower, place, module.in_features, module.out_features, adaptable)]
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        inputs = module.weight[0].numel()
        return [Product(name, tower, place, inputs, module.out_channels, False)]
    return [  # Gemma's projector has its matrix as a bare parameter
        Product(f"{name}.{leaf}", tower, place, parameter.shape[0], parameter.shape[1], False)
        for leaf, parameter in module.named_parameters(recurse=False)
        if leaf.endswith("_weight") and parameter.ndim == 2
    ]


def _window(model: Any, index: int) -> int | None:
    """Tokens in a window of block `index` of a vision tower with windows; None: all attend."""
    vision: Any = getattr(model.config, "vision_config", None)
    everywhere = getattr(vision, "fullatt_block_indexes", None)
    if everywhere is None or index in everywhere:
        return None
    return int((vision.window_size // vision.patch_size) ** 2)


def _ignored_blocks(config: Any) -> int:
    """Blocks of the vision tower behind the one that the projector reads."""
    layer = getattr(config, "vision_feature_layer", -1)
    layers = [layer] if isinstance(layer, int) else list(layer)
    if any(number >= 0 for number in layers):
        depth = config.vision_config.num_hidden_layers
        layers = [number - depth - 1 if number >= 0 else number for number in layers]
    return -max(layers) - 1

"""What of a run decides about its cost."""

from dataclasses import dataclass
from typing import Literal

from mixlens.models.precision import computes_in_bf16
from mixlens.spec import TrainingSpec
from mixlens.training.cost.shape import ModelShape, Product

Offload = Literal["none", "cpu", "nvme"]
Attention = Literal["plain", "eager", "fused"]


@dataclass(frozen=True)
class Setting:
    """The settings of a run that its cost depends on; fields are named as in `TrainingSpec`.

    Attributes:
        device: where the workers compute.
        workers: over all nodes.
        workers_per_node: of them on one node.
        global_batch: rows an optimiser step, over all workers.
        micro_batch: rows a forward pass on one worker.
        lora_rank: None trains the weights themselves.
        lora_dropout: of the adapters' input.
        attention: "plain" and "eager" hold the scores (see `mixlens.models.attention`), "fused"
            kernels (SDPA, flash) do not.
        masked: whether the decoder gets a mask that is more than causal, as packed turns do.
    """

    global_batch: int
    micro_batch: int
    precision: Literal["fp32", "bf16"]
    device: Literal["cpu", "cuda"]
    zero_stage: int = 0
    workers: int = 1
    workers_per_node: int = 1
    freeze: tuple[str, ...] = ()
    lora_rank: int | None = None
    lora_dropout: float = 0.0
    lora_towers: tuple[str, ...] = ()
    activation_checkpointing: bool = False
    offload_optimizer: Offload = "none"
    offload_parameters: Offload = "none"
    attention: Attention = "plain"
    masked: bool = True

    @property
    def accumulates(self) -> bool:
        """Whether an optimiser step has more than one micro-batch a worker."""
        return self.global_batch > self.micro_batch * self.workers

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight as held; the same rule as `training.zero.weights_dtype`."""
        sharded = self.zero_stage > 0 and self.device == "cuda"
        return 2 if self.precision == "bf16" and sharded else 4

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number that goes through matrix products."""
        return 2 if self.precision == "bf16" else 4

    @property
    def autocast(self) -> bool:
        """Whether weights are cast in every forward pass."""
        return self.weight_bytes != self.compute_bytes

    def trains(self, tower: str) -> bool:
        """Whether anything of `tower` is trained."""
        if self.lora_rank is not None:
            return tower in self.lora_towers
        return tower not in self.freeze

    def trains_weights(self, tower: str) -> bool:
        """Whether the weights of `tower` themselves are trained."""
        return self.lora_rank is None and self.trains(tower)

    def adapts(self, product: Product) -> bool:
        """Whether an adapter stands beside `product`."""
        return self.lora_rank is not None and product.adaptable and self.trains(product.tower)


def setting_of(
    training: TrainingSpec, device: Literal["cpu", "cuda"], workers: int, workers_per_node: int
) -> Setting:
    """The setting of a run on `workers` workers, `workers_per_node` of them on one node."""
    lora = training.lora
    attention = training.attention
    if attention == "auto":
        attention = "plain" if device == "cpu" else "sdpa"
    return Setting(
        global_batch=training.global_batch,
        micro_batch=training.micro_batch,
        precision="bf16" if computes_in_bf16(training.precision, device) else "fp32",
        device=device,
        zero_stage=training.zero_stage,
        workers=workers,
        workers_per_node=workers_per_node,
        freeze=tuple(training.freeze),
        lora_rank=lora.rank if lora else None,
        lora_dropout=lora.dropout if lora else 0.0,
        lora_towers=tuple(lora.towers) if lora else (),
        activation_checkpointing=training.activation_checkpointing,
        offload_optimizer=training.offload_optimizer,
        offload_parameters=training.offload_parameters,
        attention="plain" if attention == "plain" else "fused",
        masked=not training.unmasked,
    )


def adapter_parameters(product: Product, rank: int) -> int:
    """Parameters of a low-rank adapter beside `product`."""
    return rank * (product.inputs + product.outputs)


def trained_parameters(shape: ModelShape, setting: Setting) -> dict[str, int]:
    """How many parameters are trained in each tower."""
    if setting.lora_rank is None:
        return {t: n if setting.trains(t) else 0 for t, n in shape.parameters.items()}
    counts = dict.fromkeys(shape.parameters, 0)
    for product in shape.products:
        if setting.adapts(product):
            counts[product.tower] += adapter_parameters(product, setting.lora_rank)
    return counts


def gradient_reaches(shape: ModelShape, setting: Setting) -> list[bool]:
    """For each block of `shape`, whether its output depends on anything trained.

    Where it does not, autograd keeps nothing and computes nothing. Embeddings are trained with
    their tower unless that is adapted, so a whole tower is reached or none of it; but adapters or
    trained weights in cross-attention alone, or in front of it, reach the decoder only from the
    first such block on.
    """
    reached = []
    before = any(setting.trains(tower) for tower in ("vision", "projector"))
    decoder = setting.trains("language") or (before and shape.joint)
    for index, block in enumerate(shape.blocks):
        if block.encoder:
            reached.append(setting.trains("vision") and index < _used_encoder_blocks(shape))
        else:
            decoder = decoder or setting.trains(block.tower) or (block.cross and before)
            reached.append(decoder)
    return reached


def _used_encoder_blocks(shape: ModelShape) -> int:
    return sum(block.encoder for block in shape.blocks) - shape.ignored_blocks

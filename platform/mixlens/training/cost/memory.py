"""Memory of a training step: on each device, in main memory and on NVMe, in bytes by part.

What states take follows the ZeRO paper (Rajbhandari et al. 2020: weights, gradients, and for Adam
fp32 weights and two moments, divided by the workers from the stage on that shards them), corrected
by what DeepSpeed 0.19 allocates under the configuration of `mixlens.training.zero`:

- stage 0, and fp32 at any stage below 3: every worker has whole fp32 weights; above stage 0 fp32
  masters of its share stand beside them;
- stage 1 in bf16 has whole gradients twice, in bf16 and added up in fp32;
- stage 3 keeps weights whole for as long as they are used again soon, at most 10^9 of them.
"""

from dataclasses import dataclass

from mixlens.training.cost.activations import Activations, activations
from mixlens.training.cost.setting import Setting, adapter_parameters, trained_parameters
from mixlens.training.cost.shape import ModelShape
from mixlens.training.cost.tokens import RowTokens
from mixlens.training.zero import BUCKET

FP32 = 4
MOMENTS = 2 * FP32
# DeepSpeed's defaults that the configuration leaves as they are, in elements.
UNSHARDED_BUCKET = 500_000_000  # of one all-reduce of whole gradients
LIVE = 1_000_000_000  # of weights that stage 3 keeps whole
PREFETCHED = 50_000_000
SUB_GROUP = 1_000_000_000  # that stage 3 updates at once
SWAP_BUFFERS = 4  # of a sub-group's state on its way to and from NVMe
PARAMETER_BUFFERS, PARAMETER_BUFFER = 5, 100_000_000
# The CUDA context, NCCL and cuBLAS, outside of PyTorch's allocator: an assumption, not measured.
CUDA_CONTEXT = 1 << 30


@dataclass(frozen=True)
class Memory:
    """Bytes by part.

    Attributes:
        device: on each device; the peak is their sum.
        allocated: the part of that which PyTorch's allocator hands out.
        host: in the main memory of the fullest node, for offloaded states while training.
        loading: in the main memory of a node while the workers load the model.
        saving: in the main memory of the first node while the model is saved.
        nvme: on each node's disk.
    """

    device: dict[str, float]
    host: dict[str, float]
    loading: float
    saving: float
    nvme: float

    @property
    def peak(self) -> float:
        """Bytes that a device needs."""
        return sum(self.device.values())

    @property
    def allocated(self) -> float:
        """The part of `peak` that PyTorch's allocator hands out."""
        return self.peak - self.device.get("CUDA context", 0.0)

    @property
    def host_peak(self) -> float:
        """Bytes of main memory that a node needs at most at once."""
        return max(sum(self.host.values()), self.loading, self.saving)


@dataclass(frozen=True)
class States:
    """Bytes of one worker's states.

    Attributes:
        weights, optimizer, buckets: on its device, in every phase.
        gradients: on its device, at the end of the backward pass.
        growing: the part of them that the backward pass makes, layer by layer.
        host, nvme: what is offloaded.
    """

    weights: float
    optimizer: float
    gradients: float
    buckets: float
    growing: float = 0.0
    host: float = 0.0
    nvme: float = 0.0


def memory(shape: ModelShape, tokens: RowTokens, setting: Setting) -> Memory:
    """What a training step takes with micro-batches of rows with `tokens` each.

    The peak is that of the fullest moment: the end of the forward pass, the backward pass of the
    loss or of the last block, or the optimiser's step. Between them memory changes evenly.
    """
    states, acts = model_states(shape, setting), activations(shape, tokens, setting)
    moment = _fullest(shape, setting, states, acts)
    device = {
        "weights": states.weights,
        "optimizer": states.optimizer,
        "gradients": moment["gradients"],
        "buckets": states.buckets,
        "activations": moment["activations"],
        "logits and loss": moment["logits"],
    }
    if setting.device == "cuda":
        device["CUDA context"] = CUDA_CONTEXT
    whole = (shape.total + adapters(shape, setting)) * setting.weight_bytes
    return Memory(
        device=device,
        host={"offloaded states": states.host * setting.workers_per_node},
        loading=float(whole * setting.workers_per_node) if setting.device == "cuda" else 0.0,
        saving=float(whole) if setting.device == "cuda" else 0.0,
        nvme=states.nvme * setting.workers_per_node,
    )


def adapters(shape: ModelShape, setting: Setting) -> int:
    """Parameters that LoRA adds."""
    if setting.lora_rank is None:
        return 0
    adapted = [product for product in shape.products if setting.adapts(product)]
    return sum(adapter_parameters(product, setting.lora_rank) for product in adapted)


def model_states(shape: ModelShape, setting: Setting) -> States:
    """Weights, optimiser state, gradients and buckets of one worker."""
    trained = sum(trained_parameters(shape, setting).values())
    weights = (shape.total + adapters(shape, setting)) * setting.weight_bytes
    share = 1 / setting.workers
    if setting.zero_stage == 0:
        # The weights are the masters; DeepSpeed reduces whole gradients in pieces.
        bucket = min(trained, UNSHARDED_BUCKET) * FP32 if setting.workers > 1 else 0
        new = 0 if setting.accumulates else FP32 * trained
        return States(weights, MOMENTS * trained, FP32 * trained, bucket, new)
    if setting.zero_stage == 3:
        return _sharded_weights(shape, setting, weights, trained * share)
    return _sharded_optimizer(shape, setting, weights, trained, share)


def _sharded_optimizer(
    shape: ModelShape, setting: Setting, weights: float, trained: int, share: float
) -> States:
    """Stages 1 and 2."""
    mine, held = trained * share, setting.weight_bytes
    optimizer = (FP32 + MOMENTS) * mine
    offloads = setting.offload_optimizer != "none"
    overlapping = 2 if setting.device == "cuda" else 1  # one is filled while one is reduced
    bucket = float(BUCKET * held * overlapping)
    growing = 0.0
    if setting.zero_stage == 2:
        gradients = 0.0 if offloads else FP32 * mine
    elif held == FP32 or offloads:
        gradients = float(FP32 * trained)
        growing = 0.0 if setting.accumulates else gradients
    else:
        gradients, growing = float((held + FP32) * trained), float(held * trained)
        bucket = float(min(trained, UNSHARDED_BUCKET) * FP32) if setting.workers > 1 else 0.0
    if not offloads:
        return States(weights, optimizer, gradients, bucket, growing)
    # Masters, moments and gradients in fp32, gradients added up, and weights on their way back.
    host = optimizer + FP32 * mine + held * mine
    host += FP32 * trained if setting.accumulates else 0
    return States(weights, held * shape.largest, gradients, bucket, growing, host)


def _sharded_weights(shape: ModelShape, setting: Setting, weights: float, mine: float) -> States:
    """Stage 3."""
    held, share = setting.weight_bytes, 1 / setting.workers
    live = held * min(shape.total, LIVE + PREFETCHED)
    own, host, nvme = weights * share, 0.0, 0.0
    if setting.offload_parameters == "cpu":
        host, own = host + own, 0.0
    elif setting.offload_parameters == "nvme":
        host += held * PARAMETER_BUFFERS * PARAMETER_BUFFER
        nvme, own = nvme + own, 0.0
    optimizer, gradients = (FP32 + MOMENTS) * mine, FP32 * mine
    step = FP32 * min(mine, SUB_GROUP)  # a sub-group's gradients, made flat
    if setting.offload_optimizer == "none":
        return States(own + live, optimizer + step, gradients, BUCKET * held, 0.0, host, nvme)
    if setting.offload_optimizer == "cpu":
        host += optimizer + 2 * gradients
    else:
        nvme += optimizer + gradients
        host += gradients + SWAP_BUFFERS * step
    return States(own + live, 0.0, 0.0, BUCKET * held, 0.0, host, nvme)


def _fullest(
    shape: ModelShape, setting: Setting, states: States, acts: Activations
) -> dict[str, float]:
    """Gradients, activations and logits at the moment at which they take most together.

    What grows of the gradients comes into being on the way: that of the output layer first, then
    block by block, while what these kept goes.
    """
    there = states.gradients - states.growing
    trained = sum(trained_parameters(shape, setting).values())
    each = states.growing / trained if trained else 0.0  # bytes of a trained parameter's gradient
    moments = [
        (there, acts.kept + acts.forward_casts + acts.masks, acts.logits),
        (there, acts.kept, acts.loss),
    ]
    kept = acts.kept
    (output,) = [product for product in shape.others if product.place == "logits"]
    if setting.trains_weights(output.tower):
        there += each * output.weights
    for block in reversed(acts.blocks):
        moments.append((there, kept + block.again + block.working, 0.0))
        there += each * block.trained
        kept -= block.kept
    moments.append((states.gradients, kept, 0.0))
    return dict(zip(("gradients", "activations", "logits"), max(moments, key=sum), strict=True))

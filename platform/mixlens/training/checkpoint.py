"""Optimizer checkpoints that any number of workers can read at any ZeRO stage.

Each rank writes the flat fp32 slices it owns to `shard<rank>.safetensors`: for every piece the
weights and both Adam moments, under `<parameter>|<kind>|<start in the parameter>`. Rank 0 writes
`meta.json` last. A reader takes the overlaps of all pieces with its own. Only trained parameters
are kept: frozen ones come from the base model. Learning rates and the mixture follow from the
step, dropout from the positions of a batch, so the step is all the other state there is.

`_pieces` and `load` touch private attributes of DeepSpeed: keep it pinned, and the round-trip
test of every stage.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mixlens.errors import CheckpointError, explain
from mixlens.training.optimizer import whole_shape

META = "meta.json"
FORMAT = 1
KINDS = ("fp32", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Piece:
    """Elements [start, start + length) of a flattened parameter, where this rank keeps them.

    Attributes:
        name: of the parameter.
        flat: the tensor the optimiser updates, and whose state it keeps.
        offset: first element of the piece in `flat`.
        start: first element of the piece in the flattened parameter.
        length: elements, perhaps none.
    """

    name: str
    flat: Tensor
    offset: int
    start: int
    length: int

    def of(self, tensor: Tensor) -> Tensor:
        """The part of `tensor`, shaped like `flat`, that this piece is."""
        return tensor.detach().view(-1).narrow(0, self.offset, self.length)


def save(engine: Any, folder: Path, step: int, run_digest: str) -> None:
    """Write this rank's pieces to `folder`, and on rank 0 the record of all ranks' pieces.

    All ranks must call it; their folders may be one folder or different ones to be merged.
    """
    state = _adam(engine).state
    tensors: dict[str, Tensor] = {}
    everyone_has_all = engine.zero_optimization_stage() == 0
    for piece in () if everyone_has_all and dist.get_rank() else _pieces(engine):
        moments = state.get(piece.flat, {})
        for kind in KINDS:
            source = piece.flat if kind == "fp32" else moments.get(kind)
            # A parameter that no loss depends on has no moments yet; they are zero.
            part = torch.zeros(piece.length) if source is None else piece.of(source).cpu()
            tensors[f"{piece.name}|{kind}|{piece.start}"] = part.clone()
    shard = folder / f"shard{dist.get_rank():05d}.safetensors"
    if tensors:
        save_file(tensors, shard)
    mine = (shard.name, shard.stat().st_size if tensors else 0)
    shards: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shards, mine)
    if dist.get_rank() == 0:
        record = {
            "format": FORMAT,
            "run": run_digest,
            "step": step,
            "shards": {name: size for name, size in shards if size},
        }
        part_file = folder / (META + ".part")
        part_file.write_text(json.dumps(record, indent=1))
        part_file.rename(folder / META)


def load(engine: Any, folder: Path, run_digest: str) -> None:
    """Put a checkpoint into a fresh engine, which must be that of the same run.

    Raises:
        CheckpointError: it is incomplete, or belongs to another run or model.
    """
    record = read_record(folder, run_digest)
    stored = _Stored(folder, record["shards"])
    step, adam = record["step"], _adam(engine)
    pieces = list(_pieces(engine))
    trained = {
        name: parameter
        for name, parameter in engine.module.named_parameters()
        if parameter.requires_grad
    }
    if odd := trained.keys() ^ stored.names():
        raise CheckpointError(
            explain(f"checkpoint {folder}", sorted(odd)[:3],
                    f"{len(odd)} of {len(trained.keys() | stored.names())} parameters are on one "
                    "side only", "It is of another model; remove the folder.")
        )  # fmt: skip
    stored.check_sizes(
        {name: whole_shape(parameter).numel() for name, parameter in trained.items()}
    )
    # DeepSpeed may have stepped once to allocate; what is not overwritten below must be zero.
    adam.state.clear()
    for piece in pieces:
        if piece.flat not in adam.state:
            adam.state[piece.flat] = {
                "step": torch.tensor(float(step), device=piece.flat.device),
                "exp_avg": torch.zeros_like(piece.flat),
                "exp_avg_sq": torch.zeros_like(piece.flat),
            }
        for kind in KINDS:
            target = piece.flat if kind == "fp32" else adam.state[piece.flat][kind]
            stored.fill(piece.of(target), piece.name, kind, piece.start)
    _push_masters(engine)


def read_record(folder: Path, run_digest: str) -> dict[str, Any]:
    """The checked `meta.json` of a checkpoint.

    Raises:
        CheckpointError: a file is missing or cut short, or it belongs to another run.
    """
    remedy = "Remove the folder to start from the checkpoint before it, or from the beginning."
    where = f"checkpoint {folder}"
    try:
        record: dict[str, Any] = json.loads((folder / META).read_text())
        sizes, owner, version = dict(record["shards"]), record["run"], record["format"]
        int(record["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            explain(where, META, f"missing or unreadable ({error}), so it was not finished", remedy)
        ) from None
    if version != FORMAT:
        raise CheckpointError(explain(where, version, f"format {FORMAT} was expected", remedy))
    if owner != run_digest:
        raise CheckpointError(
            explain(where, owner, f"it belongs to another run than {run_digest}", remedy)
        )
    for name, size in sizes.items():
        there = (folder / name).stat().st_size if (folder / name).is_file() else None
        if there != size:
            problem = "missing" if there is None else f"{there} bytes instead of {size}"
            raise CheckpointError(explain(where, name, problem, remedy))
    return record


class _Stored:
    """The pieces of all shards, found by parameter and kind, read only where they are needed."""

    def __init__(self, folder: Path, shards: dict[str, int]) -> None:
        self.folder = folder
        self.parts: dict[tuple[str, str], list[tuple[int, int, Any, str]]] = {}
        for shard in shards:
            try:
                file = safe_open(folder / shard, "pt")
            except Exception as error:  # safetensors has an error class of its own
                raise CheckpointError(
                    explain(f"checkpoint {folder}", shard, f"unreadable: {error}",
                            "Remove the folder.")
                ) from None  # fmt: skip
            for key in file.keys():  # noqa: SIM118 - the file is no mapping
                name, kind, start = key.rsplit("|", 2)
                (length,) = file.get_slice(key).get_shape()
                self.parts.setdefault((name, kind), []).append((int(start), length, file, key))

    def names(self) -> set[str]:
        return {name for name, _ in self.parts}

    def check_sizes(self, needed: dict[str, int]) -> None:
        """Refuse parameters of which more or fewer elements are stored than they have."""
        for (name, kind), parts in self.parts.items():
            there = sum(length for _, length, _, _ in parts)
            if there != needed[name]:
                raise CheckpointError(
                    explain(f"checkpoint {self.folder}", f"{name}|{kind}",
                            f"{there} elements are there, and the model has {needed[name]}",
                            "It is of another model; remove the folder.")
                )  # fmt: skip

    def fill(self, target: Tensor, name: str, kind: str, start: int) -> None:
        """Copy elements [start, start + len(target)) of a flattened parameter into `target`."""
        end, filled = start + len(target), 0
        for first, length, file, key in self.parts.get((name, kind), []):
            low, high = max(start, first), min(end, first + length)
            if low < high:
                part = file.get_slice(key)[low - first : high - first]
                target.narrow(0, low - start, high - low).copy_(part)
                filled += high - low
        if filled != len(target):
            raise CheckpointError(
                explain(f"checkpoint {self.folder}", f"{name}|{kind}",
                        f"{filled} of {len(target)} elements are there", "Remove the folder.")
            )  # fmt: skip


def _pieces(engine: Any) -> Iterator[Piece]:
    """What this rank owns, in the same order at every call."""
    optimizer, stage, rank = engine.optimizer, engine.zero_optimization_stage(), dist.get_rank()
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            continue
        if stage == 3:
            group, offset, share = optimizer.grad_position[optimizer.get_param_id(parameter)]
            flat, start = optimizer.fp32_partitioned_groups_flat[group], share * rank
            length = min(share, parameter.ds_numel - start)
        elif stage:
            if parameter._hp_mapping is None:  # another rank owns all of it
                continue
            flat_part = parameter._hp_mapping.hp_fragment_address
            flat = _flat_groups(optimizer)[parameter._hp_mapping.param_group_index]
            offset, length = flat_part.start, flat_part.numel
            start = parameter._hp_mapping.lp_fragment_address.start
        else:
            flat, offset, start, length = parameter, 0, 0, parameter.numel()
        if length > 0:
            yield Piece(name, flat, offset, start, length)


def _flat_groups(optimizer: Any) -> list[Tensor]:
    """fp32 masters of this rank, one flat tensor a parameter group (stages 1 and 2)."""
    if hasattr(optimizer, "single_partition_of_fp32_groups"):
        return optimizer.single_partition_of_fp32_groups
    return optimizer.fp32_groups_flat_partition


def _adam(engine: Any) -> Any:
    """The AdamW that DeepSpeed wraps."""
    return engine.optimizer.optimizer if engine.zero_optimization_stage() else engine.optimizer


def _push_masters(engine: Any) -> None:
    """Make the model's weights equal to the fp32 masters."""
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage == 3:
        optimizer.checkpoint_event_prologue()
        for sub_group in range(len(optimizer.fp16_groups)):
            # To wherever the weights are: the GPU, main memory or NVMe.
            optimizer._reassign_or_swap_out_partitioned_parameters(sub_group)
        optimizer.checkpoint_event_epilogue()
    elif stage:
        optimizer.update_lp_params()

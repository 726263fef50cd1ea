"""What two ranks do at ZeRO stage 3 beyond training: load a model together, see uneven batches."""

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from training_cases import RandomStream, pair, run_of

from mixlens.mixture.batches import MicroBatch
from mixlens.training.context import FolderContext
from mixlens.training.loop import train
from mixlens.training.lora import add_lora
from mixlens.training.optimizer import parameter_groups
from mixlens.training.sharded import load_trainable

UNEVEN_STAGES = (0, 3)


class Held(TorchDispatchMode):
    """Bytes of all parameters of this process, split or whole, sampled at every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._parameters: dict[int, weakref.ref[nn.Parameter]] = {}
        self._register = nn.Module.register_parameter

    def __enter__(self) -> "Held":
        register, known = self._register, self._parameters

        def noting(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
            register(module, name, parameter)
            if parameter is not None:
                known[id(parameter)] = weakref.ref(parameter)

        nn.Module.register_parameter = noting  # type: ignore[method-assign]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        nn.Module.register_parameter = self._register  # type: ignore[method-assign]

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self.peak = max(self.peak, self.now())
        return made

    def now(self) -> int:
        storages = {}
        for reference in self._parameters.values():
            if (parameter := reference()) is not None:
                for part in (parameter, getattr(parameter, "ds_tensor", None)):
                    if part is not None and part.device.type != "meta":
                        storage = part.untyped_storage()
                        storages[storage.data_ptr()] = storage.nbytes()
        return sum(storages.values())


class UnevenStream(RandomStream):
    """Rank 1 has one row where rank 0 has two, of other lengths; the global batch is smaller."""

    def rows(self, start: int, count: int) -> MicroBatch:
        whole = super().rows(start, count)
        if self.context.rank == 0:
            return whole
        length = int(whole.tensors["attention_mask"][0].sum())
        one = {name: value[:1] for name, value in whole.tensors.items()}
        short = {
            name: value if name == "pixel_values" else value[:, :length]
            for name, value in one.items()
        }
        return MicroBatch(whole.positions, whole.example_ids, whole.components, short)


def two_ranks(rank: int, root: Path) -> None:
    """Everything that rank `rank` of two does for the tests."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{root}/meeting", rank=rank, world_size=2)
    pair(rank, root)
    load_both(rank, root)
    train_unevenly(rank, root)
    dist.destroy_process_group()


def load_both(rank: int, root: Path) -> None:
    """On rank `rank` of two: load a model split and whole, and write what was found of it."""
    context = FolderContext(rank, 2, rank, torch.device("cpu"), root)
    found: dict[str, Any] = {}

    # How much of a model whose largest parameter is a twenty-fifth of it is there at any time.
    split, whole = (run_of(root / "large", stage) for stage in (3, 2))
    with Held() as held:
        kept = load_trainable(whole, context)
    found["peak_whole"], found["whole"] = held.peak, held.now()
    with Held() as held:
        vlm = load_trainable(split, context)
        gc.collect()
    found["peak_split"], found["split"] = held.peak, held.now()
    found["gathered"] = sum(parameter.numel() for parameter in vlm.model.parameters())

    # Everything that is not a split parameter is what it is without.
    buffers = dict(vlm.model.named_buffers())
    expected = dict(kept.model.named_buffers())
    found["buffers"] = buffers.keys() == expected.keys() and all(
        torch.equal(buffers[name], expected[name]) and buffers[name].dtype == expected[name].dtype
        for name in expected
    )
    groups = [
        [
            (group["tower"], group["peak"], group["weight_decay"], len(group["params"]))
            for group in parameter_groups(v.model, v.adapter.towers(v.model), split.training)
        ]
        for v in (vlm, kept)
    ]
    found["groups"] = groups[0] == groups[1]
    lora = run_of(root / "large", 3, lora=True).training.lora
    assert lora is not None
    adapters = [
        {name: p for name, p in add_lora(v, lora, 5).named_parameters() if p.requires_grad}
        for v in (vlm, kept)
    ]
    found["adapters"] = adapters[0].keys() == adapters[1].keys() and all(
        torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0]
    )
    (root / f"found-{rank}.json").write_text(json.dumps(found))


def train_unevenly(rank: int, root: Path) -> None:
    """On rank `rank` of two: train on fewer rows on one of them."""
    for stage in UNEVEN_STAGES:
        directory = root / f"uneven-{stage}"
        directory.mkdir(exist_ok=True)
        run = run_of(root / "base", stage)
        place = FolderContext(rank, 2, rank, torch.device("cpu"), directory)
        vlm = load_trainable(run, place)
        stream = UnevenStream(run.training, place, vlm.adapter.image_token_id)
        train(run, place, vlm, stream)

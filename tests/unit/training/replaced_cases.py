"""A run over photographs without any photographs, and two ranks that count together.

Imports as little as it can: `torch.multiprocessing` starts processes that import it again.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from mixlens.errors import DataError
from mixlens.mixture import order
from mixlens.mixture.batches import MicroBatch
from mixlens.mixture.decoding import Replacement
from mixlens.spec import (
    CocoComponent,
    CocoFiles,
    CocoSpec,
    RunSpec,
    SceneComponent,
    TrainingSpec,
)
from mixlens.training.context import FolderContext
from mixlens.training.replaced import Replaced

PHOTOS, OTHER = 100, 30  # images


@dataclass(frozen=True)
class Sized:
    size: int


def opened(name, spec, data=None):
    return Sized(PHOTOS if name == "photos" else OTHER) if spec.kind == "coco" else Sized(None)


def photo_run(max_left_out: float, model: Path | str = "none") -> RunSpec:
    """Half photographs of `street`, a quarter of `city`; 6 steps of 8, 2 a micro-batch."""
    files = CocoFiles(annotations="instances.json")
    street = CocoSpec(root="street-root", train=files, max_left_out=max_left_out)
    return RunSpec(
                model=str(model),
        data={"street": street, "city": street.model_copy(update={"max_left_out": 1.0})},
        components={
            "scenes": SceneComponent(tasks={"coarse": 1}),
            "photos": CocoComponent(kind="coco", data="street", tasks={"coarse": 1}),
            "other": CocoComponent(kind="coco", data="city", tasks={"coarse": 1}),
        },
        weights={"scenes": 0.25, "photos": 0.5, "other": 0.25},
                seed=5,
        training=TrainingSpec(
            steps=6, global_batch=8, micro_batch=2, precision="fp32", checkpoint_every=3,
            log_every=1,
        ),
            )  # fmt: skip


def replacement(position: int, data: str = "street") -> Replacement:
    file = f"{position:03d}.jpg"
    return Replacement(position, data, f"photos/{position}", file, "photos/0", f"{file}: truncated")


def rank_of_two(rank: int, root: str) -> None:
    """Two ranks note replacements, restart after step 1, and share one count and message.

    A module-level function, so that `torch.multiprocessing` can start it.
    """
    order.open_source = opened
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{root}/meeting", rank=rank, world_size=2)
    run = photo_run(max_left_out=0.5)
    context = FolderContext(rank, 2, rank, torch.device("cpu"), Path(root))
    told = []

    def step(replaced: Replaced, positions: list[int], steps: int) -> None:
        rows = MicroBatch([], [], [], {}, tuple(map(replacement, positions)))
        counts = torch.tensor(replaced.note([rows]))
        dist.all_reduce(counts)
        try:
            replaced.check(counts.tolist(), steps)
        except DataError as error:
            told.append(str(error))
        told.append(replaced.total)

    replaced = Replaced(run, context, 0)
    step(replaced, [rank], 1)
    step(replaced, [8 + rank, 16 + rank] if rank else [], 3)
    replaced = Replaced(run, context, 1)  # from the checkpoint after step 1
    step(replaced, [8 + rank], 2)
    step(replaced, [16 + rank, 20 + rank], 3)
    if rank == 0:
        replaced.write_table()
    (Path(root) / f"told-{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()

"""A run over scenes and photographs some of whose files are damaged after they were indexed."""

from pathlib import Path
from typing import Any

from coco_set import CocoSet

from mixlens.mixture.order import order_of
from mixlens.sources import open_source
from mixlens.sources.coco.build import build_index
from mixlens.spec import (
    CocoComponent,
    CocoSpec,
    ResourceSpec,
    RunSpec,
    SceneComponent,
    SceneSpec,
    SizeRange,
    TrainingSpec,
)

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def photo_run(
    coco: CocoSet, indexes: Path, model: str = "none", workers: int = 1, **training: Any
) -> RunSpec:
    """Half of it photographs, in epochs; its data set is indexed here."""
    large = SizeRange(name="large", diameter=(0.3, 0.4))
    scene = SceneSpec(image_size=32, objects=(1, 2), sizes=(large,))
    settings = {"steps": 10, "global_batch": 8, "micro_batch": 2, "precision": "fp32",
                "checkpoint_every": 2, "log_every": 1}  # fmt: skip
    spec = build_index("photos", CocoSpec(**coco.data), indexes, lambda *_: None)
    return RunSpec(
        model=model,
        data={"photos": spec},
        components={
            "street": CocoComponent(kind="coco", data="photos", tasks={"coarse": 1, "count": 1}),
            "scenes": SceneComponent(scene=scene, tasks={"coarse": 1}),
        },
        weights={"street": 0.5, "scenes": 0.5},
        seed=3,
        training=TrainingSpec(**settings | training),
        resources=ResourceSpec(workers=workers, cpus_per_worker=1, cpus_per_render=0.5),
    )


def with_limit(run: RunSpec, share: float) -> RunSpec:
    """The run with another `max_left_out`."""
    data = {name: one.model_copy(update={"max_left_out": share}) for name, one in run.data.items()}
    return run.model_copy(update={"data": data})


def damage(run: RunSpec) -> dict[int, str]:
    """Damage six training images; index in the component -> what is then said of it."""
    source = open_source("street", run.components["street"], run.data)
    said = {1: "truncated", 2: "gone", 4: "gone", 6: "pointer_file", 9: "truncated", 11: "gone"}
    for index in said:
        file = Path(run.data["photos"].root) / "train2017" / source.file_name(index)
        if index in (1, 9):
            data = file.read_bytes()
            file.write_bytes(data[: len(data) // 2])
        elif index == 6:
            file.write_bytes(POINTER)
        elif index == 4:
            file.write_bytes(b"")
        else:
            file.unlink()
    return said


def expected(run: RunSpec, steps: range, damaged: dict[int, str]) -> dict[int, tuple[str, str]]:
    """Position -> id that is due and id that has to come, for all positions of some steps."""
    batch, order = run.training.global_batch, order_of(run)
    size = open_source("street", run.components["street"], run.data).size
    found = {}
    for position in range(steps.start * batch, steps.stop * batch):
        name, index = order.at(position)
        due = f"{name}/{index}"
        if name == "street" and index in damaged:
            tried = ((index + size // 2 + k) % size for k in range(16))
            found[position] = (due, f"street/{next(i for i in tried if i not in damaged)}")
        else:
            found[position] = (due, due)
    return found

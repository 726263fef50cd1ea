"""A run over two tiny components, one of them finite."""

from collections.abc import Callable

import pytest

from mixlens.spec import RunSpec, SceneComponent, SceneSpec, SizeRange, TrainingSpec


@pytest.fixture
def mixture_run() -> Callable[..., RunSpec]:
    def make(**training: int) -> RunSpec:
        large = SizeRange(name="large", diameter=(0.3, 0.4))
        scene = SceneSpec(image_size=32, objects=(1, 2), sizes=(large,))
        return RunSpec(
            model="none",
            components={
                "easy": SceneComponent(scene=scene, tasks={"coarse": 1}),
                "hard": SceneComponent(scene=scene, tasks={"attribute": 1}, seed=1, size=50),
            },
            weights={"easy": 0.75, "hard": 0.25},
            seed=3,
            training=TrainingSpec(**{"steps": 10, "global_batch": 8, "micro_batch": 2, **training}),
        )

    return make

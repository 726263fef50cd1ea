"""How fast scenes are made, with and without questions: `python benchmarks/scene_generation.py`.

Images a second of one process at 224 x 224, each scene made once (nothing but sprites is cached),
with and without questions, beside the floor: allocating, filling and copying the same image array.
The last line is one JSON object.
"""

import gc
import json
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from mixlens.scenes import check_scene_spec, make_scene
from mixlens.spec import SceneSpec, SizeRange
from mixlens.tasks import ask

SECONDS = 0.8  # a round
ROUNDS = 3  # the best counts: other work on the machine can only slow a round down
WARM_UP = 2.0  # seconds; a new process first has to draw the sprites that it will stamp
CASES = {
    "1 to 10 objects": SceneSpec(),
    "200 objects": SceneSpec(
        objects=(200, 200), sizes=(SizeRange(name="tiny", diameter=(0.025, 0.045)),)
    ),
}
QUESTIONS = {"coarse": 1, "attribute": 1, "relational": 1}


def rate(make: Callable[[int], object]) -> float:
    """Calls a second of the process's own time: the best of the rounds after a warm-up."""
    index, best = 0, 0.0
    for seconds in (WARM_UP, *[SECONDS] * ROUNDS):
        start, first = time.process_time(), index
        while (spent := time.process_time() - start) < seconds:
            for _ in range(20):
                make(index)
                index += 1
        if seconds == SECONDS:
            best = max(best, (index - first) / spent)
    return best


def floor(_: int) -> np.ndarray:
    return np.full((224, 224, 3), 255, np.uint8).copy()


def main() -> None:
    gc.freeze()
    result: dict[str, float] = {"floor images/s": rate(floor)}
    for name, spec in CASES.items():
        check_scene_spec(spec)
        scenes = partial(make_scene, spec, 0)
        result[f"{name}: scenes/s"] = rate(scenes)
        result[f"{name}: scenes with questions/s"] = rate(
            lambda index, scenes=scenes: ask(scenes(index + 10**9), QUESTIONS, 0, index)
        )
        result[f"{name}: scene time / floor time"] = (
            result["floor images/s"] / result[f"{name}: scenes/s"]
        )
    for name, value in result.items():
        print(f"{name:45s} {value:10.1f}")
    print(json.dumps({name: round(value, 1) for name, value in result.items()}))


if __name__ == "__main__":
    main()

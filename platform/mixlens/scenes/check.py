"""Refuse a scene spec that cannot be satisfied, and say what would fit."""

from mixlens.errors import SpecError, explain
from mixlens.scenes.place import cell_count
from mixlens.scenes.sample import rotations
from mixlens.scenes.sizes import pixel_range
from mixlens.spec.scene import SceneSpec


def check_scene_spec(spec: SceneSpec) -> None:
    """Accept a spec only if every scene of it can hold exactly the objects it asks for.

    Raises:
        SpecError: the objects do not fit, even at the smallest size; or a range holds no value.
    """
    if not rotations(spec):
        raise SpecError(
            explain(
                "scene.rotation",
                spec.rotation,
                "rotations are multiples of 5 degrees and none is in this range",
                "Widen it.",
            )
        )
    smallest = min(pixel_range(named.diameter, spec.image_size)[0] for named in spec.sizes)
    most = cell_count(smallest, spec.image_size)
    if spec.objects[1] > most:
        raise SpecError(explain("scene.objects", spec.objects, "too many", f"At most {most} fit."))

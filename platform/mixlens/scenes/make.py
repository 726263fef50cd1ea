"""A scene from its three numbers: sample, paint, describe."""

import numpy as np

from mixlens.scenes.describe import describe_objects, describe_scene
from mixlens.scenes.render import paint
from mixlens.scenes.sample import sample
from mixlens.scenes.scene import Scene
from mixlens.scenes.sprites import sprite
from mixlens.spec.scene import SceneSpec


def make_scene(spec: SceneSpec, seed: int, index: int) -> Scene:
    """The scene number `index` of a spec: the same bytes in any process, order or machine.

    Args:
        spec: a spec that `check_scene_spec` accepts.
        seed: of the component, any integer.
        index: any integer; no other scene has to be made before.
    """
    drafts = sample(spec, seed, index)
    stamps = [sprite(d.shape, d.texture, d.quarters, d.rotation) for d in drafts]
    image = np.full((spec.image_size, spec.image_size, 3), 255, np.uint8)
    ids = paint(drafts, stamps, image)
    objects = describe_objects(drafts, stamps, [stamp.area for stamp in stamps])
    attributes = describe_scene(objects, [stamp.painted for stamp in stamps], spec.image_size)
    return Scene(image, objects, ids, attributes)

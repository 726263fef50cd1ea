"""A scene from its three numbers: sample, paint, describe."""

from mixlens.scenes.background import background
from mixlens.scenes.describe import describe_objects, describe_scene
from mixlens.scenes.effects import add_effects
from mixlens.scenes.render import paint
from mixlens.scenes.sample import sample
from mixlens.scenes.scene import Scene
from mixlens.spec.scene import SceneSpec


def make_scene(spec: SceneSpec, seed: int, index: int) -> Scene:
    """The scene number `index` of a spec: the same bytes in any process, order or machine.

    Args:
        spec: a spec that `check_scene_spec` accepts.
        seed: of the component, any integer.
        index: any integer; no other scene has to be made before.
    """
    plan = sample(spec, seed, index)
    image = background(spec, seed, index)
    ids, visible, visible_ink = paint(plan, image)
    image, strengths = add_effects(spec, image, seed, index)
    attributes = describe_scene(plan, visible, visible_ink, spec.image_size)
    attributes.update(strengths, background=spec.background)
    return Scene(image, describe_objects(spec, plan, visible), ids, attributes)

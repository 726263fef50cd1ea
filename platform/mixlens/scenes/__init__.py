"""The synthetic world: a scene is a pure function of (spec, seed, index), described exactly."""

from mixlens.scenes.check import check_scene_spec
from mixlens.scenes.make import make_scene
from mixlens.scenes.scene import Scene, SceneObject, full_mask, mask

__all__ = ["Scene", "SceneObject", "check_scene_spec", "full_mask", "make_scene", "mask"]

"""Generated scenes with questions, as a source."""

from mixlens.errors import DataError, explain
from mixlens.scenes import check_scene_spec, make_scene
from mixlens.sources.example import Attributes, Example
from mixlens.spec import HELD_OUT_START, SceneComponent
from mixlens.tasks import answer_space, ask


class SyntheticSource:
    """The examples of one component: a pure function of its spec and the index.

    Attributes:
        name: name of the component.
        spec: what it contains.
        size: number of examples, or None if it never ends.
        held_out_size: None, because held-out scenes never end.
        is_remote, is_replaceable: False, because nothing is read.

    Raises:
        SpecError: no scene can satisfy the spec, or the name of a size cannot be a word.
    """

    held_out_size = None
    is_remote = False
    is_replaceable = False

    def __init__(self, name: str, spec: SceneComponent) -> None:
        check_scene_spec(spec.scene)
        self.name = name
        self.spec = spec
        self.size = spec.size
        self._space = answer_space(spec.scene)

    def example(self, index: int) -> Example:
        """The scene with this index, and the turns about it."""
        # Held-out scenes lie far beyond the end of a finite component.
        if index < 0 or (self.size is not None and self.size <= index < HELD_OUT_START):
            bounds = "from 0 up" if self.size is None else f"from 0 to {self.size - 1}"
            raise DataError(
                explain(
                    f"component {self.name}",
                    index,
                    "there is no example with this index",
                    f"Indices go {bounds}.",
                )
            )
        scene = make_scene(self.spec.scene, self.spec.seed, index)
        return Example(
            example_id=f"{self.name}/{index}",
            component=self.name,
            image=scene.image,
            turns=ask(scene, self.spec.tasks, self.spec.seed, index, self._space),
            attributes=scene.attributes,
        )

    def attributes(self, index: int) -> Attributes:
        """Those of the scene with this index, which is drawn for it."""
        return self.example(index).attributes

    def attribute_names(self) -> list[str]:
        """Those of any scene."""
        return sorted(self.attributes(HELD_OUT_START))

    def sizes(self, held_out: bool) -> None:
        """None: images are generated."""

    def file_name(self, index: int) -> None:
        """None: the image is generated."""

    def describe(self) -> str:
        """How many objects are in a scene."""
        low, high = self.spec.scene.objects
        return f"scenes of {low} to {high} objects"

    def caveats(self) -> list[str]:
        """None: attributes of scenes are exact."""
        return []

"""All kinds of components, and of data sets, that a file can name."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from mixlens.spec.coco import CocoComponent, CocoSpec
from mixlens.spec.scene import SceneComponent


def component_kind(content: Any) -> Any:
    """The kind of a component; with a data set but no kind it is the kind that is missing."""
    if not isinstance(content, dict):
        return getattr(content, "kind", "synthetic")
    return content.get("kind", "coco" if "data" in content else "synthetic")


def data_set_kind(content: Any) -> Any:
    """The kind of a data set."""
    if not isinstance(content, dict):
        return getattr(content, "kind", "coco")
    return content.get("kind", "coco")


ComponentSpec = Annotated[
    Annotated[SceneComponent, Tag("synthetic")] | Annotated[CocoComponent, Tag("coco")],
    Discriminator(component_kind),
]

DataSet = Annotated[Annotated[CocoSpec, Tag("coco")], Discriminator(data_set_kind)]
"""A component takes images from a data set of its own kind."""

"""Generated scenes: the knobs of visual complexity, each independent, and components of them."""

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mixlens.spec.base import IntRange, Range, Spec
from mixlens.spec.component import BaseComponent, Tasks

Shape = Literal[
    "circle",
    "square",
    "triangle",
    "pentagon",
    "hexagon",
    "star",
    "cross",
    "diamond",
    "ring",
    "heart",
]
Colour = Literal[
    "red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "grey", "black"
]
Texture = Literal["solid", "striped", "dotted", "checked", "outlined"]


class SizeRange(Spec):
    """A size word and the diameters it stands for, as fractions of the image side."""

    name: str = Field(min_length=1, description="the word in questions and answers")
    diameter: Range = Field(
        description="fractions of the image side, 0 to 1",
        json_schema_extra={"unit": "share of the side"},
    )

    @model_validator(mode="after")
    def _check(self) -> "SizeRange":
        low, high = self.diameter
        if low <= 0 or high > 1:
            raise ValueError(
                f"the diameters of {self.name!r} {self.diameter} must lie within 0 to 1"
            )
        return self


class SceneSpec(Spec):
    """One family of scenes; every range is inclusive and drawn from uniformly."""

    image_size: int = Field(
        224,
        ge=32,
        le=1024,
        description="side of the square image",
        json_schema_extra={"unit": "pixels"},
    )
    objects: IntRange = Field(
        (1, 10), description="objects in a scene, 1 to 200", json_schema_extra={"unit": "objects"}
    )
    shapes: tuple[Shape, ...] = Field(
        ("circle", "square", "triangle", "pentagon", "star", "cross", "diamond", "ring"),
        description="the shapes that objects have",
    )
    colours: tuple[Colour, ...] = Field(
        ("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "grey", "black"),
        description="the colours that objects have",
    )
    textures: tuple[Texture, ...] = Field(
        ("solid", "striped", "dotted", "checked", "outlined"),
        description="the textures that objects have",
    )
    sizes: tuple[SizeRange, ...] = Field(
        (
            SizeRange(name="small", diameter=(0.10, 0.12)),
            SizeRange(name="medium", diameter=(0.155, 0.185)),
            SizeRange(name="large", diameter=(0.23, 0.28)),
        ),
        description="the sizes that objects have, each with its word",
    )
    rotation: Range = Field(
        (0.0, 360.0),
        description="clockwise; the multiples of 5 in the range are used",
        json_schema_extra={"unit": "degrees"},
    )
    ink: Literal["free", "fixed_size", "fixed_total"] = Field(
        "free",
        description="free: sizes from `sizes`; fixed_size: every object has diameter "
        "`object_diameter`; fixed_total: the objects together paint `total_ink` of the image, "
        "with diameters in the proportions of `sizes`",
    )
    object_diameter: float | None = Field(
        None,
        gt=0,
        le=1,
        description="of every object; with ink: fixed_size only",
        json_schema_extra={"unit": "share of the side"},
    )
    total_ink: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="fraction of the image area that is painted in the objects' colours, within "
        "2 %; counted before objects hide one another",
        json_schema_extra={"unit": "share of the image"},
    )
    placement: Literal["separated", "overlapping"] = Field(
        "separated", description="whether objects may hide one another"
    )
    visible_fraction: Range = Field(
        (0.4, 0.9),
        description="overlapping only: an object is whole or shows a share within this range; "
        "about half are whole. A range that objects of these sizes cannot meet is refused",
        json_schema_extra={"unit": "share of an object"},
    )
    background: Literal["white", "colour", "gradient", "noise"] = Field(
        "white", description="what is behind the objects"
    )
    lighting: Range = Field(
        (0.0, 0.0),
        description="strength of a brightness gradient, 0 to 1",
        json_schema_extra={"unit": "share"},
    )
    sensor_noise: Range = Field(
        (0.0, 0.0),
        description="standard deviation of the pixels",
        json_schema_extra={"unit": "8-bit levels"},
    )
    blur: Range = Field(
        (0.0, 0.0), description="Gaussian radius", json_schema_extra={"unit": "pixels"}
    )

    @model_validator(mode="after")
    def _check(self) -> "SceneSpec":
        low, high = self.objects
        if low < 1 or high > 200:
            raise ValueError(f"objects {self.objects} must lie within 1 to 200")
        if (self.ink == "fixed_size") != (self.object_diameter is not None):
            raise ValueError("object_diameter is needed with ink: fixed_size, and only there")
        if (self.ink == "fixed_total") != (self.total_ink is not None):
            raise ValueError("total_ink is needed with ink: fixed_total, and only there")
        for name in ("shapes", "colours", "textures", "sizes"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must name at least one value, each once")
        names = [named.name for named in self.sizes]
        if len(set(names)) != len(names):
            raise ValueError(f"sizes must have different names: {names}")
        ends = sorted(named.diameter for named in self.sizes)
        if any(first[1] >= second[0] for first, second in pairwise(ends)):
            raise ValueError(f"the ranges of sizes must not meet: {ends}")
        for name, highest in (
            ("visible_fraction", 1.0), ("lighting", 1.0), ("sensor_noise", 128.0), ("blur", 16.0),
        ):  # fmt: skip
            bounds = getattr(self, name)
            if bounds[0] < 0 or bounds[1] > highest:
                raise ValueError(f"{name} {bounds} must lie within 0 and {highest:g}")
        if self.visible_fraction[0] < 0.05:
            raise ValueError(
                f"visible_fraction {self.visible_fraction} must start at 0.05 or more, for an "
                "object that cannot be seen is none"
            )
        return self


class SceneComponent(BaseComponent):
    """Generated scenes, and how many turns of each task group an image gets.

    An image gets fewer turns of a group when its scene cannot carry that many (one object alone
    has no relations); it never gets a question without exactly one right answer.
    """

    images: ClassVar[str] = "scenes"
    is_generated: ClassVar[bool] = True

    kind: Literal["synthetic"] = Field("synthetic", description="generated scenes")
    scene: SceneSpec = Field(SceneSpec(), description="which scenes are drawn")
    tasks: Tasks = Field(
        description="task group -> turns of it that an image gets, 1 to 32",
        json_schema_extra={"unit": "turns"},
    )
    seed: int = Field(0, ge=0, lt=2**31, description="the seed of its scenes")
    size: int | None = Field(
        None,
        ge=1,
        description="examples in a finite component; none: never repeats",
        json_schema_extra={"unit": "examples"},
    )

    def images_in_common(self, other: BaseComponent) -> Literal["all", "some", "none"]:
        if not isinstance(other, SceneComponent) or self.size is not None:
            return "none"
        same = (self.scene, self.seed, self.size) == (other.scene, other.seed, other.size)
        return "all" if same else "none"

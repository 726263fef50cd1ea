"""Photographs in COCO format: where they are, and components of them."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from mixlens.spec.base import Range, Spec
from mixlens.spec.component import BaseComponent, Tasks
from mixlens.spec.data_set import BaseDataSet

Exif = Literal["automatic", "upright", "stored"]


class CocoFiles(Spec):
    """One split: paths relative to the root of the data set, or URLs."""

    annotations: str = Field(description="an instances file, JSON")
    images: str = Field("", description="the folder that file names are relative to")
    captions: str | None = Field(None, description="a captions file of the same images, JSON")


def _form(value: Any) -> str:
    return "files" if isinstance(value, dict | CocoFiles) else "share"


def _between(share: float) -> float:
    if not 0 < share < 1:
        raise ValueError(
            f"the share of held-out images is {share:g}. Give a number between 0 and 1, such as "
            "0.1, or files like those of train."
        )
    return share


def _no_pairs(tasks: dict[str, int]) -> dict[str, int]:
    if "pair" in tasks:
        raise ValueError("pairs are asked about generated scenes only. Take the group out.")
    return tasks


def _quantiles(strata: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    for attribute, (low, high) in strata.items():
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"{attribute} is to lie between quantiles {low:g} and {high:g}. Give two different "
                "numbers from 0 to 1."
            )
    return strata


HeldOutImages = Annotated[
    Annotated[CocoFiles, Tag("files")] | Annotated[float, AfterValidator(_between), Tag("share")],
    Discriminator(_form),
]


class CocoSpec(BaseDataSet):
    """Photographs in COCO format: the official sets, or any other in their format.

    `root` is a folder or any URL that pyarrow or fsspec reads (s3://, gs://, memory:// ...).
    `held_out` names the files of the held-out images. A number in its place takes this share of
    the images in `train`, the same ones every time, by what the image files contain.
    """

    kind: Literal["coco"] = Field("coco", description="photographs in COCO format")
    train: CocoFiles = Field(description="the files of the images to train on")
    held_out: HeldOutImages = Field(
        0.1,
        description="the files of the held-out images; or the share of train that is held out, "
        "0 to 1, the same images every time",
        json_schema_extra={"unit": "share of train"},
    )
    exif: Exif = Field(
        "automatic",
        description="which way annotations lie on photographs that EXIF turns. upright: as people "
        "see the picture; stored: as the pixels lie in the file; automatic: as the boxes, outlines "
        "and declared sizes of each annotation file tell",
    )


class CocoComponent(BaseComponent):
    """Photographs of a data set, and how many turns of each task group an image gets.

    An image belongs to the component if it can carry a turn of any of its groups; it gets fewer of
    a group when it cannot carry that many. Trained on, a component draws from the training images
    of its data set; evaluated on, from the held-out ones.
    """

    images: ClassVar[str] = "photographs"
    is_generated: ClassVar[bool] = False

    kind: Literal["coco"] = Field(description="photographs in COCO format")
    data: str = Field(description="the name of its data set, under `data`")
    tasks: Annotated[Tasks, AfterValidator(_no_pairs)] = Field(
        description="task group -> turns of it that an image gets, 1 to 32; no pairs",
        json_schema_extra={"unit": "turns"},
    )
    strata: Annotated[dict[str, Range], AfterValidator(_quantiles)] = Field(
        {},
        description="attribute -> the range of its quantiles, such as object_count: [0.75, 1]; an "
        "image has to lie in all of them. Quantiles are among all images of the split",
        json_schema_extra={"unit": "quantiles"},
    )
    seed: int = Field(0, ge=0, lt=2**31, description="the seed of its questions")

    @property
    def data_set(self) -> str:
        return self.data

    def images_in_common(self, other: BaseComponent) -> Literal["all", "some", "none"]:
        if not isinstance(other, CocoComponent):
            return "none"
        same = (self.data, self.strata) == (other.data, other.strata)
        return "some" if same else "none"

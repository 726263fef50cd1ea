"""Where photographs with COCO annotations are, and what happens to those that are damaged."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator

from mixlens.errors import explain
from mixlens.spec.base import Share, Spec

FORMS = ("files", "share")  # of `held_out`

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


def _schemes() -> set[str]:
    """Of the file systems that pyarrow brings, and of those that fsspec knows."""
    import fsspec  # only where a URL is given

    return {"viewfs", "abfss", *fsspec.available_protocols()}


HeldOutImages = Annotated[
    Annotated[CocoFiles, Tag("files")] | Annotated[float, AfterValidator(_between), Tag("share")],
    Discriminator(_form),
]


class CocoSpec(Spec):
    """Photographs in COCO format: the official sets, or any other in their format.

    `root` is a folder or any URL that pyarrow or fsspec reads (s3://, gs://, memory:// ...).
    `held_out` names the files of the held-out images. A number in its place takes this share of
    the images in `train`, the same ones every time, by what the image files contain.
    """

    root: str = Field(
        min_length=1, description="a folder, or any URL that pyarrow or fsspec reads (s3://, gs://)"
    )
    train: CocoFiles = Field(description="the files of the images to train on")
    held_out: HeldOutImages = Field(
        0.1,
        description="the files of the held-out images; or the share of train that is held out, "
        "0 to 1, the same images every time",
    )
    max_left_out: Share = Field(
        0.02, description="share of images that may be left out, as damaged, before a run stops"
    )
    exif: Exif = Field(
        "automatic",
        description="how the annotations of photographs lie that EXIF turns: upright, as people "
        "look at the picture, or stored, as the rows of pixels in the file; automatic: as boxes, "
        "outlines and declared sizes of each file of annotations tell",
    )
    index: str = Field("", description="filled in when a job starts: the folder of its index")
    fingerprint: str = Field("", description="filled in likewise: of annotations and image files")

    @field_validator("root")
    @classmethod
    def _no_secrets(cls, root: str) -> str:
        if "://" in root and "@" in urlsplit(root).netloc:
            raise ValueError(
                "it holds a name or password, which records and MLflow would show. Give these in "
                "the environment, where the file system looks for them."
            )
        if (scheme := urlsplit(root).scheme) and "://" in root and scheme not in _schemes():
            raise ValueError(
                explain("root", root, "no file system is known by this scheme",
                        "Give a folder, or a URL such as s3://bucket/folder.")
            )  # fmt: skip
        return root

    def canonical(self) -> dict[str, Any]:
        """Its fingerprint, so that the same data elsewhere make the same runs."""
        return {"fingerprint": self.fingerprint}

"""What every data set has in common: where it is, and what its index says."""

from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from mixlens.errors import explain
from mixlens.spec.base import Share, Spec


class BaseDataSet(Spec):
    """All that the rooms above ask of a data set, whatever its kind.

    A kind adds `kind` as a field, and whatever else says which files it has.
    """

    root: str = Field(
        min_length=1, description="a folder, or any URL that pyarrow or fsspec reads (s3://, gs://)"
    )
    max_left_out: Share = Field(
        0.02,
        description="share of images that may be left out, as damaged, before a run stops",
        json_schema_extra={"unit": "share of images"},
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


def _schemes() -> set[str]:
    """Of the file systems that pyarrow brings, and of those that fsspec knows."""
    import fsspec  # only where a URL is given

    return {"viewfs", "abfss", *fsspec.available_protocols()}

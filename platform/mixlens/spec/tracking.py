"""Where the numbers of a job go besides its folder."""

from importlib.metadata import entry_points
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, Field

from mixlens.errors import explain
from mixlens.spec.base import Spec

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SCHEMES = ("http", "https", "file", "databricks", *DATABASES)
"""What MLflow documents for tracking URIs; packages may bring more."""
_PLUGINS = "mlflow.tracking_store"  # MLflow's group of entry points


def without_password(uri: str) -> str:
    """The URI as it may be printed and stored: without user and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _known_to_mlflow(uri: str) -> str:
    """MLflow itself would say so only when the first run is sent."""
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme == "" or uri == "databricks":  # a folder
        return uri
    plugins = entry_points(group=_PLUGINS).names
    if scheme not in {*SCHEMES, *plugins}:
        raise ValueError(
            explain("tracking.uri", without_password(uri), "MLflow knows no such scheme",
                    f"Use one of {', '.join(SCHEMES)}, or leave it out to keep runs in files.")
        )  # fmt: skip
    return uri


class TrackingSpec(Spec):
    """Where MLflow keeps the runs; by default in files beside them."""

    uri: Annotated[str, AfterValidator(_known_to_mlflow)] | None = Field(
        None, description="MLflow tracking URI; none: a SQLite file under runs_dir"
    )
    experiment: str = Field("mixlens", description="the MLflow experiment of the runs")

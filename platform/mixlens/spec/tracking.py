"""Where the numbers of a job go besides its folder."""

from pydantic import Field

from mixlens.spec.base import Spec


class TrackingSpec(Spec):
    """Where MLflow keeps the runs; by default in files beside them."""

    uri: str | None = Field(None, description="MLflow tracking URI; none: SQLite under runs_dir")
    experiment: str = Field("mixlens", description="the MLflow experiment of the runs")

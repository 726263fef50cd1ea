"""Tables of one measured model: with intervals over images, beside its controls."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd

from mixlens.analysis.correlations import correlate
from mixlens.analysis.deletion import deletion_table
from mixlens.analysis.tables import EXCESS, REDUNDANCY, write_tables
from mixlens.analysis.transfer_build import TRANSFER_TABLES, Sides, transfer_tables
from mixlens.measurement import Measured
from mixlens.statistics.intervals import Sums, image_intervals, image_weights
from mixlens.tasks import GROUPS

MODEL = "model"  # the measured model, among its controls
_LAYERED = ["stream", "layer", "metric"]
_BINS = 6  # of object counts, at most, for the curve of a metric over them


@dataclass(frozen=True)
class ModelTables:
    """Everything that the report of one model and its MLflow run are views of.

    Attributes:
        accuracy: model, group, metric, value, low, high, n (images), chance.
        layers: model, stream, layer, metric, value, low, high, n.
        by_count: stream, layer, metric, objects, value, low, high, n.
        correlations: see `mixlens.analysis.correlations`.
        nulls: stream, layer, metric, null, value, low, high, n, ratio (value of the model over it).
        probes: as measured.
        deletion: see `mixlens.analysis.deletion`.
        transfer: see `mixlens.analysis.transfer`; empty if nothing was measured on other images.
        transfer_summary: see `mixlens.analysis.transfer_chance`.
        transfer_correlations: as `correlations`, on the other images.
    """

    accuracy: pd.DataFrame
    layers: pd.DataFrame
    by_count: pd.DataFrame
    correlations: pd.DataFrame
    nulls: pd.DataFrame
    probes: pd.DataFrame
    deletion: pd.DataFrame
    transfer: pd.DataFrame = field(default_factory=pd.DataFrame)
    transfer_summary: pd.DataFrame = field(default_factory=pd.DataFrame)
    transfer_correlations: pd.DataFrame = field(default_factory=pd.DataFrame)

    def write(self, folder: Path) -> None:
        """Write each table as `<folder>/<name>.parquet`."""
        write_tables(folder, vars(self))


def read_model_tables(folder: Path) -> ModelTables:
    """What `ModelTables.write` has left in a folder."""
    return ModelTables(
        **{one.name: pd.read_parquet(folder / f"{one.name}.parquet") for one in fields(ModelTables)}
    )


def model_tables(
    model: Measured,
    controls: Mapping[str, Measured],
    transfer: Measured | None = None,
    sides: Sides | None = None,
) -> ModelTables:
    """All tables of a model.

    Args:
        model: what was measured of it.
        controls: they stand beside it in `layers` and `accuracy`.
        transfer: the model on other images.
        sides: what its images and the other images are called; needed with `transfer`.
    """
    everything = {MODEL: model, **controls}
    layers = _named({name: layer_profile(one) for name, one in everything.items()})
    accuracies = {name: accuracy(one) for name, one in everything.items() if len(one.examples)}
    nulls = _with_ratio(model.nulls, layers[layers["model"] == MODEL])
    correlations = correlate(with_excess(model.image_metrics), model.attributes)
    return ModelTables(
        accuracy=_named(accuracies),
        layers=layers,
        by_count=by_count(model),
        correlations=correlations,
        nulls=nulls,
        probes=pd.DataFrame() if model.probes is None else model.probes,
        deletion=pd.DataFrame() if model.deleted is None else deletion_table(model.deleted),
        **compared(model, correlations, transfer, sides),
    )


def compared(
    model: Measured,
    correlations: pd.DataFrame,
    transfer: Measured | None,
    sides: Sides | None,
) -> dict[str, pd.DataFrame]:
    """The tables of transfer by name, empty where the model was not measured on other images."""
    if transfer is None or sides is None:
        return {name: pd.DataFrame(columns=list(some)) for name, some in TRANSFER_TABLES.items()}
    own, other = ((with_excess(one.image_metrics), one.attributes) for one in (model, transfer))
    return transfer_tables(correlations, own, other, sides)


def with_excess(image_metrics: pd.DataFrame) -> pd.DataFrame:
    """Image metrics, and the redundancy of each layer above that of the image's own pixels.

    The same table where there are no pixels.
    """
    scores = image_metrics[image_metrics["metric"] == REDUNDANCY]
    floor = scores[scores["stream"] == "pixels"].set_index("example_id")["value"]
    if floor.empty:
        return image_metrics
    above = scores[scores["stream"] != "pixels"].copy()
    above["value"] = above["value"].to_numpy() - floor.reindex(above["example_id"]).to_numpy()
    return pd.concat([image_metrics, above.assign(metric=EXCESS)], ignore_index=True)


def layer_profile(model: Measured) -> pd.DataFrame:
    """stream, layer, metric, value, low, high, n: means over images with BCa intervals.

    The redundancy score is the pooled one with its jackknife interval.
    """
    table = with_excess(model.image_metrics).pivot(
        index="example_id", columns=_LAYERED, values="value"
    )
    profile = _intervals(Sums.of(table.to_numpy(dtype=float)))
    profile = pd.concat([table.columns.to_frame(index=False), profile], axis=1)
    pooled = model.pooled_metrics
    keys = pd.MultiIndex.from_frame(profile[_LAYERED])
    known = pd.MultiIndex.from_frame(pooled[_LAYERED])
    return pd.concat([pooled, profile[~keys.isin(known)]], ignore_index=True)


def accuracy(model: Measured) -> pd.DataFrame:
    """group, metric, value, low, high, n, chance: the headline score of each task group.

    `chance` is that of a guesser among the choices, NaN where a group has open answers.
    """
    rows = []
    for group, some in model.examples.groupby("group", sort=True):
        metric = GROUPS[str(group)].headline
        sums = _sums_by_image(some, metric)
        choices = some["choices"].to_numpy()
        chance = float((1 / choices).mean()) if (choices > 0).all() else np.nan
        row = _intervals(sums, bounded=True).iloc[0].to_dict()
        rows.append({"group": group, "metric": metric, **row, "chance": chance})
    return pd.DataFrame(rows)


def by_count(model: Measured) -> pd.DataFrame:
    """stream, layer, metric, objects, value, low, high, n: metrics over the number of objects.

    Each count by itself, or bins of about equally many images where there are more than six;
    `objects` is the mean count of a bin. Empty where images do not say how many objects they have.
    """
    columns = [*_LAYERED, "objects", "value", "low", "high", "n"]
    if "object_count" not in model.attributes or model.attributes["object_count"].isna().all():
        return pd.DataFrame(columns=columns)
    counts = model.attributes.set_index("example_id")["object_count"].dropna()
    bins = counts if counts.nunique() <= _BINS else pd.qcut(counts, _BINS, duplicates="drop")
    table = with_excess(model.image_metrics).pivot(
        index="example_id", columns=_LAYERED, values="value"
    )
    parts = []
    for _, some in counts.groupby(bins, observed=True):
        found = _intervals(Sums.of(table.loc[some.index].to_numpy(dtype=float)))
        parts.append(
            pd.concat([table.columns.to_frame(index=False), found], axis=1).assign(
                objects=float(some.mean())
            )
        )
    return pd.concat(parts, ignore_index=True)[columns]


def _sums_by_image(questions: pd.DataFrame, metric: str) -> Sums:
    scored = questions[questions[metric].notna()]
    of_image = scored.groupby("example_id")[metric]
    return Sums(
        of_image.sum().to_numpy(dtype=float)[:, None],
        of_image.count().to_numpy(dtype=float)[:, None],
    )


def _intervals(sums: Sums, bounded: bool = False) -> pd.DataFrame:
    value, low, high = image_intervals(
        sums, image_weights(len(sums.numerator)), bounded=np.full(sums.numerator.shape[1], bounded)
    )
    return pd.DataFrame({"value": value, "low": low, "high": high, "n": sums.images})


def _named(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(
        [table.assign(model=name) for name, table in tables.items()], ignore_index=True
    )


def _with_ratio(nulls: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    of_model = layers.set_index(_LAYERED)["value"]
    keys = pd.MultiIndex.from_frame(nulls[_LAYERED])
    value = nulls["value"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        return nulls.assign(ratio=of_model.reindex(keys).to_numpy() / value)

"""What goes to MLflow about the data sets that a job uses.

    data.<name>.root, data.<name>.fingerprint    params
    data/<name>/images/<split>                   those that can be used
    data/<name>/left_out, /repaired, /region     things of any kind
    data/<name>/left_out_<kind>/<reason>         images, annotations or captions, by reason
    data/<name>/repaired_<kind>/<reason>
    data/<name>/region_annotation/<reason>       annotations of many objects

and the artifact `data/<name>/left_out.parquet`, one row a thing.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mixlens.design import SweepSpec
from mixlens.errors import DataError, explain
from mixlens.measurement.measurement import read_table
from mixlens.sources import Contents, contents_of
from mixlens.spec import DataSet, MeasureSpec
from mixlens.tracking.ledger import digest_of
from mixlens.tracking.sink import Sink

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput


def data_params(data: Mapping[str, DataSet]) -> dict[str, str]:
    """Where each data set is, and what its files are."""
    return {
        f"data.{name}.{field}": getattr(one, field)
        for name, one in data.items()
        for field in ("root", "fingerprint")
    }


def data_sets(
    spec: SweepSpec | MeasureSpec, weights: Mapping[str, float], with_transfer: bool = True
) -> "list[DatasetInput]":
    """The components that a run uses, as MLflow's data sets.

    Args:
        spec: has the components.
        weights: of those that are trained on.
        with_transfer: whether also the images that trends are held against.
    """
    uses: list[tuple[str, str, dict[str, Any]]]
    uses = [(name, "train", {"weight": weight}) for name, weight in weights.items() if weight]
    evaluation = spec.evaluation
    images = {"images": evaluation.examples}
    uses.append((evaluation.component, "held-out", images))
    if evaluation.transfer is not None and with_transfer:
        uses.append((evaluation.transfer, "other images", images))
    return [_data_set(spec, name, context, about) for name, context, about in uses]


def _data_set(
    spec: SweepSpec | MeasureSpec, name: str, context: str, about: dict[str, Any]
) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    component = spec.components[name]
    source: dict[str, Any] = {"component": component.canonical()}
    if component.data_set is not None:
        data = spec.data[component.data_set]
        source |= {"root": data.root, "data": data.canonical()}
    identity = {key: value for key, value in source.items() if key != "root"} | {"for": context}
    if context != "train":  # how many it holds is what the held-out images are
        identity |= about
    digest = digest_of(json.dumps(identity, sort_keys=True).encode())
    return DatasetInput(
        Dataset(
            name=name,
            digest=digest,
            source_type=component.kind,
            source=json.dumps(source),
            profile=json.dumps(about),
        ),
        [InputTag("mlflow.data.context", context)],
    )


def log_data(sink: Sink, data: Mapping[str, DataSet]) -> None:
    """Log what the data sets hold, and what of them was left out or repaired."""
    for name, one in data.items():
        contents = contents_of(name, one)
        if contents is None:
            raise DataError(
                explain(f"data.{name}.index", one.index, "this index is not there any more",
                        "Start the job again: it makes the index anew.")
            )  # fmt: skip
        sink.log_metrics(f"data {name}", list(data_points(name, contents)))
        sink.log_file(contents.left_out, f"data/{name}")


def data_points(name: str, contents: Contents) -> Iterator[tuple[str, float, int]]:
    """Counts of one data set."""
    for split, images in contents.images.items():
        yield f"data/{name}/images/{split}", images, 0
    counts = Counter(left_out=0, repaired=0)
    rows = read_table(contents.left_out, "Delete its folder and start the job again.")
    for key, number in rows[["outcome", "what", "reason"]].value_counts(sort=False).items():
        outcome, what, reason = map(str, key)
        counts[outcome] += number
        counts[f"{outcome}_{what}/{reason}"] += number
    for kind, count in counts.items():
        yield f"data/{name}/{kind}", count, 0

"""What goes to MLflow about the data sets that a job uses.

    data.<name>.root, data.<name>.fingerprint    params
    data/<name>/images                           those that can be used, of both splits
    data/<name>/left_out, data/<name>/repaired   things of any kind
    data/<name>/left_out_<kind>/<reason>         images, annotations or captions, by reason
    data/<name>/repaired_<kind>/<reason>

and the artifact `data/<name>/left_out.parquet`, one row a thing.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from mixlens.spec import CocoSpec

if TYPE_CHECKING:
    from mixlens.tracking.tracker import TrackedRun

LEFT_OUT = "left_out.parquet"


def data_params(data: Mapping[str, CocoSpec]) -> dict[str, str]:
    """Where each data set is, and what its files are."""
    return {
        f"data.{name}.{field}": getattr(one, field)
        for name, one in data.items()
        for field in ("root", "fingerprint")
    }


def log_data(tracked: "TrackedRun", data: Mapping[str, CocoSpec]) -> None:
    """Log what the data sets hold, and what of them was left out or repaired."""
    for name, one in data.items():
        index = Path(one.index)
        tracked.log_metrics(f"data {name}", list(data_points(name, index)))
        tracked.log_file(index / LEFT_OUT, f"data/{name}")


def data_points(name: str, index: Path) -> Iterator[tuple[str, float, int]]:
    """Counts of one data set whose index is in the folder `index`."""
    from mixlens.sources.coco.index import open_index  # those who only draw scenes go without

    yield f"data/{name}/images", len(open_index(index).split), 0
    kinds = ["outcome", "what", "reason"]
    table = pq.read_table(index / LEFT_OUT, columns=kinds)
    counted = table.group_by(kinds).aggregate([([], "count_all")]).to_pylist()
    for outcome in ("left_out", "repaired"):
        rows = [row for row in counted if row["outcome"] == outcome]
        yield f"data/{name}/{outcome}", sum(row["count_all"] for row in rows), 0
        for row in rows:
            yield f"data/{name}/{outcome}_{row['what']}/{row['reason']}", row["count_all"], 0

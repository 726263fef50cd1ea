"""What goes to MLflow about the data sets that a job uses.

    data.<name>.root, data.<name>.fingerprint    params
    data/<name>/images/<split>                   those that can be used
    data/<name>/left_out, data/<name>/repaired   things of any kind
    data/<name>/left_out_<kind>/<reason>         images, annotations or captions, by reason
    data/<name>/repaired_<kind>/<reason>

and the artifact `data/<name>/left_out.parquet`, one row a thing.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mixlens.sources.coco.index import LEFT_OUT, RECORD
from mixlens.spec import CocoSpec

if TYPE_CHECKING:
    from mixlens.tracking.tracker import TrackedRun


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
    record = json.loads((index / RECORD).read_text())
    for split, images in record["counts"]["images"].items():
        yield f"data/{name}/images/{split}", images, 0
    counts = Counter(left_out=0, repaired=0)
    for row in record["left_out"]:  # of each split
        counts[row["outcome"]] += row["count"]
        counts[f"{row['outcome']}_{row['what']}/{row['reason']}"] += row["count"]
    for kind, count in counts.items():
        yield f"data/{name}/{kind}", count, 0

"""The few numbers of a measured model that stand for it: what a trial reports when it ends."""

import math
from pathlib import Path

from mixlens.analysis.results import read_table
from mixlens.analysis.tables import COMPLEX, HEADLINE, REDUNDANCY, SIMPLE


def headline(measurement: Path) -> dict[str, float]:
    """accuracy/<group>, their means accuracy/simple and accuracy/complex, and redundancy.

    Redundancy is the mean over the layers of visual tokens, of the mean over images; NaN where it
    was not measured.

    Args:
        measurement: the folder of what was measured.

    Raises:
        DataError: a table is missing or damaged.
    """
    examples = read_table(measurement / "examples.parquet")
    scores = {}
    for group, rows in examples.groupby("group"):
        score = HEADLINE.get(str(group))
        if score in rows:
            scores[str(group)] = float(rows[score].mean())
    found = {f"accuracy/{group}": value for group, value in scores.items()}
    for name, groups in (("simple", SIMPLE), ("complex", COMPLEX)):
        some = [scores[group] for group in groups if group in scores]
        if some:
            found[f"accuracy/{name}"] = sum(some) / len(some)
    metrics = read_table(measurement / "image_metrics.parquet")
    visual = metrics[(metrics["stream"] == "visual") & (metrics["metric"] == REDUNDANCY)]
    layers = visual.groupby("layer")["value"].mean()
    return {**found, "redundancy": float(layers.mean()) if len(layers) else math.nan}

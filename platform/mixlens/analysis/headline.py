"""The few numbers of a measured model that stand for it: what a trial reports when it ends."""

import math

from mixlens.analysis.tables import HEADLINE, REDUNDANCY, TIERS
from mixlens.measurement import Measured


def headline(measured: Measured) -> dict[str, float]:
    """accuracy/<group>, their means accuracy/simple and accuracy/complex, and redundancy.

    Redundancy is the mean over the layers of visual tokens, of the mean over images; NaN where it
    was not measured.

    Args:
        measured: the model.
    """
    scores = {}
    for group, rows in measured.examples.groupby("group"):
        score = HEADLINE.get(str(group))
        if score in rows:
            scores[str(group)] = float(rows[score].mean())
    found = {f"accuracy/{group}": value for group, value in scores.items()}
    for name, groups in TIERS.items():
        some = [scores[group] for group in groups if group in scores]
        if some:
            found[f"accuracy/{name}"] = sum(some) / len(some)
    metrics = measured.image_metrics
    visual = metrics[(metrics["stream"] == "visual") & (metrics["metric"] == REDUNDANCY)]
    layers = visual.groupby("layer")["value"].mean()
    return {**found, "redundancy": float(layers.mean()) if len(layers) else math.nan}

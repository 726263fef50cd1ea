"""The folder of a measured model with planted tables, for tests of its page and its MLflow run."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from fake_sweep import FakeSweep

from mixlens.analysis.deletion import DELETION_COLUMNS
from mixlens.probing.probes import COLUMNS as PROBE_COLUMNS
from mixlens.spec import MeasureSpec

ATTRIBUTES = {"object_count": "r2", "dominant_colour": "accuracy"}
POLICIES = ("random", "norm", "downsampling")
SHARES = (0.0, 0.5, 0.9)
PHOTOS = {"kind": "coco", "data": "coco", "tasks": {"coarse": 1},
          "strata": {"object_count": [0.5, 1.0]}}  # fmt: skip
COCO = {"root": "/nowhere/coco", "train": {"annotations": "train.json"}}


def write_transfer(folder: Path, turn: float, seed: int = 5) -> None:
    """Beside `measure`, the same model on photographs, in the folder `transfer`.

    The attributes of scenes gain a shape_diversity, and redundancy follows it; on photographs it
    follows their category_diversity in the same way times `turn`. Other metrics are noise there.
    """
    measure, there = folder / "measure", folder / "transfer"
    there.mkdir()
    random = np.random.default_rng(seed)
    metrics = pd.read_parquet(measure / "image_metrics.parquet")
    facts = pd.read_parquet(measure / "attributes.parquet")
    n = len(facts)
    shapes, kinds = random.normal(size=(2, n))
    drawn, taken = (
        {name: random.random(n) for name in ("covered_fraction", "size_mean", "crowding")}
        for _ in range(2)
    )
    scores = (metrics["metric"] == "redundancy_score") & (metrics["stream"] == "visual")
    by_image = dict(zip(facts["example_id"], 0.2 * shapes, strict=True))
    metrics.loc[scores, "value"] += metrics.loc[scores, "example_id"].map(by_image)
    metrics.to_parquet(measure / "image_metrics.parquet", index=False)
    facts = facts.assign(shape_diversity=shapes, **drawn)
    facts.to_parquet(measure / "attributes.parquet", index=False)

    names = {name: f"photos/{2**62 + place}" for place, name in enumerate(facts["example_id"])}
    photos = metrics.assign(example_id=metrics["example_id"].map(names))
    photos["value"] = random.normal(size=len(photos))
    by_image = dict(zip(names.values(), 2 * turn * kinds, strict=True))
    photos.loc[scores, "value"] += photos.loc[scores, "example_id"].map(by_image)
    photos.to_parquet(there / "image_metrics.parquet", index=False)
    pd.DataFrame(
        {
            "example_id": list(names.values()),
            "object_count": random.integers(1, 20, n),
            "category_diversity": kinds,
            "crowd_fraction": 0.0,
            **taken,
            "dominant_category": random.choice(["dog", "person", "tie"], n),
        }
    ).to_parquet(there / "attributes.parquet", index=False)
    for name in ("examples", "pooled_metrics"):
        table = pd.read_parquet(measure / f"{name}.parquet")
        table.to_parquet(there / f"{name}.parquet", index=False)
    (there / "measured.json").write_text("{}\n")


@dataclass(frozen=True)
class FakeMeasured:
    """What was measured; `parts` are the tables that a file may leave out."""

    images: int = 24
    layers: int = 3
    groups: tuple[str, ...] = ("coarse", "count", "relational")
    parts: tuple[str, ...] = ("nulls", "probes", "deletion", "embeddings")
    controls: tuple[str, ...] = ("random-model", "blank-images")
    transfer: float | None = None  # correlations on photographs: 1 as on scenes, -1 turned around

    def spec(self, runs_dir: Path) -> MeasureSpec:
        return MeasureSpec.model_validate(
            {
                "name": "planted",
                "runs_dir": str(runs_dir),
                "components": {
                    "complex": {
                        "scene": {"image_size": 64, "objects": [3, 6]},
                        "tasks": dict.fromkeys(self.groups, 1),
                    },
                    **({} if self.transfer is None else {"photos": PHOTOS}),
                },
                "data": {} if self.transfer is None else {"coco": COCO},
                "evaluation": {
                    "component": "complex",
                    "transfer": None if self.transfer is None else "photos",
                    "examples": self.images,
                },
            }
        )

    def write(self, runs_dir: Path) -> Path:
        """Write the folder as `jobs/measure.py` leaves it before its report, and return it."""
        spec = self.spec(runs_dir)
        folder = spec.folder
        sweep = FakeSweep(
            ratios=(0.0,), seeds=(0,), images=self.images, layers=self.layers, steps=5,
            groups=self.groups,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as place:
            (base,) = sweep.write(Path(place)).glob("base-*")
            for copy in ("measure", *(f"controls/{name}" for name in self.controls)):
                shutil.copytree(base / "measure", folder / copy)
                (folder / copy / "measured.json").write_text("{}\n")
        for name in self.controls:
            if name.startswith("random"):  # these are not asked
                file = folder / "controls" / name / "examples.parquet"
                pd.read_parquet(file).iloc[:0].to_parquet(file, index=False)
        self._enrich(folder / "measure")
        for name in self.parts:
            table = getattr(self, f"_{name}")()
            table.to_parquet(folder / "measure" / f"{name}.parquet", index=False)
        (folder / "measure.json").write_text(spec.model_dump_json(indent=1))
        if self.transfer is not None:
            write_transfer(folder, self.transfer)
        return folder

    def _enrich(self, measure: Path) -> None:
        attributes = pd.read_parquet(measure / "attributes.parquet")
        colours = np.tile(["red", "blue", "green"], self.images)[: self.images]
        attributes.assign(dominant_colour=colours).to_parquet(
            measure / "attributes.parquet", index=False
        )

    def _nulls(self) -> pd.DataFrame:
        rows = [
            (stream, layer, metric, null, 0.1, 0.08, 0.12, self.images)
            for stream in ("visual", "text")
            for layer in range(self.layers)
            for metric in ("redundancy_score", "participation_ratio")
            for null in ("gaussian", "pseudo_images")
        ]
        names = ["stream", "layer", "metric", "null", "value", "low", "high", "n"]
        return pd.DataFrame(rows, columns=names)

    def _probes(self) -> pd.DataFrame:
        """Scores of 0.1 for each layer and 0.05 for each position above 0.5."""
        rows = []
        for stream in ("visual", "text"):
            for layer in range(self.layers):
                for position in range(-1, 4):
                    for attribute, score in ATTRIBUTES.items():
                        for kind in ("linear", "mlp"):
                            value = 0.5 + 0.1 * layer + 0.05 * (position + 1)
                            rows.append(
                                (stream, layer, position, attribute, kind, score, value,
                                 value - 0.05, value + 0.05, self.images, 0.2, 0.1, value - 0.1,
                                 np.nan, "")
                            )  # fmt: skip
        return pd.DataFrame(rows, columns=list(PROBE_COLUMNS))

    def _deletion(self) -> pd.DataFrame:
        """Accuracy falls by half of what is deleted; norm is 0.1 better than random."""
        rows = []
        for policy in POLICIES:
            for share in SHARES if policy == "random" else SHARES[1:]:
                better = 0.1 * (policy == "norm")
                for seed in (-1, 0) if policy == "random" else (-1,):
                    for group in ("all", *self.groups):
                        for objects in ("all", "3-5") if seed == -1 else ("all",):
                            value = 0.8 - 0.5 * share + better
                            gain = np.nan if policy == "random" else better
                            rows.append(
                                (-1, policy, share, seed, group, objects, value, value - 0.05,
                                 value + 0.05, 16, gain, gain - 0.04, gain + 0.04,
                                 64 * (1 - share), 0.02 - 0.01 * share, np.nan, "")
                            )  # fmt: skip
        return pd.DataFrame(rows, columns=list(DELETION_COLUMNS))

    def _embeddings(self) -> pd.DataFrame:
        random = np.random.default_rng(3)
        ids = FakeSweep(images=self.images).ids()
        rows = [
            (stream, layer, name, random.normal(size=8).astype("float16"))
            for stream in ("visual", "text")
            for layer in range(self.layers)
            for name in ids
        ]
        return pd.DataFrame(rows, columns=["stream", "layer", "example_id", "vector"])

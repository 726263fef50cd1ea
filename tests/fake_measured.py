"""The folder of a measured model with planted tables, for tests of its page and its MLflow run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from fake_parts import part_of, table_file, write_parts
from fake_sweep import FakeSweep

from mixlens.measurement import Measurement, controls_of, model_of
from mixlens.probing.deletion import DELETED
from mixlens.probing.probes import COLUMNS as PROBE_COLUMNS
from mixlens.spec import MeasureSpec

ATTRIBUTES = {"object_count": "r2", "dominant_colour": "accuracy"}
POLICIES = ("random", "norm", "downsampling")
SHARES = (0.0, 0.5, 0.9)
PHOTOS = {"kind": "coco", "data": "coco", "tasks": {"coarse": 1},
          "strata": {"object_count": [0.5, 1.0]}}  # fmt: skip
DELETED_IMAGES = 16
COCO = {"root": "/nowhere/coco", "train": {"annotations": "train.json"}}


def write_transfer(
    measurement: Measurement, there: Measurement, turn: float, seed: int = 5
) -> None:
    """Beside a measurement, the same model on photographs.

    The attributes of scenes gain a shape_diversity, and redundancy follows it; on photographs it
    follows their category_diversity in the same way times `turn`. Other metrics are noise there.
    """
    random = np.random.default_rng(seed)
    metrics = pd.read_parquet(table_file(measurement, "image_metrics"))
    facts = pd.read_parquet(table_file(measurement, "attributes"))
    n = len(facts)
    shapes, kinds = random.normal(size=(2, n))
    drawn, taken = (
        {name: random.random(n) for name in ("covered_fraction", "size_mean", "crowding")}
        for _ in range(2)
    )
    scores = (metrics["metric"] == "redundancy_score") & (metrics["stream"] == "visual")
    by_image = dict(zip(facts["example_id"], 0.2 * shapes, strict=True))
    metrics.loc[scores, "value"] += metrics.loc[scores, "example_id"].map(by_image)
    metrics.to_parquet(table_file(measurement, "image_metrics"), index=False)
    facts = facts.assign(shape_diversity=shapes, **drawn)
    facts.to_parquet(table_file(measurement, "attributes"), index=False)

    names = {name: f"photos/{2**62 + place}" for place, name in enumerate(facts["example_id"])}
    photos = metrics.assign(example_id=metrics["example_id"].map(names))
    photos["value"] = random.normal(size=len(photos))
    by_image = dict(zip(names.values(), 2 * turn * kinds, strict=True))
    photos.loc[scores, "value"] += photos.loc[scores, "example_id"].map(by_image)
    photo_facts = pd.DataFrame(
        {
            "example_id": list(names.values()),
            "object_count": random.integers(1, 20, n),
            "category_diversity": kinds,
            "crowd_fraction": 0.0,
            **taken,
            "dominant_category": random.choice(["dog", "person", "tie"], n),
        }
    )
    same = {
        name: pd.read_parquet(table_file(measurement, name))
        for name in ("examples", "pooled_metrics")
    }
    write_parts(there, image_metrics=photos, attributes=photo_facts, **same)


@dataclass(frozen=True)
class FakeMeasured:
    """What was measured; `parts` are those that a file may leave out."""

    images: int = 24
    layers: int = 3
    groups: tuple[str, ...] = ("coarse", "count", "relational")
    parts: tuple[str, ...] = ("nulls", "probes", "deletion")
    controls: bool = True
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
                    "probes": {"attributes": list(ATTRIBUTES)} if "probes" in self.parts else None,
                    "deletion": {
                        "policies": ["random", "norm"], "shares": list(SHARES[1:]), "seeds": [0],
                        "examples": DELETED_IMAGES,
                    } if "deletion" in self.parts else None,
                },
                "controls": self.controls,
            }
        )  # fmt: skip

    def write(self, runs_dir: Path) -> Path:
        """Write the folder as `jobs/measure.py` leaves it before its report, and return it."""
        spec = self.spec(runs_dir)
        folder = spec.folder
        tables = self.tables()
        for one in (model_of(spec, folder), *controls_of(spec, folder).values()):
            write_parts(one, **tables)
        (folder / "measure.json").write_text(spec.model_dump_json(indent=1))
        if self.transfer is not None:
            write_transfer(part_of(folder), part_of(folder, "transfer"), self.transfer)
        return folder

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables of the model."""
        sweep = FakeSweep(
            ratios=(0.0,), seeds=(0,), images=self.images, layers=self.layers, steps=5,
            groups=self.groups,
        )  # fmt: skip
        world = np.random.default_rng(7)
        hardness, crowd = (world.normal(0, spread, self.images) for spread in (1.2, 0.03))
        tables = sweep.tables(None, world, hardness, crowd)
        colours = np.tile(["red", "blue", "green"], self.images)[: self.images]
        tables["attributes"] = tables["attributes"].assign(dominant_colour=colours)
        names = {"probes": "probes", "nulls": "nulls", "deletion": "deleted"}
        tables |= {names[part]: getattr(self, f"_{names[part]}")() for part in self.parts}
        return tables | ({"embeddings": self._embeddings()} if "probes" in self.parts else {})

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

    def _deleted(self) -> pd.DataFrame:
        """Scores fall by half of what is deleted; norm is 0.1 better; images differ by 0.1."""
        rows = []
        settings = [("random", 0.0, -1), *(("random", share, 0) for share in SHARES[1:])]
        settings += [(policy, share, -1) for policy in POLICIES[1:] for share in SHARES[1:]]
        for policy, share, seed in settings:
            for image, name in enumerate(FakeSweep(images=min(self.images, DELETED_IMAGES)).ids()):
                score = 0.8 - 0.5 * share + 0.1 * (policy == "norm") + 0.1 * (-1) ** image
                for group in self.groups:
                    rows.append(
                        (-1, policy, share, seed, name, float([3, 4, 5, 6][image % 4]), group,
                         group, score, score, 64, round(64 * (1 - share)), 0.02 - 0.01 * share,
                         np.nan)
                    )  # fmt: skip
        return pd.DataFrame(rows, columns=DELETED.names)

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

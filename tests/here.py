"""A pool that measures in this process, for tests of measurements without Ray."""

import pyarrow as pa

from mixlens.activations.reduce import image_values, position_sums
from mixlens.measurement.tables import tables
from mixlens.models import VLM, load_vlm
from mixlens.sources import Example
from mixlens.spec import ResourceSpec


class Here:
    """A pool of one worker, this process; counts the units of each stage."""

    def __init__(self, vlm=None, **resources):
        self.resources = ResourceSpec(**resources)
        self._vlm = vlm
        self._loaded = {}
        self.stages: list[str] = []
        self.units: dict[str, int] = {}

    def load(self, path):
        if self._vlm is not None:
            return self._vlm
        if path not in self._loaded:
            self._loaded[path] = load_vlm(path)
        return self._loaded[path]

    def map(self, function, units, *shared, done=lambda n: None):
        name = function.__name__
        self.stages.append(name)
        results = []
        for unit in units:
            results.append(function(self.load, unit, *shared))
            self.units[name] = self.units.get(name, 0) + 1
            done(len(results))
        return results


def token_tables(vlm: VLM, examples: list[Example]) -> tuple[pa.Table, pa.Table]:
    """The image metrics and the pooled ones of examples that are no held-out set, in one batch."""
    images, ids = ([getattr(one, name) for one in examples] for name in ("image", "example_id"))
    sums = position_sums(vlm, images)
    values, _ = image_values(vlm, [*images, images[0]], sums, len(images), None)
    return tables(ids, values)

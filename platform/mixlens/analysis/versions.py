"""Results that were made with different versions of the libraries a model runs on.

A comparison of two such results is one of the libraries too. Some releases of transformers even
show a model another picture, or the same one at other places; what is known of that is listed here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mixlens.analysis.provenance import Provenance, read_provenance
from mixlens.design import Layout, SweepSpec, sweep_trials
from mixlens.errors import CheckpointError
from mixlens.measurement import base_of
from mixlens.spec import MeasureSpec

# What makes tokens, pixels and logits.
DECIDING = ("transformers", "tokenizers", "torchvision", "peft", "torch")
_SHOWN = 2  # results named for each version; of the others the number


@dataclass(frozen=True)
class Otherwise:
    """Releases of transformers in which a family sees a picture otherwise than in all others.

    Attributes:
        families: model type -> name.
        first, last: these releases and all between; those just outside are right.
        how: what is otherwise.
    """

    families: Mapping[str, str]
    first: str
    last: str
    how: str

    def holds(self, version: str) -> bool:
        return _parts(self.first) <= _parts(version) <= _parts(self.last)


KNOWN = (
    # Of 676 patches 4.57.6 puts one at its own place, and 256 in bf16, as 5.16.1 does; 4.51.3 and
    # 5.23.0 all of them. Releases between these four were not tried.
    Otherwise(
        {"idefics3": "Idefics 3", "smolvlm": "SmolVLM"},
        "4.51.4",
        "5.22.99",
        "patches have the positions of other patches",
    ),
    Otherwise(
        {"qwen2_5_vl": "Qwen2.5-VL"},
        "5.3.0",
        "5.4.99",
        "the picture's position in time is multiplied as in a video",
    ),
)


def sweep_version_warnings(spec: SweepSpec, folder: Path) -> list[str]:
    """A sentence for each way in which versions spoil comparisons within a sweep in `folder`."""
    layout = Layout(folder)
    trials = sweep_trials(spec, layout)
    made = {"the base": base_of(spec, folder).folder} | {
        one.name: layout.trial(one) for one in trials
    }
    found = {name: read_provenance(place) for name, place in made.items()}
    return version_warnings(found | _training_of(spec.model), spec.model)


def measure_version_warnings(spec: MeasureSpec, folder: Path) -> list[str]:
    """The same for one measured model, which may have been trained with other versions."""
    made = {"the measurement": read_provenance(folder)}
    return version_warnings(made | _training_of(spec.model), spec.model)


def version_warnings(made: Mapping[str, Provenance | None], model: str) -> list[str]:
    """Name the versions that results were made with, where they differ.

    Args:
        made: name of a result -> what it was made with; None: not recorded.
        model: the model that all results are of, for its family.
    """
    by_package = {package: _by_version(made, package) for package in DECIDING}
    clauses = [
        f"{package} {' and '.join(_of(names, version) for version, names in versions.items())}"
        for package, versions in by_package.items()
        if len(versions) > 1
    ]
    if not clauses:
        return []
    general = (
        f"Results were made with different versions: {'; '.join(clauses)}. Differences between "
        "them may come from these."
    )
    return [*_known(list(by_package["transformers"]), model), general]


def _known(versions: list[str], model: str) -> list[str]:
    """A sentence for each pair of releases in which the model's family sees otherwise."""
    if len(versions) < 2:
        return []
    from mixlens.models import model_config  # torch: only where there is something to say

    try:
        family = model_config(model).model_type
    except CheckpointError:  # it is not at hand any more
        return []
    return [
        f"{entry.families[family]} sees a picture otherwise in transformers {one} than in "
        f"{another} ({entry.how}): do not compare results of the two."
        for entry in KNOWN
        if family in entry.families
        for place, one in enumerate(versions)
        for another in versions[place + 1 :]
        if entry.holds(one) or entry.holds(another)
    ]


def _by_version(made: Mapping[str, Provenance | None], package: str) -> dict[str, list[str]]:
    """Version -> the results that it made, or began, in ascending order."""
    found: dict[str, list[str]] = {}
    for name, provenance in made.items():
        for packages in (*provenance.earlier, provenance.packages) if provenance else ():
            if version := packages.get(package):
                found.setdefault(version, []).append(name)
    return {version: found[version] for version in sorted(found, key=_parts)}


def _of(names: list[str], version: str) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{version} ({', '.join(names[:_SHOWN])}{more})"


def _training_of(model: str) -> dict[str, Provenance | None]:
    """What a model was trained with, where it is the model folder of a run."""
    folder = Path(model)
    is_ours = folder.is_absolute() and folder.name == "model"
    return {"the model's training": read_provenance(folder.parent)} if is_ours else {}


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])

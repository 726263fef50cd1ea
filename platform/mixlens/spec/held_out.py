"""The held-out images: what decides which ones they are, and how they are asked about."""

from typing import Any, Literal, Protocol

from pydantic import Field

from mixlens.errors import explain
from mixlens.spec.base import Spec
from mixlens.spec.data import EvaluationSpec
from mixlens.spec.kinds import ComponentSpec, DataSet

HELD_OUT_START = 2**62
"""The index of the first held-out example of any component; no training index reaches it."""

ImageKind = Literal["own", "blank", "noise"]


class HeldOut(Spec):
    """The held-out images of a component.

    `images` says what stands in their place: themselves, or pictures without any content.
    """

    name: str = Field(description="of the component")
    component: ComponentSpec = Field(description="its images and tasks")
    data: dict[str, DataSet] = Field({}, description="the data sets that it draws from")
    examples: int = Field(description="how many images, the first ones")
    images: ImageKind = Field("own", description="the images, or ones without content for them")
    prompts_digest: str = Field("", description="of the questions' phrasings")

    def canonical(self) -> dict[str, Any]:
        content = super().canonical()
        return {
            **content,
            "component": self.component.canonical(),
            "data": canonical_data(self.data),
        }


class _Evaluated(Protocol):
    @property
    def components(self) -> dict[str, ComponentSpec]: ...
    @property
    def data(self) -> dict[str, DataSet]: ...
    @property
    def evaluation(self) -> EvaluationSpec: ...
    @property
    def prompts_digest(self) -> str: ...


def held_out_of(spec: _Evaluated) -> HeldOut:
    """What a sweep or a measure file evaluates on."""
    return _held_out(spec, spec.evaluation.component)


def transfer_of(spec: _Evaluated) -> HeldOut | None:
    """The images of the second component, on which trends are held against the first."""
    name = spec.evaluation.transfer
    return None if name is None else _held_out(spec, name)


def used_data(spec: _Evaluated, components: list[str]) -> dict[str, DataSet]:
    """The data sets that these components take images from."""
    names = {spec.components[name].data_set for name in components}
    return {name: spec.data[name] for name in sorted(filter(None, names))}


def canonical_data(data: dict[str, DataSet]) -> dict[str, Any]:
    """What of the data sets decides results."""
    return {name: one.canonical() for name, one in data.items()}


def _held_out(spec: _Evaluated, name: str) -> HeldOut:
    return HeldOut(
        name=name,
        component=spec.components[name],
        data=used_data(spec, [name]),
        examples=spec.evaluation.examples,
        prompts_digest=spec.prompts_digest,
    )


def check_data(components: dict[str, ComponentSpec], data: dict[str, DataSet]) -> None:
    """Refuse components of a data set that the file does not describe, or of one of another kind.

    Raises:
        ValueError: names the component.
    """
    for name, component in components.items():
        if component.data_set is None:
            continue
        if component.data_set not in data:
            known = f"The data sets are {', '.join(sorted(data))}." if data else "There is none."
            raise ValueError(
                explain(f"components.{name}.data", component.data_set, "no such data set",
                        f"{known} Describe it under data.")
            )  # fmt: skip
        kind = data[component.data_set].kind
        if component.kind != kind:
            raise ValueError(
                explain(f"components.{name}.kind", component.kind,
                        f"data set {component.data_set!r} is of kind {kind!r}",
                        "Give a component the kind of its data set.")
            )  # fmt: skip


def check_transfer(evaluation: EvaluationSpec) -> None:
    """Refuse to hold a component against itself.

    Raises:
        ValueError: names the field.
    """
    if evaluation.transfer == evaluation.component:
        raise ValueError(
            explain("evaluation.transfer", evaluation.transfer,
                    "this is evaluation.component itself, on which all of its trends hold",
                    "Name another component, or leave it out.")
        )  # fmt: skip

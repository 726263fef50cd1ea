"""What every model of a sweep is measured on, and how: one value that decides the result."""

from typing import Literal, Protocol

from mixlens.spec.base import Spec
from mixlens.spec.data import ComponentSpec, EvaluationSpec

ImageKind = Literal["own", "blank", "noise"]


class HeldOut(Spec):
    """The held-out images of a component, and what is measured on them.

    `images` says what stands in their place: themselves, or pictures without any content.
    """

    name: str
    component: ComponentSpec
    evaluation: EvaluationSpec
    images: ImageKind = "own"


class _Evaluated(Protocol):
    @property
    def components(self) -> dict[str, ComponentSpec]: ...
    @property
    def evaluation(self) -> EvaluationSpec: ...


def held_out_of(spec: _Evaluated) -> HeldOut:
    """What a sweep, a run or a measure file evaluates on."""
    name = spec.evaluation.component
    return HeldOut(name=name, component=spec.components[name], evaluation=spec.evaluation)

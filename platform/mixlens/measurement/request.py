"""The parts of a measurement: one request each, whose digest holds what decides its result.

A part never depends on what else is asked, so one more request measures this one alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from mixlens.probing.settings import Setting, settings
from mixlens.spec import DeletionSpec, EvaluationSpec, ExtendedMetric, ProbeSpec, Spec


class Request(Spec):
    """One thing that is looked at in a model on held-out images."""

    part: ClassVar[str]

    @property
    def label(self) -> str:
        """What tells it from others of its part, for people who look at folders."""
        return ""

    @property
    def folder(self) -> str:
        """The name of the folder of its tables."""
        return "-".join(filter(None, (self.part, self.label, self.digest())))


class Answers(Request):
    """The answers to the questions about the images: table examples, and throughput.json."""

    part = "answers"

    engine: Literal["transformers", "vllm"]
    max_new_tokens: int

    @property
    def label(self) -> str:
        return self.engine


class Tokens(Request):
    """Metrics of the tokens: image_metrics, pooled_metrics, nulls and attributes.

    Without a model to compare with, also the top subspaces, with which others are compared.
    """

    part = "tokens"

    base: str = Field("", description="digest of the model to compare subspaces with")


class Metric(Request):
    """A metric of the tokens that the default set does not have: image_metrics."""

    part = "metric"

    metric: ExtendedMetric

    @property
    def label(self) -> str:
        return self.metric


class Embeddings(Request):
    """The mean token of each image in each layer."""

    part = "embeddings"


class Probe(Request):
    """Probes of attributes: one attribute each if linear, all together for networks.

    Linear probes of two attributes share nothing; a network's hidden layers serve all attributes.
    """

    part = "probe"

    kind: Literal["linear", "mlp"]
    attributes: tuple[str, ...]
    every_position: bool

    @property
    def label(self) -> str:
        return ",".join((self.kind, *self.attributes[:1])) if self.kind == "linear" else self.kind


class Deletion(Request):
    """Answers with visual tokens deleted in one way: table deleted."""

    part = "deletion"

    layer: int
    policy: str
    share: float
    seed: int
    examples: int = Field(description="budgets by saliency hold the mean over so many images")

    @property
    def label(self) -> str:
        return f"{self.policy},layer={self.layer},share={self.share:g},seed={self.seed}"

    @property
    def setting(self) -> Setting:
        return Setting(self.layer, self.policy, self.share, self.seed)


@dataclass(frozen=True)
class Asked:
    """What a file asks of a model on held-out images, beyond the metrics of its tokens.

    Attributes:
        answers: none where the questions are not asked.
        metrics: of tokens, beyond the default set.
        probes: none where nothing is probed.
        deletion: none where nothing is deleted.
        keep_states: whether hidden states stay on the disk.
    """

    answers: Answers | None = None
    metrics: tuple[ExtendedMetric, ...] = ()
    probes: ProbeSpec | None = None
    deletion: DeletionSpec | None = None
    keep_states: bool = False

    @classmethod
    def of(cls, evaluation: EvaluationSpec) -> "Asked":
        """Everything that a file asks."""
        return cls(
            answers_of(evaluation),
            evaluation.metrics,
            evaluation.probes,
            evaluation.deletion,
            evaluation.keep_states,
        )

    def extended(self) -> list[Metric]:
        """A request for each metric beyond the default set."""
        return [Metric(metric=name) for name in dict.fromkeys(self.metrics)]

    def deletions(self, images: int) -> list[Deletion]:
        """A request for each setting of deletion, of a measurement on so many images."""
        if self.deletion is None:
            return []
        some = min(self.deletion.examples or images, images)
        return [
            Deletion(
                layer=one.layer, policy=one.policy, share=one.share, seed=one.seed, examples=some
            )
            for one in settings(self.deletion)
        ]

    def probings(self, attributes: Sequence[str]) -> list[Probe]:
        """The requests for probes of these attributes."""
        if self.probes is None:
            return []
        every = self.probes.every_position
        alone = [(name,) for name in attributes]
        return [
            Probe(kind=kind, attributes=names, every_position=every)
            for kind in dict.fromkeys(self.probes.kinds)
            for names in (alone if kind == "linear" else [tuple(attributes)])
        ]


def answers_of(evaluation: EvaluationSpec) -> Answers:
    """The request for the answers that a file asks for."""
    return Answers(engine=evaluation.engine, max_new_tokens=evaluation.max_new_tokens)

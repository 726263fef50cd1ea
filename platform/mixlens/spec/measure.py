"""What is measured of a model beyond its answers and its tokens' metrics, and a measure file."""

from typing import Literal

from pydantic import Field, model_validator

from mixlens.spec.base import Share, Spec

ProbeKind = Literal["linear", "mlp"]
ExtendedMetric = Literal[
    "cka_previous", "cknna_previous", "mutual_information", "rankme", "svcca_previous", "twonn"
]
Policy = Literal["random", "norm", "attention", "leverage", "unique", "saliency"]

ENCODER = -1
"""The place of deletion behind the vision encoder; l >= 0 is the entrance of decoder block l."""


class ProbeSpec(Spec):
    """Probes of the held-out images' attributes at every layer and token position."""

    attributes: tuple[str, ...] = Field(
        (), description="attributes that are probed; empty: all there are"
    )
    kinds: tuple[ProbeKind, ...] = Field(
        ("linear", "mlp"),
        min_length=1,
        description="linear probes, and probes with one hidden layer (mlp)",
    )
    every_position: bool = Field(
        True, description="probe each token position as well, not only their mean"
    )


class DeletionSpec(Spec):
    """Which visual tokens are deleted, where, and how many; 0 % is always measured too."""

    shares: tuple[Share, ...] = Field(
        (0.25, 0.5, 0.75, 0.9, 0.95, 0.99),
        min_length=1,
        description="shares of visual tokens that are deleted",
        json_schema_extra={"unit": "share of visual tokens"},
    )
    layers: tuple[int, ...] = Field(
        (ENCODER,),
        min_length=1,
        description="places of deletion; -1: behind the encoder; l: before decoder block l",
        json_schema_extra={"unit": "decoder blocks"},
    )
    policies: tuple[Policy, ...] = Field(
        ("random",),
        min_length=1,
        description="how the deleted tokens are chosen; random is always among them",
    )
    seeds: tuple[int, ...] = Field(
        (0, 1, 2), min_length=1, description="the seeds of random deletion"
    )
    downsampling: bool = Field(
        True, description="compare with smaller images that have as many tokens"
    )
    examples: int | None = Field(
        None,
        ge=8,
        description="the first so many held-out images; none: all",
        json_schema_extra={"unit": "images"},
    )

    @model_validator(mode="after")
    def _check(self) -> "DeletionSpec":
        if any(layer < ENCODER for layer in self.layers):
            raise ValueError(f"layers {list(self.layers)}: the smallest place is {ENCODER}")
        if "random" not in self.policies:
            raise ValueError(
                f"policies {list(self.policies)}: random is missing, which all others are held "
                "against. Add it."
            )
        return self

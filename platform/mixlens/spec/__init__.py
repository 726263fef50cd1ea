"""Sweep files: frozen, strict models, their digests, and reading them from YAML."""

from mixlens.spec.base import Spec
from mixlens.spec.coco import CocoComponent, CocoFiles, CocoSpec, Exif
from mixlens.spec.component import TaskGroup
from mixlens.spec.data import EvaluationSpec, Weights
from mixlens.spec.held_out import HELD_OUT_START, HeldOut, held_out_of, transfer_of
from mixlens.spec.kinds import ComponentSpec, DataSet
from mixlens.spec.load import load_spec
from mixlens.spec.measure import ENCODER, DeletionSpec, ExtendedMetric, Policy, ProbeSpec
from mixlens.spec.measure_file import MeasureSpec
from mixlens.spec.pretrain import PretrainSpec, Stage
from mixlens.spec.run import RunSpec
from mixlens.spec.scene import SceneComponent, SceneSpec, SizeRange
from mixlens.spec.tracking import TrackingSpec
from mixlens.spec.training import (
    TOWERS,
    Attention,
    LearningRates,
    LoraSpec,
    Memory,
    ResourceSpec,
    Tower,
    TrainingSpec,
)

__all__ = [
    "ENCODER",
    "HELD_OUT_START",
    "TOWERS",
    "Attention",
    "CocoComponent",
    "CocoFiles",
    "CocoSpec",
    "ComponentSpec",
    "DataSet",
    "DeletionSpec",
    "EvaluationSpec",
    "Exif",
    "ExtendedMetric",
    "HeldOut",
    "LearningRates",
    "LoraSpec",
    "MeasureSpec",
    "Memory",
    "Policy",
    "PretrainSpec",
    "ProbeSpec",
    "ResourceSpec",
    "RunSpec",
    "SceneComponent",
    "SceneSpec",
    "SizeRange",
    "Spec",
    "Stage",
    "TaskGroup",
    "Tower",
    "TrackingSpec",
    "TrainingSpec",
    "Weights",
    "held_out_of",
    "load_spec",
    "transfer_of",
]

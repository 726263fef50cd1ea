"""Sweep files: frozen, strict models, their digests, and reading them from YAML."""

from mixlens.spec.base import Spec
from mixlens.spec.coco import CocoFiles, CocoSpec, Exif
from mixlens.spec.component import CocoComponent, ComponentSpec, SceneComponent, TaskGroup
from mixlens.spec.data import EvaluationSpec, MixtureSpec, Weights
from mixlens.spec.held_out import HELD_OUT_START, HeldOut, held_out_of, transfer_of
from mixlens.spec.layout import Layout
from mixlens.spec.load import load_spec
from mixlens.spec.measure import ENCODER, DeletionSpec, Policy, ProbeSpec
from mixlens.spec.measure_file import MeasureSpec, load_measure
from mixlens.spec.pretrain import PretrainSpec, Stage
from mixlens.spec.scene import SceneSpec, SizeRange
from mixlens.spec.sweep import BASE, RunSpec, SweepSpec, TrackingSpec
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
    "BASE",
    "ENCODER",
    "HELD_OUT_START",
    "TOWERS",
    "Attention",
    "CocoComponent",
    "CocoFiles",
    "CocoSpec",
    "ComponentSpec",
    "DeletionSpec",
    "EvaluationSpec",
    "Exif",
    "HeldOut",
    "Layout",
    "LearningRates",
    "LoraSpec",
    "MeasureSpec",
    "Memory",
    "MixtureSpec",
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
    "SweepSpec",
    "TaskGroup",
    "Tower",
    "TrackingSpec",
    "TrainingSpec",
    "Weights",
    "held_out_of",
    "load_measure",
    "load_spec",
    "transfer_of",
]

"""The file of the built-in base model."""

from pathlib import Path

import pytest

from mixlens.errors import SpecError
from mixlens.spec import PretrainSpec, load_spec

FILE = Path(__file__).resolve().parents[3] / "jobs/pretrain.yaml"


def test_photographs_are_refused_because_the_model_has_no_words_for_them():
    first = next(iter(load_spec(PretrainSpec, FILE).components))
    with pytest.raises(SpecError, match=rf"components\.{first}\.kind: got 'coco'.*'synthetic'"):
        load_spec(PretrainSpec, FILE, [f"components.{first}.kind=coco"])

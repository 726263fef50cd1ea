"""Categories with rare classes: probed as if the images of those were not there, and said so."""

import numpy as np
import pandas as pd
import pytest
import torch

from mixlens.probing.probes import POOLED, probe_layer
from mixlens.probing.rare import without_rare
from mixlens.probing.targets import fold_of_images, read_targets
from mixlens.spec.measure import ProbeSpec

IMAGES = 80
RARE = {3: "kite", 17: "kite", 40: "bus", 41: "tie", 66: "bus", 79: "kite"}


@pytest.fixture(scope="module")
def planted() -> tuple[torch.Tensor, torch.Tensor, pd.DataFrame]:
    """Three positions, and six odd images, which lack the first; 50 images have the last."""
    generator = torch.Generator().manual_seed(3)
    kind = torch.randint(3, (IMAGES,), generator=generator)
    states = torch.randn(IMAGES, 3, 8, generator=generator)
    states[:, :, :3] += 2 * torch.nn.functional.one_hot(kind, 3)[:, None]
    names = [RARE.get(image, f"common {int(one)}") for image, one in enumerate(kind)]
    exists = torch.ones(IMAGES, 3, dtype=torch.bool)
    exists[list(RARE), 0] = False
    exists[50:, 2] = False
    attributes = pd.DataFrame(
        {"kind": names, "number": torch.randn(IMAGES, generator=generator).numpy()}
    )
    return states, exists, attributes


def test_the_rest_is_probed_as_if_rare_images_were_not_there(
    planted: tuple[torch.Tensor, torch.Tensor, pd.DataFrame],
) -> None:
    states, exists, attributes = planted
    fold = fold_of_images(IMAGES)
    keep = np.setdiff1d(np.arange(IMAGES), list(RARE))
    table = probe_layer(states, exists, attributes, ProbeSpec(), fold=fold)
    alone = probe_layer(
        states[keep], exists[keep], attributes.iloc[keep], ProbeSpec(attributes=("kind",)),
        fold=fold[keep],
    )  # fmt: skip
    mine = table[table["attribute"] == "kind"].reset_index(drop=True)
    # Position 0 lacks nobody, and is probed together with the number.
    mine, alone = (some[some["position"] != 0].reset_index(drop=True) for some in (mine, alone))
    ends = ["low", "high"]  # of other draws
    pd.testing.assert_frame_equal(
        mine.drop(columns=["note", *ends]), alone.drop(columns=["note", *ends]), rtol=1e-6
    )
    np.testing.assert_allclose(mine[ends], alone[ends], atol=0.03)
    assert (alone["note"] == "").all()
    rows = table[table["attribute"] == "kind"]
    assert len(rows) == 4 * 2  # positions and kinds, each once
    assert rows["value"].notna().all()
    assert rows.set_index("position")["n"].to_dict() == {POOLED: 74, 0: 74, 1: 74, 2: 46}


def test_the_note_names_images_and_classes_of_its_position(
    planted: tuple[torch.Tensor, torch.Tensor, pd.DataFrame],
) -> None:
    states, exists, attributes = planted
    table = probe_layer(states, exists, attributes, ProbeSpec(kinds=("linear",)))
    notes = table[table["attribute"] == "kind"].set_index("position")["note"].to_dict()
    every = "without 6 images of 3 classes with fewer than 5: kite 3, bus 2, tie 1"
    some = "without 4 images of 3 classes with fewer than 5: kite 2, bus 1, tie 1"
    assert notes == {POOLED: every, 0: "", 1: every, 2: some}
    assert (table.loc[table["attribute"] == "number", "note"] == "").all()


def test_other_attributes_do_not_lose_images(
    planted: tuple[torch.Tensor, torch.Tensor, pd.DataFrame],
) -> None:
    states, exists, attributes = planted
    linear = ProbeSpec(kinds=("linear",))
    both = probe_layer(states, exists, attributes, linear)
    number = both[both["attribute"] == "number"].reset_index(drop=True)
    alone = probe_layer(states, exists, attributes[["number"]], linear)
    pd.testing.assert_frame_equal(number, alone, rtol=1e-9)
    assert number["n"].tolist() == [IMAGES, IMAGES - len(RARE), IMAGES, 50]


def test_positions_with_the_same_classes_go_together() -> None:
    words = ["a"] * 15 + ["b"] * 15 + ["c"] * 5 + ["d"]
    (targets,) = read_targets(pd.DataFrame({"word": words}), ["word"])
    present = torch.ones(4, len(words), dtype=torch.bool)
    present[1, 30] = False  # of c, four stay
    present[2, :6] = False  # of a, nine stay
    present[3, 35] = False  # without d, nothing is rare
    found = list(without_rare(targets, present))
    assert [one.positions for one in found] == [[0, 2], [1]]
    first, second = (one.targets for one in found)
    assert first.parts[0].classes == ("a", "b", "c")
    assert second.parts[0].classes == ("a", "b")
    assert first.has.nonzero()[:, 0].tolist() == list(range(35))
    assert second.has.nonzero()[:, 0].tolist() == list(range(30))
    assert first.values[first.has].sum(0).tolist() == [15, 15, 5]
    assert found[1].notes == ["without 5 images of 2 classes with fewer than 5: c 4, d 1"]
    assert found[0].notes == ["without 1 image of 1 class with fewer than 5: d 1"] * 2
    assert targets.notes(present) == [[None], [None], [None], [""]]


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (["a"] * 30 + list("bcdefgh"), "not estimable: only 1 images are b, 5 are needed"),
        (["a"] * 10 + ["b"] * 9 + list("cdef"),
         "not estimable: 19 images of classes with 5 or more, 20 are needed"),
        (["a"] * 10 + ["b"] * 10 + list("cdef"), None),
        (["a"] * 15 + ["b"] * 5, ""),
        (["a"] * 25, "not estimable: the same for all images"),
    ],
)  # fmt: skip
def test_what_stays_must_be_enough(words: list[str], note: str | None) -> None:
    (targets,) = read_targets(pd.DataFrame({"word": words}), ["word"])
    everyone = torch.ones(1, len(words), dtype=torch.bool)
    assert targets.notes(everyone) == [[note]]
    assert len(list(without_rare(targets, everyone))) == (note is None)

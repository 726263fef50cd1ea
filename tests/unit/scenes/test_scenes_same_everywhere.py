"""The same bytes in any process and order: locked by hashes, and tried in other processes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixlens.scenes import Scene, make_scene
from mixlens.spec import SceneSpec, SizeRange

TINY = (SizeRange(name="tiny", diameter=(0.03, 0.045)),)
SPECS = {
    "default": SceneSpec(),
    "112 pixels": SceneSpec(image_size=112),
    "200 objects": SceneSpec(objects=(200, 200), sizes=TINY),
    "crowded": SceneSpec(objects=(12, 14)),
    "fixed size": SceneSpec(ink="fixed_size", object_diameter=0.1, objects=(1, 40)),
    "fixed ink": SceneSpec(ink="fixed_total", total_ink=0.04, objects=(1, 30)),
    "overlapping": SceneSpec(placement="overlapping", objects=(2, 20)),
    "colour": SceneSpec(background="colour"),
    "gradient": SceneSpec(background="gradient"),
    "noise": SceneSpec(background="noise"),
    "effects": SceneSpec(lighting=(0.2, 0.6), sensor_noise=(2, 12), blur=(0.3, 1.5)),
}
# A change here is a change of every experiment: models were trained on these very pixels.
GOLDEN = {
    "default": "4e0d3a419fcab435",
    "112 pixels": "4fe5cc73197956d7",
    "200 objects": "2d38ca4c4c07a324",
    "crowded": "0096384079d8e925",
    "fixed size": "67407809db407295",
    "fixed ink": "697d954448dfc17f",
    "overlapping": "df873ae7703b0681",
    "colour": "a41e8ab64b3cda21",
    "gradient": "629a50e6e36e3209",
    "noise": "77f01439f9437de1",
    "effects": "ec4e5d6ed548bbbf",
}


def digest(scene: Scene) -> bytes:
    content = hashlib.sha256(scene.image.tobytes())
    content.update(scene.ids.tobytes())
    content.update(repr((scene.objects, scene.attributes)).encode())
    return content.digest()


def digests(name: str, indices: range) -> str:
    """One hash of some scenes, made in the order of `indices` but hashed in ascending order."""
    parts = {index: digest(make_scene(SPECS[name], 7, index)) for index in indices}
    return hashlib.sha256(b"".join(parts[index] for index in sorted(parts))).hexdigest()[:16]


@pytest.mark.parametrize("name", SPECS)
def test_scenes_are_those_that_were_recorded(name: str) -> None:
    assert digests(name, range(12)) == GOLDEN[name]


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_another_process_makes_the_same_scenes_in_reverse(hash_seed: str) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_scenes_same_everywhere as test\n"
        "for name in reversed(test.SPECS): print(name, test.digests(name, range(11, -1, -1)))"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", script, folder],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    made = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert made == GOLDEN


def test_seed_and_index_each_change_the_scene_whatever_their_size() -> None:
    spec = SPECS["default"]
    keys = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2**62), (0, 2**62 + 1), (2**31 - 1, 0)]
    assert len({digest(make_scene(spec, *key)) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    "change",
    [
        {"background": "gradient"},
        {"sensor_noise": (3, 3), "lighting": (0.5, 0.5), "blur": (1, 1)},
        {"colours": ("red", "blue")},
    ],
)
def test_a_factor_can_be_changed_while_all_others_stay(change: dict) -> None:
    spec = SPECS["default"]
    other = SceneSpec(**change)
    for index in range(10):
        one, two = make_scene(spec, 3, index), make_scene(other, 3, index)
        assert (one.ids == two.ids).all()
        assert [o._replace(colour="") for o in one.objects] == [
            o._replace(colour="") for o in two.objects
        ]
        assert (one.image != two.image).any()

"""What all tests share: no hub, quiet libraries, one local Ray for everything that needs one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# Ray's workers would give way to the tests that run beside them.
os.environ.setdefault("RAY_worker_niceness", "0")

import pytest

import mixlens.models  # noqa: F401 - lets torchvision be imported, which tests of transformers do first

if TYPE_CHECKING:
    from coco_set import CocoSet
    from xdist.scheduler import Scheduling

# Files that share a costly fixture: the one Ray, and runs that several files look at.
TOGETHER = (
    ("tests/ray/",),
    tuple(
        f"tests/unit/training/test_training_{name}.py"
        for name in ("checkpoint", "exact", "merge", "sharded")
    ),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "Scheduling":
    """Keep a file on one worker, because its fixtures serve all of it, and so `TOGETHER`.

    They are begun in the order of `pytest_collection_modifyitems`.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            group = next((group for group in TOGETHER if nodeid.startswith(group)), None)
            return group[0] if group else nodeid.split("::")[0]

    config.option.loadscopereorder = False
    return Files(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, so that no worker has a long file left when the other is done."""

    def place(item: pytest.Item) -> tuple[bool, ...]:
        file = item.getparent(pytest.Module) or item
        groups = (not item.nodeid.startswith(group) for group in TOGETHER)
        return *groups, file.get_closest_marker("slow") is None

    items.sort(key=place)


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A Ray of four logical CPUs on this machine, shared by the whole test session."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


def _coco_root() -> Path | None:
    """Real photographs with COCO annotations, if this machine has some."""
    named = os.environ.get("MIXLENS_COCO_ROOT")
    root = Path(named) if named else Path(__file__).parents[2] / "shared/coco_sample"
    return root if root.is_dir() else None


def pytest_report_header() -> str:
    root = _coco_root()
    return f"real photographs: {root or 'none, tests of them are skipped (MIXLENS_COCO_ROOT)'}"


@pytest.fixture(scope="session")
def coco_sample() -> Path:
    """The root of real photographs, whose annotations are in `annotations/instances_*.json`."""
    root = _coco_root()
    if root is None:
        pytest.skip("no real photographs here: MIXLENS_COCO_ROOT names no folder of them")
    return root


@pytest.fixture(scope="session")
def coco_set(tmp_path_factory: pytest.TempPathFactory) -> "CocoSet":
    """A small data set in COCO format, with every fault; not to be changed."""
    from coco_set import make_coco_set

    return make_coco_set(tmp_path_factory.mktemp("coco") / "set")


@pytest.fixture(scope="session")
def clean_coco_set(tmp_path_factory: pytest.TempPathFactory) -> "CocoSet":
    """The same without faults; not to be changed."""
    from coco_set import make_coco_set

    return make_coco_set(tmp_path_factory.mktemp("clean_coco") / "set", faults=False)

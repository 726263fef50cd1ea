import os
import socket
from pathlib import Path

import pytest
from ray._common.utils import get_default_ray_temp_dir
from ray._private.utils import validate_socket_filepath

from mixlens.errors import ResourceError
from mixlens.spec import MeasureSpec, ResourceSpec
from mixlens.sweep.machine import (
    Capacity,
    address_of,
    capacity_of,
    check_engine_room,
    check_reachable,
    check_socket_paths,
    trials_at_once,
)

NOWHERE = Path("/nonexistent/ray_bootstrap_config.yaml")


def test_as_many_trials_as_fit_beside_actors_and_rendering():
    need = ResourceSpec()  # a file that says nothing of resources runs on two cores
    assert trials_at_once(need, Capacity(2, 0, "here"), trials=10) == 2
    assert trials_at_once(need, Capacity(16, 0, "here"), trials=10) == 10
    assert trials_at_once(need, Capacity(16, 0, "here"), trials=100) == 30


def test_fractions_that_do_not_add_up_exactly_still_count():
    need = ResourceSpec(cpus_per_worker=0.1, cpus_per_actor=0.0, cpus_per_render=0.1)
    assert trials_at_once(need, Capacity(0.4, 0, "here"), trials=9) == 3


def test_gpus_limit_too_and_a_person_may_limit_further():
    need = ResourceSpec(workers=4, gpus_per_worker=1, gpus_per_actor=1, cpus_per_actor=1)
    assert trials_at_once(need, Capacity(64, 16, "here"), trials=10) == 3
    capped = need.model_copy(update={"max_concurrent_trials": 2})
    assert trials_at_once(capped, Capacity(64, 16, "here"), trials=10) == 2


@pytest.mark.parametrize(
    ("need", "told"),
    [
        ({"workers": 8}, r"resources\.workers: got 8: .*Set it to at most 6"),
        ({"gpus_per_worker": 1}, r"resources\.gpus_per_worker: got 1.0: "),
        ({"cpus_per_worker": 9}, r"resources\.cpus_per_worker: got 9.0: "),
        ({"actors": 9}, r"resources\.actors: got 9: "),
        # Workers that take nothing still need the actors to fit.
        ({"actors": 9, "cpus_per_worker": 0}, r"resources\.actors: got 9: "),
        ({"gpus_per_actor": 1}, r"resources\.gpus_per_worker: .*Lower it or gpus_per_actor"),
    ],
)
def test_what_does_not_fit_is_refused_with_field_and_both_sides(need: dict[str, float], told: str):
    with pytest.raises(ResourceError, match=told) as caught:
        trials_at_once(ResourceSpec.model_validate(need), Capacity(4, 0, "here"), trials=1)
    assert "here has 4 CPUs and 0 GPUs, but one trial takes" in str(caught.value)


@pytest.mark.parametrize("from_environment", [False, True])
def test_nothing_at_the_address(monkeypatch: pytest.MonkeyPatch, from_environment: bool):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"  # where no one listens while it is taken
        monkeypatch.setenv("RAY_ADDRESS", nobody)
        need = ResourceSpec(address=None if from_environment else f"ray://{nobody}")
        address = address_of(need)
        assert address is not None
        with pytest.raises(ResourceError, match=rf"resources\.address.*{nobody}.*Start Ray there"):
            check_reachable(address)
    assert ("RAY_ADDRESS" in address.field) == from_environment


def test_without_an_address_ray_starts_here(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert address_of(ResourceSpec()) is None


def test_a_cluster_without_launcher_has_what_it_has():
    assert capacity_of({"CPU": 3.0}, NOWHERE) == Capacity(3.0, 0.0, "the Ray cluster")


def test_a_launched_cluster_counts_the_nodes_it_may_add(tmp_path: Path):
    config = tmp_path / "ray_bootstrap_config.yaml"
    config.write_text(
        "max_workers: 3\nhead_node_type: head\navailable_node_types:\n"
        "  head: {resources: {}}\n"
        "  small: {resources: {CPU: 8}, max_workers: 2}\n"
        "  large: {resources: {CPU: 16, GPU: 4}}\n"
        "  none: {resources: {GPU: 8}, max_workers: 0}\n"
    )
    found = capacity_of({"CPU": 4.0}, config)
    assert (found.cpus, found.gpus) == (4 + 2 * 8 + 3 * 16, float("inf"))


@pytest.mark.parametrize(
    ("have", "told"),
    [
        ((8, 3), None),
        ((8, 2), "here has 8 CPUs and 2 GPUs, but vLLM takes 1 GPUS beside 2"),
        ((5, 3), "here has 5 CPUs and 3 GPUs, but vLLM takes 2 CPUS beside 2"),
    ],
)
def test_vllm_needs_room_beside_the_actors(have: tuple[float, float], told: str | None):
    spec = MeasureSpec.model_validate(
        {
            "name": "m",
            "model": "some/model",
            "components": {"a": {"tasks": {"coarse": 1}}},
            "evaluation": {"component": "a", "examples": 8, "engine": "vllm"},
            "resources": {"actors": 2, "gpus_per_actor": 1, "cpus_per_actor": 2},
        }
    )
    usual = spec.evaluation.model_copy(update={"engine": "transformers"})
    check_engine_room(spec.model_copy(update={"evaluation": usual}), Capacity(*have, "here"))
    if told is None:
        check_engine_room(spec, Capacity(*have, "here"))
    else:
        with pytest.raises(ResourceError, match=told):
            check_engine_room(spec, Capacity(*have, "here"))


@pytest.mark.case
def test_a_temporary_folder_too_deep_for_sockets_is_refused(monkeypatch: pytest.MonkeyPatch):
    """As batch systems make them. Ray itself refuses exactly those."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    longest = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
    folder = f"/{'x' * (107 - len(longest) - 6)}/ray"
    check_socket_paths(folder)
    validate_socket_filepath(f"{folder}/{longest}")
    monkeypatch.setenv("TMPDIR", f"/x{folder}".removesuffix("/ray"))
    with pytest.raises(ResourceError, match=r"^TMPDIR: .*2 more\. Set RAY_TMPDIR to a short"):
        check_socket_paths(f"/x{folder}")
    with pytest.raises(OSError, match="AF_UNIX"):
        validate_socket_filepath(f"/x{folder}/{longest}")
    monkeypatch.setenv("RAY_TMPDIR", os.environ["TMPDIR"])
    with pytest.raises(ResourceError, match=r"^RAY_TMPDIR: "):
        check_socket_paths(get_default_ray_temp_dir())

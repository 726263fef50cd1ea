"""What a finished run says of itself."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from mixlens.design import SweepSpec, asked_trials
from mixlens.mixture.digests import digests_of
from mixlens.mixture.order import order_of
from mixlens.training.records import finish, finished_model, last_record

RUN = asked_trials(
    SweepSpec.model_validate(
        {
            "name": "small",
            "components": {"a": {"tasks": {"coarse": 1}}, "b": {"tasks": {"relational": 1}}},
            "design": {"kind": "ratio", "high": {"b": 1.0}, "low": {"a": 1.0}, "ratios": [0.3]},
            "training": {"steps": 7, "global_batch": 4, "micro_batch": 2},
            "evaluation": {"component": "b", "examples": 8},
        }
    )
)[0].run


def test_the_mixture_of_every_step_is_written_down(tmp_path: Path):
    (tmp_path / "training.jsonl").write_text(json.dumps({"step": 7, "loss": 1.0}) + "\n")
    digests = [f"{digest:016x}" for digest in digests_of(RUN, 7, {})]
    (tmp_path / "trained_on.txt").write_text("".join(f"{digest}\n" for digest in digests))
    finish(RUN, tmp_path)
    order, seen, expected = order_of(RUN), Counter[str](), []
    for step in range(1, 8):
        seen.update(order.at(position)[0] for position in range(4 * (step - 1), 4 * step))
        expected.append(
            {"step": step, "a": seen["a"], "b": seen["b"], "trained_on": digests[step - 1]}
        )
    assert pq.read_table(tmp_path / "mixture.parquet").to_pylist() == expected
    assert json.loads((tmp_path / "trained.json").read_text())["examples"] == dict(seen)
    assert finished_model(RUN, tmp_path) == tmp_path / "model"


def test_the_last_whole_record_is_read_from_the_end(tmp_path: Path):
    """Also while the next one is being written, and where the file is longer than what is read."""
    journal = tmp_path / "training.jsonl"
    assert last_record(journal) is None
    journal.write_text('{"step": 1')
    assert last_record(journal) is None
    lines = [json.dumps({"step": step, "more": "x" * 500}) + "\n" for step in range(1, 400)]
    journal.write_text("".join(lines) + '{"step": 4')
    assert last_record(journal) == json.loads(lines[-1])
    journal.write_text(lines[0])
    assert last_record(journal) == json.loads(lines[0])

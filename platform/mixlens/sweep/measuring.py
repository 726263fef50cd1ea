"""Measure one model on the held-out images, with whatever spreads the work: tables, record last.

Every stage is a map over batches of images (or over layers) of a plain function, so its results do
not depend on where it ran.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import compute

from mixlens.activations.measure import batches, check_enough, join_values, merge_sums, tables
from mixlens.activations.pool import Load
from mixlens.activations.reduce import PositionSums, Values, image_values, position_sums
from mixlens.activations.store import (
    check_room,
    layers_of,
    read_layer,
    store_bytes,
    write_states,
)
from mixlens.activations.streams import Place
from mixlens.activations.subspaces import read_subspaces, write_subspaces
from mixlens.errors import DataError, explain
from mixlens.evaluation import ANSWERS
from mixlens.evaluation.answers import answer_timed, asks_of, table_of
from mixlens.evaluation.serving import Served, asks_vllm, question_rows
from mixlens.evaluation.throughput import Effort, joined, write_throughput
from mixlens.mixture.decoding import with_pixels
from mixlens.mixture.refused import Refuses, held_out_taken, refused, takes_all
from mixlens.models import fingerprint
from mixlens.sources import Example, open_source
from mixlens.sources.blank import null_images
from mixlens.spec import HeldOut, ProbeSpec, ResourceSpec

RECORD = "measured.json"
STATES = "states"
ASKED = "asked"
_QUESTIONS = 4  # asked in one forward pass for each image in one

Batch = tuple[int, int]  # first and last + 1 of the held-out examples
Progress = Callable[[str, int, int], None]
"""Told of a stage, the units of it that are done, and how many there are."""


class Pool(Protocol):
    """What does the work: `MeasurementPool`, or anything that maps a function over units.

    Attributes:
        resources: what it may take.
    """

    resources: ResourceSpec

    def map(
        self,
        function: Callable[..., Any],
        units: Sequence[Any],
        *shared: Any,
        done: Callable[[int], None] = ...,
    ) -> list[Any]: ...


def _silent(stage: str, done: int, units: int) -> None:
    pass


def measure_model(
    pool: Pool,
    held_out: HeldOut,
    model: str,
    directory: Path,
    base: Path | None = None,
    answers: bool = True,
    progress: Progress = _silent,
) -> Path:
    """Measure a model on the held-out images.

    Writes examples, image_metrics, pooled_metrics, nulls, attributes and what `held_out.evaluation`
    asks for beyond them (probes, embeddings, deletion; all `.parquet`) into `directory`, with
    `throughput.json` where questions are asked, and `measured.json` last; returns at once when that
    is there. Without `base` the top subspaces are written too (`subspaces/`), and with
    `keep_states` the hidden states (`states/`, which `mixlens.activations.store.read_layer` reads).
    `directory` must be shared by all nodes.

    Args:
        pool: does the work.
        held_out: the images, and what is measured on them.
        model: folder, hub id or builtin name of the checkpoint.
        directory: where the results go.
        base: the directory of the measured model to compare subspaces with.
        answers: whether the questions are asked; the table of answers is empty otherwise.
        progress: told how far it is.

    Returns:
        `directory`.

    Raises:
        MixlensError: whatever a person can correct.
    """
    if (directory / RECORD).is_file():
        return directory
    evaluation = held_out.evaluation
    check_enough(evaluation.examples)
    if base is not None and not (base / RECORD).is_file():
        raise DataError(
            explain("base measurement", str(base), f"it holds no {RECORD}",
                    "Measure the base model first.")
        )  # fmt: skip
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    units = list(batches(evaluation.examples, evaluation.batch_size))
    seconds: dict[str, float] = {}

    def stage(name: str, count: int, work: Callable[[Callable[[int], None]], Any]) -> Any:
        started = time.monotonic()
        progress(name, 0, count)
        results = work(lambda done: progress(name, done, count))
        seconds[name] = round(time.monotonic() - started, 2)
        return results

    def run(name: str, function: Callable[..., Any], units: Sequence[Any], *shared: Any) -> list:
        return stage(
            name, len(units), lambda done: pool.map(function, units, model, *shared, done=done)
        )

    by_vllm = asks_vllm(evaluation, answers)
    own = answers and not by_vllm
    left_out = pool.map(_left_out, units[:1], model, held_out)[0]
    looked = run("answers" if own else "first look", _look, units, held_out, own)
    sums: dict[Place, PositionSums] = {}
    for _, _, part, _ in looked:
        sums = merge_sums(sums, part)
    examples = pa.concat_tables([part for part, _, _, _ in looked])
    effort = joined(effort for _, _, _, effort in looked)
    if by_vllm:
        examples, effort = _by_vllm(stage, run, pool.resources, units, held_out, directory)
    store = None if base else directory
    values = join_values(run("tokens", _reduce, units, held_out, sums, base, store))
    nulls = run("nulls", _null, units[:1], held_out, sums)[0]
    attributes = [row for _, rows, _, _ in looked for row in rows]
    image_metrics, pooled_metrics = tables([row["example_id"] for row in attributes], values)
    if answers:
        write_throughput(directory, evaluation.engine, effort)
    _write(
        directory,
        examples=examples,
        image_metrics=image_metrics,
        pooled_metrics=pooled_metrics,
        attributes=pa.Table.from_pylist(attributes),
        nulls=nulls,
    )
    states = directory / STATES
    if evaluation.probes or evaluation.keep_states:
        needed = run("room for states", _room, units[:1], held_out, states)[0]
        run(f"states, {needed / 1e9:.2g} GB", _store, units, held_out, states)
    if evaluation.probes:
        probed = run("probes", _probe, layers_of(states), states, attributes, evaluation.probes)
        _write(
            directory,
            probes=pd.concat([table for table, _ in probed], ignore_index=True),
            embeddings=pa.concat_tables([table for _, table in probed]),
        )
    if not evaluation.keep_states:
        shutil.rmtree(states, ignore_errors=True)
    if deletion := evaluation.deletion:
        some = min(deletion.examples or evaluation.examples, evaluation.examples)
        units = list(batches(some, evaluation.batch_size))
        seen: dict[str, float] = {}
        for part in run("saliency", _saliency, units, held_out):
            seen |= part
        from mixlens.analysis.deletion import deletion_table  # scipy: only where it is needed

        deleted = run("deletion", _delete, units, held_out, seen)
        _write(directory, deletion=deletion_table(pa.concat_tables(deleted)))
    _finish(
        directory,
        {
            "model": model,
            "images": evaluation.examples,
            "seconds": seconds,
            "answers": examples.num_rows,
            "left_out": left_out,
            "not_estimable": _not_estimable(image_metrics),
        },
    )
    return directory


def held_out_examples(
    held_out: HeldOut, places: Iterable[int], refuses: Refuses = takes_all
) -> list[Example]:
    """The held-out examples at these places among all whose images a model can be given."""
    source = open_source(held_out.name, held_out.component, held_out.data)
    indices = held_out_taken(source, refuses, held_out.evaluation.examples)
    examples = [_with_pixels(source[indices[place]]) for place in places]
    return examples if held_out.images == "own" else null_images(examples, held_out.images)


def _held_out(load: Load, model: str, held_out: HeldOut, places: Iterable[int]) -> list[Example]:
    return held_out_examples(held_out, places, load(model).adapter.refuses)


def _with_pixels(example: Example) -> Example:
    """A held-out image that decoded when it was indexed has to decode now."""
    try:
        return with_pixels(example)
    except DataError as error:
        raise DataError(
            explain(example.example_id, len(example.image), f"bytes that are no image: {error}",
                    "Its file was whole when it was indexed. Restore it, or start the job again.")
        ) from None  # fmt: skip


def _left_out(load: Load, unit: Batch, model: str, held_out: HeldOut) -> list[str]:
    """The held-out photographs that the model cannot be given, and why."""
    source = open_source(held_out.name, held_out.component, held_out.data)
    return list(refused(source, load(model).adapter.refuses, held_out=True).values())


def _look(
    load: Load, unit: Batch, model: str, held_out: HeldOut, ask: bool
) -> tuple[pa.Table, list[dict[str, Any]], dict[Place, PositionSums], Effort]:
    """Answers, attributes and position sums of some held-out examples; what it took to answer."""
    vlm, evaluation = load(model), held_out.evaluation
    examples = _held_out(load, model, held_out, range(*unit))
    answers, effort = ANSWERS.empty_table(), Effort(0, 0, 0.0)
    if ask:
        answers, effort = answer_timed(
            vlm, examples, _QUESTIONS * evaluation.batch_size, evaluation.max_new_tokens
        )
    attributes = [{"example_id": e.example_id, **e.attributes} for e in examples]
    return answers, attributes, position_sums(vlm, [e.image for e in examples]), effort


def _by_vllm(
    stage: Callable[..., Any],
    run: Callable[..., list],
    resources: ResourceSpec,
    units: Sequence[Batch],
    held_out: HeldOut,
    directory: Path,
) -> tuple[pa.Table, Effort]:
    """The table of answers where vLLM is asked: prompts by the pool, answers by it, scores again.

    The pool keeps its GPUs, with the model on them, and vLLM takes others.
    """
    asked = directory / ASKED
    shutil.rmtree(asked, ignore_errors=True)  # of a measurement that was broken off
    asked.mkdir()
    told: list[tuple[Path, int, Served]] = run("questions", _questions, units, held_out, asked)
    from mixlens.evaluation.engine import ask_vllm  # Ray: only where it is needed

    files = [file for file, _, _ in told]
    longest = max((served for _, _, served in told), key=lambda served: served.longest)
    said, effort = stage(
        "vllm",
        sum(count for _, count, _ in told),
        lambda done: ask_vllm(files, longest, resources, done),
    )
    shutil.rmtree(asked)
    parts = [
        (unit, [said[unit[0], number] for number in range(count)])
        for unit, (_, count, _) in zip(units, told, strict=True)
    ]
    return pa.concat_tables(run("scores", _score, parts, held_out)), effort


def _questions(
    load: Load, unit: Batch, model: str, held_out: HeldOut, asked: Path
) -> tuple[Path, int, Served]:
    """Write down what there is to ask about some held-out examples; where, how much, and whom."""
    examples = _held_out(load, model, held_out, range(*unit))
    table, served = question_rows(
        load(model), examples, unit[0], held_out.evaluation.max_new_tokens
    )
    file = asked / f"{unit[0]:08}.parquet"
    pq.write_table(table, file)
    return file, sum(len(example.turns) for example in examples), served


def _score(
    load: Load, unit: tuple[Batch, list[list[int]]], model: str, held_out: HeldOut
) -> pa.Table:
    """The table of answers about some held-out examples, from the tokens of the answers."""
    places, said = unit
    vlm, examples = load(model), _held_out(load, model, held_out, range(*places))
    asks = asks_of(vlm, examples, held_out.evaluation.max_new_tokens)
    return table_of(vlm, examples, asks, said)


def _reduce(
    load: Load,
    unit: Batch,
    model: str,
    held_out: HeldOut,
    sums: dict[Place, PositionSums],
    base: Path | None,
    store: Path | None,
) -> Values:
    """Metrics of some held-out examples, given the position sums of all."""
    following = unit[1] % held_out.evaluation.examples
    examples = _held_out(load, model, held_out, [*range(*unit), following])
    ids = [example.example_id for example in examples[:-1]]
    before = None if base is None else read_subspaces(base, ids)
    images = [example.image for example in examples]
    values, subspaces = image_values(load(model), images, sums, len(ids), before)
    if store is not None:
        write_subspaces(store, ids, subspaces)
    return values


def _null(
    load: Load, unit: Batch, model: str, held_out: HeldOut, sums: dict[Place, PositionSums]
) -> pa.Table:
    """What chance gives, from one batch of held-out examples."""
    from mixlens.activations.nulls import null_values

    examples = _held_out(load, model, held_out, range(*unit))
    return null_values(load(model), [example.image for example in examples], sums)


def _room(load: Load, unit: Batch, model: str, held_out: HeldOut, states: Path) -> int:
    """Bytes that the hidden states of all held-out examples will need, if there is room."""
    evaluation = held_out.evaluation
    sample = _held_out(load, model, held_out, [unit[0]])[0].image
    needed = store_bytes(load(model), evaluation.examples, sample, batch_size=evaluation.batch_size)
    check_room(states, needed)
    return needed


def _store(load: Load, unit: Batch, model: str, held_out: HeldOut, states: Path) -> int:
    """Store the hidden states of some held-out examples."""
    examples = _held_out(load, model, held_out, range(*unit))
    return write_states(load(model), examples, states, fingerprint(model))


def _probe(
    load: Load,
    place: Place,
    model: str,
    states: Path,
    attributes: list[dict[str, Any]],
    spec: ProbeSpec,
) -> tuple[pd.DataFrame, pa.Table]:
    """The probes of one layer, and the mean token of each image there."""
    from mixlens.probing.probes import probe

    table = pd.DataFrame(attributes)
    ids = list(table.pop("example_id"))
    layer = read_layer(states, *place, ids)
    count = layer.exists.sum(1, keepdim=True)
    mean = layer.tokens.where(layer.exists[..., None], 0).sum(1) / count
    embeddings = pa.table(
        {
            "stream": [place[0]] * len(ids),
            "layer": pa.array([place[1]] * len(ids), pa.int32()),
            "example_id": ids,
            "vector": pa.array(list(mean.numpy()), pa.list_(pa.float32())),
        }
    )
    return probe([(place, layer.tokens, layer.exists)], table, spec), embeddings


def _saliency(load: Load, unit: Batch, model: str, held_out: HeldOut) -> dict[str, float]:
    """How much there is to see in some held-out images; the model is asked nothing."""
    from mixlens.probing.saliency import saliencies

    return saliencies(_held_out(load, model, held_out, range(*unit)))


def _delete(
    load: Load, unit: Batch, model: str, held_out: HeldOut, saliency_of: dict[str, float]
) -> pa.Table:
    """Answers about some held-out examples with visual tokens deleted."""
    from mixlens.probing.deletion import delete

    spec = held_out.evaluation.deletion
    assert spec is not None
    examples = _held_out(load, model, held_out, range(*unit))
    questions = _QUESTIONS * held_out.evaluation.batch_size
    return delete(load(model), examples, spec, questions, saliency_of)


def _write(directory: Path, **results: pa.Table | pd.DataFrame) -> None:
    for name, table in results.items():
        if isinstance(table, pd.DataFrame):
            table = pa.Table.from_pandas(table, preserve_index=False)
        pq.write_table(table, directory / f"{name}.parquet", compression="zstd")


def _finish(directory: Path, record: dict[str, Any]) -> None:
    unfinished = directory / f"{RECORD}.unfinished"
    unfinished.write_text(json.dumps(record, indent=2))
    unfinished.replace(directory / RECORD)


def _not_estimable(image_metrics: pa.Table) -> dict[str, int]:
    """Images without a value, for each "stream/layer/metric" that has any."""
    missing = image_metrics.filter(compute.is_nan(image_metrics["value"])).to_pylist()
    return dict(Counter(f"{r['stream']}/{r['layer']}/{r['metric']}" for r in missing))

"""Measure what is missing of a measurement, part by part, with whatever spreads the work.

Every stage is a map over batches of images (or over layers) of a plain function, so its results do
not depend on where it ran. A part appears when all of it is on the disk, its record last.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import compute

from mixlens.activations.extended import extended_values
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
from mixlens.evaluation.answers import answer_timed, asks_of, table_of
from mixlens.evaluation.serving import Served, question_rows
from mixlens.evaluation.throughput import Effort, joined, write_throughput
from mixlens.measurement.measurement import RECORD, STATES, Measurement, read_table
from mixlens.measurement.pool import Load
from mixlens.measurement.request import Answers, Deletion, Embeddings, Metric, Probe, Request
from mixlens.measurement.tables import (
    batches,
    check_enough,
    image_table,
    join_values,
    merge_sums,
    tables,
)
from mixlens.mixture.decoding import with_pixels
from mixlens.mixture.refused import Refuses, held_out_taken, refused, takes_all
from mixlens.models import fingerprint
from mixlens.probing.settings import Setting
from mixlens.sources import Example, open_source
from mixlens.sources.blank import null_images
from mixlens.spec import DeletionSpec, ExtendedMetric, HeldOut, ProbeSpec, ResourceSpec

ASKED = "asked"
UNFINISHED = ".unfinished"
NULL_IMAGES = 64  # that the nulls are of, in one forward pass, whatever the batches are
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


def measure(
    pool: Pool, measurement: Measurement, batch_size: int = 64, progress: Progress = _silent
) -> None:
    """Measure what is missing of a measurement; nothing if nothing is.

    Its folder must be shared by all nodes.

    Args:
        pool: does the work.
        measurement: which model, on which images, and what is asked.
        batch_size: images a forward pass.
        progress: told how far it is.

    Raises:
        MixlensError: whatever a person can correct.
    """
    if measurement.is_finished():
        return
    check_enough(measurement.held_out.examples)
    base = measurement.base
    if base is not None and not base.has(base.tokens):
        raise DataError(
            explain("base measurement", str(base.folder), "the base's tokens are not measured",
                    "Measure the base model first.")
        )  # fmt: skip
    measurement.folder.mkdir(parents=True, exist_ok=True)
    work = _Work(pool, measurement, batch_size, progress)
    answers = measurement.asked.answers
    if answers and not measurement.has(answers):
        work.answers(answers)
    if not measurement.has(measurement.tokens):
        work.tokens()
    metrics = [one for one in measurement.missing() if isinstance(one, Metric)]
    if metrics:
        work.metrics(metrics)
    work.states_and_probes()
    deletions = [one for one in measurement.missing() if isinstance(one, Deletion)]
    if deletions:
        work.deletions(deletions)


class _Work:
    """The stages of one measurement, each of which publishes its parts."""

    def __init__(
        self, pool: Pool, measurement: Measurement, batch_size: int, progress: Progress
    ) -> None:
        self._pool, self._progress, self._batch_size = pool, progress, batch_size
        self._measurement = measurement
        self._model, self._held_out = measurement.subject.path, measurement.held_out
        self._units = list(batches(self._held_out.examples, batch_size))
        self._seconds: dict[str, float] = {}

    def answers(self, request: Answers) -> None:
        """Ask the questions."""
        with self._publishing(request) as (folder, record):
            if request.engine == "vllm":
                examples, effort = self._by_vllm(request)
            else:
                questions = _QUESTIONS * self._batch_size
                told = self._run(
                    "answers", _answer, self._units, self._held_out, questions,
                    request.max_new_tokens,
                )  # fmt: skip
                examples = pa.concat_tables([table for table, _ in told])
                effort = joined(one for _, one in told)
            _write(folder, examples=examples)
            write_throughput(folder, request.engine, effort)
            record["answers"] = examples.num_rows

    def _by_vllm(self, request: Answers) -> tuple[pa.Table, Effort]:
        """Prompts by the pool, answers by vLLM, scores by the pool again.

        The pool keeps its GPUs, with the model on them, and vLLM takes others.
        """
        limit = request.max_new_tokens
        asked = self._measurement.folder / ASKED
        shutil.rmtree(asked, ignore_errors=True)  # of a measurement that was broken off
        asked.mkdir()
        told: list[tuple[Path, int, Served]] = self._run(
            "questions", _questions, self._units, self._held_out, asked, limit
        )
        from mixlens.evaluation.engine import ask_vllm  # Ray: only where it is needed

        files = [file for file, _, _ in told]
        longest = max((served for _, _, served in told), key=lambda served: served.longest)
        said, effort = self._stage(
            "vllm",
            sum(count for _, count, _ in told),
            lambda done: ask_vllm(files, longest, self._pool.resources, done),
        )
        shutil.rmtree(asked)
        parts = [
            (unit, [said[unit[0], number] for number in range(count)])
            for unit, (_, count, _) in zip(self._units, told, strict=True)
        ]
        return pa.concat_tables(self._run("scores", _score, parts, self._held_out, limit)), effort

    def tokens(self) -> None:
        """Metrics of the tokens: sums over images first, then each image against them."""
        measurement, held_out = self._measurement, self._held_out
        with self._publishing(measurement.tokens) as (folder, record):
            left_out = self._pool.map(_left_out, self._units[:1], self._model, held_out)[0]
            looked = self._run("first look", _look, self._units, held_out)
            sums: dict[Place, PositionSums] = {}
            for _, part in looked:
                sums = merge_sums(sums, part)
            attributes = [row for rows, _ in looked for row in rows]
            base = measurement.base
            before = base.part(base.tokens) if base else None
            store = None if base else folder
            values = join_values(
                self._run("tokens", _reduce, self._units, held_out, sums, before, store)
            )
            some = (0, min(NULL_IMAGES, held_out.examples))
            nulls = self._run("nulls", _null, [some], held_out, sums)[0]
            image_metrics, pooled_metrics = tables(
                [row["example_id"] for row in attributes], values
            )
            _write(
                folder,
                image_metrics=image_metrics,
                pooled_metrics=pooled_metrics,
                attributes=pa.Table.from_pylist(attributes),
                nulls=nulls,
            )
            record["images"] = held_out.examples
            record["left_out"] = left_out
            record["not_estimable"] = _not_estimable(image_metrics)

    def metrics(self, requests: Sequence[Metric]) -> None:
        """Metrics of the tokens beyond the default set, those that are missing in one look."""
        names = [request.metric for request in requests]
        found = self._run("metrics", _extended, self._units, self._held_out, names)
        ids = [example_id for some, _ in found for example_id in some]
        values = join_values([part for _, part in found])
        for request in requests:
            with self._publishing(request) as (folder, record):
                own = {key: value for key, value in values.items() if key[2] == request.metric}
                table = image_table(ids, own)
                _write(folder, image_metrics=table)
                record["not_estimable"] = _not_estimable(table)

    def states_and_probes(self) -> None:
        """Store hidden states that are to be kept or probed, and probe what is missing."""
        measurement = self._measurement
        missing = [one for one in measurement.missing() if isinstance(one, Probe | Embeddings)]
        kept = measurement.states
        if not missing and (kept.is_dir() or not measurement.asked.keep_states):
            return
        states = kept if kept.is_dir() else kept.with_name(f"{STATES}{UNFINISHED}")
        if states != kept:
            needed = self._run(
                "room for states", _room, self._units[:1], self._held_out, states, self._batch_size
            )[0]
            self._run(f"states, {needed / 1e9:.2g} GB", _store, self._units, self._held_out, states)
        if missing:
            self._probes(states, missing)
        if states == kept:
            return
        if measurement.asked.keep_states:
            states.rename(kept)
        else:
            shutil.rmtree(states)

    def _probes(self, states: Path, missing: Sequence[Request]) -> None:
        """Probe what is missing in all layers, the attributes of all linear probes together."""
        spec = self._measurement.asked.probes
        assert spec is not None
        attributes = read_table(
            self._measurement.part(self._measurement.tokens) / "attributes.parquet"
        )
        kinds_of: dict[tuple[str, ...], list[Any]] = {}
        for kind in spec.kinds:
            some = [one for one in missing if isinstance(one, Probe) and one.kind == kind]
            if some:
                names = tuple(name for one in some for name in one.attributes)
                kinds_of.setdefault(names, []).append(kind)
        specs = [
            spec.model_copy(update={"attributes": names, "kinds": tuple(kinds)})
            for names, kinds in kinds_of.items()
        ]
        probed = self._run("probes", _probe, layers_of(states), states, attributes, specs)
        table = pd.concat([table for table, _ in probed], ignore_index=True)
        for request in missing:
            with self._publishing(request) as (folder, _):
                if isinstance(request, Probe):
                    own = table["kind"].eq(request.kind) & table["attribute"].isin(
                        request.attributes
                    )
                    _write(folder, probes=table[own].reset_index(drop=True))
                else:
                    _write(folder, embeddings=pa.concat_tables([part for _, part in probed]))

    def deletions(self, requests: Sequence[Deletion]) -> None:
        """Ask with visual tokens deleted, in each setting that is missing."""
        spec = self._measurement.asked.deletion
        assert spec is not None
        units = list(batches(requests[0].examples, self._batch_size))
        seen: dict[str, float] = {}
        for part in self._run("saliency", _saliency, units, self._held_out):
            seen |= part
        questions = _QUESTIONS * self._batch_size
        wanted = [one.setting for one in requests]
        deleted = self._run(
            "deletion", _delete, units, self._held_out, spec, wanted, questions, seen
        )
        table = pa.concat_tables(deleted)
        for request in requests:
            with self._publishing(request) as (folder, _):
                _write(folder, deleted=table.filter(_of_setting(request.setting)))

    def _stage(self, name: str, count: int, work: Callable[[Callable[[int], None]], Any]) -> Any:
        started = time.monotonic()
        self._progress(name, 0, count)
        results = work(lambda done: self._progress(name, done, count))
        self._seconds[name] = round(time.monotonic() - started, 2)
        return results

    def _run(
        self, name: str, function: Callable[..., Any], units: Sequence[Any], *shared: Any
    ) -> list[Any]:
        def work(done: Callable[[int], None]) -> list[Any]:
            return self._pool.map(function, units, self._model, *shared, done=done)

        return list(self._stage(name, len(units), work))

    @contextmanager
    def _publishing(self, request: Request) -> Iterator[tuple[Path, dict[str, Any]]]:
        """A folder for the tables of a part, and its record; the part appears at the end."""
        target = self._measurement.part(request)
        folder = target.with_name(target.name + UNFINISHED)
        shutil.rmtree(folder, ignore_errors=True)  # of a measurement that was broken off
        folder.mkdir()
        record: dict[str, Any] = {"model": self._model, "request": request.model_dump(mode="json")}
        self._seconds.clear()
        yield folder, record
        record["seconds"] = dict(self._seconds)
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        folder.rename(target)


def held_out_examples(
    held_out: HeldOut, places: Iterable[int], refuses: Refuses = takes_all
) -> list[Example]:
    """The held-out examples at these places among all whose images a model can be given."""
    source = open_source(held_out.name, held_out.component, held_out.data)
    indices = held_out_taken(source, refuses, held_out.examples)
    examples = [_with_pixels(source.example(indices[place])) for place in places]
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


def _answer(
    load: Load, unit: Batch, model: str, held_out: HeldOut, questions: int, limit: int
) -> tuple[pa.Table, Effort]:
    """Answers about some held-out examples, and what it took to answer."""
    return answer_timed(
        load(model), _held_out(load, model, held_out, range(*unit)), questions, limit
    )


def _look(
    load: Load, unit: Batch, model: str, held_out: HeldOut
) -> tuple[list[dict[str, Any]], dict[Place, PositionSums]]:
    """Attributes and position sums of some held-out examples."""
    examples = _held_out(load, model, held_out, range(*unit))
    attributes = [{"example_id": e.example_id, **e.attributes} for e in examples]
    return attributes, position_sums(load(model), [e.image for e in examples])


def _questions(
    load: Load, unit: Batch, model: str, held_out: HeldOut, asked: Path, limit: int
) -> tuple[Path, int, Served]:
    """Write down what there is to ask about some held-out examples; where, how much, and whom."""
    examples = _held_out(load, model, held_out, range(*unit))
    table, served = question_rows(load(model), examples, unit[0], limit)
    file = asked / f"{unit[0]:08}.parquet"
    pq.write_table(table, file)
    return file, sum(len(example.turns) for example in examples), served


def _score(
    load: Load, unit: tuple[Batch, list[list[int]]], model: str, held_out: HeldOut, limit: int
) -> pa.Table:
    """The table of answers about some held-out examples, from the tokens of the answers."""
    places, said = unit
    vlm, examples = load(model), _held_out(load, model, held_out, range(*places))
    asks = asks_of(vlm, examples, limit)
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
    following = unit[1] % held_out.examples
    examples = _held_out(load, model, held_out, [*range(*unit), following])
    ids = [example.example_id for example in examples[:-1]]
    before = None if base is None else read_subspaces(base, ids)
    images = [example.image for example in examples]
    values, subspaces = image_values(load(model), images, sums, len(ids), before)
    if store is not None:
        write_subspaces(store, ids, subspaces)
    return values


def _extended(
    load: Load, unit: Batch, model: str, held_out: HeldOut, metrics: Sequence[ExtendedMetric]
) -> tuple[list[str], Values]:
    """Metrics beyond the default set, of some held-out examples."""
    examples = _held_out(load, model, held_out, range(*unit))
    ids = [example.example_id for example in examples]
    return ids, extended_values(load(model), [example.image for example in examples], metrics)


def _null(
    load: Load, unit: Batch, model: str, held_out: HeldOut, sums: dict[Place, PositionSums]
) -> pa.Table:
    """What chance gives, from one batch of held-out examples."""
    from mixlens.activations.nulls import null_values

    examples = _held_out(load, model, held_out, range(*unit))
    return null_values(load(model), [example.image for example in examples], sums)


def _room(
    load: Load, unit: Batch, model: str, held_out: HeldOut, states: Path, batch_size: int
) -> int:
    """Bytes that the hidden states of all held-out examples will need, if there is room."""
    sample = _held_out(load, model, held_out, [unit[0]])[0].image
    needed = store_bytes(load(model), held_out.examples, sample, batch_size=batch_size)
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
    attributes: pd.DataFrame,
    specs: Sequence[ProbeSpec],
) -> tuple[pd.DataFrame, pa.Table]:
    """The probes of one layer, and the mean token of each image there."""
    from mixlens.probing.probes import probe

    ids = list(attributes["example_id"])
    facts = attributes.drop(columns="example_id")
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
    found = [probe([(place, layer.tokens, layer.exists)], facts, spec) for spec in specs]
    return pd.concat([pd.DataFrame(), *found], ignore_index=True), embeddings


def _saliency(load: Load, unit: Batch, model: str, held_out: HeldOut) -> dict[str, float]:
    """How much there is to see in some held-out images; the model is asked nothing."""
    from mixlens.probing.saliency import saliencies

    return saliencies(_held_out(load, model, held_out, range(*unit)))


def _delete(
    load: Load,
    unit: Batch,
    model: str,
    held_out: HeldOut,
    spec: DeletionSpec,
    settings: Sequence[Setting],
    questions: int,
    saliency_of: dict[str, float],
) -> pa.Table:
    """Answers about some held-out examples with visual tokens deleted, in some settings."""
    from mixlens.probing.deletion import delete

    examples = _held_out(load, model, held_out, range(*unit))
    return delete(load(model), examples, spec, questions, saliency_of, settings)


def _of_setting(setting: Setting) -> compute.Expression:
    """Which rows of a table of deletion are of a setting."""
    columns = {name: compute.field(name) == value for name, value in vars(setting).items()}
    return columns["layer"] & columns["policy"] & columns["share"] & columns["seed"]


def _write(directory: Path, **results: pa.Table | pd.DataFrame) -> None:
    for name, table in results.items():
        if isinstance(table, pd.DataFrame):
            table = pa.Table.from_pandas(table, preserve_index=False)
        pq.write_table(table, directory / f"{name}.parquet", compression="zstd")


def _not_estimable(image_metrics: pa.Table) -> dict[str, int]:
    """Images without a value, for each "stream/layer/metric" that has any."""
    missing = image_metrics.filter(compute.is_nan(image_metrics["value"])).to_pylist()
    return dict(Counter(f"{r['stream']}/{r['layer']}/{r['metric']}" for r in missing))

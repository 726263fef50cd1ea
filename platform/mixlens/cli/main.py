"""`mixlens COMMAND`: the one place for arguments, messages and exit codes.

Whatever takes long to import is imported by the command that needs it, once its file is known to be
right: `mixlens --help` and the refusal of a wrong file take no second.
"""

import argparse
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import mixlens
from mixlens.errors import MixlensError, exit_clearly

EXIT_CODES = """exit codes:
  0    done
  1    `track` alone: MLflow does not take all of it, and the rest is listed
  2    something that a person can correct; one message says what is wrong and what to do
  130  Ctrl-C
  143  SIGTERM"""


@dataclass(frozen=True)
class Command:
    """A command of `mixlens`: what it is called with, and the function that does it."""

    help: str
    about: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]


def main(*first: str) -> None:
    """Run what the command line asks for; scripts of `jobs/` give the command as `first`."""
    exit_clearly(lambda: _run([*first, *sys.argv[1:]]))


def _run(words: list[str]) -> None:
    parser = ArgumentParser(
        prog="mixlens",
        description=mixlens.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n"
        + "\n".join(f"  {name:9} {command.help}" for name, command in COMMANDS.items())
        + f"\n\n`mixlens COMMAND --help` says more.\n\n{EXIT_CODES}",
    )
    parser.add_argument("--version", action="version", version=f"mixlens {mixlens.__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of those below")
    name = parser.parse_args(words[:1]).command
    command = COMMANDS[name]
    parser = ArgumentParser(
        prog=f"mixlens {name}",
        description=command.about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.arguments(parser)
    command.run(parser.parse_intermixed_args(words[1:]))


def _typed() -> list[str]:
    """The command line for people and records: how this process was started."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return ["python", "-m", "mixlens", *sys.argv[1:]]
    return ["mixlens", *sys.argv[1:]] if program.suffix != ".py" else ["python", *sys.argv]


@contextmanager
def _of_file(file: Path) -> Iterator[None]:
    """Name the file in front of what is wrong with it."""
    try:
        yield
    except MixlensError as error:
        raise MixlensError(f"{file}: {error}") from error


def _overrides(parser: ArgumentParser, example: str) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=f"such as {example}")


def _sweep_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the sweep file")
    _overrides(parser, "seeds=[0,1,2]")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")


def _sweep(arguments: Namespace) -> None:
    from mixlens.design import SweepSpec
    from mixlens.spec import load_spec

    spec = load_spec(SweepSpec, arguments.file, arguments.overrides)

    with _of_file(arguments.file):
        from mixlens.sweep.known import check_file

        check_file(spec)

        from mixlens.sweep.run import run_sweep, show_plan

        if arguments.dry_run:
            show_plan(spec)
        else:
            run_sweep(spec, _typed())


def _measure_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a measure file, or a sweep file for its base"
    )
    _overrides(parser, "model=FOLDER_OR_HUB_ID")


def _measure(arguments: Namespace) -> None:
    from mixlens.design import load_measure

    spec = load_measure(arguments.file, arguments.overrides)

    with _of_file(arguments.file):
        from mixlens.sweep.known import check_file

        check_file(spec)

        from mixlens.sweep.measure_run import run_measure

        run_measure(spec, _typed())


def _report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="such as runs/quickstart")


def _report(arguments: Namespace) -> None:
    folder = arguments.folder.absolute()
    if (folder / "measure.json").is_file():
        from mixlens.report.measured import report_model

        print(report_model(folder)[0])
    else:
        from mixlens.report import write_report

        print(write_report(folder)[0])


def _merge_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a trial's model, with adapters")
    parser.add_argument("target", type=Path, metavar="TARGET", help="the folder to write, yet none")


def _merge(arguments: Namespace) -> None:
    from mixlens.training.merge import merge

    def tell(message: str) -> None:
        print(f"warning: {message}", file=sys.stderr)

    print(merge(arguments.model.absolute(), arguments.target.absolute(), tell))


def _order_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="trial.json of a trial")
    parser.add_argument("table", type=Path, metavar="TABLE", help="the Parquet file to write")


def _order(arguments: Namespace) -> None:
    from mixlens.design import read_run

    run = read_run(arguments.run)

    from mixlens.mixture.manifest import write_manifest
    from mixlens.training.trained_on import check_trained_on

    write_manifest(run, arguments.table, run.training.steps)
    print(arguments.table)
    done = len(check_trained_on(run, arguments.run.parent))
    total = run.training.steps
    print(
        f"{done} of {total} steps were trained, each on the examples of this table"
        if done
        else f"none of the {total} steps was trained yet beside {arguments.run}"
    )


def _track_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="such as runs/quickstart")


def _track(arguments: Namespace) -> None:
    from mixlens.tracking.send import send_runs

    refused = send_runs(arguments.folder, lambda line: print(line, flush=True))
    for line in refused:
        print(f"error: not sent: {line}", file=sys.stderr)
    if refused:
        sys.exit(1)


def _doctor_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="what is to be started")
    _overrides(parser, "runs_dir=/mnt/shared/runs")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _doctor(arguments: Namespace) -> None:
    from mixlens.cli.doctor import examine, read_file

    first, spec = [], None
    if arguments.file is not None:
        finding, spec = read_file(arguments.file, arguments.overrides)
        first = [finding]
    found = []
    for finding in (*first, *examine(spec)):
        found.append(finding)
        if not arguments.json:
            print(f"{finding.state:8} {finding.check:10} {finding.found}")
            if finding.remedy:
                print(f"{'':19} {finding.remedy}", flush=True)
    blocked = any(finding.state == "problem" for finding in found)
    if arguments.json:
        print(
            json.dumps({"blocked": blocked, "findings": [asdict(one) for one in found]}, indent=1)
        )
    if blocked:
        sys.exit(2)


def _schema_arguments(parser: ArgumentParser) -> None:
    # Spelled out: to import the specs takes longer than to say what there is.
    parser.add_argument(
        "file", nargs="?", choices=("sweep", "measure"), default="sweep", help="the kind of file"
    )
    parser.add_argument("--reference", action="store_true", help="print docs/reference.md")


def _schema(arguments: Namespace) -> None:
    from mixlens.cli.schema import reference, schema_of

    if arguments.reference:
        print(reference(), end="")
    else:
        print(json.dumps(schema_of(arguments.file), indent=1))


COMMANDS = {
    "sweep": Command(
        "fine-tune one model a mixture, and answer what complex data buys",
        "Run a sweep: many mixtures of simple and complex data, one fine-tuned model each, one\n"
        "answer. A second start finishes what the first one left, and repeats nothing.\n\n"
        "  mixlens sweep sweeps/quickstart.yaml [key=value ...] [--dry-run]\n\n"
        "On a cluster, where nothing is installed:\n\n"
        "  ray job submit --address ADDRESS --working-dir . -- python jobs/sweep.py FILE",
        _sweep_arguments,
        _sweep,
    ),
    "measure": Command(
        "look into one model as it is, without any training",
        "Measure one model as it is: its tokens at every layer, what can be read from them, and\n"
        "what is lost with them. Of a sweep file, its base model is measured.\n\n"
        "  mixlens measure sweeps/measure_tiny.yaml [model=FOLDER_OR_HUB_ID] [key=value ...]",
        _measure_arguments,
        _measure,
    ),
    "report": Command(
        "build tables, figures and page of a folder anew",
        "Build the tables, figures and page of a sweep, or of one measured model, anew.\n\n"
        "  mixlens report runs/quickstart",
        _report_arguments,
        _report,
    ),
    "merge": Command(
        "make an ordinary checkpoint of LoRA adapters",
        "Merge a model that was trained with LoRA into an ordinary full checkpoint.\n\n"
        "  mixlens merge runs/mine/trials/TRIAL/model merged-model",
        _merge_arguments,
        _merge,
    ),
    "order": Command(
        "write down which example a trial trains on at every position",
        "Write down which example a trial trains on at every position, to compare trials example\n"
        "by example. The table has one row a position: position, step, component, index in the\n"
        "component, and for a photograph the name of its file. Steps already trained are\n"
        "compared with it, by what they were trained on.\n\n"
        "  mixlens order runs/quickstart/trials/TRIAL/trial.json order.parquet",
        _order_arguments,
        _order,
    ),
    "track": Command(
        "send to MLflow what it does not have of a folder",
        "Send to MLflow what it does not have of a folder of runs. A job sends by itself and\n"
        "never waits for MLflow; this sends what could not be sent while it ran.\n\n"
        "  mixlens track runs/quickstart",
        _track_arguments,
        _track,
    ),
    "doctor": Command(
        "look for what keeps a sweep from running here, and say the remedy",
        "Look at this machine, and at what FILE asks of it: Python, packages, compiler, memory,\n"
        "disks, folders, GPUs, Ray and MLflow. Nothing is started and nothing is made. The exit\n"
        "code is 2 if something blocks.\n\n"
        "  mixlens doctor [FILE [key=value ...]] [--json]",
        _doctor_arguments,
        _doctor,
    ),
    "schema": Command(
        "print the JSON schema of a file, for editors",
        "Print the JSON schema of a sweep file, or of a measure file: every key with its type,\n"
        "default and meaning. Editors complete and check keys with it.\n\n"
        "  mixlens schema > sweep.schema.json\n\n"
        "and as the first line of a sweep file:\n\n"
        "  # yaml-language-server: $schema=sweep.schema.json",
        _schema_arguments,
        _schema,
    ),
}

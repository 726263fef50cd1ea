"""What `mixlens track RUN` does: bring a run directory to MLflow now, and say what was sent."""

from collections.abc import Callable
from pathlib import Path

from mixlens.design import SweepSpec
from mixlens.errors import ResourceError, explain
from mixlens.lock import held
from mixlens.tracking.content import read_spec
from mixlens.tracking.mirror import Mirror
from mixlens.tracking.server import how_to_look, open_server


def send_runs(folder: Path, say: Callable[[str], None]) -> list[str]:
    """Send what MLflow does not have of a sweep, and of the models measured in its folder.

    Args:
        folder: of a sweep, of one measured model, or of several.
        say: gets a line for everything that is sent.

    Returns:
        what MLflow does not take.

    Raises:
        DataError: `folder` holds no run.
        ResourceError: MLflow cannot be used, or a job works in the directory and sends by itself.
    """
    folder = folder.expanduser().absolute()
    models = [file.parent for file in sorted(folder.glob("*/measure.json"))]
    roots = [folder] if (folder / "sweep.json").is_file() or not models else []
    return [line for root in [*roots, *models] for line in _send_run(root, say)]


def _send_run(root: Path, say: Callable[[str], None]) -> list[str]:
    spec = read_spec(root)
    runs_dir = root.parent if isinstance(spec, SweepSpec) else root.parent.parent
    server = open_server(spec.tracking, runs_dir)
    mirror = Mirror(server, spec, root, is_live=False)
    with held(root, ["mixlens", "track", str(root)], say), mirror.alone() as is_alone:
        if not is_alone:
            raise ResourceError(
                explain("RUN", str(root), "the job that works there sends its runs by itself",
                        "Wait until it has ended.")
            )  # fmt: skip
        backlog = mirror.missing()
        say(f"{root}: " + (f"to send: {backlog}" if backlog else "nothing is known to be missing"))
        mirror.send(lambda line: say(f"  {line}"))
    for note in mirror.notes:
        say(note)
    say(f"MLflow   {how_to_look(server)}")
    return list(mirror.refused)

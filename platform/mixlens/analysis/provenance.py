"""What a result was made with: command, code, packages, machine."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from mixlens.errors import damaged_file, read_record

PACKAGES = (
    "mixlens", "torch", "torchvision", "ray", "deepspeed", "transformers", "tokenizers", "peft",
    "numpy", "pyarrow", "pillow", "mlflow",
)  # fmt: skip
_FILE = "provenance.json"


@dataclass(frozen=True)
class Provenance:
    """What must be equal for a result to come out again.

    Attributes:
        command: the command line.
        commit: git commit of the code, empty outside a git checkout.
        source: 16 hex digits of the SHA-256 of the package's files, which says what the code was
            also where there is no git, as in a job that Ray unpacked.
        diff: uncommitted changes to tracked files, as a patch.
        untracked: files that git does not know.
        python: version of Python.
        packages: installed versions of the packages that decide results.
        machine: operating system, processor type and number of cores.
        earlier: `packages` of earlier starts that worked on the same results, where they differ.
    """

    command: str
    commit: str
    source: str
    diff: str
    untracked: tuple[str, ...]
    python: str
    packages: dict[str, str]
    machine: str
    earlier: tuple[dict[str, str], ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether the commit alone says what the code was."""
        return bool(self.commit) and not self.diff and not self.untracked

    def summary(self) -> dict[str, Any]:
        """Everything but the patch."""
        return {key: value for key, value in asdict(self).items() if key != "diff"}

    @property
    def code(self) -> str:
        """The code in a few words."""
        if not self.commit:
            return f"source {self.source}"
        return self.commit[:12] + ("" if self.is_clean else " with uncommitted changes")

    def write(self, folder: Path) -> None:
        """Keep it beside the results that were made so: of a sweep, or of one trial.

        Versions of an earlier start that left something stay known, for it is gone on with.
        """
        folder.mkdir(parents=True, exist_ok=True)
        before = read_provenance(folder) if any(f.name != _FILE for f in folder.iterdir()) else None
        known = (*before.earlier, before.packages) if before else ()
        others = [packages for packages in known if packages != self.packages]
        earlier = tuple(packages for i, packages in enumerate(others) if packages not in others[:i])
        kept = replace(self, earlier=earlier)
        (folder / _FILE).write_text(json.dumps(asdict(kept), indent=2) + "\n")


def collect_provenance(command: str, code: Path | None = None) -> Provenance:
    """Describe this process; `code` is a folder in the git checkout (default: this package's)."""
    code = code or Path(__file__).parent
    return Provenance(
        command=command,
        commit=_git(code, "rev-parse", "HEAD").strip(),
        source=_source_digest(),
        diff=_git(code, "diff", "HEAD"),
        untracked=tuple(_git(code, "ls-files", "-o", "--exclude-standard", ":/").split("\n")[:-1]),
        python=sys.version.split()[0],
        packages={name: version for name in PACKAGES if (version := _version(name))},
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    )


def read_provenance(folder: Path) -> Provenance | None:
    """What `Provenance.write` left in a folder; None if nothing."""
    file = folder / _FILE
    if not file.is_file():
        return None
    content = read_record(file, "untracked")
    try:
        listed = {name: tuple(content.get(name, ())) for name in ("untracked", "earlier")}
        return Provenance(**{**content, **listed})
    except (TypeError, AttributeError) as error:
        raise damaged_file(file, error) from None


def _source_digest() -> str:
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*")):
        if file.suffix in (".py", ".yaml"):
            digest.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _git(folder: Path, *arguments: str) -> str:
    """Output of a git command; empty where there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""

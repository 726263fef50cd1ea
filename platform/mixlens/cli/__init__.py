"""The console command `mixlens`; `jobs/` holds scripts that call the same."""

from mixlens.cli.main import main

__all__ = ["main"]

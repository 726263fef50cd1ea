"""Ray Tune's search interface over a proposer, so that Tune decides when, and the design what."""

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from mixlens.design import Proposer, Trial
from mixlens.design.proposer import Point


class Search(Searcher):
    """Asks the proposer for trials and tells it the headline numbers that they report.

    Args:
        proposer: says what comes next.
        trial_of: the trial of a level and a seed.
        scores_of: the headline numbers of a trial that is finished already; None where it is not.
        extra: trials that are to be finished though nobody proposes them.
    """

    def __init__(
        self,
        proposer: Proposer,
        trial_of: Callable[[Point], Trial],
        scores_of: Callable[[Trial], Mapping[str, float] | None],
        extra: tuple[Trial, ...],
    ) -> None:
        super().__init__(metric="redundancy", mode="min")  # Tune wants a name; nothing reads it
        self._proposer, self._trial_of, self._scores_of = proposer, trial_of, scores_of
        self._extra = list(extra)
        self._running: dict[str, Trial] = {}
        self._seen: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next trial; None while one that runs may change the proposal."""
        trial = self._next()
        if trial is None:
            return None if self._running else Searcher.FINISHED
        self._running[trial_id] = trial
        return {"trial": trial.model_dump_json()}

    def _next(self) -> Trial | None:
        while (point := self._proposer.ask()) is not None:
            trial = self._trial_of(point)
            if trial.name in self._seen:
                continue
            self._seen.add(trial.name)
            if (scores := self._scores_of(trial)) is None:
                return trial
            self._proposer.tell(trial.level, trial.seed, scores)
        while self._extra:
            trial = self._extra.pop(0)
            if trial.name not in self._seen:
                self._seen.add(trial.name)
                return trial
        return None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass on what a trial reported, unless it failed."""
        trial = self._running.pop(trial_id)
        if result and not error and not result.get("failed"):
            scores = {
                name: value
                for name, value in result.items()
                if name.startswith("accuracy/") or name == "redundancy"
            }
            self._proposer.tell(trial.level, trial.seed, scores)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger says what there is, and Tune's own restore is never used."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""

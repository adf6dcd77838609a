"""Trials of a search, on Ray Tune: each is a call of one function with one of some tasks."""

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bandits.errors import ReplayError
from simulator.parallel import join_ray

Scores = Mapping[str, Any]
"""What a trial says: numbers and text by name."""


def run_trials(
    function: Callable[..., Scores],
    tasks: Sequence[Any],
    shared: Sequence[Any],
    *,
    address: str,
    options: Callable[[], dict[str, Any]] = dict,
    within_s: float | None = None,
    done: Callable[[int], None] = lambda _count: None,
) -> dict[int, Scores]:
    """Return what ``function(task, *shared)`` says of each task, by its number.

    A trial whose worker dies runs again.

    Args:
        function: says what a task is worth; what it raises fails the search.
        tasks: one for each trial.
        shared: what all trials read, which every node is sent once.
        address: of the Ray cluster, as ``OnRay`` takes it.
        options: of Ray's tasks, as ``OnRay`` takes them.
        within_s: seconds after which no trial goes on: those that have not ended say nothing.
        done: told how many trials have ended, after each.

    Raises:
        ReplayError: a trial failed, or no Ray cluster answers.
    """
    # Tune's new output prints its tables whatever verbosity is asked for.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Whoever interrupts a search wants it to end, not to be told of what there is.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    from ray import tune  # noqa: PLC0415 - only a search needs Tune

    join_ray(address)
    logging.getLogger("ray.tune").setLevel(logging.WARNING)

    class Counted(tune.Callback):  # type: ignore[misc]
        """Tells of each trial's end. Tune writes it down, without whom it tells."""

        def __init__(self, tell: Callable[[int], None]) -> None:
            self.tell, self.ended = tell, 0

        def __getstate__(self) -> dict[str, Any]:
            return {}

        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            self.ended += 1
            self.tell(self.ended)

    def trial(config: dict[str, Any], given: tuple[Any, ...]) -> None:
        all_tasks, rest = given
        tune.report({"said": function(all_tasks[config["number"]], *rest)})

    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(trial, given=(list(tasks), tuple(shared))),
                {"cpu": 1, **options().get("resources", {})},
            ),
            param_space={"number": tune.grid_search(list(range(len(tasks))))},
            tune_config=tune.TuneConfig(time_budget_s=within_s, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=2),
                callbacks=[Counted(done)],
            ),
        )
        results = tuner.fit()

    if results.errors:
        raise ReplayError(
            f"{len(results.errors)} trials failed, first: {str(results.errors[0]).strip()}",
            "search",
        )
    said = {
        result.config["number"]: result.metrics["said"]
        for result in results
        if result.config and result.metrics and "said" in result.metrics
    }
    if within_s is None and len(said) < len(tasks):
        raise ReplayError(f"{len(tasks) - len(said)} trials ended without a result", "search")
    return said

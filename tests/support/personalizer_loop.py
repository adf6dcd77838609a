"""A loop of Personalizer that is held in memory."""

from collections.abc import Callable

from policies.spec import PolicySpec
from serve_app.store.evaluations.kept import KeptEvaluation


class HeldLoop:
    """A loop that holds its spec in memory, and has neither a model nor a log."""

    def __init__(self, spec: PolicySpec) -> None:
        self.held = spec
        self.kept: dict[str, KeptEvaluation] = {}

    async def spec(self) -> PolicySpec:
        """Return the spec."""
        return self.held

    async def change(self, make: Callable[[PolicySpec], PolicySpec]) -> PolicySpec:
        """Hold another spec."""
        self.held = make(self.held)
        return self.held

    async def evaluation(self, name: str) -> KeptEvaluation | None:
        """Return an evaluation."""
        return self.kept.get(name)

    async def apprenticeship(self) -> None:
        """Return that nothing was counted."""

    async def log_times(self) -> None:
        """Return that there is no log."""

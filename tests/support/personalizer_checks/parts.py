"""What checks are made of: a client, bodies, and what is read of an answer."""

import time
from collections.abc import Callable
from itertools import count
from typing import Any

from support.personalizer import Adapted, Newer, Older

from bandits.log.records import DecisionRecord

PATIENCE_S = 20.0
EPSILON = 0.2
CONTEXT = [{"user": {"age": 30, "plan": "free"}}, {"hour": 8}]
_numbers = count()


class Setting:
    """One client of the service, for each of its policies.

    ``home`` never learns within a test; ``quick`` learns within a second; ``novice`` imitates and
    ``watched`` learns the rewards of what its caller shows.
    """

    def __init__(self, service: Adapted, kind: type[Older | Newer]) -> None:
        self.service, self.kind = service, kind
        self._clients: dict[str, Older | Newer] = {}

    def __getitem__(self, policy: str) -> Any:
        if policy not in self._clients:
            self._clients[policy] = self.kind(f"{self.service.url}/policies/{policy}")
        return self._clients[policy]

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def decision(self, event_id: str, policy: str = "home") -> DecisionRecord:
        """The one decision of an event."""
        (found,) = self.service.of_event(policy, event_id, DecisionRecord)
        return found


Check = Callable[[Setting], None]
CHECKS: dict[str, Check] = {}
OF_SLOTS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """A check of either client."""
    CHECKS[function.__name__] = function
    return function


def check_of_slots(function: Check) -> Check:
    """A check of the client that knows multi-slot calls."""
    OF_SLOTS[function.__name__] = function
    return function


def named(prefix: str = "e") -> str:
    """An event id that nobody has."""
    return f"{prefix}-{next(_numbers)}"


def actions(*names: str, **features: Any) -> list[dict]:
    """Actions of these ids."""
    return [{"id": name, "features": [{"topic": name, **features}]} for name in names]


def asked(*names: str, **fields: Any) -> dict:
    """The body of a rank."""
    return {"actions": actions(*(names or "abc")), "contextFeatures": CONTEXT, **fields}


def probabilities(said: dict) -> list[float]:
    """Those of an answer, in its order."""
    return [each["probability"] for each in said["ranking"]]


def ids(said: dict) -> list[str]:
    """The actions of an answer, in its order."""
    return [each["id"] for each in said["ranking"]]


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition to hold; return what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"it never happened: {what}"
        time.sleep(0.02)
    return result

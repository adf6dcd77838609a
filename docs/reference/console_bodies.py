"""The meaning of the fields of the bodies that a console needs."""

from collections.abc import Mapping

_ID = "The decision's name."
_ENTRY = "Its entry in the log of its partition."
_CHOSEN = "By slot that was drawn, what was chosen, with its propensity."
_PLACED = "What stood on the page without a draw."
_UNPLACED = "What was to stand there without a draw, and could not."
_REMOVED = "What rules took away before anything had a probability."
_FAILED = "By source, why it said nothing."
_SHORT = "Why there are fewer slots than were asked for."
_POLICY, _SNAPSHOT = "The policy's name.", "The snapshot that scored it."
_CONTEXT, _HELD_OUT = "The request's features.", "Whether the spec's holdout policy had to choose."
_SPEC, _CATALOGUE = "The digest of the spec.", "The version of the items."
_ARTIFACT = "The version of the artifact."

CONSOLE_MEANINGS: Mapping[str, Mapping[str, str]] = {
    "DecisionsPage": {"decisions": "The decisions, the newest first."},
    "DecisionSummary": {
        "event_id": _ID,
        "time": "When it was logged.",
        "chosen": _CHOSEN,
        "outcome": "How far it is joined with its rewards.",
        "placed": _PLACED,
        "holdout": _HELD_OUT,
        "partition": "Which of the policy's logs has it.",
    },
    "DecisionEvent": {
        "event_id": _ID,
        "policy": _POLICY,
        "entry": _ENTRY,
        "partition": "Which of the policy's logs has it.",
        "time": "When it was logged.",
        "outcome": "How far it is joined with its rewards.",
        "context": _CONTEXT,
        "chosen": _CHOSEN,
        "snapshot_id": _SNAPSHOT,
        "spec": _SPEC,
        "catalogue": _CATALOGUE,
        "aggregation": "Which of several rewards of a slot counts.",
        "artifact": _ARTIFACT,
        "holdout": _HELD_OUT,
        "deferred": "Whether it is learned only once it is activated.",
        "placed": _PLACED,
        "unplaced": _UNPLACED,
        "filter": "The request's own filter.",
        "rewards": "Its rewards as the log has them, and how each was counted.",
    },
    "DecisionCandidate": {"id": "The action."},
    "OwnChoice": {},
    "RemovedActions": {
        "rule": "The rule: `filter.where` for the policy's filter, `filter` for the request's.",
        "ids": "The first of them.",
        "count": "How many there were.",
    },
    "LoggedReward": {
        "entry": "Its entry in the log.",
        "time": "When it was logged.",
        "value": "How good the choice turned out.",
        "outcome": "How it was counted.",
        "slot": "The slot that it names.",
        "action_id": "The action that it names.",
        "reward_id": "Its name.",
        "signal": "What kind of reward it is.",
    },
    "EarnedSlot": {
        "slot": "The slot.",
        "id": "What was chosen for it.",
        "reward": "What its rewards come to.",
    },
    "ExplainedEvent": {
        "entry": _ENTRY,
        "event_id": _ID,
        "policy": _POLICY,
        "snapshot_id": _SNAPSHOT,
        "context": _CONTEXT,
        "chosen": "By slot, what was chosen.",
        "propensities": "By slot, the probability of what was chosen.",
        "holdout": _HELD_OUT,
    },
    "PreviewResponse": {
        "policy": _POLICY,
        "snapshot_id": "The snapshot that serves.",
        "chosen": _CHOSEN,
        "explanation": "Why it is so.",
        "holdout": _HELD_OUT,
        "placed": _PLACED,
        "unplaced": _UNPLACED,
        "removed": _REMOVED,
        "failed": _FAILED,
        "short": _SHORT,
    },
    "SnapshotSummary": {
        "id": "Its name.",
        "time": "When the newest entry that it has learned was logged.",
        "spec": _SPEC,
        "catalogue": _CATALOGUE,
        "artifact": _ARTIFACT,
        "served": "Whether it is served.",
        "pinned": "Whether it is pinned.",
        "corrupt": "Whether its bytes are gone or damaged.",
    },
    "SnapshotsResponse": {
        "served": "The one that is served.",
        "snapshots": "All that are stored, the newest first.",
    },
    "SnapshotChange": {"effect": "What holds once it is done."},
    "SourceState": {"name": "Its name.", "kind": "Its kind in the spec."},
    "SourcesResponse": {
        "sources": "The sources, in the order of the spec.",
        "artifact_wanted": "The version that is to serve, where another does.",
    },
}

"""The meaning of the fields of HTTP's bodies, where the OpenAPI document does not say it."""

from collections.abc import Mapping

EVENT_ID = "The decision's name, which its rewards carry."
REWARD = {
    "value": "How good the choice turned out; higher is better.",
    "reward_id": "The reward's name: each counts once. Without one, a slot takes one reward of each"
    " signal.",
    "slot": "The slot that is rewarded; without one, the action's, or 0.",
    "action_id": "The action that is rewarded; it must have been chosen.",
    "signal": "What kind of reward it is, one that the policy's spec weighs (`signals`).",
}
ITEM = {
    "features": "What is learned from.",
    "metadata": "What is only carried along, such as a title.",
    "vectors": "What it is like, by the vector's name, for sources that compare items.",
    "available_from": "When it is offered first (RFC 3339, with a time zone).",
    "available_until": "When it is offered no more.",
    "hidden": "Whether it is not offered, for now.",
}
VERSION = "The version of the items."
STATUS = {
    "status": "`ok`, or what is missing.",
    "waiting_for": "The policies that have no snapshot yet.",
}

MEANINGS: Mapping[str, Mapping[str, str]] = {
    "ActivityAccepted": {
        "accepted": "How many are in the log, whether by this request or by the one it repeats."
    },
    "ActivityRequest": {"events": "1 to 1,000 of them."},
    "ActivityEvent": {
        "user_id": "Who did it; logged as a random pseudonym only. One who is not known is made.",
        "item_id": "The item's id.",
        "type": "What was done: one of the types that a policy of the space names"
        " (`profile.types`).",
        "value": "How much, where that means something: a rating, a price.",
        "time": "When: it orders what is in the profile, and nothing else. Not before 1970, at most"
        " 5 minutes in the future; without it, when it comes.",
        "id": "Its name; without one, the service makes it. The same name with the same event"
        " is a retry, and counts once for ten minutes.",
    },
    "MergeUsersRequest": {
        "user_id": "Who was somebody else so far, as a visitor; the id leads to the person from"
        " then on.",
        "into": "Who they are; one who is not known is made.",
    },
    "UsersMerged": {
        "into": "Who they are.",
        "pseudonyms": "Under how many pseudonyms the logs have them.",
    },
    "UserExport": {
        "space": "The space.",
        "user_id": "Who was asked about.",
        "since": "When they were first known; null: nothing links them to a random pseudonym.",
        "pseudonyms": "All of theirs, the one that is logged under first.",
        "other_ids": "How many other ids were merged into them.",
        "profile": "What the policies read of them.",
        "files": "What files of profiles say of them, those that the served specs name.",
        "entries": "What the logs say of them, up to 10,000 entries: log by log, each in order.",
        "more": "Whether there is more; `banditloop users export` gives all.",
        "keyed_logs": "The policies whose logs name them by a keyed pseudonym.",
    },
    "HeldProfile": {
        "whole": "Whether nothing is missing just now.",
        "events": "What they did with which item, newest first.",
        "shown": "What was chosen for them, newest first.",
        "counts": "By category (a feature that is a text or a list of texts, of items as they are"
        " now) how many of the events each value has, the 20 most frequent, most first.",
    },
    "HeldEvent": {
        "item_id": "The item's id.",
        "type": "What was done.",
        "time": "When, as the caller said it.",
    },
    "FiledProfile": {"file": "The file.", "events": "What it says of them, oldest first."},
    "FiledEvent": {
        "item_id": "The item's id.",
        "type": "What was done, where that is known.",
        "time": "When, where that is known.",
        "weight": "How strongly it speaks for the item.",
    },
    "HeldShowing": {"item_id": "The item's id.", "time": "When."},
    "HeldEntry": {
        "log": "`activity`, or the policy and the number of one of its logs.",
        "entry": "Its position.",
        "time": "When it was logged.",
        "kind": "The record's kind.",
        "said": "What it says: the record's fields, and of a decision what it chose.",
    },
    "ErasureState": {
        "erasure": "Its name.",
        "state": "`running`, or `complete`: nothing is left to do.",
        "asked": "When it was asked for.",
        "completed": "When it was complete.",
        "waiting_for": "The parts of the profile that have not passed it: `activity`, or a policy"
        " and the number of one of its logs.",
        "keyed_logs": "The policies of the space without profiles: their logs name users by keyed"
        " pseudonyms, which whoever has the salt and the id can find again. They stay.",
    },
    "RankRequest": {
        "event_id": "The decision's name; without one, the service makes it. The same name with the"
        " same request is a retry, and gets the same decision for ten minutes.",
        "user_id": "Who asks, for the policy's sources; logged as a pseudonym only.",
        "filter": "A condition (CEL) that whatever is chosen has to meet, beside the policy's own"
        " `filter`.",
        "visit_id": "One visit of a user, of several pages: what it was shown does not come again"
        " in it, where the policy says so (`repeat`).",
        "context": "Features of the moment and the user, which all actions share.",
        "history": "Ids of items that the user liked, oldest first; they are not proposed again.",
        "actions": "What may be chosen; without them, the policy's sources propose.",
        "exclude": "Ids of items that may not be proposed.",
        "slots": "How many places to fill, without repeating an item.",
        "defer_activation": "Whether the decision is learned only after `activate`.",
        "return_pmf": "Whether the answer holds the probability of every action.",
        "explain": "Whether the answer says why: `explanation`.",
        "baseline": "What is served beside a policy whose `mode` is `apprentice`: an action, a list"
        " of one for each slot, or an object of probabilities; without it, the best of the spec's"
        " `baseline`, or the first of the actions.",
    },
    "BaselineProbabilities": {
        "probabilities": "By action, the probability with which it is served; what is not named has"
        " none. They sum to 1 within 1e-12.",
        "id": "The action that was drawn already; without one, it is drawn here.",
    },
    "ActionRequest": {
        "id": "The action's name.",
        "features": "Its features; without them, those of the catalogue.",
        "scores": "Scores of the caller's own sources, by source.",
    },
    "RankResponse": {
        "event_id": EVENT_ID,
        "policy": "The policy's name.",
        "snapshot_id": "The model that scored the actions.",
        "logged": "False: the decision is not known to be in the log.",
        "chosen": "What to show in the slots that something was drawn for, in their order.",
        "pmf": "The probability of every action in the first of them.",
        "profile": "Where the policy has profiles and a user asked: whether all that is known of"
        " them was used.",
        "repeat": "Where the policy says what is not offered again: whether all of that was"
        " heeded.",
        "explanation": "Why it is so, where the request asked for it.",
        "short": "Why there are fewer slots than were asked for, where the page has rules.",
        "placed": "What to show in the other slots: what the policy's `placements` put there.",
        "unplaced": "What they were to put there, and could not.",
        "ignored": "Fields of the request that the policy does not look at: `baseline`, where it"
        " decides itself.",
    },
    "Explanation": {
        "learner": "The kind of the policy's learner.",
        "exploration": "How scores become probabilities.",
        "floor": "The probability that all actions share.",
        "actions": "Those that were chosen, by slot, and the likeliest others: up to 3 in the"
        " answer to a rank, else up to 10.",
        "note": "What cannot be said, and why.",
    },
    "ExplainedAction": {
        "id": "The action.",
        "probability": "Its probability in the first slot.",
        "slot": "Where it was chosen, if it was.",
        "score": "What the model says it earns: the sum of what the terms add; null where there is"
        " no such sum.",
        "boost": "What the policy's boosts add to the score.",
        "draws": "With Thompson sampling, the share of the draws in which it was the best.",
        "terms": "What each feature, or pair of them, adds; the largest first.",
        "sources": "By name, what each source says of it.",
        "page": "What the page's rules added to the score in its slot, given those before.",
    },
    "ExplainedTerm": {
        "features": "Whose it is, each as `namespace.name`; of two their product; of none the"
        " constant.",
        "value": "The feature's value, or the product of the values.",
        "weight": "What one unit of it adds.",
        "adds": "The value times the weight.",
    },
    "SourceSaid": {
        "score": "The source's score.",
        "rank": "Its place among the actions that the source scored, from 1.",
    },
    "PlacedItem": {
        "slot": "The place on the page, from 0.",
        "id": "The item to show there.",
    },
    "UnplacedItem": {
        "slot": "The place on the page, from 0.",
        "id": "The item that is not there.",
    },
    "Chosen": {
        "slot": "The place on the page, from 0.",
        "id": "The action to show there.",
        "propensity": "The probability of the action, given the slots before it.",
    },
    "PriorInfo": {
        "rows": "The rows that it was taught.",
        "skipped": "Those that it was not taught: the catalogue or the sources lack their items.",
        "strength": "How many interactions each row is worth.",
        "reason": "Why the newest prior of the log was not taught to this model; empty if it was.",
    },
    "Probability": {"id": "The action.", "probability": "Its probability."},
    "RankBatch": {"requests": "The requests, each as for `rank`."},
    "RankBatchResponse": {"results": "Per request, in order, its decision or its error."},
    "RewardRequest": REWARD,
    "RewardEvent": {"event_id": "The decision that is rewarded.", **REWARD},
    "RewardsRequest": {"rewards": "The rewards."},
    "Accepted": {"accepted": "How many events are now in the log."},
    "CatalogueRequest": {"items": "All items there are from now on."},
    "Item": {"id": "The item's name.", **ITEM},
    "ItemRequest": {"id": "The name in the path; it may be left out.", **ITEM},
    "ItemPatch": ITEM,
    "ItemsRequest": {"items": "The items, each of another id."},
    "ItemsVersion": {"version": VERSION, "items": "How many items there are."},
    "ItemResponse": {"version": VERSION, "item": "The item as it is now."},
    "ItemsPage": {
        "version": VERSION,
        "items": "The items of this page, in the order of their ids.",
    },
    "SimilarResponse": {
        "id": "The item that the others are like.",
        "source": "Who says it.",
        "items": "The most alike first; none where the source does not know the item.",
    },
    "SimilarItem": {
        "id": "The item.",
        "score": "The more alike, the higher; on the source's own scale.",
    },
    "CatalogueResponse": {
        "catalogue": "The version of the catalogue.",
        "items": "How many items it has.",
    },
    "PolicyInfo": {
        "policy": "The policy's name.",
        "ready": "Whether a snapshot is loaded.",
        "snapshot_id": "The snapshot that is served.",
        "position": "How far in the log the snapshot has learned.",
        "learned": "How many interactions it has learned.",
        "items": "How many items the catalogue has.",
        "sources": "The policy's sources, by name.",
        "spec": "The whole spec.",
        "outcomes": "How many events of the log had each outcome of the join.",
        "signals": "Of each signal how many rewards counted, and their mean.",
        "quotas": "Of each quota, and each group that has a floor, its share and its price.",
        "rule_troubles": "By field of the spec, what its rule asks of items and none can answer.",
        "stalled": "Where learning stands still.",
        "reason": "Why learning stands still.",
    },
    "RefreshInfo": {
        "outcome": "What became of the new artifact.",
        "started_ms": "When the refresh began.",
        "ended_ms": "When it ended.",
        "by": "Who ran it.",
        "code": "The error's code, if it failed or was refused.",
        "message": "Why it failed, or by which measures it was refused.",
        "artifact": "The version that was made.",
        "measures": "What was measured.",
        "counts": "How many refreshes ended how.",
    },
    "RefreshMeasure": {
        "what": "The measure.",
        "of": "What it was measured on: decisions or users.",
        "weights": "Whose weights the blend had: current, or taught again.",
        "n": "How many decisions or users there were.",
        "serving": "With the artifact that served.",
        "fresh": "With the new one.",
        "low": "The lower end of the difference's interval.",
        "high": "The upper end.",
    },
    "Trouble": {"reason": "What was wrong.", "at_s": "When, in seconds since the epoch."},
    "Stalled": {
        "policy": "The policy's name.",
        "entry": "The id of the entry that could not be applied.",
        "kind": "The kind of the entry.",
        "since_ms": "Since when, in milliseconds of the log's clock.",
        "partition": "The partition whose log it is.",
    },
    "Refused": {
        "entry": "The id of the entry.",
        "kind": "The kind of the entry.",
        "reason": "Why it was refused.",
    },
    "PoliciesResponse": {"policies": "Their names."},
    "Health": STATUS,
    "Readiness": {
        **STATUS,
        "learning": "`ok`, `stalled`, or `unknown` while Redis does not say.",
        "stalled": "The entries at which learning stands still.",
    },
    "ErrorResponse": {"error": "What went wrong."},
    "ErrorBody": {
        "code": "A stable name: [Errors](errors.md) lists them.",
        "message": "What went wrong, for people.",
        "target": "The path of the field at fault.",
    },
}

"""Features as they stand in a line of VW's logs, where several may have one name."""

import json
from collections.abc import ItemsView, Sequence
from typing import Any

import msgspec

from bandits.errors import BadRowError
from bandits.values import FeatureMap, Value

KeyPath = tuple[str, ...]


class FeatureCollector:
    r"""Collects features; nothing that is added is lost.

    A feature is named by its path (in dsjson the keys, in text the namespace and the name), joined
    with dots. Under one path, numbers add up and texts become a list, as VW counts them. A number
    and a text of one name are two features, as they are where they are hashed: the text is then
    named "name=text".

    A key may itself have a dot, so two paths may join to one name. In such a line the path with the
    fewer dots in its keys keeps the name, and in the others a dot within a key is written "\.".
    """

    def __init__(self) -> None:
        self.plain: FeatureMap = {}
        """Features whose path has no dot in its keys, by name; to be added to by ``combine``."""
        self._dotted: list[tuple[KeyPath, Value]] = []

    def add_dotted(self, path: Sequence[str], value: Value) -> None:
        """Add a feature of which a key may have a dot.

        Args:
            path: The keys that lead to the feature, or its namespace and name.
            value: A number, a text or a list of texts.
        """
        self._dotted.append((tuple(path), value))

    def done(self) -> FeatureMap:
        """Return all features by name."""
        features = self.plain
        if not self._dotted:
            return features

        # The path with the most keys has the fewest dots within them, and keeps the name.
        owners: dict[str, KeyPath | None] = dict.fromkeys(features)
        for path in sorted({path for path, _ in self._dotted}, key=lambda path: (-len(path), path)):
            owners.setdefault(".".join(path), path)

        for path, value in self._dotted:
            name = ".".join(path)
            combine(features, name if owners[name] == path else _quoted(path), value)
        return features


def combine(features: FeatureMap, name: str, value: Value) -> None:
    """Add a feature to others of its name.

    Args:
        features: The features so far, which are changed.
        name: The feature's name.
        value: A number, a text or a list of texts.
    """
    held = features.get(name)

    # False is a feature that is not there, unless nothing else has the name.
    if held is None or held is False:
        if held is None or value is not False:
            features[name] = value
        return

    if isinstance(value, str | list):
        texts = [value] if isinstance(value, str) else value
        if isinstance(held, str):
            features[name] = [held, *texts]
        elif isinstance(held, list):
            features[name] = held + texts
        else:
            for text in texts:
                combine(features, f"{name}={text}", 1.0)
    elif isinstance(held, str | list):
        # The number takes the name, and the texts that had it become features of their own.
        if value is not False:
            features[name] = value
            combine(features, name, held)
    else:
        features[name] = float(held) + float(value)


def _quoted(path: KeyPath) -> str:
    return ".".join(key.replace("\\", "\\\\").replace(".", "\\.") for key in path)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with keys that are repeated."""


_SIMPLE = {str, float, bool}


def read_json_features(raw: bytes, where: str) -> tuple[FeatureMap, list[FeatureMap], list[str]]:
    """Read the features of a line in dsjson.

    Args:
        raw: The JSON of the line's key ``c``.
        where: File and line, for errors.

    Returns:
        The context's features, each action's features, and the actions' tags.

    Raises:
        BadRowError: It has no list of actions.
    """
    tree = msgspec.json.decode(raw) if raw else None
    context, actions, tags, keys = _read_tree(tree, where)

    # A key may be repeated. A dict would lose it, so such a line is read again, as pairs.
    if keys != raw.count(b'":'):
        context, actions, tags, _ = _read_tree(json.loads(raw, object_pairs_hook=_Pairs), where)
    return context, actions, tags


def _read_tree(tree: Any, where: str) -> tuple[FeatureMap, list[FeatureMap], list[str], int]:
    """Return what ``read_json_features`` does, and how many keys there were."""
    reader = _JsonFeatures()
    context = reader.read(tree) if isinstance(tree, dict | _Pairs) else {}

    # VW passes over null before the first action, and over no later one.
    listed = reader.multi[0] if len(reader.multi) == 1 else None
    while isinstance(listed, list) and listed and listed[0] is None:
        listed = listed[1:]
    if not isinstance(listed, list) or not all(
        isinstance(action, dict | _Pairs) for action in listed
    ):
        raise BadRowError(
            f"{where}: c._multi is the list of the actions, each an object", "c._multi"
        )

    actions = [(reader.read(action), reader.tag) for action in listed]
    if len(reader.multi) > 1:
        raise BadRowError(f"{where}: c._multi is given once, and not within an action", "c._multi")
    tags = [tag for _, tag in actions]
    return context, [features for features, _ in actions], tags, reader.keys


class _JsonFeatures:
    """Reads the features of ``c``.

    Attributes:
        keys: How many keys all its objects have.
        multi: The lists of actions.
        tag: The tag of the object that was read last.
    """

    def __init__(self) -> None:
        self.keys = 0
        self.multi: list[Any] = []
        self.tag = ""

    def read(self, tree: Any) -> FeatureMap:
        """Return the features of an object.

        ``_multi`` is put aside, wherever it stands, and so is its ``_tag``.
        """
        features, self.tag = FeatureCollector(), ""
        self._object(tree, "", None, features)
        return features.done()

    def _object(
        self, tree: Any, prefix: str, path: list[str] | None, into: FeatureCollector
    ) -> None:
        """Collect the features of an object.

        Args:
            tree: The object.
            prefix: The path to it, joined, with a dot at its end.
            path: The same as a list of keys, once one of them has a dot; None until then.
            into: Where the features go.
        """
        self.keys += len(tree)
        plain = into.plain
        for key, value in _items(tree):
            if key[:1] == "_":
                self._special(key, value, prefix, path, into)
            # Most features are of this kind: read here, they cost one call less.
            elif (
                path is None
                and type(value) in _SIMPLE
                and "." not in key
                and prefix + key not in plain
            ):
                plain[prefix + key] = value
            else:
                self._value(value, prefix, key, path, into)

    def _value(
        self, value: Any, prefix: str, key: str, path: list[str] | None, into: FeatureCollector
    ) -> None:
        if path is None and "." in key:
            path = prefix.split(".")[:-1]
        inner = None if path is None else [*path, key]

        if isinstance(value, dict | _Pairs):
            self._object(value, f"{prefix}{key}.", inner, into)
        elif isinstance(value, list):
            self._list(value, f"{prefix}{key}", inner, into)
        elif value is not None:
            feature = value if isinstance(value, bool | str) else float(value)
            _put(feature, prefix + key, inner, into)

    def _list(
        self, values: list[Any], name: str, path: list[str] | None, into: FeatureCollector
    ) -> None:
        """Collect a list: texts and objects under its name, numbers and lists under their place."""
        for place, value in enumerate(values):
            if isinstance(value, str):
                _put([value], name, path, into)
            elif isinstance(value, dict | _Pairs):
                self._object(value, f"{name}.", path, into)
            else:
                self._value(value, f"{name}.", str(place), path, into)

    def _special(
        self, key: str, value: Any, prefix: str, path: list[str] | None, into: FeatureCollector
    ) -> None:
        """Collect a key that starts with an underscore: actions, words, a tag, or no feature."""
        if key == "_multi":
            self.multi.append(value)
        elif key == "_text" and isinstance(value, str):
            for word in value.replace("\t", " ").split(" "):
                if word:
                    self._value(1.0, prefix, word, path, into)
        else:
            if key.lower() == "_tag":
                self.tag = str(value)
            self.keys += _count_keys(value)


def _put(value: Value, name: str, path: list[str] | None, into: FeatureCollector) -> None:
    if path is not None:
        into.add_dotted(path, value)
    elif name in into.plain:
        combine(into.plain, name, value)
    else:
        into.plain[name] = value


def _items(tree: Any) -> "ItemsView[str, Any] | _Pairs":
    return tree if isinstance(tree, _Pairs) else tree.items()


def _count_keys(tree: Any) -> int:
    if isinstance(tree, dict | _Pairs):
        return len(tree) + sum(_count_keys(value) for _, value in _items(tree))
    return sum(map(_count_keys, tree)) if isinstance(tree, list) else 0

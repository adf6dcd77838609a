"""Features as they are met in a line of VW's logs, of which several may have one name."""

from collections.abc import Sequence

from bandits.values import FeatureMap, Value

Path = tuple[str, ...]


class FeatureCollector:
    r"""Collects features; nothing that is added is lost.

    A feature is named by its path (in dsjson the keys, in text the namespace and the name), joined
    with dots. Of one path numbers add up, and texts to a list, as VW counts them. A number and a
    text of one name are two features, as they are where they are hashed: the text is then named
    "name=text".

    A key may itself have a dot, so two paths may join to one name. In such a line the path with the
    fewer dots in its keys keeps the name, and in the others a dot within a key is written "\.".
    """

    def __init__(self) -> None:
        self.plain: FeatureMap = {}
        """By name, those whose path has no dot in its keys; to be added to by ``combine``."""
        self._dotted: list[tuple[Path, Value]] = []

    def add_dotted(self, path: Sequence[str], value: Value) -> None:
        """A feature whose path may have dots in its keys."""
        self._dotted.append((tuple(path), value))

    def done(self) -> FeatureMap:
        """All of them."""
        features = self.plain
        if not self._dotted:
            return features
        owners: dict[str, Path | None] = dict.fromkeys(features)
        for path in sorted({path for path, _ in self._dotted}, key=lambda path: (-len(path), path)):
            owners.setdefault(".".join(path), path)
        for path, value in self._dotted:
            name = ".".join(path)
            combine(features, name if owners[name] == path else _quoted(path), value)
        return features


def combine(features: FeatureMap, name: str, value: Value) -> None:
    """Add a feature to others of its name."""
    known = features.get(name)
    if known is None or known is False:
        if known is None or value is not False:
            features[name] = value
    elif isinstance(value, str | list):
        texts = [value] if isinstance(value, str) else value
        if isinstance(known, str):
            features[name] = [known, *texts]
        elif isinstance(known, list):
            features[name] = known + texts
        else:
            for text in texts:
                combine(features, f"{name}={text}", 1.0)
    elif isinstance(known, str | list):
        if value is not False:
            features[name] = value
            combine(features, name, known)
    else:
        features[name] = float(known) + float(value)


def _quoted(path: Path) -> str:
    return ".".join(key.replace("\\", "\\\\").replace(".", "\\.") for key in path)

"""The sources of a policy spec: where candidates come from."""

from typing import Annotated, Literal

import msgspec

from bandits.durations import duration_ms
from bandits.errors import InvalidFieldError, SpecError

SHORTEST_HALF_LIFE_MS = 1000

Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$(?!\n)")]


class ArtifactSource(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="artifact", tag_field="kind"
):
    """A source that ``banditloop train`` has fitted.

    Attributes:
        name: the source's name in the artifact.
    """

    name: Name


class RemoteSource(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="remote", tag_field="kind"
):
    """Any HTTP service that answers ids and scores.

    Attributes:
        name: the source's name in the log, in scores and in metrics.
        url: the service's address, http or https; it gets a POST.
        timeout_ms: how long a decision waits for the service, all attempts included.
        retries: how often a failed request is repeated within that time.
        send_user_id: whether the service is told the user's id, in clear.
        send_context: whether the service is told the features of the context, all of them.
    """

    name: Name
    url: str
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 50
    retries: Annotated[int, msgspec.Meta(ge=0, le=5)] = 1
    send_user_id: bool = False
    send_context: bool | msgspec.UnsetType = msgspec.UNSET


class RlSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="rl", tag_field="kind"):
    """A policy of kind rl as a source: it proposes nothing, and scores what the others propose.

    Attributes:
        name: the source's name in the log, in scores and in metrics.
        model: the file that ``banditloop train rl`` wrote, relative to the spec's.
        digest: the digest of the file's bytes, which ``banditloop train rl`` prints.
    """

    name: Name
    model: str
    digest: Digest


class ContentSource(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="content", tag_field="kind"
):
    """A source that proposes items like those of the user's history, also such as are new.

    It needs no training. What ``banditloop train`` finds out of texts and vectors is another
    source: ``{kind: artifact, name: content}``.

    Attributes:
        name: the source's name in the log, in scores and in metrics.
        vector: the name of the items' own vectors by which they are compared.
        text: the names of metadata and features that are read as one text of an item.
        encoder: what makes a vector of a text: ``wordllama`` (``pip install banditloop[text]``).
    """

    name: Name
    vector: str | None = None
    text: list[str] = msgspec.field(default_factory=list)
    encoder: Literal["wordllama"] | None = None

    def __post_init__(self) -> None:
        """Refuse one that compares nothing."""
        if bool(self.text) != (self.encoder is not None):
            raise SpecError(
                f"source {self.name!r}: text and encoder go together; what train has fitted on"
                " texts is {kind: artifact, name: content}",
                "sources.encoder" if self.text else "sources.text",
            )
        if self.vector is None and not self.text:
            raise SpecError(
                f"source {self.name!r} compares nothing: name a vector, or text and encoder; what"
                " train has fitted is {kind: artifact, name: content}",
                "sources.vector",
            )


class _Fading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A source whose scores halve with a half-life."""

    name: Name
    half_life: str

    def __post_init__(self) -> None:
        """Refuse what is no half-life."""
        try:
            half_life_ms = self.half_life_ms
        except InvalidFieldError as error:
            raise SpecError(
                f"source {self.name!r}: {error.message}", "sources.half_life"
            ) from error
        if half_life_ms < SHORTEST_HALF_LIFE_MS:
            raise SpecError(
                f"source {self.name!r}: a half-life is 1s at least, not {self.half_life}",
                "sources.half_life",
            )

    @property
    def half_life_ms(self) -> int:
        """The half-life in milliseconds, the log's unit of time."""
        return duration_ms(self.half_life)


class TrendingSource(_Fading, frozen=True, tag="trending", tag_field="kind"):
    """A source that proposes what this policy's own rewards say is in demand now, whoever asks.

    The fold of the log keeps the counts, so they are as exact as the model. What ``banditloop
    train`` finds in events is another source: ``{kind: artifact, name: trending}``.

    Attributes:
        name: the source's name in the log, in scores and in metrics.
        half_life: after so long a reward counts half, as ``6h``: a number and s, m, h, d or w.
    """

    half_life: str = "1d"


class FreshSource(_Fading, frozen=True, tag="fresh", tag_field="kind"):
    """A source that proposes the newest items among what a user likes; it needs no training.

    Attributes:
        name: the source's name in the log, in scores and in metrics.
        half_life: the age at which an item's score is half of that of a new one, as ``12h``: a
            number and s, m, h, d or w.
    """

    half_life: str = "7d"


Source = ArtifactSource | RemoteSource | RlSource | ContentSource | TrendingSource | FreshSource

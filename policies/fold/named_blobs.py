"""The specs and catalogues that a log's entries name by digest, decoded once, kept for a while."""

from collections.abc import Callable
from typing import TypeVar

from bandits.errors import ArtifactError, MissingBlobError, RefusedError, SpecError
from bandits.log.codec import digest
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec, decode_spec

Kind = TypeVar("Kind")

CATALOGUES_KEPT = 8
SPECS_KEPT = 64

_NO_ITEMS = Catalogue()


class NamedBlobs:
    """The blobs behind a fold.

    ``fetch`` returns the bytes that are stored under a digest, or raises what it likes.
    """

    def __init__(self, fetch: Callable[[str], bytes]) -> None:
        self.fetch = fetch
        self._specs: dict[str, PolicySpec] = {}
        self._model_digests: dict[str, str] = {}
        self._catalogues: dict[str, Catalogue] = {}

    def holds_spec(self, name: str) -> bool:
        """Return whether a spec is kept, so that it is known to decode."""
        return name in self._specs

    def spec(self, name: str) -> PolicySpec:
        """Return the spec of a digest.

        Raises:
            RefusedError: its bytes are no spec.
            MissingBlobError: other bytes are stored under its name.
        """
        if name not in self._specs:
            _make_room(self._specs, SPECS_KEPT)
            self._specs[name] = _demanded(decode_spec, self.data(name))
        return self._specs[name]

    def model_digest(self, name: str) -> str:
        """Return a spec's model digest, by the digest of the spec; it raises as ``spec`` does."""
        if name not in self._model_digests:
            self._model_digests[name] = self.spec(name).model_digest
        return self._model_digests[name]

    def catalogue(self, name: str) -> Catalogue:
        """Return the catalogue of a digest; the one without items needs no blob.

        Raises:
            RefusedError: its bytes are no catalogue.
            MissingBlobError: other bytes are stored under its name.
        """
        if name == _NO_ITEMS.digest:
            return _NO_ITEMS
        if name not in self._catalogues:
            _make_room(self._catalogues, CATALOGUES_KEPT)
            self._catalogues[name] = _demanded(Catalogue.decode, self.data(name))
        return self._catalogues[name]

    def data(self, name: str) -> bytes:
        """Return the bytes of a digest.

        Raises:
            MissingBlobError: other bytes are stored under its name; or whatever ``fetch`` raises.
        """
        data = self.fetch(name)
        if digest(data) != name:
            raise MissingBlobError(
                f"what is stored as blob {name} are other bytes: restore it", "digest"
            )
        return data


def _demanded(decode: Callable[[bytes], Kind], data: bytes) -> Kind:
    """Decode the bytes of a blob, or refuse the entry that names them."""
    try:
        return decode(data)
    except (SpecError, ArtifactError) as error:
        raise RefusedError(error.message, error.target) from error


def _make_room(cache: dict[str, PolicySpec] | dict[str, Catalogue], limit: int) -> None:
    while len(cache) >= limit:
        del cache[next(iter(cache))]

"""The specs and catalogues that a log's entries name, decoded once, kept for a while."""

from collections.abc import Callable

from bandits.errors import ArtifactError, MissingBlobError, RefusedError, SpecError
from bandits.log.codec import digest
from policies.items.catalogue import Catalogue
from policies.items.past import ItemsPast
from policies.spec import PolicySpec, decode_spec

SPECS_KEPT = 64

_NO_ITEMS = Catalogue()


class NamedBlobs:
    """The blobs behind a fold.

    ``fetch`` returns the bytes that are stored under a digest, or raises what it likes. ``items``
    has the catalogues of the log of items.
    """

    def __init__(self, fetch: Callable[[str], bytes], items: ItemsPast | None = None) -> None:
        self.fetch = fetch
        self.items = ItemsPast() if items is None else items
        self._specs: dict[str, PolicySpec] = {}
        self._model_digests: dict[str, str] = {}

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
            self._specs[name] = _demanded(self.data(name))
        return self._specs[name]

    def model_digest(self, name: str) -> str:
        """Return a spec's model digest, by the digest of the spec; it raises as ``spec`` does."""
        if name not in self._model_digests:
            self._model_digests[name] = self.spec(name).model_digest
        return self._model_digests[name]

    def catalogue(self, name: str) -> Catalogue:
        """Return the catalogue of a version; the one without items needs no blob.

        Raises:
            RefusedError: it is a digest of bytes that are no catalogue.
            MissingBlobError: other bytes are stored under its name, or the log of items has no such
                version.
        """
        if name == _NO_ITEMS.digest:
            return _NO_ITEMS
        try:
            return self.items.catalogue(name, self.fetch)
        except ArtifactError as error:
            raise RefusedError(error.message, error.target) from error

    def catalogue_alike(self, name: str, other: Catalogue) -> Catalogue | None:
        """Return the catalogue of a version, if it shares its rows with another one; else None.

        Args:
            name: the version.
            other: a catalogue.
        """
        try:
            catalogue = self.catalogue(name)
        except Exception:  # noqa: BLE001 - whoever needs it finds out why it is not there
            return None
        return catalogue if catalogue.features is other.features else None

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


def _demanded(data: bytes) -> PolicySpec:
    """Decode the bytes of a spec, or refuse the entry that names them."""
    try:
        return decode_spec(data)
    except SpecError as error:
        raise RefusedError(error.message, error.target) from error


def _make_room(cache: dict[str, PolicySpec], limit: int) -> None:
    while len(cache) >= limit:
        del cache[next(iter(cache))]

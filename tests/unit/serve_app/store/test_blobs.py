"""Blobs that a replica or learner loads: whatever the bytes, they load, or are refused by name."""

import json
from dataclasses import replace

import msgpack
import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.damage import damaged, rewritten
from support.fakes import FakeLog, fresh_ranker
from support.strategies import MANY

from bandits.errors import ArtifactError, SnapshotError, SpecError
from bandits.exploration import EpsilonGreedy, LinTs
from bandits.log.codec import digest
from bandits.values import MAX_FEATURE
from bandits.vw.config import VwConfig
from policies.items.catalogue import Catalogue, Item
from policies.spec import ArtifactSource, Holdout, PolicySpec, RemoteSource, decode_spec
from serve_app.store.snapshots import Published, decode_published

SPECS = [
    PolicySpec("home"),
    PolicySpec("vw", learner=VwConfig(), exploration=EpsilonGreedy()),
    PolicySpec(
        "sourced",
        kind="mixture",
        sources=[ArtifactSource("cf"), RemoteSource("far", "http://x")],
        artifact="a",
        exploration=LinTs(scale=0.3),
        holdout=Holdout(0.1, "cf"),
    ),
]
CATALOGUES = [
    Catalogue(),
    Catalogue(
        [
            Item("a", {"x": 1.5, "y": "text", "z": ["p", "q"], "on": True}, {"title": "A"}),
            Item("\u00e9"),
        ]
    ),
]
SNAPSHOTS = {spec.name: FakeLog(spec).fold().snapshot() for spec in SPECS[:2]}


def published(spec: PolicySpec) -> bytes:
    snapshot = SNAPSHOTS[spec.name]
    return msgspec.msgpack.encode(
        Published(
            snapshot.kind,
            snapshot.position,
            snapshot.learned,
            snapshot.payload,
            spec.digest,
            Catalogue().digest,
        )
    )


def damaged_json(documents: list[bytes]) -> st.SearchStrategy[bytes]:
    """Noise, struck bytes, and well-formed JSON of another shape."""
    valid = st.sampled_from(documents)
    trees = rewritten(valid.map(json.loads)).map(
        lambda tree: json.dumps(tree, default=str).encode()
    )
    return st.one_of(st.binary(max_size=200), damaged(valid), trees, trees)


@settings(max_examples=MANY)
@given(damaged_json([spec.encoded for spec in SPECS]))
@example(b'{"name": "\xff"}')
@example(b"[" * 100_000)
@example(b'{"name": "a", "holdout": ' + b"[" * 100_000)
@example(b'{"name": "a", "\xff": 1}')
def test_a_spec_is_one_or_is_refused(data):
    try:
        spec = decode_spec(data)
    except SpecError as error:
        assert error.target  # noqa: PT017 - that it is this error and no other is the test
        return
    assert decode_spec(spec.encoded).encoded == spec.encoded
    assert 0 <= spec.floor <= 1
    assert 1 <= spec.limit <= 1000
    assert spec.join.window_s > 0
    assert spec.name.isascii()
    assert 1 <= len(spec.name) <= 64
    assert len({source.name for source in spec.sources}) == len(spec.sources)


@settings(max_examples=MANY)
@given(damaged_json([catalogue.encoded for catalogue in CATALOGUES]))
@example(b'[{"id": "\xff"}]')
@example(b"[" * 100_000)
@example(b'[{"id": "a", "features": {"x": ' + b"[" * 100_000)
@example(b'[{"id": "a", "features": {"\xff": 1}}]')
def test_a_catalogue_is_one_or_is_refused(data):
    try:
        catalogue = Catalogue.decode(data)
    except ArtifactError as error:
        assert error.target  # noqa: PT017 - that it is this error and no other is the test
        return
    again = Catalogue.decode(catalogue.encoded)
    assert (again.ids, again.digest) == (catalogue.ids, catalogue.digest)
    assert len(set(catalogue.ids)) == len(catalogue)
    found = catalogue.namespace(catalogue.ids)
    assert found.cells().shape[-1] == found.values.shape[-1]
    assert (abs(found.values) <= 1.000001 * MAX_FEATURE).all()


def damaged_msgpack(valid: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    trees = rewritten(valid.map(msgpack.unpackb)).map(msgpack.packb)
    return st.one_of(st.binary(max_size=200), damaged(valid), trees, trees)


snapshots = st.sampled_from([published(spec) for spec in SPECS[:2]])


@settings(max_examples=MANY // 2)
@given(damaged_msgpack(snapshots), st.booleans())
@example(b"\x81\xa4kind\xa1\xff", True)
@example(b"\x81\xa1x" + b"\x91" * 100_000, True)
@example(b"\x81\xa4kind\xdb\xff\xff\xff\xff", True)
def test_a_snapshot_is_one_or_is_refused(data, well_named):
    """Also when the bytes are those of its name: whoever wrote them may have been wrong."""
    try:
        found = decode_published(data, digest(data) if well_named else "0" * 32)
    except SnapshotError as error:
        assert error.target  # noqa: PT017 - that it is this error and no other is the test
        return
    assert well_named
    assert found.snapshot.payload == found.payload
    again = msgspec.msgpack.encode(found)
    assert decode_published(again, digest(again)) == found


@settings(max_examples=MANY // 2)
@given(st.sampled_from(SPECS[:2]), st.data())
def test_a_damaged_model_is_refused_and_the_previous_one_serves_on(spec, data):
    """Or it loads: a weight that has changed is a weight."""
    model = SNAPSHOTS[spec.name]
    payload = data.draw(damaged_msgpack(st.just(model.payload)))
    ranker = fresh_ranker(spec)
    before = ranker.serving
    try:
        ranker.serve("damaged", replace(model, payload=payload))
    except SnapshotError as error:
        assert error.target  # noqa: PT017 - that it is this error and no other is the test
        assert ranker.serving is before
    else:
        assert ranker.serving.snapshot_id == "damaged"

"""Whether a deployment says which artifact serves, or the log has decided."""

import msgspec
import pytest
from support.fakes import SALT, FakeLog

from bandits.errors import SpecError
from bandits.log.records import ArtifactRecord, PriorRecord
from policies.spec import ArtifactSource, PolicySpec
from serve_app.workers.declaration import Declaration

SOURCES = [ArtifactSource("popular")]
SPEC = PolicySpec("home", sources=SOURCES, artifact="/models/shop")


def said(before: PolicySpec | None, in_force: str | None, spec: PolicySpec, version: str) -> list:
    """The artifact that is declared, of a log whose spec and artifact are these."""
    log = FakeLog(before)
    if in_force is not None:
        log.append(ArtifactRecord(in_force), at=5)
    records = Declaration(spec, SALT, version).changes(log.fold())
    return [each.version for each in records if isinstance(each, ArtifactRecord)]


def named(artifact: str | None) -> PolicySpec:
    return msgspec.structs.replace(SPEC, artifact=artifact, sources=SOURCES if artifact else [])


@pytest.mark.parametrize(
    ("before", "in_force", "spec", "version", "declared"),
    [
        (None, None, SPEC, "v1", ["v1"]),
        (named(None), None, SPEC, "v1", ["v1"]),
        # The same spec: whatever is current, the log decides.
        (SPEC, "v2", SPEC, "v2", []),
        (SPEC, "v2", SPEC, "v1", []),
        (SPEC, "v2", SPEC, "v3", []),
        (SPEC, "v2", msgspec.structs.replace(SPEC, limit=3), "v3", []),
        # Another folder, or another version by name.
        (SPEC, "v2", named("/models/other"), "v9", ["v9"]),
        (SPEC, "v2", named("/models/shop/v3"), "v3", ["v3"]),
        (named("/models/shop/v2"), "v2", named("/models/shop/v3"), "v3", ["v3"]),
        (named("/models/shop/v2"), "v4", named("/models/shop/v2"), "v2", []),
        # The version's folder in the place of the version, as earlier builds deployed it.
        (named("/models/shop/v2"), "v2", SPEC, "v3", []),
        (SPEC, "v2", named("/models/shop/v2"), "v2", []),
    ],
)
def test_the_log_decides_unless_the_spec_says_something_else_than_before(
    before, in_force, spec, version, declared
):
    assert said(before, in_force, spec, version) == declared


def test_the_prior_of_an_artifact_that_does_not_serve_is_not_declared():
    log = FakeLog(SPEC)
    log.append(ArtifactRecord("v2"), at=5)
    for version, count in (("v1", 0), ("v2", 1)):
        records = Declaration(SPEC, SALT, version, prior=b"rows").changes(log.fold())
        assert sum(isinstance(each, PriorRecord) for each in records) == count


def test_a_policy_stays_in_its_space():
    alone, shop = (msgspec.structs.replace(SPEC, space=space) for space in ("home", "shop"))
    log = FakeLog(SPEC)
    assert Declaration(alone, SALT, "v1").changes(log.fold())  # its own, said in another way
    with pytest.raises(SpecError, match="of the space home and stays so") as error:
        Declaration(shop, SALT, "v1").changes(log.fold())
    assert error.value.target == "space"

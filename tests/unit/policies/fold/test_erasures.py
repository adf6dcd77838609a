"""Who was decided for is erased: what was open is joined all the same, and the model is the same."""

import msgspec
import pytest
from support.fakes import FakeLog
from support.logs import RULE, decision

from bandits.exploration import LinTs
from bandits.log.records import ErasureRecord, RewardRecord, TickRecord
from bandits.ridge.config import RidgeConfig
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec

SPEC = PolicySpec("home", learner=RidgeConfig(), exploration=LinTs(draws=3), join=RULE)
ARRIVING = msgspec.structs.replace(
    SPEC, join=msgspec.structs.replace(RULE, learn="as_it_arrives", aggregation="sum")
)


@pytest.mark.parametrize("spec", [SPEC, ARRIVING])
def test_an_open_decision_of_an_erased_user_is_joined_and_learned(spec):
    def folded(*, erased: bool):
        log = FakeLog(spec)
        log.blobs[Catalogue().digest] = Catalogue().encoded
        log.append(
            decision("e", spec=spec.digest, catalogue=Catalogue().digest, user="ann"), at=1000
        )
        log.append(ErasureRecord("ann", "x") if erased else TickRecord(), at=1001)
        log.append(RewardRecord("e", 1.0), at=1002)
        log.append(TickRecord(), at=10_000_000)
        return log.fold()

    with_erasure, without = folded(erased=True), folded(erased=False)
    assert with_erasure.learned == 1
    assert with_erasure.join.counts == without.join.counts
    assert with_erasure.join.counts["joined"] == 1
    assert with_erasure.learner.checkpoint() == without.learner.checkpoint()

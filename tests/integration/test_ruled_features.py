"""A rule that asks of the items what none of them has is no spec that a service begins to serve."""

import msgspec
import pytest
import redis
from support.small_artifact import make_artifact

from bandits.errors import SpecError
from policies.artifacts.source_artifact import write
from policies.items.catalogue import Catalogue
from policies.requests import Item
from policies.spec import ArtifactSource, PolicySpec, spec_of
from serve_app.admin.ruled_features import notes_on_rules
from serve_app.settings import Settings
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ItemsKeys
from serve_app.workers.items_leader import ItemsLeader

ITEMS = [Item(f"i{n}", {"stock": float(n), "price": 2.0, "brand": "ab"[n % 2]}) for n in range(4)]
BEFORE = PolicySpec("ruled")


@pytest.fixture(scope="module")
def settings(valkey_url) -> Settings:
    keys = ItemsKeys("ruled")
    with redis.Redis.from_url(valkey_url) as client:
        history = ItemsHistory(client, keys, None)
        ItemsLeader(client, keys, history).begin(Catalogue(), Catalogue.put(ITEMS))
    return Settings(redis_url=valkey_url)


def ruled(name: str = "ruled", **rules) -> PolicySpec:
    return spec_of({"name": name, **rules})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"filter": "item.stok > 0"}, "policy ruled: filter.where: no item has item.stok: did you"),
        ({"filter": 'item.price == "many"'}, "filter.where: item.price is a number wherever"),
        ({"boost": [{"when": "item.season == 'n'", "by": 0.1}]}, r"boost\[0\].when: no item has"),
        ({"quota": [{"when": "item.stock == 'n'", "at_least": 0.1}]}, r"quota\[0\].when"),
        ({"placements": [{"item": "i1", "slot": 0, "when": "item.a > 1"}]}, r"placements\[0\]"),
    ],
)
def test_a_condition_that_no_item_can_answer_is_refused_when_it_is_new(settings, rules, message):
    spec = ruled(**rules)
    with pytest.raises(SpecError, match=message) as caught:
        notes_on_rules(settings, [BEFORE], [spec])
    assert "ask has(item.…)" in caught.value.message

    # What is served already, and what items have come to lack, stops nothing.
    (said,) = notes_on_rules(settings, [spec], [spec])
    assert said in caught.value.message


def test_features_that_may_come_are_told_of_and_what_can_be_answered_is_not(settings):
    fields = ruled(filter={"where": "item.stock > 0", "fields": ["prize"]})
    assert notes_on_rules(settings, [BEFORE], [fields]) == [
        "policy ruled: filter.fields: no item has item.prize: did you mean price?"
    ]
    well = ruled(
        filter="item.stock > 0 && (!has(item.sale) || item.sale > 2)", page={"most": {"brand": 1}}
    )
    assert notes_on_rules(settings, [BEFORE], [well]) == []


def test_of_items_that_are_yet_to_come_nothing_is_known_but_those_of_an_artifact(
    settings, tmp_path
):
    empty = ruled("empty", filter="item.stok > 0")
    assert notes_on_rules(settings, [], [empty]) == []
    silent = Settings(redis_url="redis://127.0.0.1:1")
    assert notes_on_rules(silent, [], [ruled(filter="item.stok > 0")]) == []

    artifact = make_artifact()
    write(artifact, tmp_path)
    brings = msgspec.structs.replace(empty, sources=[ArtifactSource("als")], artifact=str(tmp_path))
    with pytest.raises(SpecError, match="no item has"):
        notes_on_rules(settings, [], [brings])

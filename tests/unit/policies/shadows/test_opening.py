"""What may be a shadow of a policy; and that one that may not be never stops the policy."""

from pathlib import Path
from typing import Any

import pytest

from bandits.errors import SpecError
from policies.shadows.opening import MOST, shadows_of
from policies.spec import PolicySpec, decode_spec, load_spec, spec_of

HOME: dict[str, Any] = {
    "name": "home",
    "sources": [{"kind": "remote", "name": "cf", "url": "http://x"}],
    "join": {"window_s": 5},
}
GREEDY = {"name": "greedy", "exploration": {"kind": "greedy"}}


def policy(*shadows: Any, **more: Any) -> PolicySpec:
    return spec_of({**HOME, **more, "shadow": list(shadows)})


def test_a_shadow_is_the_policy_with_a_model_of_its_own() -> None:
    """What it does not say of its model is a spec's default; all else is the policy's."""
    (shadow,) = shadows_of(policy(GREEDY, floor=0.2))
    assert shadow.spec is not None
    assert shadow.name == "greedy" == shadow.spec.name
    assert (shadow.spec.exploration.__struct_config__.tag, shadow.spec.floor) == ("greedy", 0.01)
    assert (shadow.spec.join.window_s, shadow.spec.sources[0].name) == (5, "cf")


def test_a_shadow_can_be_the_file_of_a_spec(tmp_path: Path) -> None:
    """The file is found beside the policy's, and read with it: the service needs no file."""
    (tmp_path / "next.yaml").write_text("name: next\nfloor: 0.1\njoin: {window_s: 5}\n")
    (tmp_path / "home.yaml").write_text("name: home\njoin: {window_s: 5}\nshadow: [next.yaml]\n")
    spec = load_spec(tmp_path / "home.yaml")
    (tmp_path / "next.yaml").unlink()
    (shadow,) = shadows_of(spec)
    assert shadow.spec is not None
    assert (shadow.name, shadow.spec.floor) == ("next", 0.1)


def test_shadows_are_no_part_of_what_the_log_says_of_a_policy() -> None:
    """To add one changes no decision, and no snapshot."""
    assert policy(GREEDY).encoded == spec_of(HOME).encoded
    assert policy(GREEDY).digest == spec_of(HOME).digest


@pytest.mark.parametrize(
    ("said", "name", "why"),
    [
        ("missing.yaml", "missing", "shadow[0]: missing.yaml: No such file"),
        ({"name": "x", "floor": 2}, "x", "shadow[0]: floor: "),
        ({"name": "X y"}, "X y", "shadow[0]: name: "),
        ({"floor": 0.1}, "shadow[0]", "the field 'name' is missing"),
        ({"name": "x", "flour": 0.1}, "x", "did you mean floor?"),
        (
            {
                "name": "x",
                "learner": {"kind": "vw", "args": "--nonsense"},
                "exploration": {"kind": "greedy"},
            },
            "x",
            "learner.args",
        ),
        ({"name": "x", "kind": "rl"}, "x", "shadow[0]: model: a network learns nothing from"),
        ({"name": "x", "kind": "rl", "model": "gone"}, "x", "shadow[0]: model: gone cannot be"),
        ({"name": "x", "kind": "rl", "model": __file__}, "x", "model: not a trained model"),
        ({"name": "x", "model": "m"}, "x", "shadow[0]: model: only a shadow of kind rl"),
        ({"name": "x", "kind": "mixture"}, "x", "shadow[0]: kind: "),
        ({"name": "x", "join": {"window_s": 6}}, "x", "shadow[0]: join: it is not as home has it"),
        ({"name": "x", "sources": []}, "x", "shadow[0]: sources: it is not as home has it"),
        ({"name": "x", "filter": "item.stock > 0"}, "x", "shadow[0]: filter: "),
    ],
)
def test_one_that_cannot_be_followed_says_why(said: Any, name: str, why: str) -> None:
    """The field is named, and the policy is a policy all the same."""
    spec = policy(said, GREEDY)
    refused, good = shadows_of(spec)
    assert (refused.name, refused.spec) == (name, None)
    assert why in refused.refused
    assert good.spec is not None
    assert decode_spec(spec.encoded) == spec_of(HOME)


def test_a_spec_without_a_field_that_a_shadow_says_is_the_same_may_say_it() -> None:
    """A whole spec, ready to be served, is a shadow as it stands."""
    (shadow,) = shadows_of(policy({**HOME, "name": "next", "holdout": {"fraction": 0.1}}))
    assert shadow.refused == ""


def test_a_shadow_of_a_policy_in_partitions_is_one_model_of_all_of_them() -> None:
    (shadow,) = shadows_of(policy(GREEDY, partitions=2))
    assert shadow.refused == ""
    assert shadow.spec is not None
    assert shadow.spec.partitions == 1


def test_two_of_one_name_and_too_many_are_refused() -> None:
    first, second = shadows_of(policy(GREEDY, GREEDY))
    assert (first.refused, second.refused) == ("", "shadow[1]: another one has this name")
    many = shadows_of(policy(*({**GREEDY, "name": f"s{n}"} for n in range(MOST + 1))))
    assert [bool(each.refused) for each in many] == [False] * MOST + [True]


def test_what_is_no_shadow_at_all_is_an_error_of_the_spec() -> None:
    with pytest.raises(SpecError) as caught:
        policy(3)
    assert caught.value.target.startswith("shadow[0]")


def test_another_model_is_another_digest_and_another_order_of_fields_is_not() -> None:
    both = shadows_of(
        policy(GREEDY, {**GREEDY, "name": "two"}, {**GREEDY, "name": "c", "floor": 0.1})
    )
    assert both[0].digest == both[1].digest != both[2].digest

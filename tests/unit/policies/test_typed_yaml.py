"""A typing error in any file that is read: the error lists the choices, and suggests the nearest."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect

from bandits.errors import ArtifactError, BanditloopError, InvalidFieldError
from policies.artifacts.fetch import load_artifact
from policies.spec import PolicySpec, load_spec
from policies.typed_yaml import as_type, choices, encode_yaml, parse_yaml
from serve_app.api.api_keys import Key, KeyId, read_keys
from serve_app.cli.replay.run import csv_columns
from simulator.domains import ChoiceDomain, LogUniformDomain, UniformDomain
from simulator.logs.csv_columns import CsvColumns
from simulator.replay.parse_policy import PolicyArgument, parse_policy
from simulator.replay.search_space import SearchSpace, load_space
from simulator.worlds.targets import KnownTargetKind, target_named

FILES: dict[str, Any] = {
    "policy": PolicySpec,
    "search": SearchSpace,
    "choice": ChoiceDomain,
    "uniform": UniformDomain,
    "loguniform": LogUniformDomain,
    "keys": dict[KeyId, Key],
    "replay's policy": PolicyArgument,
    "a world's target": KnownTargetKind,
    "columns": CsvColumns,
}
REQUIRED: dict[str, Any] = {  # a value for each field that has no default
    "Diversity.by": "genres",
    "by": 0.1,
    "args": "--cb_explore_adf",
    "choice": [1],
    "column": "c",
    "digest": "0" * 32,
    "features": "0" * 16,
    "floor": 0.1,
    "fraction": 0.1,
    "group": "provider",
    "hash": "0" * 64,
    "item": "i1",
    "loguniform": [1, 2],
    "model": "m",
    "name": "home",
    "path": "p",
    "scopes": ["rank"],
    "slot": 0,
    "source": "s",
    "times": 1,
    "spec": "s",
    "uniform": [1, 2],
    "url": "http://x",
    "vary": {},
    "weight": 1.0,
    "when": "true",
    "within": "1d",
}

Wrap = Callable[[Any], Any]


def plain(struct: inspect.StructType) -> dict[str, Any]:
    tag = {struct.tag_field: struct.tag} if struct.tag_field else {}
    return {
        **tag,
        **{
            field.encode_name: REQUIRED.get(
                f"{struct.cls.__name__}.{field.encode_name}", REQUIRED[field.encode_name]
            )
            for field in struct.fields
            if field.required
        },
    }


def places(kind: inspect.Type, path: str, wrap: Wrap) -> Iterator[tuple[str, inspect.Type, Wrap]]:
    """Every type inside a type, its place, and a function that puts a value there."""
    yield path, kind, wrap
    if isinstance(kind, inspect.UnionType):
        for each in kind.types:
            if each.__class__ is not inspect.LiteralType:
                yield from places(each, path, wrap)
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:

            def inside(value: Any, field: inspect.Field = field) -> Any:
                return wrap({**plain(kind), field.encode_name: value})

            yield from places(field.type, f"{path}.{field.encode_name}", inside)
    elif isinstance(kind, inspect.ListType):
        yield from places(kind.item_type, f"{path}[0]", lambda value: wrap([value]))
    elif isinstance(kind, inspect.DictType):
        yield from places(kind.value_type, f"{path}.shop", lambda value: wrap({"shop": value}))


def mistyped(word: str) -> str:
    return word + word[-1]


Case = tuple[Any, Any, str, str, set[str]]


def cases() -> Iterator[Any]:
    for file, whole in FILES.items():
        for path, kind, wrap in places(inspect.type_info(whole), "", lambda value: value):
            at = path.removeprefix(".")
            if isinstance(kind, inspect.StructType):
                names = {field.encode_name for field in kind.fields} | (
                    {kind.tag_field} if kind.tag_field else set()
                )
                for name in sorted(names):
                    raw = wrap({**plain(kind), mistyped(name): 1})
                    yield pytest.param(
                        whole, raw, at, name, names, id=f"{file} {kind.tag or ''} {at} field {name}"
                    )
            if isinstance(kind, inspect.LiteralType):
                for value in kind.values:
                    raw = wrap(mistyped(str(value)))
                    yield pytest.param(
                        whole, raw, at, value, set(kind.values), id=f"{file} {at} value {value}"
                    )
            if isinstance(kind, inspect.UnionType):
                structs = [
                    each for each in kind.types if isinstance(each, inspect.StructType) and each.tag
                ]
                for each in structs:
                    where = f"{at}.{each.tag_field}".removeprefix(".")
                    raw, tags = (
                        wrap({each.tag_field: mistyped(str(each.tag))}),
                        {str(other.tag) for other in structs},
                    )
                    yield pytest.param(
                        whole, raw, where, each.tag, tags, id=f"{file} {at} kind {each.tag}"
                    )


@pytest.mark.parametrize(("whole", "raw", "at", "right", "all_of_them"), list(cases()))
def test_whatever_is_mistyped_the_error_says_where_has_the_choices_and_suggests_the_right_one(
    whole: Any, raw: Any, at: str, right: str, all_of_them: set[str]
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        as_type(raw, whole)
    assert caught.value.target == at
    assert f"did you mean {right}?" in caught.value.message
    listed = caught.value.message.rpartition("there ")[2].split(" ", 1)[1].split(", ")
    assert set(listed) == all_of_them


def test_the_walk_reaches_what_it_should() -> None:
    found = {case.id for case in cases()}
    assert {
        "policy exploration kind lints",
        "policy sources[0] kind remote",
        "policy remote sources[0] field timeout_ms",
        "policy use[0] value scores",
        "keys  shop field rate",
        "keys shop.scopes[0] value rank",
        "search   field vary",
        "replay's policy  kind trained",
    } <= found
    assert len(found) > 100


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"name": "home", "exploration": "lints"}, "{kind: ...}"),
        ({"name": "home", "exploration": {"epsilon": 0.1}}, "'kind' is missing: there are"),
        ({"name": "home", "exploration": {"kind": 5}}, "5 is no choice: there are"),
        ({"name": "home", "kind": None}, "None is no choice: there are"),
        ({"name": "home", "exploration": {"kind": "thompson"}}, "lints"),
        (
            {"name": "home", "learner": {"kind": "ridge", "interactions": [["a", 5]]}},
            "Expected `str`",
        ),
    ],
)
def test_other_mistakes_say_what_there_is_to_choose_from_too(raw: Any, says: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        as_type(raw, PolicySpec)
    assert says in caught.value.message


def test_of_a_mapping_the_entry_at_fault_is_named() -> None:
    good = {"hash": "0" * 64, "scopes": ["rank"]}
    with pytest.raises(InvalidFieldError) as caught:
        as_type({"first": good, "shop": {**good, "rate": 0}, "third": good}, dict[KeyId, Key])
    assert caught.value.target == "shop.rate"
    with pytest.raises(InvalidFieldError) as caught:
        as_type({"spec": "s", "vary": {"floor": {}, "limit": 5}}, SearchSpace)
    assert caught.value.target == "vary.limit"


@pytest.mark.parametrize("hide", [-20_000, "much", None, {"wight": 3}, {"aggregation": "mean"}])
def test_an_entry_at_fault_is_named_where_another_field_names_entries_too(hide: Any) -> None:
    """To look at each alone leaves entries out that the other field asks for."""
    raw = {
        "name": "home",
        "profile": {},
        "signals": {"click": 1, "hide": hide, "buy": 2},
        "repeat": {"buy": "never"},
    }
    with pytest.raises(InvalidFieldError) as caught:
        as_type(raw, PolicySpec)
    assert caught.value.target.startswith("signals.hide")


def test_nothing_to_choose_from_is_said() -> None:
    assert choices("x", []) == "there are none"
    assert choices("aa", ["a"]) == "did you mean a? there is a"


@pytest.mark.parametrize(
    "text",
    [
        "{a: 1, a: 2}",
        "x: {b: 1, c: 2, b: 1}",
        "'a': 1\na: 2",
        "- {a: 1}\n- {a: 1, a: 1}",
        "[",
        "a: !!x y",
        "\0",
    ],
)
def test_what_is_not_yaml_or_says_something_twice_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidFieldError, match="not YAML") as caught:
        parse_yaml(text)
    assert "\n" not in caught.value.message


def test_what_is_yaml_is_taken() -> None:
    assert parse_yaml("a: &x {b: 1, '1': 2, 1: 3}\nc: {<<: *x, b: 2}") == {
        "a": {"b": 1, "1": 2, 1: 3},
        "c": {"b": 2, "1": 2, 1: 3},
    }
    assert parse_yaml("") is None


def test_a_power_of_ten_is_a_number_and_the_name_of_an_entry_is_a_text() -> None:
    """What JSON takes for a number is one, as ``1e-3`` is that people write for small ones."""
    numbers = "[1e-3, -2E+5, .5e1, 1.e2, 1.5e3, 1.0e-3, '1e3', 1e, e3, 1e3x, 12]"
    assert parse_yaml(numbers) == [
        *(0.001, -2e5, 5.0, 100.0, 1500.0, 0.001),
        *("1e3", "1e", "e3", "1e3x", 12),
    ]
    assert parse_yaml("{1e3: 1e3, 2: x}") == {"1e3": 1000.0, 2: "x"}


def test_a_text_that_reads_like_a_number_is_written_in_quotation_marks() -> None:
    said = {"1e5": ["12e4", "7", "-1e-3", "drück"], "rate": 1e-5, "big": 1e30}
    assert parse_yaml(encode_yaml(said)) == said


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("reader", "text", "says"),
    [
        (
            load_spec,
            "name: home\nexploration: {kind: thompson}",
            ["lints", "linucb", "exploration.kind"],
        ),
        (load_spec, "name: home\nartefact: x", ["did you mean artifact?", "holdout"]),
        (load_spec, "name: home\nfloor: 0.1\nfloor: 0.2", ["floor stands twice"]),
        (
            load_spec,
            "name: home\nlearner: {kind: ridge, interactions: [[contxt, item]]}",
            ["did you mean context?"],
        ),
        (
            load_spec,
            "name: home\nholdout: {fraction: 0.1, policy: unifrm}",
            ["did you mean uniform?"],
        ),
        (load_space, "spec: {name: home, flor: 1}\nvary: {}", ["did you mean floor?", "spec"]),
        (
            load_space,
            "spec: {name: home}\nvary: {floor: {unifrm: [0, 1]}}",
            ["did you mean uniform?", "loguniform"],
        ),
        (load_space, "spec: {name: home}\nvarry: {}", ["did you mean vary?", "halving"]),
        (
            read_keys,
            "shop: {hash: '" + "0" * 64 + "', scope: [rank]}",
            ["shop: ", "did you mean scopes?"],
        ),
        (
            read_keys,
            "shop: {hash: '" + "0" * 64 + "', scopes: [ranks]}",
            ["shop.scopes[0]", "did you mean rank?"],
        ),
        (parse_policy, "{kind: tabel, path: x}", ["did you mean table?", "logging"]),
        (parse_policy, "{kind: vw, arg: x}", ["did you mean args?"]),
        (target_named, "{kind: softmx}", ["did you mean softmax?", "best"]),
        (csv_columns, "{rewrd: x}", ["did you mean reward?", "propensity"]),
    ],
)
def test_every_reader_of_a_file_says_it(
    tmp_path: Path, reader: Callable[[Any], Any], text: str, says: list[str]
) -> None:
    takes_text = reader in (parse_policy, target_named, csv_columns)
    with pytest.raises(BanditloopError) as caught:
        reader(text if takes_text else written(tmp_path, text))
    for each in says:
        assert each in str(caught.value)


def test_a_path_that_a_search_varies_and_no_spec_has_is_told_with_those_there_are(
    tmp_path: Path,
) -> None:
    from simulator.replay.search_space import specs_of  # noqa: PLC0415

    for path, right in [("learner.l3", "l2"), ("flor", "floor"), ("lerner.l2", "learner")]:
        space, base = load_space(
            written(tmp_path, f"spec: {{name: home}}\nvary: {{{path}: {{choice: [1]}}}}")
        )
        with pytest.raises(BanditloopError, match=f"did you mean {right}?"):
            specs_of(space, base, seed=0)


@pytest.mark.parametrize("where", ["nothing", "nothing/deeper"])
def test_an_artifact_that_is_not_there_is_told_by_its_key_and_how_it_is_made(
    tmp_path: Path, where: str
) -> None:
    with pytest.raises(
        ArtifactError, match=rf"artifact: .*{where}.*banditloop train --out "
    ) as caught:
        load_artifact(str(tmp_path / where))
    assert caught.value.target == "artifact"

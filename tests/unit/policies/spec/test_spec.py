"""The policy spec: strict, and named by its content."""

import contextlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.errors import SpecError
from bandits.exploration import EpsilonGreedy, LinTs, LinUcb
from bandits.log.join import JoinRule
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.spec import ArtifactSource, Holdout, PolicySpec, Prior, decode_spec, load_spec
from serve_app.admin.preflight import validate
from serve_app.settings import Settings

EXAMPLES = sorted(Path(__file__).parents[4].glob("examples/*.yaml"))


def load(tmp_path: Path, text: str) -> PolicySpec:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return load_spec(path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads_and_survives_its_blob(path):
    spec = load_spec(path)
    artifact = spec.artifact and Path(spec.artifact).name  # where it lies differs between machines
    assert decode_spec(spec.encoded) == msgspec.structs.replace(
        spec, artifact=artifact, profiles=None
    )
    assert decode_spec(spec.encoded).digest == spec.digest


def test_a_prior_is_said_to_count_or_to_be_none():
    """Specs of before there were priors keep their names."""
    bare = PolicySpec("home", artifact="shop")
    assert b"prior" not in bare.encoded
    assert bare.prior_strength is None

    for said, strength in ((Prior(2.0), 2.0), ("none", 0.0)):
        spec = msgspec.structs.replace(bare, prior=said)
        assert decode_spec(spec.encoded) == spec
        assert spec.digest != bare.digest
        assert spec.model_digest == bare.model_digest
        assert spec.prior_strength == strength
    assert bare.without_prior.prior == "none"
    assert PolicySpec("home").without_prior == PolicySpec("home")


def test_there_are_examples():
    assert {path.stem for path in EXAMPLES} >= {"home", "movielens"}


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        ("name: home\nprior: nothing", "prior", "none"),
        ("name: home\nartifact: a\nprior: {strength: 0}", "prior.strength", "0"),
        ("name: home\nprior: {strength: 2}", "prior", "leave prior out"),
        ("name: home\ncolour: red", "spec", "colour"),
        ("name: home\nlearner: {kind: ridge, l3: 1}", "learner", "l3"),
        ("name: home\njoin: {window: 5}", "join", "window"),
        ("name: home\nfloor: high", "floor", "float"),
        ("name: home\nfloor: 1.5", "floor", "1.0"),
        ("name: home\nlimit: 0", "limit", "1"),
        ("name: home\nlimit: 2.5", "limit", "int"),
        ("name: home\nkind: best", "kind", "best"),
        ("name: home\nuse: [items]", "use[0]", "items"),
        ("name: home\nlearner: {kind: forest}", "learner.kind", "forest"),
        ("name: home\nexploration: {kind: lints, draws: 0}", "exploration.draws", "1"),
        (
            "name: home\nexploration: {kind: lints, scale: [[9, 0.3], [9, 0.1]]}",
            "exploration.scale",
            "must rise",
        ),
        (
            "name: home\nexploration: {kind: lints, scale: [[0, 0.3], [9, 0]]}",
            "exploration.scale[1][1]",
            "0",
        ),
        ("name: home\nexploration: {kind: lints, scale: []}", "exploration.scale", "1"),
        ("name: home\nexploration: {kind: lints, scale: 0}", "exploration.scale", "0"),
        ("name: home\njoin: {window_s: 0}", "join.window_s", "0"),
        ("name: home\njoin: {window_s: .nan}", "join.window_s", "finite"),
        ("name: home\njoin: {default_reward: .inf}", "join.default_reward", "finite"),
        ("name: home\nlearner: {kind: ridge, l2: .inf}", "learner.l2", "finite"),
        (
            "name: home\nsources: [{kind: remote, name: r, url: u, timeout_ms: -.inf}]",
            "sources[0].timeout_ms",
            "finite",
        ),
        (
            "name: home\nlearner: {kind: ridge, interactions: [[contxt, features]]}",
            "learner.interactions",
            "contxt",
        ),
        ("floor: 0.1", "spec", "name"),
        ("", "spec", "null"),
        ("- name: home", "spec", "array"),
        ("name: home\nholdout: {fraction: 2}", "holdout.fraction", "1.0"),
        ("name: home\nholdout: {fraction: 0.1, policy: als}", "holdout.policy", "uniform"),
        ("name: home\nkind: mixture", "sources", "sources"),
        ("name: home\nsources: [{kind: artifact, name: als}]", "artifact", "banditloop train"),
        (
            (
                "name: home\nsources: [{kind: remote, name: r, url: u},"
                " {kind: remote, name: r, url: v}]"
            ),
            "sources",
            "name",
        ),
        ("name: home\nlearner: {kind: vw}", "exploration.kind", "lints"),
        ("name: home\nexploration: {kind: vw}", "exploration.kind", "vw"),
        (
            "name: home\nlearner: {kind: vw}\nexploration: {kind: linucb}",
            "exploration.kind",
            "linucb",
        ),
        ("name: home\nwithin: {kind: lints}", "within.kind", "lints"),
    ],
)
def test_what_is_wrong_with_a_spec_is_said_in_one_line_that_names_it(tmp_path, text, target, says):
    with pytest.raises(SpecError) as error:
        load(tmp_path, text)
    assert error.value.target == target
    assert says in error.value.message
    assert "policy.yaml" in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "Home", "''", "a b", "x" * 65, ".hidden", "'{home}'", '"home\\n"', "é"]
)
def test_a_name_that_could_not_be_part_of_a_key_a_path_and_a_url_is_refused(tmp_path, name):
    with pytest.raises(SpecError) as error:
        load(tmp_path, f"name: {name}")
    assert error.value.target == "name"


@pytest.mark.parametrize(
    "text",
    ["name: [", "name: home\n\tfloor: 1", "a: &x [*x]", "name: !!python/object:os.system {}"],
)
def test_what_is_not_plain_yaml_is_refused(tmp_path, text):
    with pytest.raises(SpecError) as error:
        load(tmp_path, text)
    assert "\n" not in error.value.message


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "policy.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(SpecError, match="not YAML"):
        load_spec(tmp_path / "policy.yaml")


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(SpecError, match=path.name):
            load_spec(path)


@settings(max_examples=50)
@given(st.binary(max_size=60))
def test_no_blob_crashes_the_decoder(data):
    with contextlib.suppress(SpecError):
        decode_spec(data)


def test_the_order_of_keys_does_not_matter(tmp_path):
    first = load(tmp_path, "name: home\nfloor: 0.1\njoin: {window_s: 5, aggregation: sum}")
    second = load(tmp_path, "join: {aggregation: sum, window_s: 5}\nfloor: 0.1\nname: home")
    assert first.digest == second.digest


def test_saying_a_default_does_not_matter(tmp_path):
    assert (
        load(tmp_path, "name: home").digest
        == load(tmp_path, "name: home\nfloor: 0.01\nkind: blend").digest
    )


BASE = PolicySpec("home", artifact="/somewhere")
KEEPS = {
    "name": {"name": "other"},
    "floor": {"floor": 0.5},
    "join": {"join": JoinRule(window_s=1)},
    "holdout": {"holdout": Holdout(0.1)},
    "limit": {"limit": 7},
    "sources": {"sources": [ArtifactSource("als")]},
    "the kind of exploration": {"exploration": EpsilonGreedy()},
    "LinUCB's alpha": {"exploration": LinUcb(alpha=3.0)},
    "LinTS's scale": {"exploration": LinTs(scale=3.0)},
}
CHANGES = {
    "the learner": {"learner": VwConfig(), "exploration": EpsilonGreedy()},
    "a hyperparameter": {"learner": RidgeConfig(l2=2.0)},
    "what the learner sees": {"use": ["context"]},
}


@pytest.mark.parametrize("changes", KEEPS.values(), ids=KEEPS.keys())
def test_a_change_that_the_learned_sums_do_not_depend_on_keeps_the_model(changes):
    changed = msgspec.structs.replace(BASE, **changes)
    assert changed.model_digest == BASE.model_digest
    assert changed.digest != BASE.digest


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_that_the_model_depends_on_starts_afresh(changes):
    assert msgspec.structs.replace(BASE, **changes).model_digest != BASE.model_digest


def test_a_mixture_learns_another_model_than_a_blend():
    blend = msgspec.structs.replace(BASE, sources=[ArtifactSource("als")])
    assert msgspec.structs.replace(blend, kind="mixture").model_digest != blend.model_digest


def test_the_artifact_is_relative_to_the_file(tmp_path):
    (tmp_path / "specs").mkdir()
    spec = load(tmp_path / "specs", "name: home\nartifact: ../artifacts/x")
    assert spec.artifact == str(tmp_path / "artifacts" / "x")
    assert load(tmp_path, "name: home\nartifact: /abs/x").artifact == "/abs/x"
    assert load(tmp_path, "name: home").artifact is None


BAD_NAMES = {
    "empty": "",
    "one up": "..",
    "up": "../home",
    "slash": "a/b",
    "backslash": "a\\b",
    "opens a tag": "a{b",
    "closes a tag": "home.0}:log{",
    "colon": "home:log",
    "dot": "home.1",
    "star": "*",
    "newline": "home\n",
    "newline inside": "home\nx",
    "NUL": "home\0",
    "space": "my home",
    "percent": "home%2f",
    "accent": "h\u00f4me",
    "digit of another script": "home\u0663",
    "full-width letter": "\uff48ome",
    "capital": "Home",
    "option": "-home",
    "long": "x" * 65,
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
def test_a_name_that_could_leave_its_keys_or_its_path_is_refused(tmp_path, name):
    """In a file, in a blob of the log, as a source, and made in Python."""
    with pytest.raises(SpecError, match="name"):
        load(tmp_path, json.dumps({"name": name}))
    with pytest.raises(SpecError):
        decode_spec(json.dumps({"name": name}).encode())
    with pytest.raises(SpecError, match="name"):
        load(
            tmp_path,
            json.dumps(
                {"name": "home", "sources": [{"kind": "remote", "name": name, "url": "http://x"}]}
            ),
        )
    with pytest.raises(SpecError):
        validate(Settings(archive="none"), [PolicySpec(name)])


@pytest.mark.parametrize("name", ["a", "0", "home-2_x", "x" * 64])
def test_other_names_are_fine(tmp_path, name):
    assert load(tmp_path, json.dumps({"name": name})).name == name
    validate(Settings(archive="none"), [PolicySpec(name)])

"""``banditloop migrate personalizer``: an exported loop becomes a policy that has learned."""

import json
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from vowpal_wabbit_next import DSJsonFormatParser, Workspace, run_cli_driver

from bandits.errors import BadRowError, SpecError
from bandits.types import ActionSet
from bandits.vw.learner import VwLearner, load_vw
from bandits.vw.payloads import decode_model
from policies.artifacts.learner_model import decode_trained
from policies.blend import load_policy
from policies.features import featurise
from policies.items.catalogue import Catalogue
from policies.spec import load_spec
from serve_app.cli.migrate import app
from serve_app.cli.migrate.exports import arguments_in_model, migrated, read_exports
from simulator.learners.trained import snapshot_of
from simulator.logs.exported.personalizer import parse_exported
from simulator.logs.exported.spaces import letters_here
from simulator.logs.text_records import TextRecord

SERVICE = {
    "rewardWaitTime": "PT20M",
    "defaultReward": 0.0,
    "rewardAggregation": "average",
    "explorationPercentage": 0.3,
    "modelExportFrequency": "PT5M",
    "logMirrorEnabled": False,
    "logRetentionDays": 90,
    "lastConfigurationEditDate": "2022-10-25T23:14:43",
    "learningMode": "Online",
    "isAutoOptimizationEnabled": True,
    "autoOptimizationFrequency": "P28D",
    "modelRetrainDays": 2,
}
POLICY = {
    "name": "917554355a3347a1af3d2935d521426a",
    "arguments": "--cb_explore_adf --epsilon 0.20000000298023224 --power_t 0 -l 0.001 -q ::",
}
IDS = ["news", "sport", "arts"]
BEST = {"phone": 1, "tablet": 2}


def line(number: int, rng: random.Random) -> dict[str, Any]:
    """A line as Personalizer's logs have it: bare features in FromUrl and j, an id in i."""
    device, chosen = rng.choice(list(BEST)), rng.randrange(3)
    reward = float(rng.random() < (0.8 if chosen == BEST[device] else 0.2))
    return {
        "_label_cost": -reward,
        "_label_probability": 1 / 3,
        "_label_Action": chosen + 1,
        "_labelIndex": chosen,
        "Timestamp": "2022-09-20T00:00:00.0000000Z",
        "EventId": f"e{number}",
        "a": [chosen + 1, *(k + 1 for k in range(3) if k != chosen)],
        "c": {
            "FromUrl": [{"device": device, "user": {"age": 30}}],
            "_multi": [
                {"_tag": f"t{k}", "i": {"constant": 1, "id": name}, "j": [{"topic": name}]}
                for k, name in enumerate(IDS)
            ],
        },
        "p": [1 / 3] * 3,
        "VWState": {"m": "model"},
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("exported"), random.Random(1)
    (folder / "service.json").write_text(json.dumps(SERVICE))
    (folder / "policy.json").write_text(json.dumps(POLICY))
    lines = [json.dumps(line(number, rng), separators=(",", ":")) for number in range(1500)]
    lines.append("[a heartbeat]")
    (folder / "log-1.json").write_text("\n".join(lines[:700]) + "\n")
    (folder / "log-2.json").write_text("\n".join(lines[700:]) + "\n")
    return folder


def run(*args: object) -> Any:
    return CliRunner().invoke(app, ["personalizer", *map(str, args)])


def test_a_loop_becomes_a_spec_and_a_model_that_knows_its_logs(exported: Path, tmp_path: Path):
    """The model scores a request of its clients as it was taught by the lines of the export."""
    out = tmp_path / "out"
    result = run(
        *("--config", exported / "service.json", "--config", exported / "policy.json"),
        *("--logs", exported / "log-*.json", "--out", out, "--policy", "shop", "--skip-bad"),
    )
    assert result.exception is None, result.output
    said = " ".join(result.output.split())
    assert "cannot be carried over" in said
    assert "isAutoOptimizationEnabled" in said

    spec = load_spec(out / "policy.yaml")
    assert (spec.name, spec.join.window_s, spec.join.aggregation) == ("shop", 1200.0, "average")
    assert spec.exploration.epsilon == 0.3
    model = decode_trained((out / "model").read_bytes())
    assert model.learned == 1500
    assert model.spec().model_digest == spec.model_digest

    policy = load_policy(spec, snapshot_of(model, salt=b"s"))
    for device, best in BEST.items():
        context = {"device": device, "user.age": 30.0}
        features = [{"topic": name} for name in IDS]
        asked, actions = featurise(spec, Catalogue(), context, IDS, features, {})
        assert isinstance(actions, ActionSet)
        pmf = policy.pmf(asked, actions)
        assert pmf.argmax() == best
        assert pmf[best] == pytest.approx(0.8)


def test_without_logs_there_is_a_spec_alone(exported: Path, tmp_path: Path):
    result = run("--config", exported / "service.json", "--out", tmp_path / "out")
    assert result.exception is None, result.output
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["policy.yaml"]
    assert load_spec(tmp_path / "out" / "policy.yaml").learner.args.endswith("-q ::")


def test_a_model_tells_its_policy_and_that_its_weights_stay_behind(exported: Path, tmp_path: Path):
    """Signed exports are a zip of the model and two others."""
    learner = VwLearner("--cb_explore_adf --epsilon 0.1 --power_t 0 -l 0.001 -q ::")
    model = decode_model(learner.checkpoint()).model
    assert arguments_in_model(b"no model") is None
    assert arguments_in_model(model).startswith("--cb_explore_adf --cb_type mtr --epsilon 0.1")
    with zipfile.ZipFile(tmp_path / "model.vw.zip", "w") as parts:
        parts.writestr("model.vw", model)
    result = run(
        *("--config", exported / "service.json", "--model", tmp_path / "model.vw.zip"),
        *("--out", tmp_path / "out"),
    )
    assert result.exception is None, result.output
    assert "model" in result.output
    assert "--logs" in result.output
    assert load_spec(tmp_path / "out" / "policy.yaml").personalizer.arguments in (
        arguments_in_model(model) or ""
    )


WORDS = "--cb_type mtr --power_t 0 -l 0.05 -q ::"
ARGUMENTS = f"--cb_explore_adf --epsilon 0.2 {WORDS}"


def rich(number: int, rng: random.Random) -> dict[str, Any]:
    """A line with namespaces, numbers, arrays, booleans, and texts with spaces."""
    made = line(number, rng)
    shared, actions = made["c"]["FromUrl"], made["c"]["_multi"]
    shared[0]["user"] |= {"plan": rng.choice(["free", "paid up"]), "new": rng.random() < 0.5}
    made["c"]["weather"] = {"wind": round(rng.random(), 3), "kind": rng.choice(["dry", "wet"])}
    for action in actions:
        action["j"].append({"price": round(rng.random(), 3), "live": True, "42": 0.5})
        action["taste"] = {"of": [round(rng.random(), 3), 0.5], "sort": "a:b c"}
    return made


def trained(folder: Path, kind: str) -> bytes:
    """What Vowpal Wabbit's driver makes of the lines, in the order in which they were logged."""
    words = [f"--{kind}", *WORDS.split(), "--dsjson", "-d", str(folder / "log.json")]
    run_cli_driver([*words, "-f", str(folder / kind)], onethread=True)
    return (folder / kind).read_bytes()


def scored(folder: Path, model: bytes, lines: list[str]) -> list[dict[int, float]]:
    """What Vowpal Wabbit says that each action of some lines costs."""
    workspace = Workspace(["--quiet"], model_data=model)
    parser = DSJsonFormatParser(workspace)
    return [dict(workspace.predict_one(parser.parse_json(each))) for each in lines]


def test_a_models_weights_are_carried_over_by_the_names_that_logs_give(tmp_path: Path):
    """What it scores here is what Vowpal Wabbit's own driver scores with it, of the same line."""
    rng = random.Random(7)
    lines = [json.dumps(rich(number, rng)) for number in range(120)]
    (tmp_path / "log.json").write_text("\n".join(lines) + "\n")
    model, plain = trained(tmp_path, "cb_explore_adf"), trained(tmp_path, "cb_adf")
    for name, content in (("service", SERVICE), ("policy", {**POLICY, "arguments": ARGUMENTS})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "model.vw").write_bytes(model)
    result = run(
        *("--config", tmp_path / "service.json", "--config", tmp_path / "policy.json"),
        *("--model", tmp_path / "model.vw", "--logs", tmp_path / "log.json"),
        *("--out", tmp_path / "out"),
    )
    assert result.exception is None, result.output
    said = " ".join(result.output.split())
    assert "under the names that" in said
    assert float(re.search(r"differ by (\S+) at most", said)[1]) < 1e-5

    made = decode_trained((tmp_path / "out" / "model").read_bytes())
    assert made.learned == 120
    spec = load_spec(tmp_path / "out" / "policy.yaml")
    assert made.spec().model_digest == spec.model_digest
    scorer = load_vw(snapshot_of(made, salt=b"s"))
    for text, theirs in zip(lines[:40], scored(tmp_path, plain, lines[:40]), strict=True):
        row, _ = parse_exported(TextRecord(tmp_path / "log.json", 0, [text.encode()]))
        asked, actions = featurise(spec, Catalogue(), row.context, row.action_ids, row.features, {})
        ours = scorer.scores(asked, actions)
        assert [-theirs[at] for at in range(3)] == pytest.approx(ours.tolist(), abs=1e-5)


def test_features_of_a_pages_slots_are_of_their_contexts():
    """As they are where such a page is asked for here."""
    page = line(1, random.Random(1))
    shared = {name: page[name] for name in ("EventId", "Timestamp", "c")}
    outcomes = [
        {"_label_cost": -1.0, "_a": [1, 0, 2], "_p": [0.4, 0.3, 0.3]},
        {"_label_cost": 0.0, "_a": [0, 2], "_p": [0.5, 0.5]},
    ]

    def rows(slots: Any) -> list[Any]:
        made = {**shared, "c": {**page["c"], "_slots": slots}, "_outcomes": outcomes}
        parsed = parse_exported(TextRecord(Path("log.json"), 0, [json.dumps(made).encode()]))
        return [row for row, _ in parsed]

    first, second = rows([{"Size": "L", "place": {"x": 2}}, {"j": [{"Size": "S"}]}])
    everywhere = {name: value for name, value in first.context.items() if "slot." not in name}
    assert first.context == {**everywhere, "slot.Size": "L", "slot.place.x": 2.0}
    assert second.context == {**everywhere, "slot.Size": "S"}
    assert (first.action_ids, second.action_ids) == (IDS, ["news", "arts"])
    assert [row.context for row in rows([])] == [everywhere, everywhere]
    with pytest.raises(BadRowError, match="_slots is the list"):
        rows([1, 2])


def test_crosses_are_of_what_stands_here_for_their_namespaces(tmp_path: Path):
    """Logs say which is of the context; without them such crosses are left out, and it is said."""
    rng = random.Random(7)
    lines = [json.dumps(rich(number, rng)) for number in range(60)]
    (tmp_path / "log.json").write_text("[a heartbeat]\n" + "\n".join(lines) + "\n")
    crosses = "--quadratic uj --quadratic wt -q Fi -q uF -q jw -q zj"
    policy = {**POLICY, "arguments": f"--cb_explore_adf --epsilon 0.2 {crosses} --ignore A"}
    (tmp_path / "service.json").write_text(json.dumps(SERVICE))
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    assert letters_here([tmp_path / "log.json"]) == {
        **dict.fromkeys("Fuw", "c"),
        **dict.fromkeys("jto", "f"),
        "i": "i",
    }
    given = ("--config", tmp_path / "service.json", "--config", tmp_path / "policy.json")
    result = run(*given, "--logs", tmp_path / "log.json", "--out", tmp_path / "out")
    assert result.exception is None, result.output
    learner = load_spec(tmp_path / "out" / "policy.yaml").learner
    assert learner.args == "--cb_explore_adf --quadratic cf --quadratic ci --quadratic cc"

    exports = read_exports(given[1::2], None)
    for letters, learned, left in (
        (letters_here([tmp_path / "log.json"]), learner.args, "zf"),
        (None, "--cb_explore_adf", "uj"),
    ):
        made = migrated("shop", exports, letters)
        assert made.spec.learner.args == learned
        assert f"not --quadratic {left}: no namespace here" in made.carried[0].here


def test_weights_whose_names_nothing_says_stay_behind_and_the_logs_are_learned(tmp_path: Path):
    """Where scores are no sums of weights, or no line is understood for certain."""
    rng = random.Random(3)
    odd = [line(number, rng) for number in range(50)]
    for each in odd:
        each["c"]["FromUrl"][0]["a.b"] = 1
    (tmp_path / "log.json").write_text("\n".join(map(json.dumps, odd)) + "\n")
    (tmp_path / "model.vw").write_bytes(trained(tmp_path, "cb_explore_adf"))
    (tmp_path / "service.json").write_text(json.dumps(SERVICE))
    result = run(
        *("--config", tmp_path / "service.json", "--model", tmp_path / "model.vw"),
        *("--logs", tmp_path / "log.json", "--out", tmp_path / "out"),
    )
    assert result.exception is None, result.output
    said = " ".join(result.output.split())
    assert "none has features that are understood for certain" in said
    assert decode_trained((tmp_path / "out" / "model").read_bytes()).learned == 50


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", "neither a service's configuration"),
        (json.dumps(POLICY), "none of the files is a service's configuration"),
        (json.dumps({**SERVICE, "rewardWaitTime": "soon"}), "rewardWaitTime"),
        (json.dumps({**SERVICE, "explorationPercentage": 20}), "explorationPercentage"),
    ],
)
def test_a_file_that_is_none_is_named_and_nothing_is_written(
    content: str, words: str, tmp_path: Path
):
    (tmp_path / "service.json").write_text(content)
    result = run("--config", tmp_path / "service.json", "--out", tmp_path / "out")
    assert isinstance(result.exception, SpecError)
    assert words in result.exception.message
    assert not (tmp_path / "out").exists()

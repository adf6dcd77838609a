"""``banditloop migrate personalizer``: an exported loop becomes a policy that has learned."""

import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bandits.errors import SpecError
from bandits.types import ActionSet
from bandits.vw.learner import VwLearner
from bandits.vw.payloads import decode_model
from policies.artifacts.learner_model import decode_trained
from policies.blend import load_policy
from policies.features import featurise
from policies.items.catalogue import Catalogue
from policies.spec import load_spec
from serve_app.cli.migrate import app
from serve_app.cli.migrate.exports import arguments_in_model
from simulator.learners.trained import snapshot_of

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

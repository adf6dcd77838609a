"""Training in another process: whatever becomes of it is told by a code of its own."""

import sys

import pytest
from support.refreshes import CATALOGUE, history

from bandits.errors import ArtifactError, TrainingDiedError, TrainingMemoryError
from policies.artifacts.fitted_with import changes_told
from simulator.refresh.trainer import TrainingRequest
from simulator.refresh.training import train_apart

REQUEST = TrainingRequest(["item_knn"])


def _with(code: str):
    return train_apart(
        REQUEST, history(), CATALOGUE, trainer=[sys.executable, "-c", f"import sys, os; {code}"]
    )


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("sys.exit(77)", TrainingMemoryError, "out of memory"),
        ("os.kill(os.getpid(), 9)", TrainingMemoryError, "out of memory"),
        ("os.kill(os.getpid(), 11)", TrainingDiedError, "by SIGSEGV"),
        ("sys.exit('a library is missing')", TrainingDiedError, "a library is missing"),
        ("print('no step')", TrainingDiedError, "status 0"),
    ],
)
def test_a_process_that_ends_without_an_artifact_is_an_error(code, kind, said):
    with pytest.raises(kind, match=said):
        _with(code)


@pytest.mark.parametrize(("further", "tries"), [(True, 3), (False, 1)])
def test_a_killed_process_is_begun_again_as_long_as_it_gets_further(tmp_path, further, tries):
    """Networks go on from their checkpoints; what gets no further would only die once more."""
    count = tmp_path / "tries"
    code = f"open({str(count)!r}, 'a').write('.');"
    if further:
        code += (
            "os.makedirs(sys.argv[1] + '/checkpoints', exist_ok=True);"
            "open(sys.argv[1] + '/checkpoints/net.safetensors', 'w').close();"
        )
    with pytest.raises(TrainingMemoryError):
        _with(code + "os.kill(os.getpid(), 9)")
    assert len(count.read_text()) == tries


def test_what_is_wrong_with_the_data_is_said():
    answer = '{"code": "invalid_artifact", "message": "no user has two items"}'
    with pytest.raises(ArtifactError, match="no user has two items"):
        _with(f"open(sys.argv[1] + '/answer.json', 'w').write('{answer}'); sys.exit(78)")


def test_steps_are_told():
    steps = []
    line = '{"source": "als", "done": 1, "total": 2}'
    with pytest.raises(TrainingDiedError):
        train_apart(
            REQUEST,
            history(),
            CATALOGUE,
            progress=lambda *step: steps.append(step),
            trainer=[sys.executable, "-c", f"print('noise'); print('{line}')"],
        )
    assert steps == [("als", 1, 2)]


@pytest.mark.slow
def test_what_sources_are_to_be_fitted_with_is_heeded():
    request = TrainingRequest(["item_knn"], changes={"item_knn": {"weighting": "cosine"}})
    made = train_apart(request, history(), CATALOGUE)
    assert made.sources["item_knn"].config["weighting"] == "cosine"
    assert changes_told(made) == request.changes

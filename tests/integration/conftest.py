import pytest

from serve_app.workers import learner


@pytest.fixture
def hurried_learner(monkeypatch) -> None:
    """No waiting for what does not come."""
    monkeypatch.setattr(learner, "BLOCK_MS", 5)
    monkeypatch.setattr(learner, "QUIET_MS", 5)
    monkeypatch.setattr(learner, "RETRY_S", 0.0)

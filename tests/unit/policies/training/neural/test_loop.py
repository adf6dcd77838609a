"""The course of a network's fit: the same bytes whatever interrupts it, and what stops it."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bandits.errors import ArtifactError
from policies.training.neural.checkpoints import FolderCheckpoints
from policies.training.neural.loop import (
    Fitted,
    LoopConfig,
    fit_network,
    own_random_numbers,
)
from policies.training.training_data import Course

CONFIG = LoopConfig(batch=16, epochs=6, patience=6, learning_rate=0.05)
ROWS = 50  # the last batch has two
COURSE = Course(seed=3)


class Line:
    """A network that finds weights, with dropout and noise of its own: chance of two kinds."""

    name = "line"

    def __init__(self, width: int = 4, fault: int = -1, qualities: tuple[float, ...] = ()) -> None:
        with own_random_numbers(1):
            self.module = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, 1))
            self.inputs = torch.randn(ROWS, width)
        self.truth = self.inputs @ torch.arange(width, dtype=torch.float32)
        self.fault = fault
        self.qualities = list(qualities)
        self.batches: list[list[int]] = []

    def loss(self, rows: Tensor) -> Tensor:
        if len(self.batches) == self.fault:
            return self.module(self.inputs[rows]).sum() * torch.nan
        self.batches.append(rows.tolist())
        noise = 0.01 * torch.randn(len(rows))
        return functional.mse_loss(
            self.module(self.inputs[rows]).squeeze(1), self.truth[rows] + noise
        )

    def quality(self) -> float:
        if self.qualities:
            return self.qualities.pop(0)
        return -float(functional.mse_loss(self.module(self.inputs).squeeze(1), self.truth))


def bytes_of(network: Line) -> bytes:
    return b"".join(value.numpy().tobytes() for value in network.module.state_dict().values())


class KilledError(Exception):
    """The fit was killed."""


def killed_after(steps: int):
    def step(done: int, _total: int) -> None:
        if done == steps:
            raise KilledError

    return step


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_caller_its_chance():
    """Another seed gives others; whoever calls draws what it would have drawn."""
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    first, second, third = Line(), Line(), Line()
    for network, seed in ((first, 3), (second, 3), (third, 4)):
        fit_network(network, ROWS, CONFIG, Course(seed=seed))
    assert bytes_of(first) == bytes_of(second) != bytes_of(third)
    assert torch.equal(torch.rand(3), expected)
    assert not first.module.training


def test_an_epoch_sees_each_row_once_in_an_order_of_its_own():
    network = Line()
    fit_network(network, ROWS, CONFIG, COURSE)
    epochs = [
        [row for batch in network.batches[n : n + 4] for row in batch]
        for n in range(0, len(network.batches), 4)
    ]
    assert [len(batch) for batch in network.batches[:4]] == [16, 16, 16, 2]
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == CONFIG.epochs


@pytest.mark.parametrize("patience", [6, 0])
@pytest.mark.parametrize("steps", [0, 18])
@pytest.mark.parametrize("killed_at", [2, 4, 5, 13, 18])
def test_a_fit_that_was_killed_goes_on_to_the_same_bytes(tmp_path, killed_at, steps, patience):
    """In the midst of an epoch, and behind its last step; also where the last epoch is cut."""
    config = replace(CONFIG, steps=steps, patience=patience)
    whole = Line()
    expected = fit_network(whole, ROWS, config, COURSE)

    course = replace(COURSE, checkpoints=FolderCheckpoints(tmp_path, every_s=0))
    with pytest.raises(KilledError):
        fit_network(Line(), ROWS, config, replace(course, step=killed_after(killed_at)))
    resumed = Line()
    told = list[tuple[int, int]]()
    step = lambda done, total: told.append((done, total))  # noqa: E731
    fitted = fit_network(resumed, ROWS, config, replace(course, step=step))

    assert bytes_of(resumed) == bytes_of(whole)
    assert fitted == expected or np.isnan(fitted.quality)
    # What was done is not done again.
    assert told[0][0] == (killed_at - 1) // 4 * 4 + 1
    assert told[-1] == (steps or 24, steps or 24)


def test_a_fit_that_had_ended_is_not_done_again(tmp_path):
    """A training killed in a later source finds this one as it was, though it stopped early."""
    course = replace(COURSE, checkpoints=FolderCheckpoints(tmp_path))
    config = replace(CONFIG, patience=2)
    first, again = Line(qualities=(0.1, 0.3, 0.2, 0.2)), Line(fault=0)
    assert fit_network(first, ROWS, config, course) == Fitted(4, 2, 0.3)
    assert fit_network(again, ROWS, config, course) == Fitted(4, 2, 0.3)
    assert bytes_of(again) == bytes_of(first)


def test_it_stops_early_with_what_was_best():
    """The parameters of the best epoch, not of the last; the bar is full all the same."""
    told = list[tuple[int, int]]()
    best, stopped = Line(), Line(qualities=(0.1, 0.3, 0.3, 0.2))
    fit_network(best, ROWS, replace(CONFIG, epochs=2, patience=0), COURSE)
    fitted = fit_network(
        stopped, ROWS, replace(CONFIG, patience=2), replace(COURSE, step=lambda *s: told.append(s))
    )
    assert fitted == Fitted(4, 2, 0.3)
    assert bytes_of(stopped) == bytes_of(best)
    assert told[-1] == (24, 24)


def test_without_patience_nobody_asks_and_the_last_is_kept():
    network = Line()
    network.quality = None  # it would fail
    fitted = fit_network(network, ROWS, replace(CONFIG, patience=0), COURSE)
    assert (fitted.epochs, fitted.best) == (6, 6)


def test_a_loss_that_is_no_number_names_its_batch_and_keeps_the_last_checkpoint(tmp_path):
    course = replace(COURSE, checkpoints=FolderCheckpoints(tmp_path, every_s=0))
    with pytest.raises(ArtifactError, match="line: the loss of batch 3 of 4 in epoch 2 is no num"):
        fit_network(Line(fault=6), ROWS, CONFIG, course)
    state = course.checkpoints.read("line")
    assert state["epoch"] == 1
    assert all(np.isfinite(value).all() for value in state.values())

    # With the fault mended the fit goes on to where it would have come.
    whole, mended = Line(), Line()
    fit_network(whole, ROWS, CONFIG, COURSE)
    fit_network(mended, ROWS, CONFIG, course)
    assert bytes_of(mended) == bytes_of(whole)


def test_parameters_that_are_no_numbers_are_never_kept(tmp_path):
    """The last step of an epoch may break them though its loss was a number."""
    course = replace(COURSE, checkpoints=FolderCheckpoints(tmp_path, every_s=0))
    network = Line()
    network.inputs[:] = 1e30
    network.loss = lambda rows: network.module(network.inputs[rows]).mean() * 1e9
    with pytest.raises(ArtifactError, match=r"line: a parameter after epoch 1 is no number"):
        fit_network(network, ROWS, replace(CONFIG, batch=ROWS), course)
    assert course.checkpoints.read("line") is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "damaged"),
        (lambda path: path.write_bytes(b"\x00" * 40), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: FolderCheckpoints(path.parent).write("line", {}), "another network's"),
    ],
)
def test_a_damaged_file_says_what_to_delete(tmp_path, damage, message):
    course = replace(COURSE, checkpoints=FolderCheckpoints(tmp_path))
    fit_network(Line(), ROWS, CONFIG, course)
    damage(tmp_path / "line.safetensors")
    with pytest.raises(ArtifactError, match=message) as caught:
        fit_network(Line(), ROWS, CONFIG, course)
    assert "delete it" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_checkpoint_of_other_sizes_is_refused(tmp_path):
    course = replace(COURSE, checkpoints=FolderCheckpoints(tmp_path))
    fit_network(Line(width=4), ROWS, CONFIG, course)
    with pytest.raises(ArtifactError, match="another network's"):
        fit_network(Line(width=5), ROWS, CONFIG, course)


def test_a_checkpoint_is_due_after_a_while(tmp_path):
    """Short epochs are not slowed down; the last one is always written."""
    checkpoints = FolderCheckpoints(tmp_path, every_s=1000)
    course = replace(COURSE, checkpoints=checkpoints)
    with pytest.raises(KilledError):
        fit_network(Line(), ROWS, CONFIG, replace(course, step=killed_after(17)))
    assert checkpoints.read("line")["epoch"] == 1
    fit_network(Line(), ROWS, CONFIG, course)
    assert checkpoints.read("line")["epoch"] == CONFIG.epochs
    assert [path.name for path in tmp_path.iterdir()] == ["line.safetensors"]


class Threads:
    """A team in threads of this process: it adds what all of them brought."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.all = threading.Barrier(size, timeout=20)
        self.brought: list[list[Tensor]] = [[] for _ in range(size)]
        self.said = 0.0

    def member(self, rank: int) -> "Member":
        return Member(self, rank)


class Member:
    """One of the threads."""

    def __init__(self, team: Threads, rank: int) -> None:
        self.team, self.rank, self.size = team, rank, team.size

    def average(self, module: nn.Module, loss: Tensor) -> Tensor:
        brought = [parameter.grad for parameter in module.parameters()] + [loss.detach()]
        self.team.brought[self.rank] = [value.clone() for value in brought]
        self.team.all.wait()
        for place, value in enumerate(brought):
            value.copy_(torch.stack([theirs[place] for theirs in self.team.brought]).mean(dim=0))
        self.team.all.wait()
        return brought[-1]

    def agreed(self, value: float) -> float:
        if self.rank == 0:
            self.team.said = value
        self.team.all.wait()
        return self.team.said


class Plain(Line):
    """The same without chance, so that what a team finds can be compared."""

    def __init__(self, fault: int = -1) -> None:
        super().__init__(fault=fault)
        self.module = nn.Sequential(self.module[1])

    def loss(self, rows: Tensor) -> Tensor:
        if len(self.batches) == self.fault:
            return super().loss(rows)
        self.batches.append(rows.tolist())
        return functional.mse_loss(self.module(self.inputs[rows]).squeeze(1), self.truth[rows])


def fit_together(networks: list[Plain], config: LoopConfig, course: Course) -> list[object]:
    """Fit copies of a network in threads; return what came of each."""
    team, outcomes = Threads(len(networks)), list[object](networks)

    def fit(rank: int) -> None:
        try:
            mine = replace(course, team=team.member(rank))
            outcomes[rank] = fit_network(networks[rank], ROWS, config, mine)
        except ArtifactError as error:
            outcomes[rank] = error.message

    # Random numbers and threads of torch are the process's own.
    threads = [threading.Thread(target=fit, args=(rank,)) for rank in range(len(networks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return outcomes


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("batch", [16, 7, 49])
def test_a_team_finds_what_one_finds(size, batch, tmp_path):
    """Parts of unequal sizes, and a last batch that is too small for all, count what they are."""
    config = replace(CONFIG, batch=batch)
    alone, course = Plain(), replace(COURSE, checkpoints=FolderCheckpoints(tmp_path))
    expected = fit_network(alone, ROWS, config, COURSE)
    team = [Plain() for _ in range(size)]
    outcomes = fit_together(team, config, course)

    assert len({bytes_of(network) for network in team}) == 1
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].quality == pytest.approx(expected.quality, rel=1e-4)
    for mine, theirs in zip(alone.module.parameters(), team[0].module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_all_of_a_team_stop_where_one_loss_is_no_number():
    """None of them waits for one that has gone."""
    outcomes = fit_together([Plain(), Plain(fault=5)], CONFIG, COURSE)
    assert len(set(outcomes)) == 1
    assert "the loss of batch 2 of 4 in epoch 2" in outcomes[0]

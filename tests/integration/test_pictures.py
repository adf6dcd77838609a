"""The way from pictures to candidates: a network that is trained here, a column, a source."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from policies.items.catalogue import Catalogue
from policies.items.offering import Offering
from policies.sources import load_sources
from policies.sources.base import OfferingFollower, SourceRequest
from policies.training.train import run_training
from simulator.imports import import_data

SCRIPT = Path(__file__).parents[2] / "examples" / "pictures.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.slow
def test_new_items_are_proposed_by_what_their_pictures_show(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    assert run("draw", str(shop)).returncode == 0
    (shop / "pictures" / "i000.png").unlink()
    encoded = run("encode", str(shop))
    assert encoded.returncode == 0, encoded.stderr
    assert encoded.stdout.startswith("199 items")

    data = import_data(
        tmp_path / "data", [str(shop / "events.csv")], items=[str(shop / "items.csv")]
    )
    items = data.items()
    made = run_training(data.coded(), items, sources=["content"], seed=0)
    [source] = load_sources(made.artifact).values()
    assert isinstance(source, OfferingFollower)
    source = source.over(Offering(Catalogue.of(items)))

    # Items are drawn 40 of a shape, one shape after the other.
    known, hits, proposed = made.artifact.items, 0, 0
    for shape in range(5):
        history = [item for item in known if int(item[1:]) // 40 == shape][:6]
        found = source.propose(SourceRequest(history=tuple(history)), 200)
        new = [item for item in found.ids if item not in known][:4]
        hits += sum(int(item[1:]) // 40 == shape for item in new)
        proposed += len(new)
    assert proposed >= 15
    assert hits >= 0.7 * proposed  # by chance: a fifth


@pytest.mark.parametrize("damaged", ["file", "categories"])
def test_what_is_no_shop_of_pictures_is_refused_in_one_line(tmp_path: Path, damaged: str) -> None:
    assert run("draw", str(tmp_path)).returncode == 0
    if damaged == "file":
        (tmp_path / "pictures" / "i001.png").write_bytes(b"no picture")
    else:
        with (tmp_path / "items.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["item", "category"], ["i001", "disc"]])
    found = run("encode", str(tmp_path))
    assert found.returncode == 1
    assert len(found.stderr.splitlines()) == 1
    assert ("i001.png" if damaged == "file" else "two categories") in found.stderr

"""Vectors of pictures, made by a small network that is trained here, as a column of items.csv.

    python examples/pictures.py draw shop      pictures, items.csv and events.csv to try it on
    python examples/pictures.py encode shop    adds the column `picture` to shop/items.csv
    banditloop train --events shop/events.csv --items shop/items.csv --out artifacts/shop

`encode` reads DIR/pictures/ITEM.png of each item of DIR/items.csv, and teaches a network of three
convolutions to tell the items' categories; the numbers before its last layer are the vector. An
item without a picture has no vector, and one without a category is not learned from, but gets its
vector all the same. It takes torch and Pillow (pip install pillow). A network that has seen
millions of photographs makes better vectors of photographs: any program that writes such a column
will do.
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

PIXELS, SIZE = 16, 32
EPOCHS, BATCH = 30, 64
COLUMN = "picture"
SHAPES, EACH, USERS, LENGTH = ("disc", "ring", "cross", "bars", "frame"), 40, 200, 8


class Encoder(nn.Module):  # type: ignore[misc]
    """Three convolutions, and a vector; the last layer tells the category."""

    def __init__(self, categories: int) -> None:
        super().__init__()
        self.seen = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(256, SIZE)),
        )
        self.told = nn.Linear(SIZE, categories)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the logits of categories, float32[n, categories]."""
        logits: torch.Tensor = self.told(functional.relu(self.seen(pictures)))
        return logits


def read_picture(path: Path) -> np.ndarray[Any, Any] | None:
    """Return a picture, float32[3, PIXELS, PIXELS] from -1 to 1; None if there is none.

    Raises:
        SystemExit: the file is no picture.
    """
    if not path.exists():
        return None
    try:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((PIXELS, PIXELS))
    except OSError as error:
        sys.exit(f"{path} is no picture that can be read: {error}")
    return np.asarray(small, np.float32).transpose(2, 0, 1) / 127.5 - 1.0


def train_encoder(pictures: torch.Tensor, labels: torch.Tensor, *, seed: int = 0) -> Encoder:
    """Return a network that tells the categories of pictures.

    Args:
        pictures: float32[n, 3, PIXELS, PIXELS].
        labels: int64[n].
        seed: of its first parameters, of batches, and of how pictures are moved.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    encoder = Encoder(int(labels.max()) + 1)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels)).split(BATCH):
            # What is shown does not depend on where it is.
            moved = torch.roll(pictures[rows], tuple(torch.randint(-2, 3, (2,)).tolist()), (2, 3))
            loss = functional.cross_entropy(encoder(moved), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    encoder.eval()
    return encoder


def encode(folder: Path) -> int:
    """Write the column of vectors; return how many items have one.

    Raises:
        SystemExit: there are no two categories with pictures.
    """
    with (folder / "items.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = [read_picture(folder / "pictures" / f"{row['item']}.png") for row in rows]
    of_items = {at: picture for at, picture in enumerate(found) if picture is not None}
    shown = list(of_items)
    categories = sorted({rows[at].get("category", "") for at in shown} - {""})
    if len(categories) < 2:
        sys.exit(f"{folder}: it takes pictures of items of two categories: see the column category")

    pictures = torch.from_numpy(np.stack(list(of_items.values())))
    taught = [place for place, at in enumerate(shown) if rows[at].get("category")]
    labels = [categories.index(rows[shown[place]]["category"]) for place in taught]
    encoder = train_encoder(pictures[taught], torch.tensor(labels))
    with torch.no_grad():
        vectors = functional.normalize(encoder.seen(pictures))
    for row in rows:
        row[COLUMN] = ""
    for at, vector in zip(shown, vectors.tolist(), strict=True):
        rows[at][COLUMN] = json.dumps([round(number, 4) for number in vector])
    _write(folder / "items.csv", rows)
    return len(shown)


def draw(folder: Path, *, seed: int = 0) -> None:
    """Draw a shop: pictures of shapes in any colour and place, and users who like one shape each.

    A fifth of the items have no events and no category: only their pictures say what they are.
    """
    rng = np.random.default_rng(seed)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    kinds = np.repeat(np.arange(len(SHAPES)), EACH)
    new = rng.random(len(kinds)) < 0.2
    ids = [f"i{at:03}" for at in range(len(kinds))]
    for item_id, kind in zip(ids, kinds.tolist(), strict=True):
        Image.fromarray(_drawn(SHAPES[kind], rng)).save(folder / "pictures" / f"{item_id}.png")

    known = ["" if new[at] else SHAPES[kind] for at, kind in enumerate(kinds.tolist())]
    _write(
        folder / "items.csv",
        [{"item": item, "category": category} for item, category in zip(ids, known, strict=True)],
    )
    events = []
    for user in range(USERS):
        liked = np.flatnonzero((kinds == user % len(SHAPES)) & ~new)
        for step, at in enumerate(rng.choice(liked, LENGTH, replace=False).tolist()):
            time = f"2026-01-{1 + step:02}T{user % 24:02}:00:00Z"
            events.append({"time": time, "user": f"u{user}", "item": ids[at], "type": "click"})
    _write(folder / "events.csv", sorted(events, key=lambda event: event["time"]))


def _drawn(shape: str, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return a picture of a shape, uint8[PIXELS, PIXELS, 3]."""
    across, down = np.meshgrid(np.arange(PIXELS) - 7.5, np.arange(PIXELS) - 7.5)
    across, down = across - rng.uniform(-2, 2), down - rng.uniform(-2, 2)
    radius, square = np.hypot(across, down), np.maximum(abs(across), abs(down))
    inside = {
        "disc": radius < 5,
        "ring": abs(radius - 4) < 1.2,
        "cross": (np.minimum(abs(across), abs(down)) < 1.2) & (square < 6),
        "bars": (across.astype(np.int64) % 3 == 0) & (square < 6),
        "frame": abs(square - 4) < 1.2,
    }[shape]
    colour, ground = rng.uniform(120, 255, 3), rng.uniform(0, 90, 3)
    picture = np.where(inside[:, :, None], colour, ground) + rng.normal(0, 12, (PIXELS, PIXELS, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Draw a shop, or encode its pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["draw", "encode"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "draw":
        draw(arguments.folder)
        print(f"{len(SHAPES) * EACH} pictures, items.csv and events.csv in {arguments.folder}")
    else:
        print(f"{encode(arguments.folder)} items of {arguments.folder}/items.csv have a vector")


if __name__ == "__main__":
    main()

"""Tables that the tests of logs share: CSVs, and campaigns of the Open Bandit Dataset."""

import csv
from pathlib import Path

from simulator.logs.csv_columns import CsvColumns

COLUMNS = CsvColumns(
    reward="click", propensity="p", event_id="id", action="shown", actions="of", context=["x"]
)
BARE = CsvColumns(reward="click", propensity="p", action="shown", actions="of", context=["x"])


def written(path: Path, rows, header="id,x,shown,of,p,click") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


def log_of(path: Path, cells) -> Path:
    return written(
        path, [(f"e{number}", cell, "a", "a|b", 0.5, 1) for number, cell in enumerate(cells)]
    )


def campaign(folder: Path, features, index=("0", "1"), affinity="0.5") -> Path:
    folder.mkdir()
    written(
        folder / "item_context.csv",
        [(number, number, feature) for number, feature in enumerate(features)],
        ",item_id,item_feature_1",
    )
    names = ",".join(f"user-item_affinity_{number}" for number in range(len(features)))
    rows = [
        (at, "2019-11-24 00:00:00", 0, 1, 1, 0.5, "1e5", *[affinity] * len(features))
        for at in index
    ]
    written(
        folder / f"{folder.name}.csv",
        rows,
        f",timestamp,item_id,position,click,propensity_score,user_feature_0,{names}",
    )
    return folder

#!/usr/bin/env bash
# recbole 1.2.1: sequences are ordered by timestamps in float32, in which the seconds of today are 128 s apart.
#
# `timestamp:float`, as every data set of the library has it, becomes a float32 tensor before users' events are sorted by
# it. 1,700,000,000 s is stored to a multiple of 128 s, so events of one user within about two minutes tie, and stay in the
# order of the file. With milliseconds it is 131,072 ms. Nothing is said, and order=TO promises the order of time. A session
# of clicks, whose order is all that GRU4Rec or SASRec learn from, is shuffled unless the file happens to be sorted. In the
# library's own example ml-100k, which is not, every fourth step between events of different times goes back in time.
# What to do instead: sort the file, or write the rank of the event as its timestamp.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
pip=("$work/env/bin/pip" install -q --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 numpy==1.26.4 pandas==2.3.3 scipy==1.17.1 scikit-learn==1.9.1 colorlog==4.7.2 \
  colorama==0.4.4 tabulate texttable psutil plotly tensorboard thop tqdm PyYAML
"${pip[@]}" --no-deps recbole==1.2.1  # it asks for an old ray, which is not needed here

cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import sys
from pathlib import Path

import recbole
from recbole.config import Config
from recbole.data import create_dataset

sys.argv = sys.argv[:1]


def built(name, folder, columns, split):
    config = Config(
        model="GRU4Rec",
        dataset=name,
        config_dict={
            "data_path": folder,
            "load_col": {"inter": columns},
            "eval_args": {"split": split, "order": "TO", "group_by": "user"},
            "train_neg_sample_args": None,
            "use_gpu": False,
        },
    )
    dataset = create_dataset(config)
    return dataset, dataset.build()[0].inter_feat


# One user: three events, an hour and a minute apart, the last two not in order in the file.
Path("three").mkdir()
Path("three/three.inter").write_text(
    "user_id:token\titem_id:token\ttimestamp:float\n"
    "u\tlast\t1700000060\nu\tmiddle\t1700000000\nu\tfirst\t1699996400\n"
)
columns = ["user_id", "item_id", "timestamp"]
three, rows = built("three", str(Path.cwd()), columns, {"RS": [1, 0, 0]})
print("timestamps:", rows["timestamp"].dtype, [int(time) for time in rows["timestamp"]])
ordered = ["first", *(three.id2token("item_id", int(item)) for item in rows["item_id"])]
print("the sequence:", ordered)
assert ordered == ["first", "last", "middle"], "it is in order"

# The example that the library ships: the same times, and beside them as text, which stays exact.
source = Path(recbole.__file__).parent / "dataset_example" / "ml-100k" / "ml-100k.inter"
Path("example").mkdir()
with source.open() as lines, open("example/example.inter", "w") as out:
    next(lines)
    out.write("user_id:token\titem_id:token\ttimestamp:float\texact:token\n")
    for line in lines:
        user, item, _, time = line.rstrip("\n").split("\t")
        out.write(f"{user}\t{item}\t{time}\t{time}\n")
example, rows = built("example", str(Path.cwd()), [*columns, "exact"], {"RS": [1, 0, 0]})
users = rows["user_id"].tolist()
times = [int(example.id2token("exact", code)) for code in rows["exact"].tolist()]
steps = [
    later - earlier
    for earlier, later, one, other in zip(times, times[1:], users, users[1:])
    if one == other
]
back = sum(step < 0 for step in steps)
forward = sum(step > 0 for step in steps)
print(f"ml-100k: of {back + forward:,} steps between different times, {back:,} go back in time")
assert back > 0.1 * (back + forward)
PY
echo "as described"

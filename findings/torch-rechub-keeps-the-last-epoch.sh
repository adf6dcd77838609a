#!/usr/bin/env bash
# torch-rechub 0.9.0: a fit that ends with its last epoch keeps that epoch's weights, not the best ones on held-out data.
#
# `CTRTrainer.fit(train, val)` judges each epoch on `val`, keeps a copy of the best weights, and says of `model_path`:
# "Note only save the best weight in the validation data". It goes back to the best ones only where patience ran out. With
# the defaults (10 epochs, a patience of 10) that cannot happen: after `fit`, the model and model.pth are those of the last
# epoch, however much worse. The trainers of matching, of several tasks and of sequences read the same.
# What to do instead: `model.load_state_dict(trainer.early_stopper.best_weights)` after `fit`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check torch-rechub==0.9.0 torch==2.13.0 numpy==1.26.4 \
  pandas==2.3.3 scikit-learn==1.9.1 tqdm

cd "$work"
"$work/env/bin/python" - 2> log <<'PY' || { cat log; exit 1; }
import contextlib
import io

import torch
from torch.utils.data import DataLoader
from torch_rechub.trainers import CTRTrainer


class Slope(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(-1.0))

    def forward(self, x):
        return torch.sigmoid(self.slope * x["x"])


x = torch.tensor([-2.0, -1.0, 1.0, 2.0])
train = DataLoader([({"x": value}, float(value > 0)) for value in x], batch_size=4)
held_out = DataLoader([({"x": value}, float(value < 0)) for value in x], batch_size=4)


def fitted(**patience):
    """The best AUC that was seen, that of the model after fit, and that of model.pth."""
    # The two pull apart, so that every epoch is worse on what is held out than the one before.
    trainer = CTRTrainer(Slope(), optimizer_params={"lr": 0.4}, model_path=".", **patience)
    saved = Slope()
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.fit(train, held_out)
        saved.load_state_dict(torch.load("model.pth"))
        found = trainer.evaluate(trainer.model, held_out), trainer.evaluate(saved, held_out)
    return trainer.early_stopper.best_auc, *found


print("best AUC, after fit, in model.pth; patience 2:", fitted(earlystop_patience=2))
print("the same with the defaults:", fitted())
assert fitted(earlystop_patience=2) == (1.0, 1.0, 1.0)
assert fitted() == (1.0, 0.0, 0.0)
PY
echo "as described"

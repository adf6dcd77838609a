#!/usr/bin/env bash
# Ray Train 2.60: TorchTrainer.fit() in the main thread takes over SIGINT, and does not give it back when it returns.
#
# From then on Ctrl-C in the process is answered by the handler of a training that is over: it asks the controller of that
# training to abort. While that actor lives, nothing else happens, and the program goes on; when it is dead, the process ends
# by sys.exit(0), as if all had gone well. A KeyboardInterrupt never comes, nor while a fit runs.
# What to do instead: call fit() in a thread. Then Ray Train registers nothing, and the main thread, which waits for it, gets
# its KeyboardInterrupt. Or keep signal.getsignal(SIGINT) and set it again behind fit().
set -euo pipefail
where=$(mktemp -d)
trap 'rm -rf "$where"' EXIT
python3 -m venv "$where/venv"
"$where/venv/bin/pip" install -q --disable-pip-version-check "ray[train]==2.60.0" torch==2.13.0
"$where/venv/bin/python" - <<'PYTHON'
import os
import signal
import tempfile

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
before = signal.getsignal(signal.SIGINT)
with tempfile.TemporaryDirectory() as folder:
    TorchTrainer(
        lambda: None,
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(storage_path=folder),
    ).fit()
after = signal.getsignal(signal.SIGINT)

try:
    os.kill(os.getpid(), signal.SIGINT)
    raised = None
except BaseException as error:
    raised = error
print(f"handler before: {before}\nhandler after: {after}\nCtrl-C raised: {raised!r}")
assert before is signal.default_int_handler
assert after is not before
assert raised is None or (isinstance(raised, SystemExit) and raised.code == 0)
PYTHON
echo "as described"

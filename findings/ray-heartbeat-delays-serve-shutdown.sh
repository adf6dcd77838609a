#!/usr/bin/env bash
# Ray 2.60.0: `serve.shutdown()` takes longer where workers look after themselves less often.
#
# RAY_core_worker_internal_heartbeat_ms says how often a worker process looks at its own affairs (1,000 by default); the
# name suggests nothing that anybody waits for, and actors that are killed, that leave, or of which nobody has a handle any
# more, are gone within 0.3 s whatever it is. But Serve's shutdown waits for the next one: with 8,000 the slowest of four stops
# of a service of two replicas took more than 6 s, where with 1,000 all took 2 to 3. Whoever raises it so that idle workers use
# less makes a stop slower, by as much as is left until the next look.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --disable-pip-version-check "ray[serve]==2.60.0"
cat >"$folder/stop.py" <<'PYTHON'
import logging
import sys
import time

import ray
from ray import serve

ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.1})
class Hello:
    def __call__(self, request: object) -> str:
        return "hello"


serve.run(Hello.bind())
time.sleep(float(sys.argv[1]))
began = time.monotonic()
serve.shutdown()
print(f"{time.monotonic() - began:.1f}")
ray.shutdown()
PYTHON
slowest() {
  for after in 1 3 5 7; do
    RAY_core_worker_internal_heartbeat_ms=$1 "$folder/env/bin/python" "$folder/stop.py" "$after" 2>/dev/null | tail -1
  done | sort -n | tail -1
}
usual=$(slowest 1000)
seldom=$(slowest 8000)
echo "the slowest of four serve.shutdown(): $usual s with a heartbeat of 1,000 ms, $seldom s with one of 8,000 ms"
"$folder/env/bin/python" -c "import sys; usual, seldom = map(float, sys.argv[1:]); assert seldom > usual + 2, 'it makes no difference any more'" "$usual" "$seldom"
echo "as described"

#!/usr/bin/env bash
# azure-ai-personalizer 1.0.0b1 with azure-core 1.41.0: a rank is sent up to four times, and a refused one, too.
#
# A rank without an event id is a POST that makes a new event each time it arrives. One would guess that a client does
# not repeat a POST by itself, and never one that was refused as wrong (400). This client repeats a rank three times
# after 500, 503 and 504, with the same body and the same x-ms-client-request-id; and after any status from 400 on that
# carries Retry-After, even 400: it sleeps as long as that header says, and sends the wrong request again. After 429
# without the header, and after a connection that was closed without an answer, it does not repeat.
# The older azure-cognitiveservices-personalizer 0.1.1 with urllib3 2 repeats a rank in none of these cases.
# What to do instead: a server sends Retry-After with 429 alone, and callers name the event's id, so that a repeated
# rank is the same event.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check azure-ai-personalizer==1.0.0b1 azure-core==1.41.0 \
    azure-cognitiveservices-personalizer==0.1.1 msrest==0.7.1 urllib3==2.8.0 requests==2.34.2

"$work/env/bin/python" - <<'EOF'
import http.server
import threading

from azure.ai.personalizer import PersonalizerClient
from azure.cognitiveservices.personalizer import PersonalizerClient as OlderClient
from azure.cognitiveservices.personalizer.models import RankableAction, RankRequest
from azure.core.credentials import AzureKeyCredential
from msrest.authentication import CognitiveServicesCredentials

CLOSED = 0
calls: list[tuple[bytes, str | None]] = []
answer: tuple[int, str | None] = (200, None)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        calls.append((body, self.headers["x-ms-client-request-id"]))
        status, wait = answer
        if status == CLOSED:
            self.close_connection = True
            return
        self.send_response(status)
        if wait is not None:
            self.send_header("Retry-After", wait)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
newer = PersonalizerClient(url, AzureKeyCredential("a key"))
older = OlderClient(url, CognitiveServicesCredentials("a key"))
ranks = {
    "1.0.0b1": lambda: newer.rank({"actions": [{"id": "a", "features": [{"x": 1}]}]}),
    "0.1.1": lambda: older.rank(RankRequest(actions=[RankableAction(id="a", features=[{"x": 1}])])),
}
seen = {}
for name, rank in ranks.items():
    for answer in ((503, None), (500, None), (429, None), (429, "0"), (400, None), (400, "0"), (CLOSED, None)):
        calls.clear()
        try:
            rank()
        except Exception as error:
            raised = type(error).__name__
        assert len(set(calls)) == 1  # the same body, the same request id
        seen[name, answer] = len(calls)
        print(f"{name}: {answer}: sent {len(calls)} times, then {raised}")
assert {answer: count for (name, answer), count in seen.items() if name == "1.0.0b1"} == {
    (503, None): 4, (500, None): 4, (429, None): 1, (429, "0"): 4, (400, None): 1, (400, "0"): 4, (CLOSED, None): 1,
}
assert {count for (name, _), count in seen.items() if name == "0.1.1"} == {1}
EOF
echo "as described"

"""Asks for what a browser asks for that opens page after page, and does nothing with the answers.

    python benchmarks/beside/visitor.py HOST PORT SECONDS        (pages as JSON on its standard input)

A page is a list of requests: a path, and whether it is for a part of a page. One is opened every so
many seconds, over one connection.
"""

import contextlib
import http.client
import json
import sys
import time

Pages = list[list[tuple[str, bool]]]


def visit(host: str, port: int, each_s: float, pages: Pages) -> None:
    """Open the pages in turn, for ever."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    while True:
        for requests in pages:
            due = time.monotonic() + each_s
            for path, is_part in requests:
                # Whoever was stopped for long finds the connection closed.
                with contextlib.suppress(http.client.HTTPException, OSError):
                    headers = {"hx-request": "true"} if is_part else {}
                    connection.request("GET", path, headers=headers)
                    connection.getresponse().read()
                    continue
                connection.close()
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    visit(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), json.load(sys.stdin))

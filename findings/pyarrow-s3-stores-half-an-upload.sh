#!/usr/bin/env bash
# pyarrow 26.0.1: leaving an S3 output stream by an exception stores the half that was written, under the final name.
#
# An object of S3 appears whole or not at all, and a multipart upload that is not completed leaves none. So one expects
# that `with fs.open_output_stream(path)` leaves no object behind when its block raises. Seen: leaving the block closes
# the stream, closing completes the upload, and the bytes written until then are a complete object: readers find a file
# cut short that no later step will repair. There is no abort() to call.
# What to do instead: upload under another name and move it, or hand over all bytes in one write.
# Tried against moto's S3 server on the loopback.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
server=
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check pyarrow==26.0.1 'moto[s3]==5.2.5' flask==3.1.3 flask-cors==6.0.5
port=$("$work/env/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/env/bin/python" -m moto.server --host 127.0.0.1 --port "$port" >/dev/null 2>&1 &
server=$!

PORT="$port" timeout 120 "$work/env/bin/python" - <<'PY'
import os
import time
import urllib.request

import pyarrow.fs as fs

address = f"127.0.0.1:{os.environ['PORT']}"
for _ in range(100):
    try:
        urllib.request.urlopen(f"http://{address}/moto-api/")
        break
    except OSError:
        time.sleep(0.2)

s3 = fs.S3FileSystem(
    access_key="x", secret_key="x", region="us-east-1", scheme="http", endpoint_override=address, allow_bucket_creation=True
)
s3.create_dir("bucket")
try:
    with s3.open_output_stream("bucket/ranges.bin") as file:
        file.write(b"a" * (12 << 20))
        raise RuntimeError("the writer fails before the rest is written")
except RuntimeError as error:
    print(f"raised: {error}")

info = s3.get_file_info("bucket/ranges.bin")
print(f"what is stored: {info.type}, {info.size} bytes")
assert info.type == fs.FileType.File and info.size == 12 << 20
PY
echo "as described"

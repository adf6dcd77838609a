#!/usr/bin/env bash
# msgspec 0.22.0: Meta(extra_json_schema=…) does not override what msgspec generates.
#
# The docstring of msgspec.Meta says that extra_json_schema is merged with the generated schema and overrides fields
# that conflict. Seen: fields that msgspec does not generate are added, but where both have a field the generated one
# wins, for scalars, lists and dicts alike. A published document keeps promising the type's own schema
# (an OpenAPI document then says less, or more, than the service takes).
# What to do instead: replace it in the finished schema.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check msgspec==0.22.0

"$work/env/bin/python" - <<'EOF'
from typing import Annotated

import msgspec
from msgspec import Meta

assert "overriding any conflicting" in " ".join(msgspec.Meta.__doc__.split())
tried = {
    "a map's values": (Annotated[dict[str, int], Meta(extra_json_schema={"additionalProperties": {"type": "string"}})],
                       {"type": "object", "additionalProperties": {"type": "integer"}}),
    "a list's items": (Annotated[list[int], Meta(extra_json_schema={"items": {"type": "string"}, "title": "added"})],
                       {"type": "array", "items": {"type": "integer"}, "title": "added"}),
    "a type": (Annotated[int, Meta(extra_json_schema={"type": "string", "format": "added"})],
               {"type": "integer", "format": "added"}),
    "a bound": (Annotated[int, Meta(ge=0, extra_json_schema={"minimum": 5})], {"type": "integer", "minimum": 0}),
}
for what, (annotated, seen) in tried.items():
    schema = msgspec.json.schema(annotated)
    print(f"{what}: {schema}")
    assert schema == seen, f"{what}: it was {seen}"
EOF
echo "as described"

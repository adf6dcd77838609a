"""Write the reference pages that follow from the code: make reference.

A page that is not current fails tests/unit/test_reference.py.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import msgspec
from bodies import MEANINGS
from commands import command_line, commands
from console_bodies import CONSOLE_MEANINGS
from describe import (
    body_text,
    documentation,
    heading_of,
    inner_structs,
    paragraphs,
    schema_default,
    schema_text,
    struct,
    structs_in,
    table,
    type_text,
)
from frozen_worlds import frozen_worlds
from preset_pages import presets
from pydantic_core import PydanticUndefined
from report_page import policy_report

import banditloop_client
import bandits
import policies
import simulator
from bandits import errors
from bandits.log.records import LogRecord
from policies.spec import PolicySpec
from serve_app.api.endpoints import ROUTES
from serve_app.api.openapi import openapi_document
from serve_app.api.statuses import STATUS
from serve_app.replica.scrape import ServiceCollector
from serve_app.settings import Settings

FOLDER = Path(__file__).parent
NOTE = "<!-- Written by docs/reference/generate.py (make reference): do not change this page. -->"
OTHER_CODES = {
    "overloaded": ("429", "More requests wait than the replicas may hold; HAProxy answers."),
    "unavailable": ("503", "No replica can answer; HAProxy answers."),
    "invalid_setting": ("", "A setting or an option has a value that it may not have."),
    "redis_failed": ("", "Redis does not answer a command, or refuses it."),
    "memory": ("", "There is not enough memory for what was asked."),
    "system": ("", "The operating system refuses: a file, a port, a permission."),
    "numbers": ("", "A computation failed; extreme numbers in the data are the usual cause."),
}
"""Codes that have no class: of HAProxy, and of the command line."""


def pages() -> dict[str, str]:
    """Return the text of every generated page by its file name."""
    made = {
        "policy-spec.md": policy_spec(),
        "settings.md": settings(),
        "command-line.md": command_line(),
        "http.md": http(),
        "errors.md": error_codes(),
        "metrics.md": all_metrics(),
        "log-records.md": log_records(),
        "python.md": python_names(),
        "frozen-worlds.md": frozen_worlds(),
        "presets.md": presets(),
        "report.md": policy_report(),
    }
    return {name: f"{NOTE}\n\n{text.rstrip()}\n" for name, text in made.items()}


def policy_spec() -> str:
    """Return the page of the fields of a policy's YAML file."""
    parts = [
        "# Policy spec",
        (
            "A policy is described by a YAML file: `banditloop serve policy.yaml`. Unknown keys"
            " are refused, and so are combinations that cannot work; the error names the field."
            " `examples/home.yaml` and `examples/movielens.yaml` are complete. Only `name` is"
            " required."
        ),
        _linked("\n\n".join(struct(PolicySpec, "A policy"))),
    ]

    # The kinds of a field, each under a heading that begins with the field's title.
    hints = get_type_hints(PolicySpec, include_extras=True)
    for title, field in {
        "Source": "sources",
        "Learner": "learner",
        "Exploration": "exploration",
    }.items():
        parts.append(f"## {title}s")
        for kind in structs_in(hints[field]):
            parts += struct(kind, f"{title}: {kind.__struct_config__.tag}", level=3)

    for field in PLAIN_FIELDS:
        for kind in structs_in(hints[field]):
            for each in (kind, *inner_structs(kind)):
                parts += struct(each, heading_of(each))
    return "\n\n".join(parts)


PLAIN_FIELDS = (
    *("join", "signals", "holdout", "prior", "refresh", "profile", "repeat"),
    *("filter", "boost", "quota", "exposure", "page", "placements", "personalizer"),
)
"""Fields of a policy that have fields of their own, and are of one kind."""
SECTIONS = {
    "sources": "source",
    "learner": "learner",
    "exploration": "exploration",
    "within": "exploration",
}
"""By field of a policy, how the anchors of its kinds begin."""


def _linked(page: str) -> str:
    """Return a page on which the kinds of a field, in its second column, lead to their sections."""
    lines = []
    for line in page.splitlines():
        cells = line.split(" | ")
        if section := SECTIONS.get(cells[0].strip("|` ")):
            cells[1] = re.sub(r"`\{kind: (\w+)\}`", rf"[\1](#{section}-\1)", cells[1])
        lines.append(" | ".join(cells))
    return "\n".join(lines)


def settings() -> str:
    """Return the page of the service's settings."""
    serve = commands()["banditloop serve"]
    flags = {option.name: option.opts[0] for option in serve.params if option.opts}
    prose, meanings = documentation(inspect.getdoc(Settings) or "", list(Settings.model_fields))

    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        rows.append(
            (
                f"`BANDITLOOP_{name.upper()}`",
                f"`{flags[name]}`" if name in flags else "",
                type_text(field.annotation, field.metadata),
                "" if default in {None, "", PydanticUndefined} else f"`{default}`",
                field.description or meanings.get(name, ""),
            )
        )
    return "\n\n".join(
        [
            "# Settings",
            (
                "A setting is an environment variable, or a flag of `banditloop serve` where it"
                " has one. `serve_config.yaml` sets the same names, in lower case, on a cluster."
            ),
            *prose,
            table(("variable", "flag", "type", "default", "meaning"), rows),
        ]
    )


def _queries(document: Any) -> list[tuple[str, ...]]:
    """Return a row for all that the routes take behind their paths."""
    return [
        (
            f"`{method.upper()} {path}`",
            f"`{asked['name']}`",
            schema_text(asked["schema"]),
            schema_default(asked["name"], asked["schema"], ()),
            asked["description"],
        )
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for asked in operation["parameters"]
        if asked["in"] == "query"
    ]


def http() -> str:
    """Return the page of the routes and bodies, from the OpenAPI document."""
    document = msgspec.json.decode(openapi_document(ROUTES, version("banditloop")))
    scopes = {
        (each.endpoint.path, each.endpoint.method.lower()): " or ".join(
            [each.scope] if isinstance(each.scope, str) else each.scope or ()
        )
        for each in ROUTES
    }
    rows = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            success, *failures = sorted(answers)
            body = operation.get("requestBody", {}).get("content", {})
            rows.append(
                (
                    f"`{method.upper()} {path}`",
                    operation["summary"],
                    scopes[path, method],
                    body_text(body),
                    f"{success} {body_text(answers[success].get('content', {}))}".strip(),
                    ", ".join(failures),
                )
            )

    parts = [
        "# HTTP",
        (
            "A running service has the same as a page at `/docs`, and as an OpenAPI 3.1 document"
            " at `/openapi.json`. Where the service runs with a keys file, a key of the scope is"
            " needed ([Secure a service](../how-to/secure.md#api-keys))."
        ),
        "## Routes",
        table(("route", "what it does", "scope", "body", "answer", "failures"), rows),
        "## Behind the path",
        "What a route takes behind `?`, as in `…/items?limit=10`.",
        table(("route", "name", "type", "default", "meaning"), _queries(document)),
        "## Bodies",
        "A field without a default is required.",
    ]
    for name, schema in document["components"]["schemas"].items():
        fields, required = schema.get("properties", {}), schema.get("required", ())
        prose, meanings = documentation(schema.get("description", ""), list(fields))
        meanings = {**meanings, **MEANINGS.get(name, CONSOLE_MEANINGS.get(name, {}))}
        if unknown := set(meanings) - set(fields):
            raise KeyError(f"docs/reference/bodies.py: {name} has no field {sorted(unknown)}")
        rows = [
            (
                f"`{field}`",
                schema_text(each),
                schema_default(field, each, required),
                meanings.get(field, ""),
            )
            for field, each in fields.items()
        ]
        parts += [f"### {name}", *prose]
        if rows:
            parts.append(table(("field", "type", "default", "meaning"), rows))
    return "\n\n".join(parts)


def error_codes() -> str:
    """Return the page of the codes of errors."""
    rows = []
    for kind in _subclasses(errors.BanditloopError):
        status = next(STATUS[each] for each in kind.__mro__ if each in STATUS)
        meaning = " ".join(" ".join(paragraphs(inspect.getdoc(kind) or "")).split())
        rows.append((f"`{kind.code}`", str(status), meaning))
    rows += [(f"`{code}`", status, text) for code, (status, text) in OTHER_CODES.items()]

    return "\n\n".join(
        [
            "# Errors",
            (
                'Every failed request answers `{"error": {"code", "message", "target"}}`. `code`'
                " is stable; `message` is for people, and may be reworded; `target` is the path of"
                " the field at fault, such as `actions[3].id`. The command line prints `error"
                " CODE: MESSAGE`."
            ),
            (
                "The status is what HTTP answers. 500 says that the error belongs to the command"
                " line or to a defect: no request provokes it."
            ),
            table(("code", "status", "meaning"), sorted(rows)),
        ]
    )


def all_metrics() -> str:
    """Return the page of the metrics of Prometheus."""
    # A collector without processes yields every family, without samples.
    families = ServiceCollector([], {}, {}, {}, {}).collect()
    rows = [
        (
            f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
            family.type,
            ", ".join(f"`{label}`" for label in family._labelnames),  # noqa: SLF001 - read only
            family.documentation,
        )
        for family in families
    ]

    return "\n\n".join(
        [
            "# Metrics",
            (
                "`GET /metrics` answers for the whole service: each process pushes what it counts"
                " to Redis every second, and any replica answers for all. The label `process`"
                " tells them apart. [Watch a service](../how-to/watch-a-service.md) has rules,"
                " alerts and a dashboard."
            ),
            table(("metric", "type", "labels", "meaning"), rows),
        ]
    )


def log_records() -> str:
    """Return the page of the kinds of entries of a log."""
    parts = [
        "# Log records",
        (
            "An entry of the log is one of these records. Its id (milliseconds and a sequence"
            " number) is its event time. Its bytes are one version byte and a MessagePack array:"
            " the kind, then the fields in this order. Fields are only ever appended. Large things"
            " are blobs, named by their digest."
        ),
    ]
    kinds = get_args(LogRecord)
    for kind in kinds:
        parts += struct(kind, f"{kind.__struct_config__.tag}")

    inner = list(dict.fromkeys(each for kind in kinds for each in inner_structs(kind)))
    parts.append("## Parts of records")
    for each in inner:
        inner += [part for part in inner_structs(each) if part not in inner]
        parts += struct(each, heading_of(each), level=3)
    return "\n\n".join(parts)


def python_names() -> str:
    """Return the page of what the packages export."""
    parts = [
        "# Python",
        (
            "These names are meant for use from other programs. Importing a package imports nothing"
            " heavy: a name's module is imported when the name is first used."
        ),
    ]
    for package in (banditloop_client, policies, bandits, simulator):
        parts += [f"## {package.__name__}", *paragraphs(inspect.getdoc(package) or "")[:1]]
        rows = [(f"`{name}`", _summary(getattr(package, name))) for name in _exported(package)]
        parts.append(table(("name", "what it is"), rows))
    return "\n\n".join(parts)


def _exported(module: ModuleType) -> list[str]:
    """Return the names that a module exports: its __all__, or its own classes."""
    own = (
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    )
    return list(getattr(module, "__all__", own))


def _summary(value: Any) -> str:
    """Return the first paragraph of what a docstring says."""
    return next(iter(paragraphs(inspect.getdoc(value) or "")), "")


def _subclasses(kind: type[errors.BanditloopError]) -> Iterator[type[errors.BanditloopError]]:
    """Yield the errors of this project below a class, each once."""
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield each
        yield from _subclasses(each)


def main() -> int:
    """Write the pages that have changed and name them; with --check only name them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on a change")
    check = parser.parse_args().check

    changed = [
        name
        for name, text in pages().items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text() != text
    ]
    for name in changed:
        print(f"docs/reference/{name}")
        if not check:
            (FOLDER / name).write_text(pages()[name])
    return int(check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())

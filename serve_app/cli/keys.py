"""``banditloop keys``: make, list and revoke API keys.

The file keeps hashes; a key itself is printed once.
"""

import contextlib
import fcntl
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import yaml

from bandits.errors import InvalidFieldError
from serve_app.api.api_keys import PREFIX, SCOPES, Key, KeyId, read_keys, secret_hash
from serve_app.cli.options import KeysFile, group, settings_of

SECRET_BYTES = 32

app = group("API keys of the service. A running service takes changes over by itself.")

FileBefore = Annotated[
    Path | None, typer.Option("--file", hidden=True, help="The same as --keys-file")
]


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(help="The key's id: small letters, digits and -, at most 32")
    ],
    scope: Annotated[list[str], typer.Option(help="rank, reward or admin; repeat for several")],
    keys_file: KeysFile = None,
    file: FileBefore = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests per second, over all replicas [default: any]")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Only this policy; repeat for several")
    ] = None,
) -> None:
    """Make a key, print it once, and add its hash to the file."""
    secret = secrets.token_urlsafe(SECRET_BYTES)
    raw = {"hash": secret_hash(secret), "scopes": scope, "rate": rate, "policies": policy or None}
    if unknown := sorted(set(scope).difference(SCOPES)):
        raise InvalidFieldError(
            f"no scope is called {unknown[0]!r}: there are {', '.join(SCOPES)}", "scope"
        )
    try:
        msgspec.convert(name, type=KeyId)
        key = msgspec.convert(raw, type=Key)
    except msgspec.ValidationError as error:
        raise InvalidFieldError(
            f"a key's name is 1 to 32 of a-z 0-9 -, its rate above 0: {error}", "name"
        ) from error
    with _editing(_path(keys_file, file)) as keys:
        if name in keys:
            raise InvalidFieldError(
                f"{_path(keys_file, file)} has a key {name!r} already: revoke it first, or take"
                " another name",
                "name",
            )
        keys[name] = key
    typer.echo(f"{PREFIX}{name}_{secret}")


@app.command("list")
def list_keys(keys_file: KeysFile = None, file: FileBefore = None) -> None:
    """Show the ids, and what each may do."""
    for name, key in read_keys(_path(keys_file, file)).items():
        rate = "any rate" if key.rate is None else f"{key.rate:g}/s"
        policies = "all policies" if key.policies is None else ",".join(key.policies)
        typer.echo(f"{name}\t{','.join(key.scopes)}\t{rate}\t{policies}")


@app.command(short_help="Take a key out of the file.")
def revoke(
    name: Annotated[str, typer.Argument(help="The key's id")],
    keys_file: KeysFile = None,
    file: FileBefore = None,
) -> None:
    """Take a key out of the file; running replicas refuse it within about a second."""
    path = _path(keys_file, file)
    with _editing(path) as keys:
        if keys.pop(name, None) is None:
            raise InvalidFieldError(f"{path} has no key {name!r}", "name")


def _path(given: Path | None, before: Path | None) -> Path:
    path = given or before or settings_of().keys_file
    if path is None:
        raise InvalidFieldError(
            "which file? Give --keys-file, or set BANDITLOOP_KEYS_FILE", "keys_file"
        )
    return path


@contextlib.contextmanager
def _editing(file: Path) -> Iterator[dict[str, Key]]:
    """The file's keys, to be changed.

    Written back as a whole, so that no reader ever sees half of it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with (file.with_name(f".{file.name}.lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = read_keys(file) if file.exists() else {}
        yield keys
        fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        fresh.touch(mode=0o600)
        fresh.write_bytes(_encode(file, keys))
        fresh.replace(file)


def _encode(file: Path, keys: Mapping[str, Key]) -> bytes:
    if file.suffix == ".json":
        return msgspec.json.format(msgspec.json.encode(keys)) + b"\n"
    return yaml.safe_dump(msgspec.to_builtins(keys), sort_keys=False).encode()

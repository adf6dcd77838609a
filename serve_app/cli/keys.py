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

from bandits.errors import InvalidFieldError
from policies.typed_yaml import encode_yaml
from serve_app.api.api_keys import PREFIX, SCOPES, Key, KeyId, read_keys, secret_hash
from serve_app.cli.options import KeysFile, command_group

SECRET_BYTES = 32

app = command_group("Manage the service's API keys; a running service adopts changes by itself.")

FileAlias = Annotated[
    Path | None, typer.Option("--file", hidden=True, help="The same as --keys-file")
]


@app.command("create", short_help="Make a key, print it once, and add its hash to the file.")
def create_key(
    name: Annotated[
        str, typer.Argument(help="Id of the key: lower-case letters, digits and -, at most 32")
    ],
    scope: Annotated[list[str], typer.Option(help=f"One of {', '.join(SCOPES)}; may be repeated")],
    keys_file: KeysFile = None,
    file: FileAlias = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Requests per second, over all replicas [default: no limit]"),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Restrict the key to this policy; may be repeated [default: all]"),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="Restrict the key to this space; may be repeated [default: all, or none with"
            " --policy]"
        ),
    ] = None,
) -> None:
    """Make a key, print it once, and add its hash to the file."""
    if unknown := sorted(set(scope).difference(SCOPES)):
        raise InvalidFieldError(
            f"no scope is called {unknown[0]!r}: there are {', '.join(SCOPES)}", "scope"
        )

    # The secret leaves this process once, on the screen; the file gets its hash.
    secret = secrets.token_urlsafe(SECRET_BYTES)
    raw = {
        "hash": secret_hash(secret),
        "scopes": scope,
        "rate": rate,
        "policies": policy or None,
        "spaces": space or None,
    }
    try:
        msgspec.convert(name, type=KeyId)
        key = msgspec.convert(raw, type=Key)
    except msgspec.ValidationError as error:
        raise InvalidFieldError(
            f"a key's name is 1 to 32 of a-z 0-9 -, its rate above 0: {error}", "name"
        ) from error

    path = _path(keys_file, file)
    with _editing(path) as keys:
        if name in keys:
            raise InvalidFieldError(
                f"{path} has a key {name!r} already: revoke it first, or choose another name",
                "name",
            )
        keys[name] = key
    typer.echo(f"{PREFIX}{name}_{secret}")


@app.command("list", short_help="List the keys, and what each may do.")
def list_keys(keys_file: KeysFile = None, file: FileAlias = None) -> None:
    """List the ids of all keys, and what each may do."""
    for name, key in read_keys(_path(keys_file, file)).items():
        rate = "any rate" if key.rate is None else f"{key.rate:g}/s"
        policies = "all policies" if key.policies is None else ",".join(key.policies)
        spaces = "" if key.spaces is None else f"\tspaces {','.join(key.spaces)}"
        typer.echo(f"{name}\t{','.join(key.scopes)}\t{rate}\t{policies}{spaces}")


@app.command("revoke", short_help="Remove a key from the file.")
def revoke_key(
    name: Annotated[str, typer.Argument(help="Id of the key")],
    keys_file: KeysFile = None,
    file: FileAlias = None,
) -> None:
    """Remove a key from the file; running replicas reject it within about a second."""
    path = _path(keys_file, file)
    with _editing(path) as keys:
        if keys.pop(name, None) is None:
            raise InvalidFieldError(f"{path} has no key {name!r}", "name")


def _path(keys_file: Path | None, alias: Path | None) -> Path:
    from serve_app.settings import Settings

    path = keys_file or alias or Settings.with_options().keys_file
    if path is None:
        raise InvalidFieldError(
            "which file? Give --keys-file, or set BANDITLOOP_KEYS_FILE", "keys_file"
        )
    return path


@contextlib.contextmanager
def _editing(file: Path) -> Iterator[dict[str, Key]]:
    """Yield the file's keys to be changed, and write them back.

    The file is replaced as a whole, so that no reader ever sees half of it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        # Two commands at a time would lose one of two keys.
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
    return encode_yaml(keys)

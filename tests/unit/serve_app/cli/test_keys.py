"""``banditloop keys``: a key is printed once, and only its hash is kept."""

import re
import stat

import pytest
from typer.testing import CliRunner

from bandits.errors import InvalidFieldError, UnauthorizedError
from serve_app.api.api_keys import KeyRing, read_keys
from serve_app.cli.main import app


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["keys", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def admit(file, key: str) -> None:
    KeyRing(file).admit("rank", "home", [(b"x-api-key", key.encode())])


@pytest.fixture(params=["keys.yaml", "keys.json", "folder/keys"])
def file(tmp_path, request):
    return tmp_path / request.param


def test_a_new_key_opens_its_scopes_and_its_secret_is_in_no_file(file):
    key = run(
        "create",
        "shop",
        "--scope",
        "rank",
        "--scope",
        "reward",
        "--rate",
        "50",
        "--file",
        str(file),
    ).strip()
    assert re.fullmatch(r"bl_shop_[A-Za-z0-9_-]{43}", key)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for each in file.parent.iterdir():
        assert key.removeprefix("bl_shop_") not in each.read_text()
    admit(file, key)
    known = read_keys(file)["shop"]
    assert (known.scopes, known.rate, known.policies) == (["rank", "reward"], 50.0, None)


def test_keys_are_rotated_by_making_one_and_revoking_the_other(file):
    old = run("create", "shop-1", "--scope", "rank", "--file", str(file)).strip()
    new = run(
        "create",
        "shop-2",
        "--scope",
        "rank",
        "--policy",
        "home",
        "--space",
        "shop",
        "--file",
        str(file),
    ).strip()
    admit(file, old)
    admit(file, new)
    assert run("list", "--file", str(file)).splitlines() == [
        "shop-1\trank\tany rate\tall policies",
        "shop-2\trank\tany rate\thome\tspaces shop",
    ]
    run("revoke", "shop-1", "--file", str(file))
    admit(file, new)
    with pytest.raises(UnauthorizedError):
        admit(file, old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_two_keys_never_share_a_secret(tmp_path):
    keys = {
        run("create", f"k{i}", "--scope", "rank", "--file", str(tmp_path / "k")).strip()[-43:]
        for i in range(5)
    }
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (["create", "shop", "--scope", "root"], "scope"),
        (["create", "Shop", "--scope", "rank"], "name"),
        (["create", "a_b", "--scope", "rank"], "name"),
        (["create", "x" * 33, "--scope", "rank"], "name"),
        (["create", "../x", "--scope", "rank"], "name"),
        (["create", "x", "--scope", "rank", "--rate", "0"], "name"),
        (["create", "known", "--scope", "rank"], "name"),
        (["revoke", "nobody"], "name"),
    ],
)
def test_a_mistake_is_named_and_changes_nothing(tmp_path, arguments, target):
    file = tmp_path / "keys.yaml"
    run("create", "known", "--scope", "admin", "--file", str(file))
    before = file.read_bytes()
    with pytest.raises(InvalidFieldError) as refused:
        run(*arguments, "--file", str(file))
    assert refused.value.target == target
    assert file.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == [".keys.yaml.lock", "keys.yaml"]


def test_a_key_without_a_scope_is_not_made(tmp_path):
    result = CliRunner().invoke(
        app, ["keys", "create", "shop", "--file", str(tmp_path / "keys.yaml")]
    )
    assert result.exit_code == 2
    assert not (tmp_path / "keys.yaml").exists()

"""The dashboard is what Grafana's own types say that one is: its package @grafana/schema, by TypeScript's compiler."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.prometheus import program

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "tests" / "support" / "grafana"
OPTIONS = (
    "--noEmit --strict --skipLibCheck --target es2022 --module nodenext --moduleResolution nodenext"
)
MUTANTS = {
    "no version": ('"schemaVersion": 39,', ""),
    "no such field": ('"uid": "banditloop",', '"uid": "banditloop", "nonsense": 1,'),
    "no such crosshair": ('"graphTooltip": 1', '"graphTooltip": 7'),
    "no such colour mode": ('"colorMode": "value"', '"colorMode": "valeu"'),
    "no such legend": ('"showLegend": true', '"showLegends": true'),
    "a unit that is a number": ('"unit": "reqps"', '"unit": 5'),
    "no such thresholds": ('"mode": "absolute"', '"mode": "absolut"'),
    "no such query": ('"expr"', '"exprs"'),
    "no such place": ('"gridPos"', '"gridpos"'),
    "a variable that is never read": ('"refresh": 2', '"refresh": 9'),
    "no such panel": ('"type": "stat"', '"type": "statt"'),
}
"""Faults of a dashboard, by what each is: a text of the file, and what stands there instead."""


@pytest.fixture(scope="module")
def schema(tmp_path_factory) -> Path:
    """A folder with the packages of Grafana, as the lock file has them."""
    folder = tmp_path_factory.mktemp("grafana")
    for path in SCHEMA.iterdir():
        shutil.copy(path, folder)
    command = [program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(command, cwd=folder, check=True)
    return folder


def faults(folder: Path, boards: dict[str, str]) -> dict[str, list[str]]:
    """What the compiler says of each board."""
    files = {f"board{at}.ts": name for at, name in enumerate(boards)}
    for file, name in files.items():
        text = f"import type {{ Board }} from './schema';\nconst board: Board = {boards[name]};\nexport default board;\n"
        (folder / file).write_text(text)
    done = subprocess.run(
        [folder / "node_modules" / ".bin" / "tsc", *OPTIONS.split(), *files],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    said = re.findall(r"^(\S+)\(\d+,\d+\): error (.*)$", done.stdout, re.MULTILINE)
    assert {file for file, _ in said} <= set(files), done.stdout
    return {name: [message for of, message in said if of == file] for file, name in files.items()}


def test_the_dashboard_is_one_of_grafana_and_whatever_is_not_is_found(schema):
    board = (ROOT / "deploy" / "grafana" / "banditloop.json").read_text()
    boards = {"ours": board}
    for name, (said, instead) in MUTANTS.items():
        assert said in board, name
        boards[name] = board.replace(said, instead, 1)
    found = faults(schema, boards)
    assert found.pop("ours") == []
    assert [name for name, messages in found.items() if not messages] == []


def test_it_is_checked_with_the_types_of_the_grafana_that_is_run():
    image = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["grafana"][
        "image"
    ]
    package = yaml.safe_load((SCHEMA / "package.json").read_text())
    assert package["devDependencies"]["@grafana/schema"] == image.rpartition(":")[2]

"""From somebody's events.csv to a personal answer and its reward, by two commands."""

import contextlib
import csv
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from banditloop_client import Client, wait_until_ready
from serve_app.host.environment import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

BANDITLOOP = str(Path(sys.executable).parent / "banditloop")
TASTES = 3


def write_events(path: Path) -> None:
    """Each of 90 users looks at and buys what belongs to the user's taste, one of three."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["customer_id", "product_id", "event", "timestamp"])
        for user in range(90):
            for item in rng.permutation(np.arange(user % TASTES, 60, TASTES))[:12]:
                kind = rng.choice(["view", "purchase"])
                at = 1_700_000_000 + int(rng.integers(30 * 86_400))
                rows.writerow([f"customer {user}", f"product {item}", kind, at])


@contextlib.contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    port = free_port()
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [BANDITLOOP, "serve", *arguments, "--port", str(port)],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, timeout_s=120)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_two_commands(tmp_path: Path) -> None:
    """A known user gets what suits the user, a stranger what is popular, and a reward is taken."""
    write_events(tmp_path / "events.csv")
    train = [BANDITLOOP, "train", "--events", "events.csv", "--sources", "als,popular"]
    subprocess.run([*train, "--out", "shop"], cwd=tmp_path, check=True, timeout=150)

    with serving(tmp_path, "shop/policy.yaml") as url, Client(url, "shop") as client:
        suits = []
        for user in range(TASTES):
            answer = client.rank(user_id=f"customer {user}", return_pmf=True)
            assert answer.logged
            pmf = {each.id: each.probability for each in answer.pmf or ()}
            suits.append(
                sum(p for item, p in pmf.items() if int(item.split()[1]) % TASTES == user % TASTES)
            )
        assert np.mean(suits) > 0.4, "chance is a third, and nothing has been learned yet"

        answer = client.rank(user_id="nobody knows me")
        assert answer.chosen[0].id.startswith("product ")
        client.reward(answer.event_id, 1.0)
    assert "stranger" not in (tmp_path / "output").read_text()

    # On Ray the same bytes.
    version = (tmp_path / "shop" / "current").read_text()
    again = [BANDITLOOP, "train", "--data", "shop/data", "--sources", "als,popular"]
    on_ray = [*again, "--out", "again", "--address", "local"]
    subprocess.run(on_ray, cwd=tmp_path, check=True, timeout=150)
    assert (tmp_path / "again" / "current").read_text() == version


def online_retail(folder: Path) -> tuple[str, list[tuple[str, str]]]:
    """UCI's Online Retail, in Latin-1: the file, what to add, and the error that says so."""
    rng = np.random.default_rng(0)
    with (folder / "OnlineRetail.csv").open("w", newline="", encoding="latin-1") as file:
        rows = csv.writer(file)
        header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
        rows.writerow(header.split(","))
        for user in range(90):
            for item in rng.permutation(np.arange(user % TASTES, 60, TASTES))[:12]:
                day, quantity = f"{rng.integers(1, 13)}/{rng.integers(1, 29)}/2011 8:26", 2
                said = "CAF\u00c9, SET OF 2", quantity, day, "3.39", 17000 + user, "EIRE"
                rows.writerow([536365 + user, f"{85000 + item}A", *said])
    return "OnlineRetail.csv", [
        ("--encoding=latin-1", "name its encoding, as in --encoding latin-1"),
        ('--columns={time_unit: "%m/%d/%Y %H:%M"}', '{time_unit: "%m/%d/%Y %H:%M"}'),
    ]


def gowalla(folder: Path) -> tuple[str, list[tuple[str, str]]]:
    """SNAP's Gowalla check-ins, which have no header."""
    rng = np.random.default_rng(0)
    with (folder / "Gowalla_totalCheckins.txt").open("w") as file:
        for user in range(90):
            for item in rng.permutation(np.arange(user % TASTES, 60, TASTES))[:12]:
                day = f"2010-{rng.integers(1, 13):02}-{rng.integers(1, 29):02}T23:55:27Z"
                file.write(f"{17000 + user}\t{day}\t30.23\t-97.79\t{85000 + item}\n")
    said = "the first row has column_1 '17000', column_2 '2010-"
    return "Gowalla_totalCheckins.txt", [("--columns={user: 1, item: 5, time: 2}", said)]


@pytest.mark.slow
@pytest.mark.parametrize("layout", [online_retail, gowalla])
def test_a_published_layout_without_a_preset(tmp_path: Path, layout) -> None:
    """Each error says what to write, up to a rewarded decision."""
    events, told = layout(tmp_path)

    def train(*options: str) -> subprocess.CompletedProcess[str]:
        command = [BANDITLOOP, "train", "--events", events, "--out", "shop"]
        sources = ["--sources", "als,popular"]
        return subprocess.run(
            [*command, *sources, *options],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=False,
            timeout=150,
        )

    options: list[str] = []
    for option, said in told:
        refused = train(*options)
        assert refused.returncode == 1
        assert said in " ".join(refused.stderr.split())
        assert not (tmp_path / "shop" / "current").exists()
        options.append(option)
    done = train(*options)
    assert done.returncode == 0, done.stderr

    with serving(tmp_path, "shop/policy.yaml") as url, Client(url, "shop") as client:
        answer = client.rank(user_id="17001", return_pmf=True)
        taste = 85001 % TASTES
        own = [p.probability for p in answer.pmf or () if int(p.id[:5]) % TASTES == taste]
        assert sum(own) > 0.4, "chance is a third, and nothing has been learned yet"
        client.reward(answer.event_id, 1.0)

"""The generated reference pages are those that the code gives."""

import subprocess
import sys

import pytest
from support.docs_blocks import DOCS, ROOT


def test_the_generated_pages_are_current():
    done = subprocess.run(
        [sys.executable, "docs/reference/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"run make reference:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    "page", ["policy-spec.md", "settings.md", "log-records.md", "metrics.md", "http.md"]
)
def test_every_row_says_what_it_means(page):
    """Where it does not, its class lacks an entry in the docstring's Attributes.

    The fields of HTTP's bodies are in docs/reference/bodies.py.
    """
    rows = [
        line
        for line in (DOCS / "reference" / page).read_text().splitlines()
        if line.startswith("| `")
    ]
    assert rows
    assert [row for row in rows if row.split("|")[-2].strip() == ""] == []

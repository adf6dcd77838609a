"""The generated reference pages are those that the code gives."""

import subprocess
import sys

from support.docs_blocks import ROOT


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

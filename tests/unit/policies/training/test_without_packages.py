"""Training where its packages are not installed: one line says what to install."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("package", ["torch", "implicit", "threadpoolctl"])
@pytest.mark.parametrize("module", ["train", "fits"])
def test_an_error_of_ours_names_the_package_and_the_extra(package, module):
    """Also for whoever evaluates sources: they are fitted on a part, by ``fits`` alone."""
    code = f"""
import sys
sys.modules[{package!r}] = None
from bandits.errors import ArtifactError
try:
    import policies.training.{module}
except ArtifactError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"training needs {package}: pip install 'banditloop[train]'\n"

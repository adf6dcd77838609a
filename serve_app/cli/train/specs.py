"""The spec that ``banditloop train`` writes for what it has trained."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

TEXT = """\
# What banditloop train has made of the data set {data}: banditloop serve {file}
name: {name}
sources:
{sources}
artifact: {artifact}
profiles: {profiles}
limit: 30
learner:
  kind: ridge
  interactions: [[context, scores], [context, features]]
  max_features: 512
exploration: {{kind: lints, scale: 0.3, draws: 64}}
floor: 0.02
# How long a decision waits for its reward, in seconds: as long as most of them take to come.
join: {{window_s: 600, default_reward: 0, aggregation: first}}
"""


def spec_text(data: str, sources: Sequence[str], artifact: Path, profiles: Path, file: Path) -> str:
    """Return a policy's YAML; its paths are relative to the file, so that all can be moved.

    Args:
        data: the data set's name, which becomes the policy's.
        sources: the names of those trained.
        artifact: the folder of the artifact's versions.
        profiles: the file of profiles.
        file: where the text will be.
    """
    return TEXT.format(
        data=data,
        file=file,
        name=policy_name(data),
        sources="\n".join(f"  - {{kind: artifact, name: {name}}}" for name in sources),
        artifact=_relative(artifact, file),
        profiles=_relative(profiles, file),
    )


def policy_name(data: str) -> str:
    """Return a name that a policy may have, made of a data set's."""
    name = re.sub(r"[^a-z0-9_-]+", "-", data.lower()).lstrip("-_")[:64]
    return name or "policy"


def _relative(path: Path, file: Path) -> str:
    found = os.path.relpath(path.absolute(), file.absolute().parent)
    return f'"{found}"' if re.search(r"[^\w./-]", found) else found

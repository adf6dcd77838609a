"""Refusing what replicas and learners would stumble over, while it can still be said in one line."""

import contextlib
from collections.abc import Sequence

from bandits.errors import SpecError
from bandits.vw.merge import check_mergeable
from policies.admission import admit
from policies.artifacts.fetch import opened
from policies.blend import make_learner
from policies.catalogue import Catalogue
from policies.sources import load_sources
from policies.spec import PolicySpec, VwConfig, decode_spec
from serve_app.api.api_keys import read_keys
from serve_app.settings import Settings
from serve_app.store.clients import FAILURES, blocking_client
from serve_app.store.keys import Keys, partitions
from serve_app.store.merges import partition_count
from serve_app.store.newer_builds import check_fold


def validate(settings: Settings, specs: Sequence[PolicySpec]) -> None:
    """Read and build once what every process will.

    Raises:
        SpecError, ArtifactError, StartupError, ArchiveError: which names the field or file.
    """
    if settings.keys_file is not None:
        read_keys(settings.keys_file)
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise SpecError(f"two specs share a name: {sorted(names)}", "name")
    for spec in specs:
        # one made in Python is held to what a file is: its name becomes part of keys
        admit(decode_spec(spec.encoded))
        make_learner(spec, salt=b"validation")
        if spec.partitions > 1 and isinstance(spec.learner, VwConfig):
            check_mergeable(spec.learner.args)
        trained = opened(spec.artifact) if spec.artifact else None
        load_sources(trained, spec.sources)
        if trained is not None:
            Catalogue.of(trained.catalogue)
    if settings.archive_root():
        from policies.storage import Storage  # noqa: PLC0415 - pyarrow takes 30 MB

        Storage(settings.archive_root(), "")


def check_logs(url: str, specs: Sequence[PolicySpec]) -> None:
    """Refuse a log of a newer build, and to divide one otherwise than it is: rewards would miss their decisions.

    A Redis that does not answer is not asked: replicas and learners wait for it.

    Raises:
        NewerBuildError, SpecError: which names the policy.
    """
    with contextlib.suppress(*FAILURES), contextlib.closing(blocking_client(url)) as client:
        for spec in specs:
            for keys in partitions(spec.name, spec.partitions):
                check_fold(client, keys)
            begun = client.exists(Keys(spec.name).head)
            count = partition_count(client, spec.name) if begun else spec.partitions
            if count != spec.partitions:
                raise SpecError(
                    f"the log of {spec.name} is in {count} partitions and stays so: set"
                    f" partitions to {count}, or begin"
                    " a policy of another name",
                    "partitions",
                )

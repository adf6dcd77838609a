"""The policy spec: what a YAML file says of a policy."""

from policies.spec.policy import PRIOR_STRENGTH, UNIFORM, Holdout, PolicySpec, Prior
from policies.spec.reading import decode_spec, load_spec, read_spec, spec_of
from policies.spec.sources import (
    ArtifactSource,
    ContentSource,
    FreshSource,
    RemoteSource,
    RlSource,
    Source,
    TrendingSource,
)

__all__ = [
    "PRIOR_STRENGTH",
    "UNIFORM",
    "ArtifactSource",
    "ContentSource",
    "FreshSource",
    "Holdout",
    "PolicySpec",
    "Prior",
    "RemoteSource",
    "RlSource",
    "Source",
    "TrendingSource",
    "decode_spec",
    "load_spec",
    "read_spec",
    "spec_of",
]

"""The schedule of refreshes in a spec: durations, paths, and no trace of it in the log."""

import msgspec
import pytest

from bandits.errors import SpecError
from policies.spec import PolicySpec, load_spec, spec_of
from policies.spec.refresh import Refresh

RAW = {
    "name": "home",
    "sources": [{"kind": "artifact", "name": "als"}],
    "artifact": "artifacts/shop",
    "refresh": {"every": "30m", "window": "2w", "on": "ray", "data": "shop/data"},
}


def test_a_schedule_is_read_and_its_data_set_is_relative_to_the_file(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_bytes(msgspec.yaml.encode(RAW))
    rule = load_spec(file).refresh
    assert (rule.every_ms, rule.window_ms, rule.on) == (1_800_000, 1_209_600_000, "ray")
    assert rule.data == str(tmp_path / "shop/data")

    # A worker writes the spec for a process to read.
    file.write_bytes(msgspec.yaml.encode(load_spec(file)))
    assert load_spec(file).refresh == rule


def test_the_log_knows_nothing_of_a_schedule():
    spec = spec_of(RAW)
    without = msgspec.structs.replace(spec, refresh=msgspec.UNSET)
    assert spec.encoded == without.encoded
    assert b"refresh" not in PolicySpec("home").encoded


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({"refresh": {"every": "soon"}}, "refresh.every"),
        ({"refresh": {"window": "0d"}}, "refresh.window"),
        ({"refresh": {"on": "gpu"}}, "refresh.on"),
        ({"refresh": {"often": "6h"}}, "refresh"),
        ({"refresh": {}, "sources": []}, "refresh"),
    ],
)
def test_what_is_no_schedule_is_refused(changes, target):
    with pytest.raises(SpecError) as error:
        spec_of({**RAW, **changes})
    assert error.value.target == target
    assert Refresh().every_ms == 21_600_000

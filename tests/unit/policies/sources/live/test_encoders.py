"""Encoders of packages: offline, and an error of ours where they are missing."""

import sys

import numpy as np
import pytest

from bandits.errors import ArtifactError
from policies.sources.live.encoders import load_encoder


def test_an_encoder_that_is_none_is_refused():
    with pytest.raises(ArtifactError, match="no encoder 'bert': there is wordllama"):
        load_encoder("bert")


def test_without_its_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(ArtifactError, match=r"pip install 'banditloop\[text\]'"):
        load_encoder("wordllama")


def test_wordllama_has_its_weights_and_tells_texts_apart():
    pytest.importorskip("wordllama")
    encoder = load_encoder("wordllama")
    shoe, other, book = map(encoder.vector, ("running shoes", "sneakers for jogging", "a novel"))
    assert shoe.shape == (encoder.size,)
    assert np.linalg.norm(shoe) == pytest.approx(1.0, abs=1e-5)
    assert shoe @ other > shoe @ book
    assert not encoder.vector("").any()

"""How many candidates a written spec asks each source for, where nothing can be measured."""

from policies.spec import ArtifactSource, PolicySpec
from policies.training.fits import FITS
from serve_app.cli.train.specs import POOL, usual_limit


def test_many_sources_are_asked_for_fewer_candidates_each_so_that_the_pool_stays() -> None:
    """The usual sources are asked for what a spec asks for by itself; scorers do not count."""
    usual = [name for name, fit in FITS.items() if fit.usual]
    assert (
        usual_limit(usual) == PolicySpec("p", sources=[ArtifactSource("als")], artifact="a").limit
    )
    assert usual_limit([*usual, "fm", "deepfm"]) == usual_limit(usual)

    every = usual_limit(list(FITS))
    assert every < usual_limit(usual)
    assert POOL - 14 < 14 * every <= POOL
    assert usual_limit(["fm"]) == usual_limit(["popular"]) == usual_limit(usual)

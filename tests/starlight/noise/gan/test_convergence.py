"""The rule of convergence, on made-up losses."""

from starlight.noise.gan.convergence import Convergence


def fed(*losses: tuple[float, float, int]) -> Convergence:
    """Convergence after (generator, discriminator, steps) stretches."""
    rule = Convergence(window=10, band=0.05, patience=20)
    for generator, discriminator, steps in losses:
        for _ in range(steps):
            rule.update(generator, discriminator)
    return rule


def test_an_untrained_discriminator_is_no_equilibrium() -> None:
    rule = fed((0.5, 0.5, 1000))
    assert not rule.met
    assert "has not learnt" in rule.verdict


def test_a_way_out_of_the_band_and_back_for_long_enough_is() -> None:
    away = ((0.5, 0.5, 20), (1.5, 0.1, 30))
    assert not fed(*away).met
    assert "not converged: mean losses of the last steps 1.500 (generator)" in fed(*away).verdict
    # The window of 10 must come back into the band first, then stay for 20 steps.
    assert not fed(*away, (0.52, 0.48, 28)).met
    rule = fed(*away, (0.52, 0.48, 30))
    assert rule.met
    assert rule.verdict.startswith("converged: both losses within 1/2 +- 0.05 for")


def test_both_losses_count_and_a_relapse_starts_anew() -> None:
    assert not fed((1.5, 0.1, 30), (0.5, 0.4, 200)).met
    assert not fed((1.5, 0.1, 30), (0.6, 0.5, 200)).met
    relapse = fed((1.5, 0.1, 30), (0.5, 0.5, 25), (1.5, 0.5, 3))
    assert relapse.inside == 0


def test_the_state_goes_on_where_it_was() -> None:
    rule = fed((1.5, 0.1, 30), (0.5, 0.5, 22))
    resumed = Convergence(window=10, band=0.05, patience=20)
    resumed.load(rule.state())
    assert (resumed.left, resumed.inside, resumed.averages) == (
        rule.left,
        rule.inside,
        rule.averages,
    )
    while not rule.met:
        assert rule.update(0.5, 0.5) == resumed.update(0.5, 0.5)

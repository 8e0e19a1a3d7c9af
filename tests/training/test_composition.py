"""Rows that are kept to train heads with when classes come."""

import numpy as np
import pytest

from skmsc.training.composition import Learner, _chances, _systematic
from skmsc.training.heads import LogisticHead


def rows(n=400, seed=0):
    rng = np.random.default_rng(seed)
    codes = (rng.random(n) < 0.2).astype(np.intp)
    return rng.normal(size=(n, 3)) + codes[:, None], codes, rng.uniform(0.5, 2.0, n)


@pytest.mark.parametrize("n_kept", [1, 7, 40, 99])
def test_chances_are_in_proportion_up_to_certainty(n_kept):
    size = np.random.default_rng(n_kept).exponential(size=100) ** 3
    chance = _chances(size, n_kept)
    assert chance.sum() == pytest.approx(n_kept)
    below = chance < 1
    ratio = chance[below] / size[below]
    np.testing.assert_allclose(ratio, ratio[0])
    # No row that is certain would have stayed below it.
    assert (size[~below] * ratio[0] >= 1 - 1e-12).all()
    np.testing.assert_array_equal(_chances(size, 100), 1.0)


def test_rows_are_drawn_with_their_chances():
    chance = _chances(np.random.default_rng(0).exponential(size=50), 12)
    draws = [_systematic(chance, np.random.default_rng(seed)) for seed in range(4000)]
    assert {len(some) for some in draws} == {12}
    found = np.bincount(np.concatenate(draws), minlength=50) / len(draws)
    np.testing.assert_allclose(found, chance, atol=4 * 0.5 / np.sqrt(len(draws)))


def test_rows_kept_stand_for_all_of_their_class():
    Z, codes, weight = rows()
    learner = Learner(LogisticHead(), False, None, 30, 0)
    known = learner.fit(np.array([0, 1]), Z, codes, weight)
    for k, kept in enumerate(known.replay):
        assert len(kept.features) == 30
        assert kept.count == pytest.approx(weight[codes == k].sum())
        assert kept.weight.sum() == pytest.approx(kept.count)
        # Half of the chance is the same for all: none counts for more than twice its part.
        assert kept.weight.max() < 2.2 * kept.count / 30


def test_rows_that_heads_get_wrong_are_kept_sooner():
    Z, codes, weight = rows(2000)
    learner = Learner(LogisticHead(), False, None, 50, 0)
    known = learner.fit(np.array([0, 1]), Z, codes, weight)
    odds = known.heads.log_odds(known.heads.logits(Z))[:, 1]
    kept = known.replay[0].features @ known.heads.coef[1] + known.heads.intercept[1]
    assert kept.mean() > odds[codes == 0].mean() + 0.3


@pytest.mark.slow
def test_means_of_rows_kept_are_those_of_all():
    Z, codes, weight = rows()
    means = []
    for seed in range(300):
        learner = Learner(LogisticHead(), False, None, 40, seed)
        kept = learner.fit(np.array([0, 1]), Z, codes, weight).replay[0]
        means.append(kept.weight @ kept.features / kept.count)
    truth = np.average(Z[codes == 0], axis=0, weights=weight[codes == 0])
    error = np.std(means, axis=0) / np.sqrt(len(means))
    assert (np.abs(np.mean(means, axis=0) - truth) < 4 * error + 0.01).all()

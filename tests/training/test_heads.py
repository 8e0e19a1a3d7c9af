"""Heads against independent computations, and statistics that add up."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from skmsc import ImprintHead, LDAHead, LogisticHead, RidgeHead
from skmsc.training.heads import ClassStatistics, Heads, check_head, choose_penalty, row_weights


def rows(seed=0, n_samples=200, n_features=6, n_classes=4):
    """Features of different scales, with an offset; codes; weights."""
    rng = np.random.default_rng(seed)
    codes = np.r_[np.arange(n_classes), rng.integers(n_classes, size=n_samples - n_classes)]
    Z = rng.normal(size=(n_samples, n_features)) + rng.normal(size=(n_classes, n_features))[codes]
    return Z * np.geomspace(0.1, 10, n_features) + 3.0, codes, rng.random(n_samples) + 0.2


def statistics(Z, codes, weight, *, gram=True):
    """Statistics of each class."""
    return [
        ClassStatistics.of(Z[codes == k], None if weight is None else weight[codes == k], gram=gram)
        for k in range(codes.max() + 1)
    ]


def ridge_by_hand(Z, codes, weight, alpha):
    """Coefficients and intercepts of the weighted ridge regression on indicators."""
    Y = np.eye(codes.max() + 1)[codes]
    centre, share = np.average(Z, axis=0, weights=weight), np.average(Y, axis=0, weights=weight)
    A, B = Z - centre, Y - share
    scatter = (A * weight[:, None]).T @ A
    coef = np.linalg.solve(
        scatter + alpha * np.diag(scatter.diagonal()), (A * weight[:, None]).T @ B
    )
    return coef.T, share - coef.T @ centre


@pytest.mark.parametrize("balanced", [False, True])
def test_ridge_is_the_weighted_regression_on_indicators(balanced):
    Z, codes, weight = rows()
    heads = RidgeHead().solve(statistics(Z, codes, weight), balanced=balanced, penalty=0.05)
    coef, _ = ridge_by_hand(Z, codes, row_weights(codes, weight, 4, balanced), 0.05)
    slope = heads.coef[:, :1] / coef[:, :1]
    assert (slope > 0).all()
    np.testing.assert_allclose(heads.coef, slope * coef, rtol=1e-8)


def test_the_log_odds_of_ridge_are_those_of_two_normals_left_out():
    Z, codes, weight = rows()
    alpha = 0.05
    heads = RidgeHead().solve(statistics(Z, codes, weight), balanced=False, penalty=alpha)
    coef, intercept = ridge_by_hand(Z, codes, weight, alpha)
    A = Z - np.average(Z, axis=0, weights=weight)
    scatter = (A * weight[:, None]).T @ A
    hat = np.linalg.solve(scatter + alpha * np.diag(scatter.diagonal()), A.T)
    # Weights below 1 in the mean are relative: there are as many rows as there are.
    leverage = (1 + np.einsum("ij,ji,i->", A, hat, weight)) / len(Z)
    shares, told, centres = [], [], []
    for k in range(4):
        own = codes == k
        left_out = own - (own - Z @ coef[k] - intercept[k]) / (1 - leverage)
        inside, outside = (np.average(left_out[m], weights=weight[m]) for m in (own, ~own))
        # Within its class a fitted value moves with its residual, by the same factor.
        within = np.average((left_out - np.where(own, inside, outside)) ** 2, weights=weight)
        shares.append(np.average(own, weights=weight))
        told.append((inside - outside) / within - 1 / (shares[k] * (1 - shares[k])))
        centres.append((inside + outside) / 2)
    assert min(told) > 0
    for k, share in enumerate(shares):
        slope = 1 / (share * (1 - share)) + np.average(told, weights=shares)
        expected = slope * (Z @ coef[k] + intercept[k] - centres[k]) + np.log(share / (1 - share))
        got = heads.log_odds(heads.logits(Z))[:, k]
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_allclose(heads.log_odds(heads.logits(Z)), 4 * heads.logits(Z))


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_ridge_and_lda_do_not_see_scales_and_offsets(factor):
    Z, codes, weight = rows()
    for head, penalty in ((RidgeHead(), 0.1), (LDAHead(), 0.1)):
        one, other = (
            head.solve(statistics(features, codes, weight), balanced=False, penalty=penalty)
            for features in (Z, factor * Z + 5 * factor)
        )
        np.testing.assert_allclose(
            other.logits(factor * Z + 5 * factor), one.logits(Z), rtol=1e-5, atol=1e-6
        )


def test_a_constant_feature_changes_nothing():
    Z, codes, weight = rows()
    more = np.column_stack([Z, np.full(len(Z), 7.0)])
    for head, penalty in ((RidgeHead(), 0.1), (LDAHead(), 0.1)):
        one, other = (
            head.solve(statistics(part, codes, weight), balanced=False, penalty=penalty)
            for part in (Z, more)
        )
        np.testing.assert_allclose(other.logits(more), one.logits(Z), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("balanced", [False, True])
def test_lda_without_shrinkage_is_scikit_learns(balanced):
    Z, codes, _ = rows(n_samples=400)
    heads = LDAHead().solve(statistics(Z, codes, None), balanced=balanced, penalty=1e-12)
    priors = np.full(4, 0.25) if balanced else None
    if balanced:  # scikit-learn pools by the rows even so: repeat them
        counts = np.bincount(codes)
        weight = counts.sum() / (4 * counts[codes])
        means = np.stack([Z[codes == k].mean(axis=0) for k in range(4)])
        A = Z - means[codes]
        within = (A * weight[:, None]).T @ A / weight.sum()
        inverse = np.linalg.inv(within)
        logits = Z @ inverse @ means.T - np.einsum("kd,de,ke->k", means, inverse, means) / 2
        expected = softmax(logits, axis=1)
    else:
        expected = (
            LinearDiscriminantAnalysis(solver="lsqr", priors=priors).fit(Z, codes).predict_proba(Z)
        )
    np.testing.assert_allclose(softmax(heads.logits(Z), axis=1), expected, atol=1e-8)


def test_imprinting_is_the_cosine_to_the_mean_direction():
    Z, codes, weight = rows()
    head = ImprintHead()
    unit = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    np.testing.assert_allclose(head.prepare(Z), unit)
    heads = head.solve(statistics(unit, codes, weight, gram=False), balanced=False, penalty=20.0)
    means = np.stack(
        [np.average(unit[codes == k], axis=0, weights=weight[codes == k]) for k in range(4)]
    )
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    share = np.bincount(codes, weight) / weight.sum()
    np.testing.assert_allclose(heads.logits(unit), 20 * unit @ means.T + np.log(share))


@pytest.mark.parametrize("balanced", [False, True])
def test_logistic_heads_are_scikit_learns_one_by_one(balanced):
    Z, codes, weight = rows()
    heads = LogisticHead(C=0.5, max_iter=2000, tol=1e-9).train(
        Z, codes, weight, 4, balanced=balanced, seed=0
    )
    used = row_weights(codes, weight, 4, balanced)
    centre = np.average(Z, axis=0, weights=used)
    scale = np.sqrt(np.average((Z - centre) ** 2, axis=0, weights=used))
    for k in range(4):
        model = LogisticRegression(C=0.5, tol=1e-10, max_iter=5000)
        model.fit((Z - centre) / scale, codes == k, sample_weight=used)
        np.testing.assert_allclose(
            expit(heads.logits(Z)[:, k]), model.predict_proba((Z - centre) / scale)[:, 1], atol=1e-5
        )
    np.testing.assert_array_equal(heads.log_odds(heads.logits(Z)), heads.logits(Z))


def test_weights_are_repeated_rows():
    Z, codes, _ = rows()
    times = np.random.default_rng(0).integers(0, 3, len(Z))
    times[:4] = 1
    again, same = Z.repeat(times, axis=0), codes.repeat(times)
    for one, other in zip(
        statistics(Z, codes, times.astype(float)), statistics(again, same, None), strict=True
    ):
        assert one.count == other.count
        np.testing.assert_allclose(one.total, other.total)
        np.testing.assert_allclose(one.gram, other.gram)
    head = LogisticHead(tol=1e-9, max_iter=2000)
    weighted = head.train(Z, codes, times.astype(float), 4, balanced=False, seed=0)
    repeated = head.train(again, same, None, 4, balanced=False, seed=0)
    np.testing.assert_allclose(weighted.logits(Z), repeated.logits(Z), atol=1e-4)


@pytest.mark.parametrize("head", [RidgeHead(), LDAHead(), ImprintHead()])
def test_a_class_without_rows_is_never_right(head):
    Z, codes, weight = rows()
    found = statistics(Z, codes, weight, gram=head.needs_gram)
    blank = found[0] - found[0]
    with_blank = head.solve([*found[:2], blank, *found[2:]], balanced=True, penalty=0.1)
    without = head.solve(found, balanced=True, penalty=0.1)
    logits = with_blank.logits(Z)
    assert (logits[:, 2] == -np.inf).all()
    np.testing.assert_array_equal(np.delete(logits, 2, axis=1), without.logits(Z))
    assert (with_blank.log_odds(logits)[:, 2] == -np.inf).all()


def test_log_odds_of_joint_heads_follow_from_probabilities():
    Z, codes, weight = rows()
    heads = LDAHead().solve(statistics(Z, codes, weight), balanced=False, penalty=0.1)
    logits = heads.logits(Z) / 50
    proba = softmax(logits, axis=1)
    np.testing.assert_allclose(
        Heads(heads.coef, heads.intercept, None).log_odds(logits), np.log(proba / (1 - proba))
    )


def test_the_penalty_has_the_least_loss_at_its_best_temperature():
    Z, codes, weight = rows(n_samples=60, n_features=30)
    new, y, w = rows(1, n_samples=200, n_features=30)
    head, found = RidgeHead(), statistics(Z, codes, weight)
    chosen = choose_penalty(head, found, new, y, w, balanced=False)
    slopes = np.exp(np.linspace(-4, 4, 200))

    def loss(alpha):
        logits = head.solve(found, balanced=False, penalty=alpha).logits(new)
        return min(
            -np.average(log_softmax(s * logits, axis=1)[np.arange(len(y)), y], weights=w)
            for s in slopes
        )

    losses = [loss(alpha) for alpha in head.grid]
    assert chosen == head.grid[int(np.argmin(losses))]
    assert losses[0] > min(losses) + 1e-3


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (
            RidgeHead(alpha=0.0),
            r"alpha of RidgeHead must be a number in \(0, inf\) or None; got 0.0",
        ),
        (RidgeHead(alpha=True), "alpha of RidgeHead"),
        (RidgeHead(n_random_features=-1), "n_random_features of RidgeHead must be an integer >= 0"),
        (LDAHead(shrinkage=1.5), r"shrinkage of LDAHead must be a number in \(0, 1\]"),
        (ImprintHead(scale=np.inf), "scale of ImprintHead"),
        (LogisticHead(C=-1), r"C of LogisticHead must be a number in \(0, inf\); got -1"),
        (LogisticHead(max_iter=0), "max_iter of LogisticHead must be an integer >= 1; got 0"),
        ("ridgy", "head must be one of 'ridge', 'lda'"),
        (RidgeHead, "head must be one of"),
        (LogisticRegression(), "head must be one of"),
    ],
)
def test_bad_heads(head, says):
    with pytest.raises(ValueError, match=says):
        check_head(head)


def test_two_ridge_heads_say_the_same_once():
    Z, codes, weight = rows(n_classes=2)
    heads = RidgeHead().solve(statistics(Z, codes, weight), balanced=False, penalty=0.05)
    logits = heads.logits(Z)
    odds = heads.log_odds(logits)
    np.testing.assert_allclose(odds[:, 0], -odds[:, 1], atol=1e-9)
    np.testing.assert_allclose(softmax(logits, axis=1)[:, 1], expit(odds[:, 1] / 4), atol=1e-9)


def test_a_rare_class_can_be_the_likeliest():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], [2000, 2000, 20])
    Z = rng.normal(size=(4020, 10)) + 4 * np.eye(10)[codes]
    heads = RidgeHead().solve(statistics(Z, codes, None), balanced=False, penalty=0.01)
    new = rng.normal(size=(300, 10)) + 4 * np.eye(10)[2]
    coef, intercept = ridge_by_hand(Z, codes, np.ones(4020), 0.01)
    assert ((new @ coef.T + intercept).argmax(axis=1) == 2).mean() < 0.1
    assert (heads.logits(new).argmax(axis=1) == 2).mean() > 0.6

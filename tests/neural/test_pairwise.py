"""Two-way layers of classes: trained at once as each alone, log-odds, shares of the negatives."""

from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

torch = pytest.importorskip("torch")

from skmsc.neural import _pairwise  # noqa: E402
from skmsc.neural._pairwise import fit_pairwise  # noqa: E402

LOSSES = ["softmax", "sigmoid", "softmax_bce"]
RNG = np.random.default_rng(0)
# Classes of 47, 9, 25 and 39 rows: with batches of 16 none has as many steps as another.
Y = RNG.permutation(np.repeat([0, 1, 2, 3], [47, 9, 25, 39]))
X = RNG.normal(size=(120, 5)) + 0.7 * RNG.normal(size=(4, 5))[Y]
W = RNG.uniform(0.2, 3, 120)
ALL = 10**6  # rows in a batch: all of them


def one_by_one(loss, keep, weight, epochs=4, lr=0.01, batch_size=16, seed=3):
    """What `fit_pairwise` gives, of a plain loop over classes and batches."""
    criterion = {
        "softmax": torch.nn.CrossEntropyLoss(reduction="none"),
        "sigmoid": torch.nn.BCEWithLogitsLoss(reduction="none"),
        "softmax_bce": torch.nn.BCELoss(reduction="none"),
    }[loss]
    heads, share = [], []
    for k in range(4):
        rng = np.random.default_rng((seed, k))
        positive, others = np.flatnonzero(k == Y), np.flatnonzero(k != Y)
        drawn = np.sort(rng.choice(others, len(positive), replace=False))
        share.append(weight[drawn].sum() / weight[others].sum())
        rows = np.concatenate([positive, drawn])
        layer = torch.nn.utils.skip_init(torch.nn.Linear, 5, 2, dtype=torch.float64)
        start = torch.tensor(rng.uniform(-(5**-0.5), 5**-0.5, (2, 6)))
        with torch.no_grad():
            layer.weight.copy_(start[:, :5])
            layer.bias.copy_(start[:, 5])
        adam = torch.optim.Adam(layer.parameters(), lr=lr)
        for _ in range(epochs):
            for batch in torch.tensor(rng.permutation(rows)).split(batch_size):
                positive_rows = torch.tensor(k == Y)[batch]
                out = layer(torch.tensor(X)[batch])
                if loss == "softmax":
                    value = criterion(out, (~positive_rows).long())  # output 0 is the class
                else:
                    out = out.softmax(1) if loss == "softmax_bce" else out
                    target = torch.stack([positive_rows, ~positive_rows], dim=1).double()
                    value = criterion(out, target).mean(dim=1)
                value = (value * torch.tensor(weight / weight[rows].mean())[batch]).mean()
                adam.zero_grad()
                value.backward()
                adam.step()
        both = torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach().numpy()
        head = both[0]
        if keep == "difference":
            head = (both[0] - both[1]) / (2 if loss == "sigmoid" else 1)
        heads.append(head)
    heads = np.array(heads)
    return heads[:, :5], heads[:, 5], np.array(share)


def small(features=X, codes=Y, weight=None, n_classes=4, **params):
    defaults = {"epochs": 4, "lr": 0.01, "batch_size": 16, "seed": 3}
    return fit_pairwise(features, codes, weight, n_classes, **(defaults | params))


def gaussians(n_rows, means, seed=0):
    """Rows with identity covariance around each class's mean."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(means)), n_rows)
    return np.asarray(means)[codes] + rng.normal(size=(len(codes), len(means[0]))), codes


@pytest.mark.parametrize("weight", [None, W], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("keep", ["difference", "positive"])
@pytest.mark.parametrize("loss", LOSSES)
def test_all_at_once_equals_one_by_one(loss, keep, weight):
    expected = one_by_one(loss, keep, np.ones(120) if weight is None else weight)
    for found, value in zip(small(weight=weight, loss=loss, keep=keep), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=0, atol=1e-12)
        assert found.dtype == np.float64 and found.flags.c_contiguous


def test_blocks_of_classes_change_nothing(monkeypatch):
    expected = small()
    monkeypatch.setattr(_pairwise, "_GATHERED_AT_ONCE", 3 * 16 * 5)  # three classes, then one
    for found, value in zip(small(), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=0, atol=1e-12)


def test_starts_as_a_linear_layer_does():
    layer = torch.nn.Linear(400, 3000)
    coef, intercept, _ = small(
        np.zeros((3000, 400)), np.arange(3000), n_classes=3000, epochs=0, keep="positive"
    )
    for drawn, default in [(coef, layer.weight), (intercept, layer.bias)]:
        assert 0.99 * 400**-0.5 < abs(drawn).max() <= 400**-0.5
        np.testing.assert_allclose(drawn.std(), default.std().item(), rtol=0.05)
        assert abs(drawn.mean()) < 4 * drawn.std() / drawn.size**0.5


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_difference_is_the_log_odds_of_gaussians(loss):
    # log N(x; a, I) - log N(x; b, I) = (a - b)'x - (|a|^2 - |b|^2) / 2
    a, b = np.array([1.0, 0.5, 0.0]), np.array([-0.5, 0.0, 0.5])
    features, codes = gaussians(20_000, [a, b])
    coef, intercept, share = small(
        features, codes, n_classes=2, loss=loss, lr=0.02, epochs=15, batch_size=2000
    )
    np.testing.assert_allclose(coef, [a - b, b - a], atol=0.06)
    np.testing.assert_allclose(intercept, np.array([-1, 1]) * (a @ a - b @ b) / 2, atol=0.06)
    assert share.tolist() == [1, 1]  # all rows of the other class


@pytest.mark.parametrize("loss", LOSSES)
def test_converges_to_the_maximum_likelihood(loss):
    weight = np.where(Y == 2, 2.0, 1.0)
    coef, intercept, _ = small(weight=weight, loss=loss, epochs=500, batch_size=ALL, lr=0.05)
    others = np.flatnonzero(Y != 2)
    drawn = np.random.default_rng((3, 2)).choice(others, 25, replace=False)
    rows = np.concatenate([np.flatnonzero(Y == 2), drawn])
    best = LogisticRegression(C=1e9, tol=1e-10, solver="newton-cholesky")
    best.fit(X[rows], Y[rows] == 2, sample_weight=weight[rows])
    np.testing.assert_allclose(coef[2], best.coef_[0], atol=1e-6)
    np.testing.assert_allclose(intercept[2], best.intercept_[0], atol=1e-6)


def test_share_of_negatives_corrects_the_log_odds():
    # 1 positive to 9 negatives, from three sources that look alike.
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2, 3], [8000, 24_000, 24_000, 24_000])
    features = np.where(codes == 0, 0.75, -0.75)[:, None] + rng.normal(size=(80_000, 1))
    weight = np.where(codes == 0, 0.5, 1.0)
    coef, intercept, share = small(
        features, codes, weight, lr=0.02, epochs=15, batch_size=1000, n_classes=4
    )
    assert share[0] == 8000 / 72_000
    np.testing.assert_allclose(coef[0], 1.5, atol=0.06)
    # At x = 0 the densities are equal: odds are those of the weights, 4,000 to 72,000.
    np.testing.assert_allclose(intercept[0] + np.log(share[0]), np.log(4 / 72), atol=0.06)


def sum_of_rows(loss, epochs):
    """Negative plus positive row: 2 w+ - (w+ - w-)."""
    fit = partial(small, loss=loss, epochs=epochs, lr=0.05, batch_size=ALL)
    positive, difference = (
        np.column_stack(fit(keep=keep)[:2]) for keep in ("positive", "difference")
    )
    return 2 * positive - difference * (2 if loss == "sigmoid" else 1)


@pytest.mark.parametrize("loss", ["softmax", "softmax_bce"])
def test_sum_of_rows_stays_as_it_started_under_the_softmax(loss):
    start = sum_of_rows(loss, 0)
    assert abs(start).max() > 0.3
    np.testing.assert_allclose(sum_of_rows(loss, 300), start, atol=1e-12)


def test_sum_of_rows_vanishes_under_sigmoids():
    assert abs(sum_of_rows("sigmoid", 0)).max() > 0.3
    np.testing.assert_allclose(sum_of_rows("sigmoid", 600), 0, atol=1e-7)


def test_softmax_bce_is_the_softmax_up_to_rounding():
    for found, value in zip(small(loss="softmax_bce"), small(loss="softmax"), strict=True):
        np.testing.assert_allclose(found, value, atol=1e-12)


def test_softmax_bce_loses_rows_that_are_far_on_the_wrong_side():
    logits = torch.tensor([[0.0, 60.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    gradients = [
        torch.autograd.grad(_pairwise.LOSSES[loss](logits, target).sum(), logits)[0].abs().max()
        for loss in ("softmax", "softmax_bce")
    ]
    assert gradients[0] == 1 and gradients[1] < 1e-9


def test_negative_share_by_hand():
    codes = np.array([0, 0, 1, 1, 1, 2])
    features = np.eye(6)
    *_, share = small(features, codes, n_classes=3)
    np.testing.assert_allclose(share, [2 / 4, 1, 1 / 5], rtol=1e-15)

    weight = 2.0 ** np.arange(6)  # a sum tells which rows were drawn
    *_, share = small(features, codes, weight, n_classes=3)
    pairs = [4 + 8, 4 + 16, 4 + 32, 8 + 16, 8 + 32, 16 + 32]
    assert share[0] * 60 in pairs
    assert share[1] == 1
    assert share[2] * 31 in [1, 2, 4, 8, 16]


def test_a_larger_class_than_the_others_together_uses_them_all():
    features, codes = X[Y < 2], Y[Y < 2]  # 47 and 9 rows
    *_, share = small(features, codes, n_classes=2)
    np.testing.assert_allclose(share, [1, 9 / 47], rtol=1e-15)


def test_negatives_are_drawn_without_replacement_and_evenly():
    codes = np.array([0, 0, 1, 1, 1, 2])
    weight = 2.0 ** np.arange(6)
    fit = partial(small, np.eye(6), codes, weight, n_classes=3, epochs=0)
    counts = np.zeros(6)
    for seed in range(300):
        drawn = round(fit(seed=seed)[2][0] * 60)
        bits = [drawn >> k & 1 for k in range(6)]
        assert sum(bits) == 2 and not any(bits[:2])
        counts += bits
    np.testing.assert_allclose(counts[2:], 150, atol=40)


@pytest.mark.parametrize("batch_size", [16, ALL])
def test_weight_zero_is_absence(batch_size):
    weight = np.where(np.arange(120) % 3, W, 0)
    kept = weight > 0
    without = small(X[kept], Y[kept], weight[kept], batch_size=batch_size)
    for found, value in zip(small(weight=weight, batch_size=batch_size), without, strict=True):
        np.testing.assert_array_equal(found, value)


def test_scale_of_weights_is_no_matter():
    for found, value in zip(small(weight=1000 * W), small(weight=W), strict=True):
        np.testing.assert_allclose(found, value, atol=1e-12)


def test_weights_of_one_are_no_weights():
    for found, value in zip(small(weight=np.ones(120)), small(), strict=True):
        np.testing.assert_array_equal(found, value)


def test_seed():
    state = torch.get_rng_state()
    for found, value in zip(small(), small(), strict=True):
        np.testing.assert_array_equal(found, value)
    assert (small(seed=4)[0] != small()[0]).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_class_has_random_numbers_of_its_own():
    # Class 1 is told from the same rows, whatever those are called.
    codes = np.where(Y == 1, 1, 0)
    for found, value in zip(small(codes=codes, n_classes=2), small(), strict=True):
        np.testing.assert_allclose(found[1], value[1], atol=1e-12)


def test_leaves_its_input_as_it_was():
    features, codes, weight = X.copy(), Y.copy(), W.copy()
    for array in (features, codes, weight):
        array.flags.writeable = False
    with torch.no_grad():
        found = small(features, codes, weight)
    for part, value in zip(found, small(weight=W), strict=True):
        np.testing.assert_array_equal(part, value)
    np.testing.assert_array_equal(features, X)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"loss": "hinge"}, "loss must be one of .*'sigmoid', 'softmax', 'softmax_bce'.*'hinge'"),
        ({"keep": "negative"}, "keep must be 'difference' or 'positive'; got 'negative'."),
        ({"n_classes": 5}, "Class 4 has no rows with a weight above 0."),
        ({"weight": np.where(Y == 2, 0.0, 1.0)}, "Class 2 has no rows with a weight above 0."),
        ({"n_classes": 1}, "A class needs others to be told from; n_classes is 1."),
        ({"weight": -W}, "Negative values"),
        ({"features": X[:-1]}, "features must have 120 rows"),
    ],
)
def test_bad_input(params, message):
    with pytest.raises(ValueError, match=message):
        small(**params)

"""The simulator against slow oracles, its promise not to see the future, and its difficulty."""

import re
import sys

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmsc.datasets import _features, _rolling, make_card_transactions

DAY_S = 86_400
NAMES = [
    "amount",
    "during_weekend",
    "during_night",
    "customer_n_transactions_1d",
    "customer_n_transactions_7d",
    "customer_n_transactions_30d",
    "customer_mean_amount_1d",
    "customer_mean_amount_7d",
    "customer_mean_amount_30d",
    "terminal_n_transactions_1d",
    "terminal_n_transactions_7d",
    "terminal_n_transactions_30d",
    "terminal_risk_1d",
    "terminal_risk_7d",
    "terminal_risk_30d",
]


def crowded(label_delay=7):
    """Few customers and terminals, so that windows overlap, and much fraud."""
    return make_card_transactions(
        1_500,
        n_customers=12,
        n_terminals=9,
        n_days=50,
        fraud_rate=0.1,
        label_delay=label_delay,
        random_state=0,
    )


def rows_of(cards):
    """The arguments of `_features` but the delay, for another look at the same rows."""
    seconds = (cards.time - np.datetime64("2024-01-01", "s")).astype(np.int64)
    cents = np.round(100 * cards.amount).astype(np.int64)
    return [seconds, cards.customer.copy(), cards.terminal.copy(), cents, cards.target.copy()]


# Features


def slow_row(cards, i, label_delay):
    """Features of row i by looking through all rows, with dates instead of keys."""
    time, now = cards.time, cards.time[i]
    # Monday is day 0 of a week; 1970-01-01 was a Thursday.
    weekday = (now.astype("datetime64[D]").astype(int) + 3) % 7
    hour = (now - now.astype("datetime64[D]")) / np.timedelta64(1, "h")
    known = time + np.timedelta64(label_delay, "D") <= now
    seen = np.arange(len(time)) <= i
    customer, terminal = cards.customer == cards.customer[i], cards.terminal == cards.terminal[i]
    n, mean, n_terminal, risk = [], [], [], []
    for days in (1, 7, 30):
        window, delay = np.timedelta64(days, "D"), np.timedelta64(label_delay, "D")
        recent = seen & (time > now - window)
        n.append(np.sum(recent & customer))
        mean.append(np.mean(cards.amount[recent & customer]))
        n_terminal.append(np.sum(recent & terminal))
        labels = cards.target[known & terminal & (time > now - delay - window)]
        risk.append(labels.mean() if len(labels) else 0.0)
    return [cards.amount[i], weekday >= 5, hour < 6, *n, *mean, *n_terminal, *risk]


@pytest.mark.parametrize("label_delay", [1, 7, 20])
def test_features_equal_slow_computation(label_delay):
    cards = crowded(label_delay)
    slow = [slow_row(cards, i, label_delay) for i in range(len(cards.target))]
    np.testing.assert_allclose(cards.data, slow, rtol=1e-12)
    assert np.all(np.max(cards.data, axis=0) > 0)


def test_rolling_by_hand():
    #                 id 0: seconds 0, 5, 5, 9      id 1: seconds 0, 5
    ids = np.array([0, 1, 0, 1, 0, 0])
    seconds = np.array([0, 0, 5, 5, 5, 9])
    values = np.array([1, 10, 2, 20, 4, 8])
    # A window of 5 s is open at its start: at second 5, second 0 is out. Of the two rows of id 0
    # at second 5, the first does not see the second.
    count, total = _rolling(ids, seconds, values, 5)
    assert count.tolist() == [1, 1, 1, 1, 2, 3]
    assert total.tolist() == [1, 10, 2, 20, 6, 14]
    # With a delay of 4 s: (t - 9, t - 4], closed at its end, both rows of second 5 included.
    count, total = _rolling(ids, seconds, values, 5, delay_s=4)
    assert count.tolist() == [0, 0, 1, 1, 1, 2]
    assert total.tolist() == [0, 0, 1, 10, 1, 6]


def test_a_label_is_seen_only_once_it_is_known():
    cards, delay = crowded(), 7
    flipped = 200
    rows = rows_of(cards)
    rows[-1][flipped] = 1 - rows[-1][flipped]
    changed = np.any(_features(*rows, delay) != cards.data, axis=1)
    assert changed.any()
    assert np.all(cards.time[changed] >= cards.label_time[flipped])


def test_no_row_sees_the_future():
    cards, rng = crowded(), np.random.default_rng(0)
    rows, future = rows_of(cards), cards.day == cards.day.max()
    assert future.sum() > 10
    for values in rows[1:]:  # all but the time
        values[future] = rng.permutation(values[future])
    rows[-1][future] = 1 - rows[-1][future]
    data = _features(*rows, 7)
    np.testing.assert_array_equal(data[~future], cards.data[~future])
    assert np.any(data[future] != cards.data[future])


# What is returned


def test_bunch():
    cards = make_card_transactions(3_000, label_delay=5, random_state=0)
    assert cards.data.shape == (3_000, 15) and cards.data.dtype == np.float64
    assert np.isfinite(cards.data).all()
    assert cards.feature_names == NAMES
    assert cards.costly_features == NAMES[9:]
    assert cards.target_names == ["honest", "fraud"]
    assert cards.frame is None
    assert "leaks the target" in cards.DESCR
    for name in ("target", "time", "label_time", "customer", "terminal", "amount", "day"):
        assert cards[name].shape == (3_000,), name
    assert cards.time.dtype == cards.label_time.dtype == np.dtype("datetime64[s]")
    assert np.all(np.diff(cards.time) >= np.timedelta64(0, "s"))
    assert np.all(cards.label_time - cards.time == np.timedelta64(5, "D"))
    start = np.datetime64("2024-01-01", "D")
    np.testing.assert_array_equal(cards.day, (cards.time.astype("M8[D]") - start).astype(int))
    assert cards.day.min() >= 0 and cards.day.max() < 90
    assert cards.amount.min() >= 0.01
    np.testing.assert_array_equal(cards.amount, cards.data[:, 0])
    np.testing.assert_array_equal(cards.target, cards.scenario > 0)
    assert set(cards.scenario) == {0, 1, 2, 3}


def test_sizes_that_are_given():
    cards = make_card_transactions(
        5_000, n_customers=7, n_terminals=5, n_days=10, fraud_rate=0.05, random_state=0
    )
    assert set(cards.customer) == set(range(7))
    assert set(cards.terminal) == set(range(5))
    assert set(cards.day) == set(range(10))


@pytest.mark.parametrize("n_transactions", [1, 2, 40])
def test_tiny(n_transactions):
    X, y = make_card_transactions(n_transactions, return_X_y=True, random_state=0)
    assert X.shape == (n_transactions, 15) and y.shape == (n_transactions,)


@pytest.mark.parametrize("fraud_rate", [0.0, 0.002, 0.013, 0.1])
def test_fraud_rate(fraud_rate):
    _, y = make_card_transactions(40_000, fraud_rate=fraud_rate, return_X_y=True, random_state=0)
    assert y.mean() == pytest.approx(fraud_rate, rel=0.1)


def test_return_X_y():
    cards = make_card_transactions(500, random_state=0)
    X, y = make_card_transactions(500, return_X_y=True, random_state=0)
    np.testing.assert_array_equal(X, cards.data)
    np.testing.assert_array_equal(y, cards.target)


def test_as_frame():
    pd = pytest.importorskip("pandas")
    arrays = make_card_transactions(500, random_state=0)
    cards = make_card_transactions(500, as_frame=True, random_state=0)
    expected = pd.DataFrame(arrays.data, columns=NAMES)
    pd.testing.assert_frame_equal(cards.data, expected)
    pd.testing.assert_series_equal(cards.target, pd.Series(arrays.target, name="is_fraud"))
    pd.testing.assert_frame_equal(cards.frame, expected.assign(is_fraud=arrays.target))
    X, y = make_card_transactions(500, as_frame=True, return_X_y=True, random_state=0)
    pd.testing.assert_frame_equal(X, cards.data)
    pd.testing.assert_series_equal(y, cards.target)


def test_pandas_is_not_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    make_card_transactions(100, random_state=0)
    with pytest.raises(ImportError):
        make_card_transactions(100, as_frame=True, random_state=0)


def test_same_seed_same_bits():
    first, again, other = (make_card_transactions(2_000, random_state=s) for s in (3, 3, 4))
    for name in ("data", "target", "time", "customer", "terminal", "amount", "scenario"):
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])
    instance = make_card_transactions(2_000, random_state=np.random.RandomState(3))
    np.testing.assert_array_equal(first.data, instance.data)


def test_label_delay_changes_only_the_risk():
    week, day = crowded(label_delay=7), crowded(label_delay=1)
    np.testing.assert_array_equal(week.target, day.target)
    np.testing.assert_array_equal(week.data[:, :12], day.data[:, :12])
    assert np.any(week.data[:, 12:] != day.data[:, 12:])


@pytest.mark.parametrize(
    "parameters, error, message",
    [
        (
            {"n_transactions": 0},
            ValueError,
            "n_transactions must be an integer in [1, 100000000], got 0.",
        ),
        (
            {"n_transactions": 1e3},
            TypeError,
            "n_transactions must be an integer in [1, 100000000], got 1000.0 of type float.",
        ),
        (
            {"n_customers": 0},
            ValueError,
            "n_customers must be an integer in [1, 100000000], got 0.",
        ),
        (
            {"n_terminals": True},
            TypeError,
            "n_terminals must be an integer in [1, 100000000], got True of type bool.",
        ),
        ({"n_days": 0}, ValueError, "n_days must be an integer in [1, 3650], got 0."),
        ({"fraud_rate": 0.2}, ValueError, "fraud_rate must be a number in [0, 0.1], got 0.2."),
        (
            {"fraud_rate": float("nan")},
            ValueError,
            "fraud_rate must be a number in [0, 0.1], got nan.",
        ),
        (
            {"fraud_rate": "rare"},
            TypeError,
            "fraud_rate must be a number in [0, 0.1], got 'rare' of type str.",
        ),
        ({"label_delay": 0}, ValueError, "label_delay must be an integer in [1, 3650], got 0."),
        (
            {"label_delay": 1.5},
            TypeError,
            "label_delay must be an integer in [1, 3650], got 1.5 of type float.",
        ),
    ],
)
def test_errors(parameters, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make_card_transactions(**parameters)


# How hard it is


def check_difficulty(seed):
    """Logistic regression is useful, a forest is better, and it needs the costly features."""
    cards = make_card_transactions(30_000, random_state=seed)
    # Labels of the training days are known when the test begins.
    train, test = cards.day < 54, cards.day >= 61
    n_cheap = len(cards.feature_names) - len(cards.costly_features)
    y = cards.target[test]

    def score(estimator, n_features):
        estimator.fit(cards.data[train, :n_features], cards.target[train])
        return estimator.predict_proba(cards.data[test, :n_features])[:, 1]

    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    forest = RandomForestClassifier(50, min_samples_leaf=2, random_state=0)
    ap_logistic = average_precision_score(y, score(logistic, 15))
    ap_forest = average_precision_score(y, score(forest, 15))
    assert 0.008 <= y.mean() <= 0.018
    assert 0.4 <= ap_logistic <= 0.7
    assert ap_forest >= ap_logistic + 0.05
    assert average_precision_score(y, score(forest, n_cheap)) <= ap_forest - 0.1
    # The cheap columns suffice for a screen.
    screen = score(logistic, n_cheap)
    assert roc_auc_score(y, screen) >= 0.75
    assert average_precision_score(y, screen) >= 10 * y.mean()


def test_difficulty():
    check_difficulty(seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_difficulty_of_more_seeds(seed):
    check_difficulty(seed)

"""Simulated card transactions whose features come at two prices.

Input: sizes and a seed. Output: X of shape (n_transactions, 15), y of shape (n_transactions,).
The path: simulate rows (who, where, when, how much, fraud or not), put them in time order, then
compute rolling features that see only what was known at the moment of each row.
"""

from numbers import Integral, Real

import numpy as np
from scipy.spatial import cKDTree
from sklearn.utils import Bunch, check_random_state

__all__ = ["make_card_transactions"]

_DAY_S = 86_400
_NIGHT_S = 6 * 3600  # from midnight
_WINDOWS = (1, 7, 30)  # days
_START = np.datetime64("2024-01-01T00:00:00", "s")  # a Monday

# Shares of the three kinds in all fraud: terminals, cards, bursts.
_SCENARIO_SHARES = (0.56, 0.23, 0.21)
_BURST_SIZE = 4  # three small payments, then a large one
_HONEST_BURST_SHARE = 0.015  # of all rows

_CHEAP = (
    ["amount", "during_weekend", "during_night"]
    + [f"customer_n_transactions_{w}d" for w in _WINDOWS]
    + [f"customer_mean_amount_{w}d" for w in _WINDOWS]
)
_COSTLY = [f"terminal_n_transactions_{w}d" for w in _WINDOWS] + [
    f"terminal_risk_{w}d" for w in _WINDOWS
]

_DESCR = """\
Simulated card transactions
---------------------------
Customers pay at terminals near their home; about one payment in a hundred is fraud: at a
compromised terminal (scenario 1), with stolen card details (2), or in a burst of small test
payments before a large one (3). Rows are in time order. The features of the customer are cheap,
those of the terminal are costly: they need the labels of other customers' payments, known only
after a delay. `scenario` leaks the target and is no feature."""


def _check_number(name, value, kind, low, high):
    """Raise unless `value` is a number of `kind` in [low, high]; NaN is outside every range."""
    valid = f"{'an integer' if kind is Integral else 'a number'} in [{low}, {high}]"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, kind):
        raise TypeError(f"{name} must be {valid}, got {value!r} of type {type(value).__name__}.")
    if not low <= value <= high:
        raise ValueError(f"{name} must be {valid}, got {value!r}.")


def _rolling(ids, seconds, values, window_s, delay_s=0):
    """Count and sum of `values` per id over (t - delay - window, t - delay], rows in time order.

    Without delay a window ends at its own row: of rows with the same id and second, those that
    come later in the table are not seen. Integer values keep the sums exact.
    """
    order = np.argsort(ids, kind="stable")
    # One sorted key for (id, second); the gap between ids keeps a window from reaching the
    # rows of the id before.
    gap = int(seconds[-1] - seconds[0]) + window_s + delay_s + 1
    key = ids[order] * gap + (seconds[order] - seconds[0])
    start = np.searchsorted(key, key - delay_s - window_s, side="right")
    if delay_s:
        stop = np.searchsorted(key, key - delay_s, side="right")
    else:
        stop = np.arange(1, len(key) + 1)
    total = np.concatenate([[0], np.cumsum(values[order])])
    count_of_row, sum_of_row = np.empty_like(key), np.empty_like(total[1:])
    count_of_row[order] = stop - start
    sum_of_row[order] = total[stop] - total[start]
    return count_of_row, sum_of_row


def _features(seconds, customer, terminal, cents, y, label_delay):
    """X of shape (n_transactions, 15), columns `_CHEAP + _COSTLY`, from rows in time order."""
    day = seconds // _DAY_S
    cheap = [cents / 100, day % 7 >= 5, seconds % _DAY_S < _NIGHT_S]
    customer_windows = [_rolling(customer, seconds, cents, w * _DAY_S) for w in _WINDOWS]
    cheap += [count for count, _ in customer_windows]
    cheap += [total / count / 100 for count, total in customer_windows]
    costly = [_rolling(terminal, seconds, y, w * _DAY_S)[0] for w in _WINDOWS]
    for w in _WINDOWS:
        count, n_frauds = _rolling(terminal, seconds, y, w * _DAY_S, label_delay * _DAY_S)
        costly.append(n_frauds / np.maximum(count, 1))
    return np.column_stack(cheap + costly).astype(np.float64, copy=False)


def _evenly(n, n_days, rng):
    """`n` days in [0, n_days) of which any first few already cover the period evenly."""
    golden_ratio = 0.6180339887
    return (np.arange(n) * golden_ratio + rng.uniform()) % 1 * n_days


def _attacked(ids, day, n_ids, n_days, n_target, length, share, rng):
    """Boolean mask of about `n_target` rows: whole episodes of `length` days at random ids."""
    rank = rng.permutation(n_ids)[ids]
    start = _evenly(n_ids, n_days, rng) - length / 2
    offset = day - start[rank]
    candidate = (0 <= offset) & (offset < length) & (rng.uniform(size=len(ids)) < share)
    size = np.bincount(rank[candidate], minlength=n_ids)
    kept = np.cumsum(size) - size / 2 <= n_target
    return candidate & kept[rank]


def _simulate(n, n_customers, n_terminals, n_days, fraud_rate, rng):
    """Seconds, customer, terminal, cents and scenario of `n` rows in time order."""
    # Customers: who pays, and how often. In a week away each pays more, elsewhere.
    activity = np.cumsum(rng.gamma(4.0, size=n_customers))
    customer = np.searchsorted(activity, rng.uniform(0, activity[-1], size=n), side="right")
    away_from = rng.randint(n_days, size=n_customers)
    is_away = rng.uniform(size=n) < 0.12
    day = rng.randint(n_days, size=n)
    day = np.where(is_away, (away_from[customer] + rng.randint(7, size=n)) % n_days, day)
    seconds = (rng.normal(14, 4.5, size=n) % 24 * 3600).astype(np.int64)

    # Bursts: the first rows become groups of one customer within the hour. Most are honest.
    n_bad = int(round(fraud_rate * _SCENARIO_SHARES[2] * n / _BURST_SIZE))
    n_bursts = n_bad + int(_HONEST_BURST_SHARE * n / _BURST_SIZE)
    n_in_bursts = n_bursts * _BURST_SIZE
    first = np.arange(n_in_bursts) // _BURST_SIZE * _BURST_SIZE
    step = np.zeros(n, dtype=np.int64)  # 1, 2, 3, 4 within a burst
    step[:n_in_bursts] = np.arange(n_in_bursts) % _BURST_SIZE + 1
    at_night = (np.arange(n) < n_bad * _BURST_SIZE) & (rng.uniform(size=n) < 0.6)
    seconds = np.where(at_night, rng.randint(_NIGHT_S, size=n), seconds)
    n_bad_rows = n_bad * _BURST_SIZE
    day[:n_bad_rows] = _evenly(n_bad_rows, n_days, rng)
    for values in (customer, day, is_away, seconds):
        values[:n_in_bursts] = values[first]
    seconds = np.minimum(seconds + step * rng.randint(120, 900, size=n), _DAY_S - 1)

    # Terminals: one of the nearest twenty, the popular ones more often.
    home, place = rng.uniform(size=(n_customers, 2)), rng.uniform(size=(n_terminals, 2))
    k = min(20, n_terminals)
    near = cKDTree(place).query(home, k=k)[1].reshape(n_customers, k)
    weight = np.cumsum(rng.gamma(10.0, size=n_terminals)[near], axis=1)
    host = np.where(is_away, rng.permutation(n_customers)[customer], customer)
    # Row c of `weight` is scaled to end at c + 1, so that one search serves all customers.
    edges = np.arange(n_customers)[:, None] + weight / weight[:, -1:]
    terminal = near.ravel()[np.searchsorted(edges.ravel(), host + rng.uniform(size=n))]

    # Fraud: bursts first, then stolen cards (used at any terminal), then terminals.
    scenario = np.zeros(n, dtype=np.int64)
    scenario[: n_bad * _BURST_SIZE] = 3
    n_fraud = fraud_rate * n
    stolen = _attacked(
        customer, day, n_customers, n_days, _SCENARIO_SHARES[1] * n_fraud, 5, 0.8, rng
    )
    scenario[stolen & (scenario == 0)] = 2
    terminal[scenario == 2] = rng.randint(n_terminals, size=np.sum(scenario == 2))
    hit = _attacked(
        terminal, day, n_terminals, n_days, _SCENARIO_SHARES[0] * n_fraud, 30, 0.95, rng
    )
    scenario[hit & (scenario == 0)] = 1

    # Amounts: about the customer's mean; some honest ones are tiny or large, so is fraud.
    mean = rng.lognormal(3.5, 0.5, size=n_customers)
    factor = rng.lognormal(-0.1, 0.45, size=n)
    kind = rng.uniform(size=n)
    factor *= np.select([kind < 0.05, kind > 0.995], [0.15, 5.0], 1.0) * np.where(is_away, 1.6, 1.0)
    factor *= np.select([scenario == 1, scenario == 2], [2.0, 10.0], 1.0)
    small = (step > 0) & (step < _BURST_SIZE)
    factor *= np.where(small, np.where(scenario == 3, 0.02, 0.5), 1.0)
    factor *= np.where(step == _BURST_SIZE, np.where(scenario == 3, 8.0, 2.0), 1.0)
    cents = np.maximum(np.round(100 * mean[customer] * factor), 1).astype(np.int64)

    at_night = np.isin(scenario, (1, 2)) & (rng.uniform(size=n) < 0.4)
    seconds = day * _DAY_S + np.where(at_night, rng.randint(_NIGHT_S, size=n), seconds)
    order = np.argsort(seconds, kind="stable")
    return [a[order] for a in (seconds, customer, terminal, cents, scenario)]


def make_card_transactions(
    n_transactions=100_000,
    *,
    n_customers=None,
    n_terminals=None,
    n_days=90,
    fraud_rate=0.013,
    label_delay=7,
    as_frame=False,
    return_X_y=False,
    random_state=None,
):
    _check_number("n_transactions", n_transactions, Integral, 1, 10**8)
    if n_customers is None:
        n_customers = max(n_transactions // 90, 1)
    if n_terminals is None:
        n_terminals = max(n_transactions // 50, 1)
    _check_number("n_days", n_days, Integral, 1, 3650)
    _check_number("fraud_rate", fraud_rate, Real, 0, 0.1)
    _check_number("label_delay", label_delay, Integral, 1, 3650)
    rng = check_random_state(random_state)
    seconds, customer, terminal, cents, scenario = _simulate(
        n_transactions, n_customers, n_terminals, n_days, fraud_rate, rng
    )
    y = (scenario > 0).astype(np.int64)
    X = _features(seconds, customer, terminal, cents, y, label_delay)
    if return_X_y:
        return X, y
    time = _START + seconds.astype("timedelta64[s]")
    return Bunch(
        data=X,
        target=y,
        time=time,
        customer=customer,
        terminal=terminal,
        amount=cents / 100,
        day=seconds // _DAY_S,
        scenario=scenario,
        feature_names=_CHEAP + _COSTLY,
        costly_features=list(_COSTLY),
    )

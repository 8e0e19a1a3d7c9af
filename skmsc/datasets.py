"""Simulated card transactions whose features come at two prices.

Input: sizes and a seed. Output: X of shape (n_transactions, 15), y of shape (n_transactions,).
Rows are drawn (who, when, where, fraud or not, how much) and put in time order; then rolling
features are computed that see only what was known at the moment of each row.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree
from sklearn.utils import Bunch, check_random_state

if TYPE_CHECKING:
    from skmsc._typing import RandomState

__all__ = ["make_card_transactions"]

_DAY_S = 86_400
_NIGHT_S = 6 * 3600  # from midnight
_WINDOWS = (1, 7, 30)  # days
_MAX_SIZE = 10**8
_START = np.datetime64("2024-01-01T00:00:00", "s")  # a Monday

# Shares of the three kinds in all fraud: terminals, cards, bursts.
_SCENARIO_SHARES = (0.57, 0.26, 0.17)
_BURST_SIZE = 4  # three small payments, then a large one
_HONEST_BURST_SHARE = 0.01  # in all rows

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
    start = _evenly(n_ids, n_days + length, rng) - length
    offset = day - start[rank]
    candidate = (0 <= offset) & (offset < length) & (rng.uniform(size=len(ids)) < share)
    size = np.bincount(rank[candidate], minlength=n_ids)
    kept = np.cumsum(size) - size / 2 <= n_target
    return candidate & kept[rank]


def _draw_terminals(customer, is_away, n_customers, n_terminals, rng):
    """One of the twenty terminals nearest to home or, when away, to another customer's home."""
    home, place = rng.uniform(size=(n_customers, 2)), rng.uniform(size=(n_terminals, 2))
    n_near = min(20, n_terminals)
    near = cKDTree(place).query(home, k=n_near)[1].reshape(n_customers, n_near)
    popularity = np.cumsum(rng.gamma(10.0, size=n_terminals)[near], axis=1)
    # Row c of `edges` runs from c to c + 1, so that one search serves all customers.
    edges = np.arange(n_customers)[:, None] + popularity / popularity[:, -1:]
    host = np.where(is_away, rng.permutation(n_customers)[customer], customer)
    u = rng.uniform(size=len(customer))
    return near.ravel()[np.searchsorted(edges.ravel(), host + u)]


def _draw_cents(customer, is_away, scenario, n_bad, n_burst, n_customers, rng):
    """Amounts around the customer's mean; a few honest ones are tiny or large, too."""
    n = len(customer)
    mean = rng.lognormal(3.5, 0.5, size=n_customers)[customer]
    factor = rng.lognormal(-0.1, 0.45, size=n) * np.where(is_away, 1.6, 1.0)
    kind = rng.uniform(size=n)
    factor *= np.select([kind < 0.05, kind > 0.995], [0.2, 5.0], 1.0)
    factor *= np.array([1.0, 2.0, 9.0, 1.0])[scenario]
    n_small = _BURST_SIZE - 1
    factor[:n_bad] *= np.tile([0.015] * n_small + [8.0], n_bad // _BURST_SIZE)
    factor[n_bad:n_burst] *= np.tile([0.5] * n_small + [2.0], (n_burst - n_bad) // _BURST_SIZE)
    return np.maximum(np.round(100 * mean * factor), 1).astype(np.int64)


def _simulate(n, n_customers, n_terminals, n_days, fraud_rate, rng):
    """Seconds, customer, terminal, cents and scenario of `n` rows in time order."""
    # Who pays, and when. In a week away a customer pays more often, elsewhere, and more.
    activity = np.cumsum(rng.gamma(4.0, size=n_customers))
    customer = np.searchsorted(activity, rng.uniform(0, activity[-1], size=n), side="right")
    first_away = rng.randint(n_days, size=n_customers)[customer]
    is_away = rng.uniform(size=n) < 0.12
    day_away = (first_away + rng.randint(7, size=n)) % n_days
    day = np.where(is_away, day_away, rng.randint(n_days, size=n))
    second = (rng.normal(14, 4.5, size=n) % 24 * 3600).astype(np.int64)  # of the day

    # Bursts: the first rows become groups of one customer within the hour. The very first
    # groups are fraud, more often at night; the others are honest.
    n_bad = round(fraud_rate * _SCENARIO_SHARES[2] * n / _BURST_SIZE) * _BURST_SIZE
    n_burst = n_bad + int(_HONEST_BURST_SHARE * n / _BURST_SIZE) * _BURST_SIZE
    at_night = rng.uniform(size=n_bad) < 0.6
    second[:n_bad] = np.where(at_night, rng.randint(_NIGHT_S, size=n_bad), second[:n_bad])
    day[:n_bad] = _evenly(n_bad, n_days, rng)
    first = np.arange(n_burst) // _BURST_SIZE * _BURST_SIZE
    for values in (customer, day, is_away, second):
        values[:n_burst] = values[first]
    gap_s = rng.randint(60, 900, size=(n_burst // _BURST_SIZE, _BURST_SIZE))
    second[:n_burst] += np.cumsum(gap_s, axis=1).ravel()
    second = np.minimum(second, _DAY_S - 1)

    terminal = _draw_terminals(customer, is_away, n_customers, n_terminals, rng)

    # Fraud: bursts, then stolen cards (used at any terminal), then compromised terminals.
    scenario = np.zeros(n, dtype=np.int64)
    scenario[:n_bad] = 3
    n_terminal, n_card = (fraud_rate * n * share for share in _SCENARIO_SHARES[:2])
    stolen = _attacked(customer, day, n_customers, n_days, n_card, 5, 0.8, rng)
    scenario[stolen & (scenario == 0)] = 2
    terminal[scenario == 2] = rng.randint(n_terminals, size=np.sum(scenario == 2))
    hit = _attacked(terminal, day, n_terminals, n_days, n_terminal, 30, 0.95, rng)
    scenario[hit & (scenario == 0)] = 1
    at_night = np.isin(scenario, (1, 2)) & (rng.uniform(size=n) < 0.4)
    second = np.where(at_night, rng.randint(_NIGHT_S, size=n), second)

    cents = _draw_cents(customer, is_away, scenario, n_bad, n_burst, n_customers, rng)
    seconds = day * _DAY_S + second
    order = np.argsort(seconds, kind="stable")
    return [a[order] for a in (seconds, customer, terminal, cents, scenario)]


def make_card_transactions(
    n_transactions: int = 100_000,
    *,
    n_customers: int | None = None,
    n_terminals: int | None = None,
    n_days: int = 90,
    fraud_rate: float = 0.013,
    label_delay: int = 7,
    as_frame: bool = False,
    return_X_y: bool = False,
    random_state: RandomState = None,
) -> Any:
    """Simulate card transactions with fraud, and features of two prices.

    Customers pay at terminals near their home. Fraud comes in three scenarios: 1, a terminal is
    compromised for 30 days and most of its transactions are fraud; 2, a card's details are stolen
    and for 5 days most of the customer's transactions are fraud, of about nine times the usual
    amount, at any terminal; 3, a burst of three tiny test payments and a large one within the
    hour. Weeks away with more and larger payments elsewhere, honest bursts, tiny and large honest
    amounts and popular terminals keep every rule inexact.

    The 15 features hold no id and see no future. Nine are cheap: `amount`, `during_weekend`,
    `during_night` (0 to 6 o'clock), and over the customer's last 1, 7 and 30 days the number of
    transactions and their mean amount. Six are costly: over 1, 7 and 30 days, the terminal's
    number of transactions, and its risk: the share of fraud among its transactions in the window
    that ends `label_delay` days ago, 0 if it had none. Other windows end at the transaction
    itself, which they count; of transactions in the same second they see those in earlier rows.

    Parameters
    ----------
    n_transactions : int, default=100_000
        Number of rows, in [1, 10**8].
    n_customers : int or None, default=None
        Number of customers, at least 1. None: as many as there are
        transactions a day.
    n_terminals : int or None, default=None
        Number of terminals, at least 1. None: 1.8 times the
        transactions a day.
    n_days : int, default=90
        Days that the transactions cover, in [1, 3650], from a Monday. The windows of the first
        30 + `label_delay` days are not yet full.
    fraud_rate : float, default=0.013
        Share of fraud to aim at, in [0, 0.1]; the share drawn comes near it.
    label_delay : int, default=7
        Days until the label of a transaction is known, in [1, 3650].
    as_frame : bool, default=False
        Whether `data` is a DataFrame and `target` a Series. Needs pandas.
    return_X_y : bool, default=False
        Whether to return `(data, target)` only.
    random_state : int, RandomState instance or None, default=None
        Seed of the simulation. The same int gives the same bits.

    Returns
    -------
    transactions : :class:`~sklearn.utils.Bunch`
        Rows are in time order. With the attributes

        data : ndarray or DataFrame of shape (n_transactions, 15), float64
            The features.
        target : ndarray or Series `is_fraud` of shape (n_transactions,), int64
            1 for fraud, 0 for honest.
        feature_names, costly_features, target_names : list of str
            The columns of `data`, those of them that are costly, the names of classes 0 and 1.
        frame : DataFrame of shape (n_transactions, 16) or None
            `data` and `target`, with `as_frame=True`.
        time, label_time : ndarray of shape (n_transactions,), datetime64[s]
            When the transaction happens, and when its label becomes known.
        day : ndarray of shape (n_transactions,), int64
            Days since the first midnight, in [0, n_days).
        customer, terminal : ndarray of shape (n_transactions,), int64
            Ids, from 0.
        amount : ndarray of shape (n_transactions,), float64
            In units of the currency, at least 0.01; also a column of `data`.
        scenario : ndarray of shape (n_transactions,), int64
            Kind of fraud, 0 for none. It leaks the target: never a feature.
        DESCR : str
            What the data are.

    (X, y) : tuple
        `data` and `target`, with `return_X_y=True`.

    Raises
    ------
    TypeError
        If a number is of the wrong type.
    ValueError
        If a number is out of range.

    References
    ----------
    .. [1] Y.-A. Le Borgne, W. Siblini, B. Lebichot, G. Bontempi, "Reproducible Machine Learning
       for Credit Card Fraud Detection - Practical Handbook", Universite Libre de Bruxelles, 2022.
       Inspired the setting, the terminals' delayed risk above all. The simulator is our own; it
       departs from [1]_ in all distributions, in scenario 3 and in the honest anomalies.

    Examples
    --------
    >>> from skmsc.datasets import make_card_transactions
    >>> cards = make_card_transactions(1_000, random_state=0)
    >>> cards.data.shape
    (1000, 15)
    >>> cards.costly_features[-1]
    'terminal_risk_30d'
    >>> X, y = make_card_transactions(1_000, return_X_y=True, random_state=0)
    >>> X[:2, :4]
    array([[19.81,  0.  ,  0.  ,  1.  ],
           [21.76,  0.  ,  0.  ,  1.  ]])
    """
    _check_number("n_transactions", n_transactions, Integral, 1, _MAX_SIZE)
    _check_number("n_days", n_days, Integral, 1, 3650)
    _check_number("fraud_rate", fraud_rate, Real, 0, 0.1)
    _check_number("label_delay", label_delay, Integral, 1, 3650)
    if n_customers is None:
        n_customers = max(n_transactions // n_days, 1)
    _check_number("n_customers", n_customers, Integral, 1, _MAX_SIZE)
    if n_terminals is None:
        n_terminals = max(9 * n_transactions // (5 * n_days), 1)
    _check_number("n_terminals", n_terminals, Integral, 1, _MAX_SIZE)
    rng = check_random_state(random_state)

    seconds, customer, terminal, cents, scenario = _simulate(
        n_transactions, n_customers, n_terminals, n_days, fraud_rate, rng
    )
    target = (scenario > 0).astype(np.int64)
    data = _features(seconds, customer, terminal, cents, target, label_delay)
    feature_names, frame = _CHEAP + _COSTLY, None
    if as_frame:
        import pandas as pd

        data = pd.DataFrame(data, columns=feature_names)
        target = pd.Series(target, name="is_fraud")
        frame = data.assign(is_fraud=target)
    if return_X_y:
        return data, target
    time = _START + seconds.astype("timedelta64[s]")
    return Bunch(
        data=data,
        target=target,
        feature_names=feature_names,
        costly_features=list(_COSTLY),
        target_names=["honest", "fraud"],
        frame=frame,
        time=time,
        label_time=time + np.timedelta64(label_delay, "D"),
        day=seconds // _DAY_S,
        customer=customer,
        terminal=terminal,
        amount=cents / 100,
        scenario=scenario,
        DESCR=_DESCR,
    )

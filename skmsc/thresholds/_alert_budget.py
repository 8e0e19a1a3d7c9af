"""AlertBudget: the final cut of a team that can look at so many cases a day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator

from skmsc._checks import check_bool, is_number, warn
from skmsc._splitters import _check_time, _microseconds
from skmsc.thresholds._cuts import SLACK, cut_below, cuts_by_loss
from skmsc.thresholds._policies import capped, check_share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from skmsc._typing import Duration, Floats
    from skmsc.thresholds import StageScores


_MOST_PERIODS = 2.0**53  # up to which floats tell integers apart


class AlertBudget(BaseEstimator):
    """Raise at most so many alerts a day, and run later stages no more than these need.

    An alert is a row whose positive probability, as `predict_proba` gives it, reaches
    ``alert_threshold_``; ``alerts(X)`` tells which do. A row that an early stage dismisses has a
    probability below that. The early stages are set to keep the rows that the last stage would
    alert by itself, under the same budget.

    What it promises: on the rows that it was set on, no period has more than `max_alerts` alerts;
    and of the rows that would be alerts if the last stage saw all, those that reach it hold at
    least `min_kept` of the sum of the last stage's scores, which is the number of positives among
    them as it tells it, unless `max_pass_rate` binds, which is warned of. It needs no labels, and
    says nothing of how many alerts are right. New rows must be exchangeable with these for either
    to hold about as well: where traffic, or fraud, grows, alerts do, until the cut is set anew.

    The population that is counted are all rows that were given with a weight, those that an early
    stage answers and those without a label too. Where only some rows of a period have scores that
    thresholds may be set on (held-out rows, or those that `cv` tests), each of these stands for as
    many rows as there are of the period; a period of which no row has scores is not counted. A
    row's weight counts as so many rows.

    Early stages answer the negative class only, also those of an `EarlyExitClassifier`, whose
    positive class is ``classes_[1]``.

    Parameters
    ----------
    max_alerts : float
        Number of alerts in a period, above 0.
    per : duration, default="1D"
        Length of a period, above 0: a string of a number and one of the units W, D, h, min, s, ms
        and us, a `numpy.timedelta64` or a `datetime.timedelta`; where ``time`` holds numbers, a
        number in their unit. Periods are counted from the start of 1970, so that days begin at
        midnight of the times as they are given (UTC for times with a time zone), or from 0.
    average : bool, default=False
        Whether a mean period may have `max_alerts`, rather than each: for a team that can leave
        some cases for tomorrow. Counted from the first period to the last, empty ones among them.
    min_kept : float, default=0.95
        Share in (0, 1] of the last stage's own alerts, each counted by its score, that must reach
        it. Counted so since a team with time to spare looks at many rows that are hardly suspect:
        to keep each of them most rows would have to pass.
    max_pass_rate : float, default=None
        Cap on the share of rows that reach the last stage; where `min_kept` needs more, the cap
        holds and a warning tells the share that is kept.

    Notes
    -----
    It reads the ``time`` of each row, a date or a number, given to `fit` or `tune_thresholds`.

    Alerts are a cut of their own because `predict` must stay the likeliest class: few frauds have
    a probability above 1/2, or many, and neither has to do with how many cases a team can look at.
    ``FixedThresholdClassifier(FrozenEstimator(cascade), threshold=cascade.alert_threshold_)`` is
    the same cut as a scikit-learn classifier whose `predict` tells the alerts.

    Rows that tie at the cut are no alerts, nor are rows of probability 0.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skmsc import AlertBudget, FeedbackCascadeClassifier
    >>> X, y = make_classification(2000, weights=[0.9], random_state=0)
    >>> day = np.arange(2000) // 100
    >>> time = np.datetime64("2024-05-01") + day.astype("timedelta64[D]")
    >>> cascade = FeedbackCascadeClassifier(
    ...     [("screen", GaussianNB()), ("final", LogisticRegression())],
    ...     thresholds=AlertBudget(15, per="1D"),
    ... ).fit(X, y, time=time)
    >>> cascade.tune_thresholds(X, thresholds=AlertBudget(5), time=time)  # no labels
    FeedbackCascadeClassifier(...)
    >>> int(np.bincount(day[cascade.alerts(X)]).max())
    5
    """

    needs_labels = False
    needs_two_classes = True
    row_metadata = ("time",)

    def __init__(
        self,
        max_alerts: float,
        per: Duration = "1D",
        average: bool = False,
        min_kept: float = 0.95,
        max_pass_rate: float | None = None,
    ) -> None:
        self.max_alerts = max_alerts
        self.per = per
        self.average = average
        self.min_kept = min_kept
        self.max_pass_rate = max_pass_rate

    def check(self, *, n_stages: int, stage_costs: Floats | None = None) -> None:
        """Validate the parameters, for so many stages of such costs (None: unknown)."""
        if not is_number(self.max_alerts):
            raise TypeError(f"max_alerts must be a finite number > 0; got {self.max_alerts!r}.")
        if not 0 < self.max_alerts < np.inf:
            raise ValueError(f"max_alerts must be a finite number > 0; got {self.max_alerts!r}.")
        size, _ = self._length()
        if size is None or not 0 < size < np.inf:
            error = TypeError if size is None and not isinstance(self.per, str) else ValueError
            raise error(
                "per must be a duration above 0: a string such as '1D', '12h' or '30min' (units W, "
                "D, h, min, s, ms, us), a numpy.timedelta64 of such a unit, a datetime.timedelta, "
                f"or a number where time holds numbers; got {self.per!r}."
            )
        check_bool("average", self.average)
        check_share(self, "min_kept", low_open=True)
        check_share(self, "max_pass_rate", optional=True)

    def _length(self):
        """Length of a period as a number, None if it is none, and whether it is a duration."""
        size = _microseconds(self.per)
        if size is not None:
            return size, True
        of_time = isinstance(self.per, np.timedelta64)  # of no fixed length
        return (self.per, False) if is_number(self.per) and not of_time else (None, False)

    def per_row(
        self, given: Mapping[str, ArrayLike], sample_weight: Floats
    ) -> dict[str, NDArray[Any]]:
        """What `find_thresholds` reads of each row, from the metadata and weights of all rows."""
        times, dated = _check_time(given["time"], sample_weight.size)
        size, is_duration = self._length()
        if dated != is_duration:
            kind = "dates, so that per is a duration" if dated else "numbers, so that per is one"
            raise TypeError(
                f"time holds {kind}, such as {'1D' if dated else 1!r}; got {self.per!r}."
            )
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            period = times // size
        used = sample_weight > 0
        first, last = (float(end) for end in (period[used].min(), period[used].max()))
        if not last - first < _MOST_PERIODS:
            raise ValueError(
                f"time spans {last - first:.2g} periods of per={self.per!r}, too many to count: "
                "give a longer period, or times in another unit."
            )
        period[~used] = period[used].min()  # nothing is read of these rows
        period = (period - period.min()).astype(np.int64)
        _, code = np.unique(period, return_inverse=True)
        return {"period": period, "period_rows": np.bincount(code, sample_weight)[code]}

    def find_thresholds(self, scores: StageScores) -> Floats:
        """Threshold matrix for the given `StageScores`."""
        if scores.negative is None:
            scores = scores.answering_only(0)
        last = scores.stage_proba[:, -1, 1 - scores.negative]
        alerted = last >= self.find_alert_threshold(last, scores)
        loss = scores.sample_weight * last * alerted
        most = (1 - self.min_kept) * loss.sum()
        thresholds = scores.matrix(cuts_by_loss(scores, lambda k: loss, most))
        return capped(thresholds, scores, self.max_pass_rate, loss, f"{self!r}", "of the alerts")

    def find_alert_threshold(self, proba: Floats, scores: StageScores) -> float:
        """Probability from which rows are alerts.

        `proba` has shape (n_samples,): the positive probabilities of the rows that reach the last
        stage, nan for the others.
        """
        _, code = np.unique(scores.row_values["period"], return_inverse=True)
        of_period = np.bincount(code, scores.sample_weight)[code]
        count = scores.sample_weight * scores.row_values["period_rows"] / of_period
        most = self.max_alerts
        if self.average:
            most, code = most * (np.ptp(scores.row_values["period"]) + 1), np.zeros_like(code)
        passed = ~np.isnan(proba)
        proba, count, code = proba[passed], count[passed], code[passed]
        if not proba.size:
            return np.inf
        # Rows by period, the likeliest first; those beyond the budget are no alerts anywhere.
        order = np.lexsort((-proba, code))
        total = np.cumsum(count[order])
        starts = np.flatnonzero(np.diff(code[order], prepend=-1))
        before = np.repeat(total[starts] - count[order][starts], np.diff([*starts, code.size]))
        beyond = proba[order][total - before > most * (1 + SLACK)]
        values = np.unique(proba)[::-1]
        n_alerted = values.size if beyond.size == 0 else int((values > beyond.max()).sum())
        if n_alerted == 0:
            warn(
                f"{self!r} leaves no alert: the rows that tie at the highest score, "
                f"{values[0]:.4g}, are already more than the budget."
            )
        return cut_below(values, n_alerted)

"""Splitters for labels that are missing, or that come late.

Input: rows, their labels, times and groups. Output: pairs (train, test) of integer indices, as
from any splitter of scikit-learn.
"""

from __future__ import annotations

import copy
import datetime
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.model_selection import BaseCrossValidator, check_cv
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.metadata_routing import get_routing_for_object

from skmsc._checks import check_choice, check_integer, find_labeled, is_number
from skmsc._sklearn import _num_samples

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.utils.metadata_routing import MetadataRequest

    from skmsc._typing import Bools, Duration, Ints, Label, Rows, Splitter

__all__ = ["LabeledTestFolds", "TimeDelaySplit"]

_UNITS_US = {
    "w": 7 * 86_400_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "min": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_DURATION = re.compile(rf"\s*([+-]?\d+(?:\.\d+)?)\s*({'|'.join(_UNITS_US)})\s*", re.IGNORECASE)


def _with_groups(params, groups):
    """The parameters of a splitter; not every splitter takes groups."""
    return params if groups is None else {**params, "groups": groups}


def _as_indices(part):
    """A part of a split as indices, whether given as these or as a mask."""
    part = np.asarray(part)
    if part.dtype == bool:
        return np.flatnonzero(part)
    return part if part.size else part.astype(np.intp)


def _check_time(time, n_samples=None):
    """Times as an array of numbers, dates in microseconds, and whether they are dates."""
    if time is None:
        raise ValueError(
            "TimeDelaySplit needs the time of each row: split(X, y, time=time). In a search or a "
            "cross-validation, enable metadata routing, by "
            "sklearn.set_config(enable_metadata_routing=True), and give fit(X, y, time=time) or "
            "cross_validate(..., params={'time': time}); without routing give "
            "cv=list(splitter.split(X, y, time=time))."
        )
    if getattr(getattr(time, "dtype", None), "tz", None) is not None:
        time = np.asarray(time, dtype="datetime64[us]")  # pandas makes it UTC
    times = np.asarray(time)
    if times.ndim != 1 or times.size == 0 or n_samples not in (None, times.size):
        rows = "n_samples" if n_samples is None else n_samples
        raise ValueError(f"time must have shape ({rows},), one per row; got {times.shape}.")
    if times.dtype == object and isinstance(times[0], datetime.date):
        times = _as_datetime64(times)
    kind = times.dtype.kind
    if kind not in "Miuf":
        raise TypeError(f"time must hold dates or numbers; got {times.dtype} such as {times[0]!r}.")
    missing = np.isnat(times) if kind == "M" else ~np.isfinite(times)
    if missing.any():
        raise ValueError(f"time is missing or infinite in {missing.sum()} of {times.size} rows.")
    if kind == "M":
        times = times.astype("datetime64[us]")
    elif kind == "u" and times.max() > np.iinfo(np.int64).max:
        raise ValueError(f"time must be below 2**63; got {times.max()}.")
    return times.astype(np.float64 if kind == "f" else np.int64), kind == "M"


def _as_datetime64(times):
    """Date objects as datetime64, those with a time zone in UTC."""
    try:
        times.min()  # refuses to compare dates with and without a time zone
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy says that it makes time zones UTC
            return times.astype("datetime64[us]")
    except TypeError as error:
        raise TypeError(
            f"time must hold dates of one kind, with a time zone or without: {error}."
        ) from error


def _microseconds(duration):
    """A duration as a number of microseconds; None when it is no duration."""
    if isinstance(duration, str) and (match := _DURATION.fullmatch(duration)):
        return round(float(match[1]) * _UNITS_US[match[2].lower()])
    if isinstance(duration, (datetime.timedelta, np.timedelta64)):
        size = np.timedelta64(duration)
        if not np.isnat(size) and np.datetime_data(size)[0] not in ("Y", "M", "generic"):
            return size.astype("timedelta64[us]").astype(np.int64).item()
    return None


def _shown(time, dated):
    """A time as it stands in messages."""
    return str(np.datetime64(time, "us").item() if dated else time)


def _check_parts(parts, purged, where, advice):
    """Raise when the training or the test part, before or after purging, has no row."""
    for name, part, left in zip(("training", "test"), parts, purged, strict=True):
        if not left.any():
            why = f": purging by groups takes all {part.sum()}" if part.any() else ""
            raise ValueError(
                f"{where} has no {name} row{why}; {advice}{', or purge' if why else ''}."
            )


def labels_to_split(cv, y, labeled):
    """Labels for a splitter, shape (n_samples,), when some rows have none.

    The mark of these counts as one more class, or, where it is rarer than every label, as the
    commonest one: a splitter that stratifies must find enough rows of each class.
    """
    labels = np.asarray(y)
    if isinstance(cv, TimeDelaySplit):
        return labels  # it reads them as the truth, and does not stratify
    if labels.dtype == object and len({issubclass(t, str) for t in set(map(type, labels))}) > 1:
        labels = labels.astype(str)  # scikit-learn cannot sort strings beside numbers
    known, counts = np.unique(labels[labeled], return_counts=True)
    if counts.size and 0 < (~labeled).sum() < counts.min():
        labels = np.where(labeled, labels, known[counts.argmax()])
    return labels


class LabeledTestFolds(BaseCrossValidator):
    """Test on labelled rows only, train on whatever the wrapped splitter trains on.

    Semi-supervised classifiers mark rows without a label by a value of `y`. Such rows help in
    training, but cannot be scored: to a metric the marker is one more class. Here the wrapped
    splitter sees all rows, so that its order of time and its groups hold for every row, and then
    the unlabelled rows leave the test parts. They do not move to the training parts: a row of a
    test part's own group or time is left out of both.

    Parameters
    ----------
    cv : int, splitter, iterable or None, default=5
        What splits all rows, as in scikit-learn. An int (None: 5) stratifies by `y`, the marker
        counting as one more class, or as the commonest label when it is rarer than every label. Of
        an iterator the splits are kept as a list.
    unlabeled_label : int, float or str, default=-1
        Value of `y` in rows without a label.

    See Also
    --------
    sklearn.semi_supervised.SelfTrainingClassifier : Learns from rows marked by -1.

    Notes
    -----
    Metadata are requested by the wrapped splitter, under the names given to its
    `set_split_request`, and handed to its `split`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import KFold
    >>> from skmsc.model_selection import LabeledTestFolds
    >>> y = np.array([0, -1, 1, -1, 0, 1])
    >>> for train, test in LabeledTestFolds(KFold(2)).split(y.reshape(-1, 1), y):
    ...     print(train, test)
    [3 4 5] [0 2]
    [0 1 2] [4 5]
    """

    def __init__(self, cv: Splitter = 5, unlabeled_label: float | str = -1) -> None:
        # An iterator can be neither read twice nor copied, and searches copy their splitter.
        self.cv = list(cv) if isinstance(cv, Iterator) else cv
        self.unlabeled_label = unlabeled_label

    def split(
        self, X: Rows, y: ArrayLike, groups: ArrayLike | None = None, **params: Any
    ) -> Iterator[tuple[Ints, Ints]]:
        """Yield the splits of the wrapped splitter, without unlabelled test rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Labels, `unlabeled_label` where there is none.
        groups : array-like of shape (n_samples,), default=None
            Groups, for the wrapped splitter.
        **params : dict
            What else the wrapped splitter's `split` takes, such as ``time``.

        Yields
        ------
        train, test : ndarray of int
            Indices.

        Raises
        ------
        TypeError
            When `unlabeled_label` is a number and all labels are strings, or the reverse.
        ValueError
            When there is no `y`, `unlabeled_label` is no number or string, or a test part holds no
            labelled row.
        """
        check_consistent_length(X, y)
        labeled, y = self._find_labeled(y)
        cv = check_cv(self.cv, y, classifier=True)
        if isinstance(cv, TimeDelaySplit):
            cv = cv._ending_at_a_label(params.get("time"), labeled)
        for i, (train, test) in enumerate(cv.split(X, y, **_with_groups(params, groups))):
            train, test = _as_indices(train), _as_indices(test)
            if not labeled[test].any():
                raise ValueError(
                    f"The test part of split {i} of cv holds no labelled row: y is "
                    f"{self.unlabeled_label!r} in its {test.size} rows. Use fewer or larger test "
                    "parts, or leave out a period whose labels have not come yet."
                )
            yield train, test[labeled[test]]

    def get_n_splits(
        self,
        X: Rows = None,
        y: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        **params: Any,
    ) -> int:
        """Return the number of splits of the wrapped splitter, which some count by the arguments.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), default=None
            Rows.
        y : array-like of shape (n_samples,), default=None
            Labels.
        groups : array-like of shape (n_samples,), default=None
            Groups.
        **params : dict
            What else the wrapped splitter takes.

        Returns
        -------
        n_splits : int
        """
        return check_cv(self.cv).get_n_splits(X, y, **_with_groups(params, groups))

    def get_metadata_routing(self) -> MetadataRequest:
        """Return what the wrapped splitter requests.

        Returns
        -------
        routing : MetadataRequest
        """
        return get_routing_for_object(self.cv)

    def _find_labeled(self, y):
        """Mask of the labelled rows, and labels that splitters can sort."""
        if y is None:
            raise ValueError(
                "LabeledTestFolds needs y, in which unlabeled_label marks the rows without a label."
            )
        labels = column_or_1d(y)
        labeled = find_labeled(labels, self.unlabeled_label)
        return labeled, labels_to_split(self.cv, labels, labeled)


class TimeDelaySplit(BaseCrossValidator):
    """Train on rows whose labels were known when the test rows came, by elapsed time.

    Labels of fraud come late: at time t, the rows of the last days have none that can be trusted.
    Each of `n_splits` test windows takes `test_size` of time; the windows lie back to back and the
    last one ends at the latest row, or at `end`. Training rows end a `gap` before the test window.
    Rows may be in any order. scikit-learn's `TimeSeriesSplit` counts rows instead: its gap holds
    more hours on a quiet day than on a busy one.

    Parameters
    ----------
    n_splits : int, default=5
        Number of test windows, at least 1; earlier ones come first.
    test_size : duration, default="1D"
        Length of a test window, above 0.
    gap : duration, default="7D"
        Time until a row's label is known, at least 0.
    train_size : duration or None, default=None
        Length of the training period, above 0; None: all rows that are early enough.
    purge : {"train", "known", None}, default="train"
        What happens to `groups`, such as cards, where they are given:

        - "train": training rows of a group that is in the test part leave, so that no group is on
          both sides [2]_;
        - "known": the training part stays, and test rows leave whose group was known to be
          positive when they came, as in [1]_: no one scores a card that is blocked;
        - None: nothing.
    pos_label : int, float, bool or str, default=1
        Label of the positive rows, for ``purge="known"``.
    end : date or number, default=None
        Time at which the last test window ends, of the kind of `time`; later rows are in no part.
        None: the time of the latest row. (A cascade and `LabeledTestFolds` take that of the latest
        row with a label.)

    Notes
    -----
    A duration is a string of a number and one of the units W, D, h, min, s, ms and us ("7D",
    "12h"), a `numpy.timedelta64` or a `datetime.timedelta`, such as pandas' Timedelta. Where
    `time` holds numbers, durations are numbers in the same unit.

    Window i, of which the last one ends at the latest row or at `end`, is ``start < time <= start +
    test_size``. Split i has

    - test rows of this window;
    - training rows where ``start - gap - train_size < time <= start - gap``; without `train_size`
      all rows up to ``start - gap``.

    So the label of a training row, known a gap after it, comes before every test row. The same
    rule says which groups are known to be positive when a test row comes at time t: those with a
    positive row at a time u, later than ``start - gap - train_size``, for which ``u < t - gap``;
    that row need not be a training row. With time in whole days, ``test_size=7, gap=7,
    train_size=7`` is the protocol of [1]_: 7 days train, 7 are left out, 7 test, and a test day
    leaves out the cards with a fraud from the first training day to 8 days before.

    Dates are compared to the microsecond, those with a time zone in UTC. `time` and `groups` are
    requested by default when metadata routing is enabled.

    References
    ----------
    .. [1] Y.-A. Le Borgne, W. Siblini, B. Lebichot, G. Bontempi, "Reproducible Machine Learning
       for Credit Card Fraud Detection - Practical Handbook", Universite Libre de Bruxelles, 2022.
       The delay of the labels and ``purge="known"``. It works with whole days; here any time does.
    .. [2] M. Lopez de Prado, "Advances in Financial Machine Learning", Wiley, 2018, chapter 7.
       Purging; there of rows whose labels overlap in time, here of rows of the same group.

    Examples
    --------
    >>> import numpy as np
    >>> from skmsc.model_selection import TimeDelaySplit
    >>> day = np.arange(20)
    >>> X = day.reshape(-1, 1)
    >>> for train, test in TimeDelaySplit(2, test_size=3, gap=7).split(X, time=day):
    ...     print(train, test)
    [0 1 2 3 4 5 6] [14 15 16]
    [0 1 2 3 4 5 6 7 8 9] [17 18 19]

    With dates, in a cross-validation that hands `time` to the splitter:

    >>> import sklearn
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> time = np.datetime64("2024-05-01T12:00") + np.arange(20).astype("timedelta64[D]")
    >>> cv = TimeDelaySplit(2, test_size="3D", gap="7D")
    >>> with sklearn.config_context(enable_metadata_routing=True):
    ...     cross_val_score(LogisticRegression(), X, day % 2, cv=cv, params={"time": time}).shape
    (2,)
    """

    __metadata_request__split = {"groups": True, "time": True}

    def __init__(
        self,
        n_splits: int = 5,
        test_size: Duration = "1D",
        gap: Duration = "7D",
        *,
        train_size: Duration | None = None,
        purge: Literal["train", "known"] | None = "train",
        pos_label: Label = 1,
        end: Any = None,
    ) -> None:
        self.n_splits = n_splits
        self.test_size = test_size
        self.gap = gap
        self.train_size = train_size
        self.purge = purge
        self.pos_label = pos_label
        self.end = end

    def split(
        self,
        X: Rows,
        y: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        time: ArrayLike | None = None,
    ) -> Iterator[tuple[Ints, Ints]]:
        """Yield training and test rows of each test window, the earliest window first.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, in any order.
        y : array-like of shape (n_samples,), default=None
            Labels, for ``purge="known"`` only.
        groups : array-like of shape (n_samples,), default=None
            Groups to purge by.
        time : array-like of shape (n_samples,), default=None
            Dates or numbers; must be given.

        Yields
        ------
        train, test : ndarray of int
            Indices, in the order of the rows.

        Raises
        ------
        TypeError
            When `time` holds neither dates nor numbers, or a duration is of the other kind.
        ValueError
            When an argument is missing or not valid, or a split has no training or no test row.
        """
        times, dated = _check_time(time, _num_samples(X))
        test_size = self._duration("test_size", dated)
        gap = self._duration("gap", dated)
        train_size = np.inf if self.train_size is None else self._duration("train_size", dated)
        purge = self._make_purge(times, y, groups, gap)
        latest = self._latest(times, dated)
        for i in range(self.get_n_splits()):
            # A window starts at the very number at which the one before it ends.
            start = latest - (self.n_splits - i) * test_size
            end = latest - (self.n_splits - 1 - i) * test_size
            first = start - gap - train_size
            train = (times > first) & (times <= start - gap)
            test = (times > start) & (times <= end)
            purged = purge(train, test, first)
            _check_parts(
                (train, test),
                purged,
                f"Split {i}, which trains on times up to {_shown(start - gap, dated)} and tests on "
                f"those after {_shown(start, dated)} up to {_shown(end, dated)},",
                "change n_splits, test_size, gap or train_size",
            )
            yield np.flatnonzero(purged[0]), np.flatnonzero(purged[1])

    def get_n_splits(
        self, X: Rows = None, y: Any = None, groups: Any = None, time: Any = None
    ) -> int:
        """Return the number of test windows.

        Parameters
        ----------
        X, y, groups, time : ignored
            For the signature of scikit-learn's splitters.

        Returns
        -------
        n_splits : int
        """
        check_integer("n_splits", self.n_splits, 1)
        return int(self.n_splits)

    def hold_out(
        self,
        fraction: float,
        time: ArrayLike,
        groups: ArrayLike | None = None,
        y: ArrayLike | None = None,
    ) -> tuple[Bools, Bools]:
        """Hold out the latest rows, for thresholds; train on those whose labels came before.

        Parameters
        ----------
        fraction : float
            Share of the rows to hold out, in (0, 1). At least one row is held, and all rows of the
            earliest time that is.
        time : array-like of shape (n_samples,)
            Dates or numbers.
        groups : array-like of shape (n_samples,), default=None
            Groups to purge by; the held rows are the test part.
        y : array-like of shape (n_samples,), default=None
            Labels, for ``purge="known"`` only.

        Returns
        -------
        train, held : mask of shape (n_samples,)
            Training rows come more than `gap` before the first held row, rows between are in
            neither, and groups are purged as in `split`. `n_splits`, `test_size` and `train_size`
            play no part.

        Raises
        ------
        TypeError
            When `time` holds neither dates nor numbers, or `gap` is of the other kind.
        ValueError
            When an argument is missing or not valid, or no row is left to train on or to hold.

        Examples
        --------
        >>> import numpy as np
        >>> from skmsc.model_selection import TimeDelaySplit
        >>> train, held = TimeDelaySplit(gap=2).hold_out(0.3, np.arange(10))
        >>> np.flatnonzero(train), np.flatnonzero(held)
        (array([0, 1, 2, 3, 4]), array([7, 8, 9]))
        """
        if not is_number(fraction) or not 0 < fraction < 1:
            raise ValueError(f"fraction must be a number between 0 and 1; got {fraction!r}.")
        times, dated = _check_time(time)
        gap = self._duration("gap", dated)
        n_held = max(round(fraction * times.size), 1)
        start = np.sort(times)[-n_held].item()
        train, held = times < start - gap, times >= start
        purged = self._make_purge(times, y, groups, gap)(train, held, -np.inf)
        _check_parts(
            (train, held),
            purged,
            f"fraction={fraction}, which holds out times from {_shown(start, dated)} and trains on "
            f"those before {_shown(start - gap, dated)},",
            "change fraction or gap",
        )
        return purged

    def _latest(self, times, dated):
        """The end of the last window, as the times are."""
        if self.end is None:
            return times.max().item()
        try:
            ends, of_date = _check_time(np.asarray([self.end]))
        except (TypeError, ValueError):
            of_date = None
        if of_date is not dated:
            kind = "date, for time holds dates" if dated else "number, for time holds numbers"
            raise TypeError(f"end must be None or a {kind}; got {self.end!r}.")
        return ends[0].item()

    def _ending_at_a_label(self, time, labeled):
        """The same with the last window ending at the latest labelled row, unless `end` says."""
        if self.end is not None or time is None or labeled.all():
            return self
        cv = copy.copy(self)
        times, dated = _check_time(time, labeled.size)
        latest = times[labeled].max()
        cv.end = latest.astype("datetime64[us]") if dated else latest
        return cv

    def _duration(self, name, dated):
        """A length of time as a number, of microseconds where `time` holds dates."""
        value = getattr(self, name)
        if dated:
            size = _microseconds(value)
            valid = (
                "a duration, for time holds dates: a string such as '7D', '12h' or '30min' (units "
                "W, D, h, min, s, ms, us), a numpy.timedelta64 of such a unit or a "
                "datetime.timedelta"
            )
        else:
            size = np.asarray(value).item() if is_number(value) else None
            valid = "a number in the unit of time, for time holds numbers"
        if size is None:
            error = ValueError if dated and isinstance(value, str) else TypeError
            raise error(f"{name} must be {valid}; got {value!r}.")
        if not 0 <= size < np.inf or (size == 0 and name != "gap"):
            least = "at least 0" if name == "gap" else "above 0"
            raise ValueError(f"{name} must be finite and {least}; got {value!r}.")
        return size

    def _make_purge(self, times, y, groups, gap):
        """Build the function (train, test, first) -> (train, test) that purges masks of rows.

        `first` is the left end of the training period.
        """
        check_choice("purge", self.purge, ("train", "known", None))
        if self.purge == "known":
            if y is None or groups is None:
                raise ValueError("purge='known' needs both y and groups.")
            check_consistent_length(times, y)
            positive = column_or_1d(y) == self.pos_label
            if not positive.any():
                raise ValueError(
                    f"purge='known' needs positive rows, and pos_label={self.pos_label!r} is not "
                    "among the labels in y."
                )
        if self.purge is None or groups is None:
            return lambda train, test, first: (train, test)
        groups = check_array(groups, ensure_2d=False, dtype=None, input_name="groups")
        check_consistent_length(times, groups)
        values, code = np.unique(column_or_1d(groups), return_inverse=True)

        def purge_train(train, test, first):
            is_tested = np.zeros(values.size, dtype=bool)
            is_tested[code[test]] = True
            kept = train & ~is_tested[code]
            if 0 < kept.sum() < train.sum() / 4:
                warnings.warn(
                    f"Purging leaves {kept.sum()} of {train.sum()} training rows, since the groups "
                    "of the others are in the test part too. purge='known' or None keep them.",
                    UserWarning,
                    stacklevel=3,
                )
            return kept, test

        def purge_known(train, test, first):
            # The time of each group's first positive row; the latest time counts as never.
            since = np.full(values.size, times.max())
            rows = positive & (times > first)
            np.minimum.at(since, code[rows], times[rows])
            return train, test & (since[code] >= times - gap)

        return purge_train if self.purge == "train" else purge_known

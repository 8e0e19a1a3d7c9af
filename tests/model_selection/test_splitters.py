"""Splits for labels that are missing or late: equal to loops over rows, and to the handbook's."""

import copy
import datetime
import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_score,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from skmsc import FeedbackCascadeClassifier, PassBudget
from skmsc.datasets import make_card_transactions
from skmsc.model_selection import LabeledTestFolds, TimeDelaySplit

DAY = np.timedelta64(1, "D")
X, TRUTH = make_classification(240, n_features=5, n_informative=3, flip_y=0.2, random_state=0)
Y = np.where(np.random.default_rng(0).uniform(size=240) < 0.4, -1, TRUTH)
GROUPS = np.arange(240) // 8
CLASSIFIER = LogisticRegression()
SEMI_SUPERVISED = SelfTrainingClassifier(LogisticRegression())


def assert_same_splits(got, expected):
    for parts, others in zip(list(got), list(expected), strict=True):
        for part, other in zip(parts, others, strict=True):
            assert part.dtype.kind == "i"
            np.testing.assert_array_equal(part, other)


def labeled_only(splits, y=Y, marker=-1):
    """The splits, of whose test rows only the labelled ones are left."""
    return [(train, np.array([i for i in test if y[i] != marker])) for train, test in splits]


# LabeledTestFolds


@pytest.mark.parametrize(
    "cv, same_as",
    [
        (5, StratifiedKFold(5)),
        (None, StratifiedKFold(5)),
        (KFold(4, shuffle=True, random_state=0), KFold(4, shuffle=True, random_state=0)),
        (TimeSeriesSplit(3, gap=5), TimeSeriesSplit(3, gap=5)),
    ],
    ids=["int", "None", "KFold", "TimeSeriesSplit"],
)
def test_only_the_unlabelled_test_rows_leave(cv, same_as):
    splitter = LabeledTestFolds(cv)
    assert_same_splits(splitter.split(X, Y), labeled_only(same_as.split(X, Y)))
    assert splitter.get_n_splits(X, Y) == same_as.get_n_splits(X, Y)


def test_without_unlabelled_rows_the_splits_are_the_wrapped_ones():
    assert_same_splits(LabeledTestFolds(4).split(X, TRUTH), StratifiedKFold(4).split(X, TRUTH))


@pytest.mark.parametrize("form", [list, iter], ids=["list", "iterator"])
@pytest.mark.parametrize("as_mask", [False, True], ids=["indices", "masks"])
def test_given_splits_are_used_as_often_as_one_likes(form, as_mask):
    given = list(KFold(3).split(X))
    rows = np.arange(len(X))
    splits = [tuple(np.isin(rows, part) for part in pair) for pair in given] if as_mask else given
    splitter = LabeledTestFolds(form(splits))
    for again in (
        splitter,
        splitter,
        copy.deepcopy(splitter),
        pickle.loads(pickle.dumps(splitter)),
    ):
        assert_same_splits(again.split(X, Y), labeled_only(given))
        assert again.get_n_splits() == 3


@pytest.mark.parametrize("dtype", [None, object], ids=["str", "object"])
def test_labels_may_be_strings(dtype):
    names = np.array(["ok", "fraud", "unknown"], dtype=dtype)[Y]
    assert_same_splits(
        LabeledTestFolds(5, "unknown").split(X, names),
        labeled_only(StratifiedKFold(5).split(X, Y)),
    )


@pytest.mark.parametrize("cv", [5, StratifiedKFold(5)], ids=["int", "splitter"])
def test_strings_marked_by_a_number_as_self_training_has_them(cv):
    names = np.array(["fraud", "ok", -1], dtype=object)[Y]
    # Stratified in the order of the labels as strings: "-1", "fraud", "ok".
    expected = labeled_only(StratifiedKFold(5).split(X, Y))
    assert_same_splits(LabeledTestFolds(cv).split(X, names), expected)
    assert np.isfinite(cross_val_score(SEMI_SUPERVISED, X, names, cv=LabeledTestFolds(cv))).all()


@pytest.mark.parametrize(
    "scoring, metric", [("roc_auc", roc_auc_score), ("average_precision", average_precision_score)]
)
def test_semi_supervised_scores_are_those_of_a_loop(scoring, metric):
    expected = []
    for train, test in StratifiedKFold(5).split(X, Y):
        test = test[Y[test] != -1]
        proba = clone(SEMI_SUPERVISED).fit(X[train], Y[train]).predict_proba(X[test])[:, 1]
        expected.append(metric(Y[test], proba))
    scores = cross_val_score(SEMI_SUPERVISED, X, Y, cv=LabeledTestFolds(5), scoring=scoring)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)
    search = GridSearchCV(
        SEMI_SUPERVISED, {"threshold": [0.75, 0.9]}, cv=LabeledTestFolds(5), scoring=scoring
    ).fit(X, Y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"][0], np.mean(expected))
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # A plain splitter tests on the marker as a third class.
    with pytest.warns(UserWarning, match="Scoring failed"):
        plain = cross_val_score(SEMI_SUPERVISED, X, Y, cv=5, scoring=scoring)
    assert np.isnan(plain).all()


def test_groups_reach_the_wrapped_splitter():
    expected = labeled_only(GroupKFold(3).split(X, Y, GROUPS))
    splitter = LabeledTestFolds(GroupKFold(3))
    assert_same_splits(splitter.split(X, Y, GROUPS), expected)
    per_group = LabeledTestFolds(LeaveOneGroupOut())
    assert per_group.get_n_splits(X, Y, GROUPS) == len(np.unique(GROUPS))
    wanted = cross_val_score(SEMI_SUPERVISED, X, Y, cv=expected)
    got = cross_val_score(SEMI_SUPERVISED, X, Y, cv=splitter, groups=GROUPS)
    np.testing.assert_array_equal(got, wanted)
    with sklearn.config_context(enable_metadata_routing=True):
        for name in ("groups", "card"):
            cv = LabeledTestFolds(GroupKFold(3).set_split_request(groups=name))
            got = cross_val_score(SEMI_SUPERVISED, X, Y, cv=cv, params={name: GROUPS})
            np.testing.assert_array_equal(got, wanted)


def test_time_reaches_a_wrapped_time_splitter_under_its_alias():
    time = np.random.default_rng(1).permutation(240)
    inner = TimeDelaySplit(3, test_size=40, gap=20)
    expected = labeled_only(inner.split(X, Y, time=time))
    assert_same_splits(LabeledTestFolds(inner).split(X, Y, time=time), expected)
    with sklearn.config_context(enable_metadata_routing=True):
        cv = LabeledTestFolds(inner.set_split_request(time="paid_at"))
        search = GridSearchCV(SEMI_SUPERVISED, {"threshold": [0.75, 0.9]}, cv=cv)
        search = clone(search).fit(X, Y, paid_at=time)
    assert search.n_splits_ == 3
    by_hand = GridSearchCV(SEMI_SUPERVISED, {"threshold": [0.75, 0.9]}, cv=expected).fit(X, Y)
    for key in ("split0_test_score", "split2_test_score"):
        np.testing.assert_array_equal(search.cv_results_[key], by_hand.cv_results_[key])


@pytest.mark.parametrize(
    "y, marker, error, message",
    [
        (None, -1, ValueError, "needs y"),
        (Y, None, ValueError, r"unlabeled_label must be a string or a number .* got None"),
        (Y, np.nan, ValueError, r"other than nan.* got nan"),
        (Y, "unknown", TypeError, r"y holds numbers only, got 'unknown'"),
        (np.array(["a", "b"])[TRUTH], -1, TypeError, "y holds strings only, got -1"),
        (np.array(["a", "b"], dtype=object)[TRUTH], -1, TypeError, "y holds strings only"),
        (Y[:-1], -1, ValueError, "inconsistent numbers of samples"),
        (np.column_stack([Y, Y]), -1, ValueError, "1d array"),
        (np.where(np.arange(240) < 180, TRUTH, -1), -1, ValueError, "test part of split 3 of cv"),
    ],
)
def test_what_labeled_test_folds_refuse(y, marker, error, message):
    with pytest.raises(error, match=message):
        list(LabeledTestFolds(KFold(4), marker).split(X, y))


def test_a_cv_that_cannot_split_is_refused():
    with pytest.raises(ValueError, match=r"Expected `?cv`? as an integer"):
        list(LabeledTestFolds("5").split(X, Y))


def test_repr():
    assert repr(LabeledTestFolds(3)) == "LabeledTestFolds(cv=3, unlabeled_label=-1)"
    shown = " ".join(repr(TimeDelaySplit(2)).split())
    assert shown == (
        "TimeDelaySplit(end=None, gap='7D', n_splits=2, pos_label=1, purge='train', "
        "test_size='1D', train_size=None)"
    )


# TimeDelaySplit


def split_by_loops(time, y, groups, *, n_splits, test_size, gap, train_size, purge):
    """The splits of TimeDelaySplit, row by row."""
    rows = range(len(time))
    for i in range(n_splits):
        end = max(time) - (n_splits - 1 - i) * test_size
        start = end - test_size
        test = [k for k in rows if start < time[k] <= end]
        late = [k for k in rows if train_size is None or time[k] > start - gap - train_size]
        train = [k for k in late if time[k] <= start - gap]
        if purge == "train":
            tested = {groups[k] for k in test}
            train = [k for k in train if groups[k] not in tested]
        if purge == "known":
            frauds = [k for k in late if y[k] == 1]
            test = [
                k
                for k in test
                if not any(groups[j] == groups[k] and time[j] < time[k] - gap for j in frauds)
            ]
        yield np.array(train), np.array(test)


def random_rows(seed, n=250, n_days=40, n_groups=120):
    """Times (random, in no order), labels, groups."""
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(0, n_days, size=n),
        (rng.uniform(size=n) < 0.3).astype(int),
        rng.integers(n_groups, size=n),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("purge", ["train", "known", None])
@pytest.mark.parametrize("train_size", [None, 9])
@pytest.mark.parametrize("gap", [0, 6])
@pytest.mark.parametrize("in_days", [False, True], ids=["any time", "whole days"])
def test_splits_are_those_of_loops_over_rows(seed, purge, train_size, gap, in_days):
    time, y, groups = random_rows(seed)
    time = np.floor(time).astype(int) if in_days else time
    params = dict(n_splits=3, test_size=4, gap=gap, train_size=train_size, purge=purge)
    expected = list(split_by_loops(time, y, groups, **params))
    assert_same_splits(
        TimeDelaySplit(**params).split(X[:1].repeat(250, 0), y, groups, time), expected
    )
    # The same in dates, with groups and labels that are strings.
    hours = np.round(time * 24).astype(int)
    in_hours = {**params, "test_size": 96, "gap": 24 * gap}
    in_hours["train_size"] = None if train_size is None else 24 * train_size
    dated = {
        **params,
        "test_size": "4D",
        "gap": np.timedelta64(gap, "D"),
        "train_size": None if train_size is None else datetime.timedelta(days=train_size),
        "pos_label": "fraud",
    }
    assert_same_splits(
        TimeDelaySplit(**dated).split(
            time,
            np.array(["ok", "fraud"])[y],
            groups.astype(str),
            np.datetime64("2024-02-20", "h") + hours,
        ),
        split_by_loops(hours, y, groups, **in_hours),
    )


def test_days_by_hand():
    day = np.arange(21)
    ((train, test),) = TimeDelaySplit(1, test_size=1, gap=7).split(day, time=day)
    assert train.tolist() == list(range(13)) and test.tolist() == [20]
    splits = TimeDelaySplit(2, test_size=2, gap=3, train_size=4).split(day, time=day)
    assert [(train.tolist(), test.tolist()) for train, test in splits] == [
        ([10, 11, 12, 13], [17, 18]),
        ([12, 13, 14, 15], [19, 20]),
    ]


def test_purging_by_hand():
    day = np.arange(8)
    card = np.array(list("abcabcab"))
    y = np.array([1, 0, 0, 0, 1, 0, 0, 0])
    splitter = TimeDelaySplit(1, test_size=2, gap=2, purge="train")
    ((train, test),) = splitter.split(day, y, card, day)  # test a, b: of 0 to 3 c stays
    assert train.tolist() == [2] and test.tolist() == [6, 7]
    splitter.purge = "known"  # a from day 0; b from day 4, which is known after day 6
    with pytest.raises(ValueError, match="no test row: purging by groups takes all 2"):
        list(splitter.split(day, y, card, day))
    splitter.gap = 3  # known after day 7
    ((train, test),) = splitter.split(day, y, card, day)
    assert train.tolist() == [0, 1, 2] and test.tolist() == [7]


def handbook_split(day, is_fraud, card, first, *, n_train, n_delay, n_test):
    """The fraud handbook's protocol, test day by test day."""
    train = [k for k in range(len(day)) if first <= day[k] < first + n_train]
    test = []
    for test_day in range(first + n_train + n_delay, first + n_train + n_delay + n_test):
        known = {card[k] for k in np.flatnonzero(is_fraud) if first <= day[k] < test_day - n_delay}
        test += [k for k in np.flatnonzero(day == test_day) if card[k] not in known]
    return train, test


def test_known_cards_leave_as_in_the_handbook():
    cards = make_card_transactions(6_000, n_customers=300, fraud_rate=0.05, random_state=0)
    splitter = TimeDelaySplit(1, test_size=7, gap=7, train_size=7, purge="known")
    for first in (5, 20, 60):
        rows = cards.day <= first + 20
        day, y, card = cards.day[rows], cards.target[rows], cards.customer[rows]
        ((train, test),) = splitter.split(cards.data[rows], y, card, day)
        expected = handbook_split(day, y == 1, card, first, n_train=7, n_delay=7, n_test=7)
        assert (train.tolist(), test.tolist()) == expected
        assert 0 < test.size < (day > first + 13).sum()  # some cards were known


def test_the_order_of_the_rows_does_not_matter():
    time, y, groups = random_rows(0)
    order = np.random.default_rng(1).permutation(time.size)
    for purge in ("train", "known", None):
        splitter = TimeDelaySplit(2, test_size=5, gap=5, purge=purge)
        splits = splitter.split(time, y, groups, time)
        shuffled = splitter.split(time, y[order], groups[order], time[order])
        for parts, others in zip(splits, shuffled, strict=True):
            for part, other in zip(parts, others, strict=True):
                np.testing.assert_array_equal(part, np.sort(order[other]))


HOURS = np.random.default_rng(0).integers(24 * 30, size=150)
DATES = np.datetime64("2024-03-01T00", "h") + HOURS
# No hour is left out or told twice, as it is at a change to summer time.
PARIS = (
    pd.Series(DATES.astype("datetime64[ns]")).dt.tz_localize("UTC").dt.tz_convert("Europe/Paris")
)


@pytest.mark.parametrize(
    "time",
    [
        DATES.astype("datetime64[s]"),
        pd.Series(DATES.astype("datetime64[ns]"), index=HOURS),
        pd.DatetimeIndex(DATES.astype("datetime64[ns]")),
        PARIS,
        PARIS.to_list(),
        DATES.astype("datetime64[us]").tolist(),
        [date.to_pydatetime() for date in PARIS],
    ],
    ids=["datetime64", "Series", "Index", "zone", "Timestamps", "datetimes", "zoned datetimes"],
)
@pytest.mark.parametrize(
    "test_size, gap, train_size",
    [
        ("5D", "36h", "1W"),
        ("120 h", "1.5d", np.timedelta64(7, "D")),
        (datetime.timedelta(5), pd.Timedelta("36h"), "10080min"),
    ],
)
def test_dates_and_durations_of_many_kinds(time, test_size, gap, train_size):
    splitter = TimeDelaySplit(3, test_size, gap, train_size=train_size)
    expected = TimeDelaySplit(3, 120, 36, train_size=168).split(HOURS, time=HOURS)
    assert_same_splits(splitter.split(HOURS, time=time), expected)


def test_calendar_dates():
    days = [datetime.date(2024, 2, 20) + datetime.timedelta(k) for k in range(21)]
    ((train, test),) = TimeDelaySplit(1).split(days, time=days)
    assert train.tolist() == list(range(13)) and test.tolist() == [20]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.uint64])
def test_numbers_of_any_type(dtype):
    time = np.arange(20)
    splitter = TimeDelaySplit(2, test_size=np.uint8(4), gap=np.float64(6))
    assert_same_splits(
        splitter.split(time, time=time.astype(dtype)), splitter.split(time, time=time.tolist())
    )


ROUTED = {
    "time": np.datetime64("2024-05-01") + np.arange(240).astype("timedelta64[h]"),
    "groups": np.random.default_rng(2).integers(500, size=240),
}


@pytest.mark.parametrize("purge", ["train", "known", None])
def test_routing_hands_over_time_and_groups(purge):
    splitter = TimeDelaySplit(3, "2D", "1D", purge=purge)
    expected = list(splitter.split(X, TRUTH, **ROUTED))
    pipeline = make_pipeline(StandardScaler(), CLASSIFIER)
    wanted = cross_val_score(pipeline, X, TRUTH, cv=expected)
    grid = {"logisticregression__C": [0.01, 1.0]}
    by_hand = GridSearchCV(pipeline, grid, cv=expected).fit(X, TRUTH)
    with sklearn.config_context(enable_metadata_routing=True):
        got = cross_val_score(pipeline, X, TRUTH, cv=splitter, params=ROUTED)
        search = clone(GridSearchCV(pipeline, grid, cv=splitter)).fit(X, TRUTH, **ROUTED)
        alias = clone(splitter, safe=False).set_split_request(time="paid_at", groups="card")
        params = {"paid_at": ROUTED["time"], "card": ROUTED["groups"]}
        aliased = cross_val_score(pipeline, X, TRUTH, cv=alias, params=params)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(aliased, wanted)
    for key in ("mean_test_score", "split0_test_score"):
        np.testing.assert_array_equal(search.cv_results_[key], by_hand.cv_results_[key])


def test_without_routing_the_error_says_how_to_give_time():
    with pytest.raises(ValueError, match=r"enable_metadata_routing=True.*cv=list\(splitter\.split"):
        cross_val_score(CLASSIFIER, X, TRUTH, cv=TimeDelaySplit())


def test_a_splitter_can_be_copied():
    splitter = TimeDelaySplit(2, test_size=48, gap=24, purge=None)
    for twin in (copy.deepcopy(splitter), pickle.loads(pickle.dumps(splitter))):
        assert repr(twin) == repr(splitter)
        assert_same_splits(twin.split(HOURS, time=HOURS), splitter.split(HOURS, time=HOURS))
        assert twin.get_n_splits(X, TRUTH, GROUPS, time=HOURS) == 2


NUMBERS = {"test_size": 24, "gap": 24}


@pytest.mark.parametrize(
    "params, time, error, message",
    [
        ({}, DATES[:-1], ValueError, r"time must have shape \(150,\).* got \(149,\)"),
        ({}, DATES[:, None], ValueError, r"got \(150, 1\)"),
        ({}, np.where(HOURS > 5, DATES, np.datetime64("NaT", "h")), ValueError, "time is missing"),
        ({}, [pd.NaT, *PARIS[1:]], TypeError, "time must hold dates of one kind"),
        ({}, [*PARIS[1:], DATES[0].item()], TypeError, "with a time zone or without"),
        (NUMBERS, np.where(HOURS > 5, HOURS, np.nan), ValueError, "time is missing or infinite"),
        ({}, DATES.astype(str), TypeError, "time must hold dates or numbers"),
        ({}, [None] * 150, TypeError, "dates or numbers; got object such as None"),
        ({}, HOURS > 5, TypeError, "dates or numbers; got bool"),
        ({}, HOURS, TypeError, "test_size must be a number .* got '1D'"),
        ({**NUMBERS, "train_size": "7D"}, HOURS, TypeError, "train_size must be a number"),
        ({"gap": 7}, DATES, TypeError, "gap must be a duration, .*'7D'.* got 7"),
        ({"gap": "soon"}, DATES, ValueError, "gap must be a duration, .* got 'soon'"),
        ({"gap": "1M"}, DATES, ValueError, "gap must be a duration, .* got '1M'"),
        ({"gap": np.timedelta64(1, "M")}, DATES, TypeError, "gap must be a duration"),
        ({"gap": np.timedelta64("NaT", "D")}, DATES, TypeError, "gap must be a duration"),
        ({"gap": "-7D"}, DATES, ValueError, "gap must be finite and at least 0; got '-7D'"),
        ({"test_size": "0D"}, DATES, ValueError, "test_size must be finite and above 0"),
        ({**NUMBERS, "train_size": np.inf}, HOURS, ValueError, "train_size must be finite"),
        ({**NUMBERS, "gap": np.nan}, HOURS, ValueError, "gap must be finite"),
        ({"n_splits": 0}, DATES, ValueError, "n_splits must be an integer >= 1; got 0"),
        ({"n_splits": 2.0}, DATES, ValueError, "n_splits must be an integer"),
        ({"n_splits": True}, DATES, ValueError, "n_splits must be an integer"),
        (
            {"purge": "both"},
            DATES,
            ValueError,
            "purge must be 'train', 'known' or None; got 'both'",
        ),
        ({"purge": "known"}, DATES, ValueError, "needs both y and groups"),
        ({"n_splits": 30}, DATES, ValueError, "Split 0, .* has no training row; change n_splits"),
    ],
)
def test_what_time_delay_split_refuses(params, time, error, message):
    with pytest.raises(error, match=message):
        list(TimeDelaySplit(**params).split(HOURS, time=time))


def test_known_needs_positive_rows():
    splitter = TimeDelaySplit(purge="known", pos_label="fraud")
    with pytest.raises(ValueError, match="pos_label='fraud' is not among the labels"):
        list(splitter.split(HOURS, HOURS % 2, HOURS, DATES))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        list(splitter.split(HOURS, HOURS[1:] % 2, HOURS, DATES))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        list(TimeDelaySplit().split(HOURS, groups=HOURS[1:], time=DATES))


def test_an_empty_part_is_named_with_its_window():
    time = np.array(["2024-05-01", "2024-05-20", "2024-05-22"], dtype="datetime64[D]")
    message = (
        "Split 0, which trains on times up to 2024-05-13 00:00:00 and tests on those after "
        "2024-05-20 00:00:00 up to 2024-05-21 00:00:00, has no test row; change n_splits, "
        "test_size, gap or train_size."
    )
    with pytest.raises(ValueError) as caught:
        list(TimeDelaySplit(2).split(time, time=time))
    assert str(caught.value) == message
    with pytest.raises(
        ValueError, match=r"no training row: purging by groups takes all 1; .*purge"
    ):
        list(TimeDelaySplit(1, "2D", "1D").split(time, groups=[1, 1, 1], time=time))


# TimeDelaySplit.hold_out


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("purge", ["train", "known", None])
@pytest.mark.parametrize("gap", [0, 6])
@pytest.mark.parametrize("in_days", [False, True], ids=["any time", "whole days"])
def test_held_out_rows_are_those_of_loops(seed, purge, gap, in_days):
    time, y, groups = random_rows(seed)
    time = np.floor(time) if in_days else time
    rows = range(time.size)
    first = sorted(time)[-50]
    held = {k for k in rows if time[k] >= first}
    train = {k for k in rows if time[k] + gap < first}
    if purge == "train":
        train -= {k for k in train if groups[k] in groups[list(held)]}
    if purge == "known":
        frauds = [k for k in rows if y[k] == 1]
        held -= {
            k
            for k in held
            if any(groups[j] == groups[k] and time[j] + gap < time[k] for j in frauds)
        }
    masks = TimeDelaySplit(gap=gap, purge=purge).hold_out(0.2, time, groups, y)
    assert [set(np.flatnonzero(mask)) for mask in masks] == [train, held]
    assert all(mask.dtype == bool for mask in masks)


def test_ties_are_held_and_at_least_one_row_is():
    day = np.array([3, 1, 3, 2, 1, 3])
    train, held = TimeDelaySplit(gap=0).hold_out(0.01, day)
    assert held.tolist() == (day == 3).tolist() and train.tolist() == (day < 3).tolist()
    train, held = TimeDelaySplit(gap=1).hold_out(0.2, day)
    assert train.tolist() == (day < 2).tolist()


def test_holding_out_the_last_week_is_the_split_that_tests_on_it():
    day = np.random.default_rng(0).integers(30, size=300)
    splitter = TimeDelaySplit(1, test_size=7, gap=7)
    ((train, test),) = splitter.split(day, time=day)
    assert_same_splits(
        [map(np.flatnonzero, splitter.hold_out(test.size / 300, day))], [(train, test)]
    )


@pytest.mark.parametrize(
    "fraction, time, message",
    [
        (0, DATES, "fraction must be a number between 0 and 1; got 0"),
        (1.0, DATES, "fraction must be"),
        ("10%", DATES, "fraction must be"),
        (0.2, None, "TimeDelaySplit needs the time"),
        (0.2, DATES[:, None], r"time must have shape \(n_samples,\)"),
        (0.2, [], "time must have shape"),
        (
            0.9,
            DATES,
            "fraction=0.9, which holds out .* has no training row; change fraction or gap",
        ),
    ],
)
def test_what_hold_out_refuses(fraction, time, message):
    with pytest.raises(ValueError, match=message):
        TimeDelaySplit().hold_out(fraction, time)


@pytest.mark.parametrize(
    "time, end, sizes",
    [
        (np.arange(60), 40, (5, 3)),
        (np.arange(60) / 2, 20.25, (2.5, 1.5)),
        (
            np.datetime64("2024-01-01") + np.arange(60).astype("timedelta64[D]"),
            datetime.datetime(2024, 2, 10),
            ("5D", "3D"),
        ),
        (
            pd.Series(pd.date_range("2024-01-01", periods=60, tz="Europe/Berlin")),
            pd.Timestamp("2024-02-10", tz="Europe/Berlin"),
            ("5D", "3D"),
        ),
    ],
)
def test_windows_that_end_before_the_latest_row_are_those_without_later_rows(time, end, sizes):
    splitter = TimeDelaySplit(3, *sizes, end=end)
    is_date = isinstance(end, datetime.datetime) and not isinstance(end, pd.Timestamp)
    early = np.asarray(time <= (np.datetime64(end) if is_date else end))
    rows = np.zeros((60, 1))
    alone = TimeDelaySplit(3, *sizes, end=end)
    assert_same_splits(splitter.split(rows, time=time), alone.split(rows[early], time=time[early]))
    assert max(test.max() for _, test in splitter.split(rows, time=time)) == early.sum() - 1


@pytest.mark.parametrize("time, end", [(np.arange(9), "2024-01-01"), (np.arange(9), [3])])
def test_an_end_of_another_kind_is_refused(time, end):
    with pytest.raises(TypeError, match="end must be None or a number, for time holds numbers"):
        list(TimeDelaySplit(1, 1, 1, end=end).split(np.zeros((9, 1)), time=time))
    dates = np.datetime64("2024-01-01") + np.arange(9).astype("timedelta64[D]")
    with pytest.raises(TypeError, match="end must be None or a date, for time holds dates"):
        list(TimeDelaySplit(1, "1D", "1D", end=3).split(np.zeros((9, 1)), time=dates))


def test_windows_end_at_the_latest_label():
    """Rows whose labels have not come yet are behind all windows, inside and outside a cascade."""
    rows, time = np.random.default_rng(0).normal(size=(300, 2)), np.arange(300)
    truth = (rows[:, 0] + rows[:, 1] > 0.5).astype(int)
    y = np.where(time < 240, truth, -1)
    splitter, ended = TimeDelaySplit(3, 30, 20), TimeDelaySplit(3, 30, 20, end=239)
    splits = list(ended.split(rows, y, time=time))
    assert_same_splits(LabeledTestFolds(splitter).split(rows, y, time=time), splits)
    params = {"unlabeled_label": -1, "random_state": 0, "thresholds": PassBudget(0.5)}
    stages = [("screen", LogisticRegression()), ("final", GaussianNB())]
    model = FeedbackCascadeClassifier(stages, cv=splitter, **params).fit(rows, y, time=time)
    by_hand = FeedbackCascadeClassifier(stages, cv=splits, **params).fit(rows, y)
    np.testing.assert_array_equal(model.predict_proba(rows), by_hand.predict_proba(rows))

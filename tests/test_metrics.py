"""Metrics against brute force and by hand, and scorers through searches and metadata."""

from itertools import permutations

import numpy as np
import pytest
import sklearn
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.naive_bayes import GaussianNB

import skmsc
from skmsc.metrics import (
    card_precision_at_k,
    expected_cost,
    mean_cost,
    neg_mean_cost_scorer,
    neg_pass_rate_scorer,
    pass_rate,
    recall_at_fpr,
    retained_recall,
    retained_recall_scorer,
)

X, Y = make_classification(400, weights=[0.8], random_state=0)


def cascade(**kwargs):
    stages = [("screen", LogisticRegression()), ("final", GaussianNB())]
    parameters = {"thresholds": skmsc.PassBudget(0.3), "stage_costs": [1, 9], "cv": 3}
    return skmsc.FeedbackCascadeClassifier(stages, random_state=0, **{**parameters, **kwargs})


# --- what errors and stages cost --------------------------------------------------------------
def test_expected_cost_row_by_row():
    rng = np.random.default_rng(0)
    y, answer = rng.integers(0, 2, size=(2, 50))
    amount, price, weight = rng.uniform(size=(3, 50))
    total = 0.0
    for i in range(50):
        if y[i] and not answer[i]:
            total += weight[i] * amount[i]
        elif answer[i] and not y[i]:
            total += weight[i] * price[i]
    costs = {"false_negative_cost": amount, "false_positive_cost": price, "sample_weight": weight}
    assert expected_cost(y, answer, normalize=False, **costs) == pytest.approx(total)
    assert expected_cost(y, answer, **costs) == pytest.approx(total / weight.sum())
    named = np.array(["ok", "fraud"])
    assert expected_cost(named[y], named[answer], pos_label="fraud", **costs) == pytest.approx(
        total / weight.sum()
    )


@pytest.mark.parametrize("dtype", [object, bool])
def test_labels_of_a_dataframe_have_the_conventional_positive(dtype):
    y_true, y_pred = np.array([0, 1, 1, 0], dtype), np.array([0, 0, 1, 1], dtype)
    assert expected_cost(y_true, y_pred, false_negative_cost=3.0) == 1.0


def test_a_weight_of_two_is_the_row_twice():
    y, answer = np.array([0, 1, 1, 0]), np.array([1, 0, 1, 0])
    twice = np.repeat(np.arange(4), [2, 1, 1, 3])
    weighted = expected_cost(y, answer, false_negative_cost=5, sample_weight=[2, 1, 1, 3])
    assert weighted == expected_cost(y[twice], answer[twice], false_negative_cost=5)
    stage = np.array([0, 1, 2, 1])
    assert mean_cost(stage, [1, 2, 4], sample_weight=[2, 1, 1, 3]) == mean_cost(
        stage[twice], [1, 2, 4]
    )
    assert pass_rate(stage, sample_weight=[2, 1, 1, 3]) == pass_rate(stage[twice])


def test_stages_by_hand():
    stage = [0, 2, 1, 0]
    assert mean_cost(stage, [1.0, 2.0, 4.0]) == (1 + 7 + 3 + 1) / 4
    assert [pass_rate(stage, to_stage=k) for k in range(4)] == [1.0, 0.5, 0.25, 0.0]
    caught, kept = np.array([1, 1, 0, 1], bool), np.array([1, 0, 1, 1], bool)
    assert retained_recall(caught, kept, sample_weight=[1, 2, 9, 1]) == 0.5


def test_retained_recall_without_caught_positives_warns():
    with pytest.warns(UserWarning, match="catches no positive"):
        assert np.isnan(retained_recall([False, False], [True, False]))


# --- rankings ---------------------------------------------------------------------------------
@pytest.mark.parametrize("max_fpr", [0.0, 0.05, 0.3, 1.0])
def test_recall_at_fpr_tries_every_cut(max_fpr):
    rng = np.random.default_rng(1)
    y, weight = rng.integers(0, 2, size=80), rng.uniform(0.5, 2, size=80)
    score = np.round(rng.uniform(size=80) + 0.3 * y, 1)  # with ties
    best = 0.0
    for cut in [np.inf, *np.unique(score)]:
        above = score >= cut
        if weight[above & (y == 0)].sum() <= max_fpr * weight[y == 0].sum():
            best = max(best, weight[above & (y == 1)].sum() / weight[y == 1].sum())
    got = recall_at_fpr(y, score, max_fpr=max_fpr, sample_weight=weight)
    assert got == pytest.approx(best)
    order = rng.permutation(80)
    assert recall_at_fpr(
        y[order], score[order], max_fpr=max_fpr, sample_weight=weight[order]
    ) == pytest.approx(got)


def handbook(y, score, card, day, k, drop_found):
    """The protocol in words, with loops, for scores without ties."""
    found, precision = set(), []
    for one_day in sorted(set(day)):
        best = {}
        for i in np.flatnonzero(day == one_day):
            if card[i] not in found:
                top, bad = best.get(card[i], (-np.inf, False))
                best[card[i]] = max(top, score[i]), bad or y[i] == 1
        ranked = sorted(best, key=lambda c: -best[c][0])[:k]
        hits = [c for c in ranked if best[c][1]]
        precision.append(len(hits) / k)
        if drop_found:
            found.update(hits)
    return precision


@pytest.mark.parametrize("drop_found", [True, False])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_card_precision_against_the_protocol(k, drop_found):
    rng = np.random.default_rng(2)
    y = (rng.uniform(size=400) < 0.2).astype(int)
    score, card, day = rng.uniform(size=400), rng.integers(0, 30, 400), rng.integers(0, 6, 400)
    given = {"card": card, "period": day, "k": k, "drop_found": drop_found}
    wanted = handbook(y, score, card, day, k, drop_found)
    np.testing.assert_allclose(card_precision_at_k(y, score, average=False, **given), wanted)
    assert card_precision_at_k(y, score, **given) == pytest.approx(np.mean(wanted))


def test_tied_cards_share_the_places():
    y, score = np.array([1, 0, 0, 1, 0]), np.array([0.5, 0.5, 0.9, 0.5, 0.1])
    card = np.arange(5)
    means = [
        handbook(y[list(p)], score[list(p)], card[list(p)], np.zeros(5, int), 2, True)[0]
        for p in permutations(range(5))
    ]
    for p in permutations(range(5)):
        p = list(p)
        got = card_precision_at_k(y[p], score[p], card=card[p], period=np.zeros(5), k=2)
        assert got == pytest.approx(np.mean(means))


def test_a_card_found_in_part_stays_for_the_rest():
    # Two tied cards for one place: the compromised one is found with chance 1/2, and the next day,
    # where it is alone, in the other half of the cases.
    got = card_precision_at_k(
        [1, 0, 1], [0.5, 0.5, 0.5], card=[0, 1, 0], period=[0, 0, 1], k=1, average=False
    )
    np.testing.assert_allclose(got, [0.5, 0.5])


def test_periods_may_be_dates():
    days = np.array(["2024-01-02", "2024-01-01"], dtype="datetime64[D]")
    got = card_precision_at_k([1, 0], [0.1, 0.2], card=["a", "b"], period=days, k=1, average=False)
    np.testing.assert_array_equal(got, [0.0, 1.0])


# --- in searches ------------------------------------------------------------------------------
def test_costs_of_rows_reach_a_search_by_metadata():
    amount = np.random.default_rng(0).uniform(1, 100, size=400)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(expected_cost, greater_is_better=False)
        scorer = scorer.set_score_request(false_negative_cost=True)
        found = cross_validate(
            GaussianNB(), X, Y, cv=4, scoring=scorer, return_estimator=True, return_indices=True,
            params={"false_negative_cost": amount},
        )  # fmt: skip
    for model, test, score in zip(
        found["estimator"], found["indices"]["test"], found["test_score"], strict=True
    ):
        missed = (Y[test] == 1) & (model.predict(X[test]) == 0)
        alarms = (Y[test] == 0) & (model.predict(X[test]) == 1)
        assert score == pytest.approx(-(amount[test][missed].sum() + alarms.sum()) / test.size)


def test_costs_may_be_for_the_scorer_of_a_cascade_alone():
    amount = np.random.default_rng(0).uniform(1, 100, size=400)
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            cascade().set_fit_request(false_negative_cost=False),
            {"thresholds": [skmsc.PassBudget(0.2)]},
            scoring=make_scorer(expected_cost, greater_is_better=False).set_score_request(
                false_negative_cost=True
            ),
            cv=[(np.arange(200), np.arange(200, 400))],
        ).fit(X, Y, false_negative_cost=amount)
    model = cascade().set_params(thresholds=skmsc.PassBudget(0.2)).fit(X[:200], Y[:200])
    cost = expected_cost(Y[200:], model.predict(X[200:]), false_negative_cost=amount[200:])
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(-cost)


def test_card_precision_reaches_a_search_by_metadata():
    rng = np.random.default_rng(0)
    card, day = rng.integers(0, 60, 400), np.arange(400) // 100
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(card_precision_at_k, response_method="predict_proba", k=5)
        scorer = scorer.set_score_request(card=True, period=True)
        found = cross_validate(
            GaussianNB(), X, Y, cv=2, scoring=scorer, params={"card": card, "period": day},
            return_estimator=True, return_indices=True,
        )  # fmt: skip
    model, test = found["estimator"][0], found["indices"]["test"][0]
    wanted = handbook(
        Y[test], model.predict_proba(X[test])[:, 1], card[test], day[test], 5, drop_found=True
    )
    assert found["test_score"][0] == pytest.approx(np.mean(wanted))


def test_scorers_in_a_search_agree_with_the_functions():
    search = GridSearchCV(
        cascade(feedback="none"),
        {"thresholds": [skmsc.PassBudget(0.2), skmsc.PassBudget(0.5)]},
        scoring={
            "pass": neg_pass_rate_scorer,
            "cost": neg_mean_cost_scorer,
            "kept": retained_recall_scorer,
        },
        refit="pass",
        cv=2,
    ).fit(X, Y)
    assert search.best_params_["thresholds"].max_pass_rate == 0.2
    rates = -search.cv_results_["mean_test_pass"]
    np.testing.assert_allclose(-search.cv_results_["mean_test_cost"], 1 + 9 * rates)
    weight = np.random.default_rng(0).uniform(size=400)
    routing = skmsc.route(search, X)
    assert -neg_pass_rate_scorer(search, X, sample_weight=weight) == pass_rate(
        routing.stage, sample_weight=weight
    )
    assert -neg_mean_cost_scorer(search, X, sample_weight=weight) == pytest.approx(
        mean_cost(routing.stage, [1, 9], sample_weight=weight)
    )
    model = search.best_estimator_
    caught = (Y == 1) & (model.stages_[-1].predict_proba(X)[:, 1] >= model.catch_threshold_)
    assert retained_recall_scorer(search, X, Y, sample_weight=weight) == pytest.approx(
        retained_recall(caught, routing.stage == 1, sample_weight=weight)
    )


# --- bad input --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: expected_cost([0, 1, 2], [0, 1, 1]), ValueError, "Only binary classification"),
        (lambda: expected_cost(["a", "b"], ["a", "a"]), ValueError, "set pos_label"),
        (lambda: expected_cost([0, 1], [0, 1], pos_label=2), ValueError, r"one of \[0, 1\]; got 2"),
        (
            lambda: expected_cost([0, 1], [0, 0], false_negative_cost=[1, 2, 3]),
            ValueError,
            r"false_negative_cost must be .* shape \(2,\) of them; got an array of shape \(3,\)",
        ),
        (
            lambda: expected_cost([0, 1], [0, 0], false_positive_cost=-1),
            ValueError,
            "false_positive_cost must be .* got -1.0",
        ),
        (lambda: expected_cost([0, 1], [0, 0], false_positive_cost=[1, np.nan]), ValueError, "nan"),
        (lambda: expected_cost([0, 1], [1, 0], false_positive_cost=1e308), ValueError, "to 1e.50 "),
        (lambda: expected_cost([0, 1], [0, 0], false_positive_cost="a"), TypeError, "got 'a'"),
        (lambda: expected_cost([0, 1], [0]), ValueError, "inconsistent numbers"),
        (lambda: mean_cost([0, 2], [1, 1]), ValueError, "each stage up to 2; got 2"),
        (lambda: mean_cost([0.5], [1, 1]), ValueError, "integers >= 0"),
        (lambda: pass_rate([-1, 0]), ValueError, "integers >= 0"),
        (lambda: pass_rate([0, 1], to_stage=-1), ValueError, "to_stage must be .* got -1"),
        (lambda: pass_rate([0, 1], sample_weight=[0, 0]), ValueError, "zero"),
        (lambda: retained_recall([0, 1], [True, True]), TypeError, "caught must be a mask"),
        (lambda: recall_at_fpr([0, 1], [0, 1], max_fpr=1.5), ValueError, "max_fpr .* got 1.5"),
        (lambda: recall_at_fpr([1, 1], [0, 1]), ValueError, "a negative row"),
        (
            lambda: card_precision_at_k([0, 1], [0, 1], card=[0, 1], period=[0, 0], k=0),
            ValueError,
            "k must be an integer >= 1; got 0",
        ),
        (
            lambda: card_precision_at_k([0, 1], [0, np.nan], card=[0, 1], period=[0, 0]),
            ValueError,
            "NaN",
        ),
        (
            lambda: card_precision_at_k([0, 1], [0, 1], card=[0], period=[0, 0]),
            ValueError,
            "inconsistent numbers",
        ),
        (
            lambda: card_precision_at_k([0, 1], [0, 1], card=["a", None], period=[0, 0]),
            ValueError,
            "card must hold no None",
        ),
        (lambda: retained_recall_scorer(cascade().fit(X, Y), X, None), ValueError, "y must hold"),
        (lambda: neg_pass_rate_scorer(cascade(), X), NotFittedError, "not fitted yet"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()

"""The monitor: tests against scipy and by chance, estimates against what they estimate."""

import pickle

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skmsc
from skmsc.neural import MultiExitNet
from skmsc.reporting._monitor import (
    ScoreReference,
    homogeneity_p_value,
    monitor_report,
    stability_index,
)

X, Y = make_classification(3000, weights=[0.9], flip_y=0.02, random_state=0)
OLD, NEW = slice(0, 1500), slice(1500, None)


def cascade(**kwargs):
    stages = [("screen", LogisticRegression()), ("final", GaussianNB())]
    parameters = {"thresholds": skmsc.PassBudget(0.3), "feedback": "none", "cv": 3}
    return skmsc.FeedbackCascadeClassifier(stages, random_state=0, **{**parameters, **kwargs})


MODEL = cascade().fit(X[OLD], Y[OLD])


def two_stages(score, weight=None, cut=0.8):
    """Stage, scores and weights of rows that pass above a cut."""
    stage = (score > cut).astype(np.intp)
    return (
        stage,
        [score, score[stage == 1] * 0.5],
        np.ones(score.size) if weight is None else weight,
    )


# --- tests and indices ------------------------------------------------------------------------
def test_p_value_is_pearsons_where_bins_are_full():
    counts = np.array([[30.0, 50.0, 20.0], [90.0, 100.0, 10.0]])
    assert homogeneity_p_value(counts) == chi2_contingency(counts, correction=False).pvalue


def test_thin_bins_are_merged():
    counts = np.array([[2.0, 3.0, 95.0, 0.0], [1.0, 4.0, 94.0, 1.0]])
    merged = np.array([[5.0, 95.0], [5.0, 95.0]])
    assert homogeneity_p_value(counts) == chi2_contingency(merged, correction=False).pvalue
    assert homogeneity_p_value(np.array([[1.0, 2.0], [2.0, 1.0]])) == 1.0


def test_stability_index_by_hand():
    p, q = np.array([10.5, 90.5]) / 101, np.array([30.5, 70.5]) / 101
    wanted = ((p - q) * np.log(p / q)).sum()
    assert stability_index(np.array([[10.0, 90.0], [30.0, 70.0]])) == pytest.approx(wanted)
    assert stability_index(np.array([[10.0, 90.0], [10.0, 90.0]])) == 0.0


def test_bins_lie_at_quantiles_and_between_scores():
    stage, scores, weight = two_stages(np.arange(1000) / 1000, cut=2.0)
    reference = ScoreReference.of(stage, scores, weight)
    np.testing.assert_allclose(
        np.cumsum(reference.shares[0]),
        [0.01, 0.05, *np.arange(0.1, 0.95, 0.1), 0.95, 0.99, 1.0],
        atol=0.0011,
    )
    assert not np.isin(reference.edges[0], scores[0]).any()
    twice = ScoreReference.of(np.zeros(1000, int), [scores[0], scores[1]], weight * 2)
    np.testing.assert_allclose(twice.edges[0], reference.edges[0])
    assert twice.size == pytest.approx(1000)


def test_a_constant_score_has_one_bin():
    stage, scores, weight = two_stages(np.full(100, 0.5))
    reference = ScoreReference.of(stage, scores, weight)
    assert reference.edges[0].size == 0 and reference.shares[0].tolist() == [1.0]
    report = monitor_report(["a", "b"], reference, stage, scores, weight)
    assert report.columns["verdict"] == ("steady", "unknown")


def test_false_alarms_are_as_rare_as_the_p_value_says():
    rng = np.random.default_rng(0)
    p_values, verdicts = [], []
    for _ in range(400):
        reference = ScoreReference.of(*two_stages(rng.beta(0.5, 5, size=2000), cut=0.1))
        new = two_stages(rng.beta(0.5, 5, size=1000), rng.uniform(0.5, 1.5, size=1000), cut=0.1)
        report = monitor_report(["a", "b"], reference, *new)
        p_values.append([*report.columns["score_p_value"], report.columns["pass_rate_p_value"][1]])
        verdicts.append(len(report.shifted))
    for level in (0.05, 0.2):
        shares = (np.array(p_values) < level).mean(axis=0)
        assert (np.abs(shares - level) <= 4 * np.sqrt(level / 400)).all()
    assert np.mean(verdicts) < 0.02


@pytest.mark.parametrize("shift", [lambda s: s**1.5, lambda s: np.where(s > 0.7, s + 0.1, s)])
def test_shifts_are_found(shift):
    rng = np.random.default_rng(0)
    reference = ScoreReference.of(*two_stages(rng.uniform(size=3000)))
    report = monitor_report(["a", "b"], reference, *two_stages(shift(rng.uniform(size=3000))))
    assert report.shifted


def test_a_steady_rate_that_is_known_too_well_is_no_shift():
    rng = np.random.default_rng(0)
    reference = ScoreReference.of(*two_stages(rng.uniform(size=400_000)))
    report = monitor_report(["a", "b"], reference, *two_stages(rng.uniform(size=400_000) ** 1.05))
    assert report.columns["pass_rate_p_value"][1] < 1e-6
    assert report.shifted == ()


# --- estimators -------------------------------------------------------------------------------
def early_exit(**kwargs):
    net = MultiExitNet(width=8, depth=2, max_epochs=2, random_state=0)
    return skmsc.EarlyExitClassifier(
        LogisticRegression(), net, thresholds=0.8, cv=3, random_state=0, **kwargs
    )


def composable(**kwargs):
    return skmsc.ComposableHeadClassifier(
        GaussianNB(), "passthrough", thresholds=0.9, random_state=0, **kwargs
    )


@pytest.mark.parametrize("make", [cascade, early_exit, composable])
def test_columns_of_every_estimator(make):
    model = make().fit(X[OLD], Y[OLD])
    report = model.monitor(X[NEW])
    stage = model.route(X[NEW]).stage
    n_stages = len(model.thresholds_)
    assert report.columns["rows_in"] == tuple((stage >= k).sum() for k in range(n_stages))
    exact = binomtest(int((stage >= 1).sum()), 1500).proportion_ci(method="exact")
    assert report.columns["pass_rate_low"][1] == pytest.approx(exact.low)
    assert report.columns["verdict"][0] == "steady"
    assert "shifted" in model.monitor(X[NEW] * 3 + 1, reference=X[OLD]).columns["verdict"]
    again = pickle.loads(pickle.dumps(model))
    assert repr(again.monitor(X[NEW])) == repr(report)


def test_lines_fit_a_terminal():
    lines = repr(MODEL.monitor(X[NEW] * 9, Y[NEW], sample_weight=np.full(1500, 1234.5)))
    assert max(map(len, lines.splitlines())) <= 100


def test_the_reference_of_a_fit_is_the_out_of_fold_scores():
    model = cascade(store_oof=True).fit(X[OLD], Y[OLD])
    negative = model.oof_stage_proba_[:, 0, 0]
    reference = model._reference
    counts = np.bincount(np.searchsorted(reference.edges[0], negative)) / 1500
    np.testing.assert_allclose(reference.shares[0], counts)
    passed = negative < model.thresholds_[0, 0]
    assert reference.pass_rates.tolist() == [1.0, passed.mean()]


def test_scores_that_are_out_of_fold_give_no_verdict():
    model = cascade().fit(X[OLD], Y[OLD])
    away = X[NEW] + 3.0 * (Y[NEW] == 0)[:, None]
    loud, out_of_fold = model.monitor(away, reference=X[OLD]), model.monitor(away)
    assert loud.columns["verdict"][0] == "shifted"
    assert out_of_fold.columns["psi"][0] >= 0.1
    assert out_of_fold.columns["verdict"][0] == "unknown"


def test_tuning_sets_the_reference_anew():
    tuned = MODEL.tune_thresholds(X[NEW], Y[NEW], thresholds=skmsc.RecallFloor(0.9), copy=True)
    report = tuned.monitor(X[NEW])
    assert report.columns["psi"] == (0.0, 0.0)
    assert report.columns["pass_rate"] == report.columns["reference_pass_rate"]
    assert tuned.monitor(X[OLD]).columns["psi"][0] > 0
    by_budget = MODEL.tune_thresholds(X[NEW], thresholds=skmsc.PassBudget(0.3), copy=True)
    assert by_budget.monitor(X[NEW]).columns["verdict"] == ("steady", "unknown")


def test_given_rows_are_compared_with():
    report = MODEL.monitor(X[NEW], reference=X[NEW])
    assert report.columns["psi"] == (0.0, 0.0)
    assert report.columns["score_p_value"] == (1.0, 1.0)
    wrapped = make_pipeline(StandardScaler(), cascade()).fit(X[OLD], Y[OLD])
    report = skmsc.monitor(wrapped, X[NEW], reference=X[NEW])
    assert report.columns["psi"] == (0.0, 0.0)


def test_classes_that_come_leave_nothing_to_compare_with():
    model = composable().fit(X[OLD], Y[OLD])
    X3, Y3 = X[:50] + 5.0, np.full(50, 2)
    with pytest.warns(UserWarning, match="The first stage never saw"):
        model.add_class(X3, 2)
    with pytest.raises(ValueError, match="give rows as reference"):
        model.monitor(X[NEW])
    report = model.monitor(X[NEW], np.where(np.arange(1500) < 50, Y3[0], Y[NEW]), reference=X[OLD])
    assert "errors" in report.columns


def test_heads_that_learned_more_have_nothing_to_compare_with():
    model = composable().fit(X[OLD], Y[OLD]).partial_fit(X[:50], Y[:50])
    with pytest.raises(ValueError, match="heads or classes have changed since"):
        model.monitor(X[NEW])


@pytest.mark.parametrize("make", [cascade, composable])
def test_a_copy_and_its_original_keep_references_of_their_own(make):
    model = make().fit(X[OLD], Y[OLD])
    before = repr(model.monitor(X[NEW]))
    tuned = model.tune_thresholds(X[NEW], thresholds=skmsc.PassBudget(0.4), copy=True)
    assert repr(model.monitor(X[NEW])) == before
    columns = tuned.monitor(X[NEW]).columns
    assert columns["reference_pass_rate"] == columns["pass_rate"]


def test_zero_weight_is_absence():
    weight = np.random.default_rng(0).integers(0, 2, size=1500).astype(float)
    some = MODEL.monitor(X[NEW], Y[NEW], sample_weight=weight)
    assert some.columns == MODEL.monitor(X[NEW][weight > 0], Y[NEW][weight > 0]).columns


# --- labels -----------------------------------------------------------------------------------
def test_all_labels_give_the_report():
    monitor, report = MODEL.monitor(X[NEW], Y[NEW]), MODEL.report(X[NEW], Y[NEW])
    assert monitor.columns["labeled"] == report.columns["answered"]
    assert monitor.columns["positives_lost"] == pytest.approx(report.columns["positives_lost"])
    assert monitor.recall == pytest.approx(report.columns["cumulative_recall"][-1])
    assert monitor.recall_low < monitor.recall < monitor.recall_high


def test_a_shadow_sample_estimates_what_was_lost():
    rng = np.random.default_rng(0)
    stage = MODEL.route(X[NEW]).stage
    truth = MODEL.monitor(X[NEW], Y[NEW])
    lost, recall, covered = [], [], []
    for _ in range(300):
        drawn = rng.uniform(size=1500) < 0.2
        weight = np.where(stage == 1, 1.0, np.where(drawn, 5.0, 0.0))
        y = np.where(weight > 0, Y[NEW], -7)  # of any value where it is not known
        shadow = MODEL.monitor(X[NEW], y, label_weight=weight)
        lost.append(shadow.columns["positives_lost"][0])
        recall.append(shadow.recall)
        low, high = (shadow.columns[f"positives_lost_{end}"][0] for end in ("low", "high"))
        covered.append(low <= truth.columns["positives_lost"][0] <= high)
    error = np.std(lost) / np.sqrt(300)
    assert abs(np.mean(lost) - truth.columns["positives_lost"][0]) < 4 * error
    assert abs(np.mean(recall) - truth.recall) < 0.03
    assert np.mean(covered) >= 0.95


def test_a_mask_of_labels_weighs_them_alike_within_a_stage():
    known = np.random.default_rng(0).uniform(size=1500) < 0.3
    by_mask = MODEL.monitor(X[NEW], Y[NEW], label_weight=known)
    by_weight = MODEL.monitor(X[NEW], Y[NEW], label_weight=np.where(known, 10 / 3, 0.0))
    assert by_mask.columns["positives_lost"] == pytest.approx(by_weight.columns["positives_lost"])


def test_labels_that_are_not_known_may_be_of_any_kind():
    names = np.array(["no", "rather suspicious"])
    model = cascade(pos_label="rather suspicious").fit(X[OLD], names[Y[OLD]])
    known = np.random.default_rng(0).uniform(size=1500) < 0.5
    wanted = model.monitor(X[NEW], names[Y[NEW]], label_weight=known)
    short = np.where(known, names[Y[NEW]], "?")
    mixed = np.where(known, names[Y[NEW]].astype(object), None)
    for y in (short, mixed, mixed.tolist()):
        assert model.monitor(X[NEW], y, label_weight=known).columns == wanted.columns
    as_float = np.where(known, Y[NEW], np.nan)
    assert MODEL.monitor(X[NEW], as_float, label_weight=known).columns == wanted.columns


def test_a_stage_that_nothing_reaches_has_shifted():
    rng = np.random.default_rng(0)
    reference = ScoreReference.of(*two_stages(rng.uniform(size=2000)))
    report = monitor_report(["a", "b"], reference, *two_stages(rng.uniform(0, 0.8, size=2000)))
    assert report.columns["rows_in"][1] == 0 and np.isnan(report.columns["psi"][1])
    assert report.columns["verdict"][1] == "shifted"


def test_a_stage_without_labels_is_unknown():
    stage = MODEL.route(X[NEW]).stage
    report = MODEL.monitor(X[NEW], Y[NEW], label_weight=stage == 1)
    assert np.isnan(report.columns["positives_lost"][0]) and np.isnan(report.recall)
    assert repr(report).endswith(
        "recall of class 1: unknown, a stage answered rows of which none is labelled"
    )
    assert "unknown" in report._repr_html_()


def test_unlabeled_rows_of_a_cascade_are_left_out():
    y = Y.copy()
    y[::3] = -1
    model = cascade(unlabeled_label=-1).fit(X[OLD], y[OLD])
    report = model.monitor(X[NEW], y[NEW])
    assert sum(report.columns["labeled"]) == (y[NEW] >= 0).sum()


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"label_weight": np.ones(1500)}, "label_weight needs y"),
        ({"y": Y[NEW], "label_weight": -np.ones(1500)}, "label_weight must be weights of the rows"),
        ({"y": Y[NEW], "label_weight": np.ones(3)}, "label_weight must be weights of the rows"),
        ({"y": Y[NEW], "label_weight": np.zeros(1500)}, "label_weight"),
        ({"y": Y[:3]}, "y must have shape"),
        ({"y": Y[NEW] + 7}, "not seen in fit"),
        ({"reference": X[:, :3]}, "features"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MODEL.monitor(X[NEW], **kwargs)

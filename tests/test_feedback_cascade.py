"""FeedbackCascadeClassifier against hand-written training and prediction."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn import config_context
from sklearn.datasets import make_classification
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold, StratifiedKFold, TimeSeriesSplit, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from skmsc import (
    CaughtFeedback,
    CostBudget,
    FeedbackCascadeClassifier,
    GainFeedback,
    PassBudget,
    RecallFloor,
)
from skmsc.thresholds import eager_stage

X, Y = make_classification(
    900, n_features=8, n_informative=5, weights=[0.85], flip_y=0.05, random_state=1
)
SCREEN, FINAL = LogisticRegression(C=0.1), GaussianNB()
STAGES = [("screen", SCREEN), ("final", FINAL)]
CV = StratifiedKFold(4)


def cascade(stages=STAGES, **kwargs):
    kwargs = {"thresholds": PassBudget(0.3), "cv": CV, "random_state": 0, **kwargs}
    return FeedbackCascadeClassifier(stages, **kwargs)


def test_training_runs_backwards_as_written_by_hand():
    model = cascade(feedback=CaughtFeedback(temperature=0.5), store_oof=True).fit(X, Y)

    final = FINAL.fit(X, Y)
    p_final = cross_val_predict(GaussianNB(), X, Y, cv=CV, method="predict_proba")[:, 1]
    t = model.catch_threshold_
    q = expit((logit(np.clip(p_final, 1e-12, 1 - 1e-12)) - logit(t)) / 0.5)
    weight = np.where(Y == 1, q / q[Y == 1].mean(), 1.0)
    screen = LogisticRegression(C=0.1).fit(X, Y, sample_weight=weight)
    p_screen = np.empty(len(Y))
    for train, test in CV.split(X, Y):
        fold = LogisticRegression(C=0.1).fit(X[train], Y[train], sample_weight=weight[train])
        p_screen[test] = fold.predict_proba(X[test])[:, 1]

    np.testing.assert_allclose(model.feedback_weights_[:, 0], weight, rtol=1e-9)
    np.testing.assert_allclose(model.feedback_weights_[:, 1], 1.0)
    np.testing.assert_allclose(model.named_stages_["screen"].coef_, screen.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.named_stages_["final"].theta_, final.theta_)
    np.testing.assert_allclose(model.oof_stage_proba_[:, 0, 1], p_screen, rtol=1e-9)
    np.testing.assert_allclose(model.oof_stage_proba_[:, 1, 1], p_final, rtol=1e-9)
    assert (p_screen > 1 - model.thresholds_[0, 0]).mean() <= 0.3


def test_gain_trains_the_screen_on_whether_passing_pays():
    error_costs, costs = (6.0, 1.0), [0.1, 0.5]
    model = cascade(
        feedback=GainFeedback(error_costs=error_costs), stage_costs=costs, store_oof=True
    ).fit(X, Y)
    p = cross_val_predict(GaussianNB(), X, Y, cv=CV, method="predict_proba")[:, 1]
    q = expit(logit(np.clip(p, 1e-12, 1 - 1e-12)) - logit(model.catch_threshold_))
    gain = np.where(Y == 1, 6.0 * q, -1.0 * q) - 0.5
    weight = np.abs(gain) / np.abs(gain).mean()
    screen = LogisticRegression(C=0.1).fit(X, gain > 0, sample_weight=weight)
    np.testing.assert_allclose(model.feedback_weights_[:, 0], weight, rtol=1e-9)
    np.testing.assert_allclose(model.named_stages_["screen"].coef_, screen.coef_, rtol=1e-9)


@pytest.mark.parametrize("feedback", ["caught", "gain", "none", lambda y, p, t: 1 + y])
@pytest.mark.parametrize("calibration", ["sigmoid", "isotonic", None])
def test_lazy_prediction_equals_eager(feedback, calibration):
    stages = [
        ("a", LogisticRegression()),
        ("b", GaussianNB()),
        ("c", DecisionTreeClassifier(max_depth=5)),
    ]
    model = cascade(
        stages, feedback=feedback, calibration=calibration, thresholds=PassBudget([0.5, 0.2])
    ).fit(X, Y)
    routing, stage_proba = model.route(X), model.stage_proba(X)
    np.testing.assert_array_equal(routing.stage, eager_stage(stage_proba, model.thresholds_))
    *_, last = staged = list(model.staged_predict_proba(X))
    assert len(staged) == 3
    np.testing.assert_allclose(last, routing.proba, atol=1e-12)
    np.testing.assert_allclose(routing.proba.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(model.predict_proba(X), routing.proba)
    # Rows answered early come out negative.
    assert (model.predict(X)[routing.stage < 2] == 0).all()


def test_a_rows_answer_does_not_depend_on_the_other_rows():
    model = cascade().fit(X, Y)
    proba = model.predict_proba(X)
    shuffled = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(model.predict_proba(X[shuffled]), proba[shuffled], atol=1e-12)
    one_by_one = np.concatenate([model.predict_proba(X[i : i + 1]) for i in range(60)])
    np.testing.assert_allclose(one_by_one, proba[:60], atol=1e-12)


def test_a_one_stage_cascade_is_its_estimator():
    model = cascade([("only", SCREEN)], calibration=None).fit(X, Y)
    alone = LogisticRegression(C=0.1).fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), alone.predict_proba(X))
    np.testing.assert_array_equal(model.predict(X), alone.predict(X))
    np.testing.assert_array_equal(model.route(X).stage, 0)


def test_a_cascade_that_passes_every_row_is_its_last_stage():
    model = cascade(calibration=None, thresholds=PassBudget(1.0)).fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), GaussianNB().fit(X, Y).predict_proba(X))


def test_weight_two_is_the_row_twice_and_zero_is_absence():
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 3, len(Y))
    folds = rng.integers(0, 3, len(Y))

    def splits(fold):
        return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]

    stages = [("screen", make_pipeline(StandardScaler(), SCREEN)), ("final", FINAL)]
    weighted = cascade(stages, cv=splits(folds)).fit(X, Y, sample_weight=weight)
    repeated = cascade(stages, cv=splits(folds.repeat(weight)))
    repeated.fit(X.repeat(weight, axis=0), Y.repeat(weight))
    np.testing.assert_allclose(weighted.thresholds_, repeated.thresholds_, rtol=1e-7)
    np.testing.assert_allclose(
        weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-6, atol=1e-9
    )


def test_survivors_refit_the_last_stage_on_the_rows_scored_highest():
    model = cascade(
        feedback="none", survivor_rate=0.3, thresholds=PassBudget(0.2), store_oof=True
    ).fit(X, Y)
    p_screen = cross_val_predict(LogisticRegression(C=0.1), X, Y, cv=CV, method="predict_proba")
    survive = p_screen[:, 1] >= np.sort(p_screen[:, 1])[-int(0.3 * len(Y))]
    final = GaussianNB().fit(X[survive], Y[survive])
    np.testing.assert_allclose(model.named_stages_["final"].theta_, final.theta_)
    for train, test in CV.split(X, Y):
        fold = GaussianNB().fit(X[train][survive[train]], Y[train][survive[train]])
        np.testing.assert_allclose(
            model.oof_stage_proba_[test, 1], fold.predict_proba(X[test]), atol=1e-12
        )
    # Caught is still judged by the fit on all rows.
    plain = cascade(feedback="none").fit(X, Y)
    assert model.catch_threshold_ == plain.catch_threshold_
    caught = GaussianNB().fit(X, Y).predict_proba(X)[:, 1] >= plain.catch_threshold_
    report = model.report(X, Y).columns
    lost = (model.route(X).stage == 0) & caught & (Y == 1)
    assert report["retained_recall"][-1] == pytest.approx(
        1 - lost.sum() / (caught & (Y == 1)).sum()
    )


def test_gain_that_leaves_nothing_to_learn_is_neutral_with_a_warning():
    strategy = GainFeedback(error_costs=(1e-9, 1.0))  # no positive is worth a call
    with pytest.warns(UserWarning, match="the stage is trained without feedback"):
        model = cascade(feedback=strategy, stage_costs=[0, 1], store_oof=True).fit(X, Y)
    np.testing.assert_array_equal(model.feedback_weights_, 1.0)
    screen = LogisticRegression(C=0.1).fit(X, Y)
    np.testing.assert_allclose(model.named_stages_["screen"].coef_, screen.coef_, rtol=1e-9)


def test_survivors_of_one_class_leave_the_last_stage_as_it_is():
    with pytest.warns(UserWarning, match="the last stage is fitted on all rows"):
        model = cascade(survivor_rate=0.001, thresholds=PassBudget(0.001)).fit(X, Y)
    np.testing.assert_array_equal(
        model.named_stages_["final"].theta_, GaussianNB().fit(X, Y).theta_
    )


def test_thresholds_looser_than_the_survivor_rate_warn():
    with pytest.warns(UserWarning, match=r"The thresholds pass 0\.3.* survivor_rate=0\.1"):
        cascade(survivor_rate=0.1).fit(X, Y)


def test_held_out_rows_train_nothing_and_set_the_thresholds():
    model = cascade(validation_fraction=0.4, store_oof=True).fit(X, Y)
    held = np.isnan(model.oof_stage_proba_).all(axis=(1, 2))
    assert held.sum() == 360
    assert Y[held].mean() == pytest.approx(Y.mean(), abs=0.005)
    np.testing.assert_allclose(
        model.named_stages_["final"].theta_, GaussianNB().fit(X[~held], Y[~held]).theta_
    )
    again = cascade(validation_fraction=0.4).fit(X, Y)
    again.tune_thresholds(X[held], Y[held], thresholds=PassBudget(0.3))
    np.testing.assert_array_equal(model.thresholds_, again.thresholds_)
    assert (model.route(X[held]).stage == 1).mean() <= 0.3


def test_held_out_rows_are_the_last_ones_under_a_time_splitter():
    model = cascade(cv=TimeSeriesSplit(3), validation_fraction=0.2, store_oof=True).fit(X, Y)
    assert np.isnan(model.oof_stage_proba_[-180:]).all()
    np.testing.assert_allclose(
        model.named_stages_["final"].theta_, GaussianNB().fit(X[:-180], Y[:-180]).theta_
    )


def test_held_out_rows_are_whole_groups():
    groups = np.arange(len(Y)) // 9
    model = cascade(cv=GroupKFold(3), validation_fraction=0.3, store_oof=True)
    model.fit(X, Y, groups=groups)
    held = np.isnan(model.oof_stage_proba_).all(axis=(1, 2))
    assert held.any() and not set(groups[held]) & set(groups[~held])


def test_rows_never_scored_train_every_stage_with_neutral_feedback():
    model = cascade(cv=TimeSeriesSplit(3), store_oof=True).fit(X, Y)
    unscored = np.isnan(model.oof_stage_proba_).all(axis=(1, 2))
    assert unscored.sum() == 225
    np.testing.assert_array_equal(model.feedback_weights_[unscored], 1.0)
    weight = model.feedback_weights_[:, 0]
    screen = LogisticRegression(C=0.1).fit(X, Y, sample_weight=weight)
    np.testing.assert_allclose(model.named_stages_["screen"].coef_, screen.coef_, rtol=1e-9)


def test_tune_thresholds_fits_no_stage_and_can_leave_the_model_alone():
    model = cascade().fit(X, Y)
    before, stages = model.thresholds_.copy(), list(model.stages_)
    other = model.tune_thresholds(X, Y, thresholds=PassBudget(0.05), copy=True)
    np.testing.assert_array_equal(model.thresholds_, before)
    assert (other.route(X).stage == 1).mean() <= 0.05
    assert model.tune_thresholds(X, Y, thresholds=0.5) is model
    np.testing.assert_allclose(model.thresholds_[0], [0.5, np.inf])
    assert all(a is b for a, b in zip(model.stages_, stages, strict=True))


def test_a_tuned_copy_shares_no_parameters():
    model = cascade().fit(X, Y)
    other = model.tune_thresholds(X, Y, thresholds=0.5, copy=True)
    other.set_params(thresholds__max_pass_rate=0.9, screen__C=7.0)
    assert model.thresholds.max_pass_rate == 0.3
    assert model.get_params()["screen__C"] == 0.1
    assert other.stages_[0] is model.stages_[0]


def test_a_report_without_weighted_positives_has_no_recall():
    report = cascade().fit(X, Y).report(X, Y, sample_weight=(Y == 0).astype(float))
    assert "cumulative_recall" not in report.columns
    assert report.columns["positives_in"] == (0, 0)


def test_a_callable_that_leaves_one_class_is_named():
    with pytest.raises(ValueError, match=r"The weights of feedback=.* are 0 for a whole class"):
        cascade(feedback=lambda positive, proba, cut: 1.0 - positive).fit(X, Y)


def test_memory_knows_what_the_configuration_changes(tmp_path):
    declines = LogisticRegression(C=0.1)
    with config_context(enable_metadata_routing=True):
        declines.set_fit_request(sample_weight=False)
    stages = [("screen", declines), ("final", FINAL)]
    model = cascade(stages, memory=str(tmp_path))
    weighted = model.fit(X, Y).named_stages_["screen"].coef_
    with config_context(enable_metadata_routing=True), pytest.warns(UserWarning, match="resampled"):
        resampled = model.fit(X, Y).named_stages_["screen"].coef_
    assert np.abs(weighted - resampled).max() > 1e-6


def test_memory_hashes_the_rows_and_not_their_place(tmp_path):
    model = cascade(memory=str(tmp_path)).fit(X, Y)
    shifted = cascade(memory=str(tmp_path)).fit(X + 1.0, Y)
    fresh = cascade().fit(X + 1.0, Y)
    np.testing.assert_array_equal(shifted.predict_proba(X), fresh.predict_proba(X))
    assert (model.predict_proba(X) != shifted.predict_proba(X)).any()


def test_tuning_counts_zero_weight_as_absence():
    model = cascade().fit(X, Y)
    weight = (np.arange(len(Y)) % 2).astype(float)
    half = weight > 0
    with_zero = model.tune_thresholds(
        X, Y, thresholds=RecallFloor(0.9), sample_weight=weight, copy=True
    )
    without = model.tune_thresholds(X[half], Y[half], thresholds=RecallFloor(0.9), copy=True)
    np.testing.assert_array_equal(with_zero.thresholds_, without.thresholds_)


def test_confidence_needs_rows_that_nothing_saw():
    floor = RecallFloor(0.8, confidence=0.9)
    with pytest.raises(ValueError, match="set validation_fraction"):
        cascade(thresholds=floor).fit(X, Y)
    model = cascade(thresholds=floor, validation_fraction=0.5).fit(X, Y)
    assert np.isfinite(model.thresholds_[0, 0])
    with pytest.raises(ValueError, match="it needs 90 positives, all of them caught"):
        cascade(thresholds=RecallFloor(0.95, confidence=0.99), validation_fraction=0.3).fit(X, Y)


@pytest.mark.parametrize("calibration", ["sigmoid", "isotonic", None])
@pytest.mark.parametrize("pos_label", ["bad", "good"])
def test_an_early_answer_is_the_likeliest_class(calibration, pos_label):
    labels = np.where(Y == 1, "bad", "good")
    screen = LogisticRegression(class_weight="balanced")
    thresholds = np.array([[0.2, 0.3], [-np.inf, -np.inf]])  # answers both classes, boldly
    model = cascade(
        [("screen", screen), ("final", FINAL)],
        thresholds=thresholds,
        calibration=calibration,
        pos_label=pos_label,
    ).fit(X, labels)
    scores = model.stage_proba(X)[:, 0]
    early = model.route(X).stage == 0
    likelier = np.where(scores >= thresholds[0], scores, -1).argmax(axis=1)
    np.testing.assert_array_equal(model.predict(X)[early], model.classes_[likelier[early]])


def test_scaling_an_early_answer_keeps_the_order_of_its_rows():
    screen = LogisticRegression(class_weight={0: 1, 1: 1e-3})
    model = cascade([("screen", screen), ("final", FINAL)], thresholds=1.0).fit(X, Y)
    order = np.argsort(model.stage_proba(X)[:, 0, 1])
    positive = model.predict_proba(X)[order, 1]
    assert (np.diff(positive) > 0).all()
    assert positive[-1] < 0.5


def test_stages_without_probabilities_get_a_map_fitted_out_of_fold():
    model = cascade(
        [("screen", LinearSVC(random_state=0)), ("final", FINAL)], feedback="none", store_oof=True
    ).fit(X, Y)
    decisions = cross_val_predict(
        LinearSVC(random_state=0), X, Y, cv=CV, method="decision_function"
    )
    oof = model.oof_stage_proba_[:, 0, 1]
    np.testing.assert_array_equal(np.argsort(oof), np.argsort(decisions))
    assert oof.mean() == pytest.approx(Y.mean(), abs=0.01)  # a probability, not a decision value
    on_all = LinearSVC(random_state=0).fit(X, Y).decision_function(X)
    slope, intercept = np.polyfit(decisions, logit(oof), 1)
    np.testing.assert_allclose(model.stage_proba(X)[:, 0, 1], expit(slope * on_all + intercept))


def test_calibrated_answers_rank_better_than_raw_ones():
    screen = LogisticRegression(class_weight="balanced")
    forest = RandomForestClassifier(25, min_samples_leaf=3, random_state=0)
    gains = []
    for seed in range(4):
        rare, labels = make_classification(
            3000, n_features=8, n_informative=5, weights=[0.97], flip_y=0.01, random_state=seed
        )
        ap = {}
        for calibration in ("sigmoid", None):
            model = cascade([("screen", screen), ("final", forest)], calibration=calibration)
            model.set_params(thresholds=PassBudget(0.1)).fit(rare[:2000], labels[:2000])
            proba = model.predict_proba(rare[2000:])[:, 1]
            ap[calibration] = average_precision_score(labels[2000:], proba)
        gains.append(ap["sigmoid"] - ap[None])
    assert min(gains) > 0 and np.mean(gains) > 0.05


@pytest.mark.parametrize("pos_label, positive", [(None, 1), ("yes", 1), ("no", 0)])
def test_pos_label_names_the_class_that_early_stages_may_not_answer(pos_label, positive):
    labels = np.where(Y == 1, "yes", "no")
    model = cascade(pos_label=pos_label).fit(X, labels)
    assert np.isinf(model.thresholds_[0, positive])
    early = model.route(X).stage == 0
    assert (model.predict(X)[early] == model.classes_[1 - positive]).all()


def test_a_majority_positive_class_warns():
    with pytest.warns(UserWarning, match="The positive class 1 is the more frequent one"):
        cascade().fit(X, 1 - Y)


def test_multiply_adds_are_the_costs_where_they_can_be_counted():
    model = cascade([("screen", SCREEN), ("final", make_pipeline(StandardScaler(), SCREEN))])
    np.testing.assert_array_equal(model.fit(X, Y).stage_costs_, [8, 16])
    routing = model.route(X)
    np.testing.assert_array_equal(routing.cost, np.array([8, 24])[routing.stage])
    uncounted = [("screen", SCREEN), ("final", QuadraticDiscriminantAnalysis(reg_param=0.1))]
    model = cascade(uncounted).fit(X, Y)
    assert model.stage_costs_ is None and model.route(X).cost is None
    with pytest.raises(ValueError, match="set stage_costs"):
        cascade(uncounted, thresholds=CostBudget(3)).fit(X, Y)


def test_measured_costs_are_positive_and_stored_on_request():
    model = cascade().fit(X, Y)
    costs = model.measure_costs(X, n_repeats=3)
    assert costs.shape == (2,) and (costs > 0).all()
    np.testing.assert_array_equal(model.stage_costs_, [8, 32])  # multiply-adds
    stored = model.measure_costs(X, store=True)
    np.testing.assert_array_equal(model.stage_costs_, stored)
    assert model.report(X).mean_cost > 0


def test_the_report_counts_rows_and_losses():
    model = cascade(stage_costs=[1, 10]).fit(X, Y)
    stage, predicted = model.route(X).stage, model.predict(X)
    report = model.report(X, Y)
    columns = report.columns
    assert columns["rows_in"] == (900, (stage == 1).sum())
    assert columns["answered"] == ((stage == 0).sum(), (stage == 1).sum())
    assert columns["positives_lost"] == tuple(
        ((stage == k) & (Y == 1) & (predicted == 0)).sum() for k in range(2)
    )
    assert columns["cumulative_recall"][-1] == pytest.approx(predicted[Y == 1].mean())
    assert report.mean_cost == pytest.approx(model.route(X).cost.mean())
    doubled = model.report(X, Y, sample_weight=np.full(900, 2.0))
    assert doubled.columns["rows_in"] == tuple(2 * n for n in columns["rows_in"])
    assert doubled.columns["retained_recall"] == columns["retained_recall"]


def test_more_than_two_classes_need_no_feedback():
    X3, y3 = make_classification(600, n_features=8, n_informative=6, n_classes=3, random_state=0)
    labels = np.array(["a", "b", "c"])[y3]
    with pytest.raises(ValueError, match="Only binary classification is supported"):
        cascade(thresholds=None).fit(X3, labels)
    model = cascade(feedback="none", thresholds=0.8).fit(X3, labels)
    assert model.catch_threshold_ is None
    stage_proba = model.stage_proba(X3)
    np.testing.assert_array_equal(model.route(X3).stage == 0, stage_proba[:, 0].max(axis=1) >= 0.8)
    np.testing.assert_allclose(model.predict_proba(X3).sum(axis=1), 1)
    assert "accuracy" in model.report(X3, labels).columns
    with pytest.raises(ValueError, match="has no meaning for 3 classes"):
        cascade(feedback="none", pos_label="a").fit(X3, labels)


def test_a_fit_that_fails_leaves_no_fitted_attributes():
    class Fails(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            raise RuntimeError("no")

    model = cascade().fit(X, Y)
    model.set_params(screen=Fails())
    with pytest.raises(RuntimeError) as error:
        model.fit(X, Y)
    assert "stage 'screen'" in error.value.__notes__[0]
    assert not [name for name in vars(model) if name.endswith("_")]


@pytest.mark.parametrize(
    "params, match",
    [
        ({"catch_threshold": 1.5}, "catch_threshold must be .* got 1.5"),
        ({"catch_threshold": "f1"}, "catch_threshold must be .* got 'f1'"),
        ({"survivor_rate": 0}, r"survivor_rate must be a number in \(0, 1\] or None; got 0"),
        ({"validation_fraction": 1.0}, r"validation_fraction .* \(0, 1\) or None; got 1.0"),
        (
            {"calibration": "platt"},
            "calibration must be 'sigmoid', 'isotonic', 'temperature' or None; got 'platt'",
        ),
        ({"stage_costs": [1, -1]}, "stage_costs must be one finite number >= 0"),
        ({"pos_label": 7}, r"pos_label must be one of \[0, 1\]; got 7"),
        ({"feedback": GainFeedback(error_costs=(1, 1))}, "set stage_costs too"),
    ],
)
def test_bad_parameters_are_refused_before_any_fit(params, match):
    class Untouchable(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            raise AssertionError("a stage was fitted")

    stages = [("screen", Untouchable()), ("final", Untouchable())]
    with pytest.raises(ValueError, match=match):
        cascade(stages, **params).fit(X, Y)

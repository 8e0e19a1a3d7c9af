"""Classes that come and go: exactly what a fit on all rows would give."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit, softmax
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from skmsc import (
    Agreement,
    ComposableHeadClassifier,
    CostlyFeatures,
    FixedHead,
    ImprintHead,
    LDAHead,
    LogisticHead,
    PairwiseHead,
    PassBudget,
    RidgeHead,
    report,
)
from skmsc.neural import TabularNet
from skmsc.training.heads import choose_penalty
from skmsc.training_rows import TrainingRows
from skmsc.trunks import RandomReLU

EXACT = [
    RidgeHead(alpha=0.1),
    RidgeHead(alpha=0.1, n_random_features=40),
    LDAHead(shrinkage=0.1),
    ImprintHead(scale=10.0),
]


def rows(seed=0, n_samples=300, n_classes=5, n_features=8):
    """Features, labels that are no codes, and weights."""
    rng = np.random.default_rng(seed)
    codes = np.r_[np.arange(n_classes), rng.integers(n_classes, size=n_samples - n_classes)]
    centres = np.random.default_rng(9).normal(scale=1.5, size=(n_classes, n_features))
    X = rng.normal(size=(n_samples, n_features)) + centres[codes]
    return X, 10 * codes + 3, rng.random(n_samples) + 0.2


def plain(head, trunk="passthrough", **params):
    """A classifier in which nothing is held out."""
    params = {"validation_fraction": None, "calibration": None, "random_state": 0} | params
    return ComposableHeadClassifier(trunk=trunk, head=head, **params)


def is_same(one, other, X):
    """Whether two classifiers are the same, bit for bit."""
    return (
        np.array_equal(one.classes_, other.classes_)
        and np.array_equal(one.coef_, other.coef_)
        and np.array_equal(one.intercept_, other.intercept_)
        and np.array_equal(one.predict_proba(X), other.predict_proba(X))
    )


def refit(model, X, y, sample_weight=None):
    """A fit of the heads on all rows, with the trunk and the random features of a model."""
    trunk = model.trunk_
    if model._trunk.lift is not None:
        trunk = FrozenEstimator(model._trunk.lift)
    head = clone(model.head_)
    if isinstance(head, RidgeHead):
        head.set_params(n_random_features=0)
    return plain(head, trunk).fit(X, y, sample_weight)


@pytest.mark.parametrize("head", EXACT, ids=repr)
@pytest.mark.parametrize("weighted", [False, True])
def test_adding_equals_a_refit(head, weighted):
    X, y, weight = rows()
    new, _, _ = rows(1)
    w = weight if weighted else np.ones(len(y))
    old = np.isin(y, [3, 23, 43])
    model = plain(head).fit(X[old], y[old], w[old])
    for label in (33, 13):
        model.add_class(X[y == label], label, w[y == label] if weighted else None)
    expected = refit(model, X, y, w)
    np.testing.assert_array_equal(model.classes_, [3, 13, 23, 33, 43])
    np.testing.assert_allclose(model.predict_proba(new), expected.predict_proba(new), atol=1e-8)
    scale = np.abs(expected.coef_).max()
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-8 * scale)


@pytest.mark.parametrize("head", EXACT, ids=repr)
def test_removing_restores_bit_for_bit_in_any_order(head):
    X, y, weight = rows()
    old = np.isin(y, [3, 23, 43])
    model = plain(head).fit(X[old], y[old], weight[old])
    before = copy.deepcopy(model)
    model.add_classes(X[~old], y[~old], weight[~old])
    both = copy.deepcopy(model)
    model.remove_class(13).remove_class(33)
    assert is_same(model, before, X)
    model.add_class(X[y == 33], 33, weight[y == 33]).add_class(X[y == 13], 13, weight[y == 13])
    np.testing.assert_allclose(model.predict_proba(X), both.predict_proba(X), atol=1e-9)
    model.remove_class(33).remove_class(13)
    assert is_same(model, before, X)


@pytest.mark.parametrize("head", EXACT, ids=repr)
def test_composing_is_a_fit_on_those_rows(head):
    X, y, weight = rows()
    model = plain(head).fit(X, y, weight)
    before = copy.deepcopy(model)
    composed = model.compose([43, 13, 23])
    mine = np.isin(y, [13, 23, 43])
    expected = refit(model, X[mine], y[mine], weight[mine])
    np.testing.assert_array_equal(composed.classes_, [13, 23, 43])
    np.testing.assert_allclose(composed.predict_proba(X), expected.predict_proba(X), atol=1e-8)
    assert composed.trunk_ is model.trunk_
    assert composed._set.statistics[0] is model._set.statistics[1]
    composed.remove_class(13)
    assert is_same(model, before, X)
    assert not hasattr(clone(composed), "classes_")


@pytest.mark.parametrize("head", EXACT, ids=repr)
def test_partial_fit_in_parts_is_a_fit(head):
    X, y, weight = rows()
    if head.n_random_features:
        trunk = FrozenEstimator(RandomReLU(40, random_state=0).fit(X))
        model = plain(RidgeHead(alpha=0.1), trunk)
    else:
        model = plain(head)
    parts = np.array_split(np.arange(len(y)), 4)
    for part in parts:
        model.partial_fit(X[part], y[part], np.unique(y), weight[part])
    expected = clone(model).fit(X, y, weight)
    np.testing.assert_allclose(model.predict_proba(X), expected.predict_proba(X), atol=1e-8)


def test_partial_fit_knows_classes_before_they_come():
    X, y, _ = rows()
    early = y < 30
    model = plain("ridge").partial_fit(X[early], y[early], classes=np.unique(y))
    np.testing.assert_array_equal(model.classes_, np.unique(y))
    assert (model.predict_proba(X)[:, 3:] == 0).all()
    expected = plain("ridge").fit(X[early], y[early])
    np.testing.assert_allclose(model.predict_proba(X)[:, :3], expected.predict_proba(X), atol=1e-12)
    model.partial_fit(X[~early], y[~early])
    np.testing.assert_allclose(
        model.predict_proba(X), plain("ridge").fit(X, y).predict_proba(X), atol=1e-8
    )


def test_partial_fit_and_new_labels():
    X, y, _ = rows()
    old = y < 40
    model = plain("ridge").fit(X[old], y[old])
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"y contains new labels: \[43\]"):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match="is not the same as on last call to partial_fit"):
        model.partial_fit(X[old], y[old], classes=[1, 2])
    assert is_same(model, before, X)
    model.set_params(allow_new_classes=True).partial_fit(X[~old], y[~old])
    np.testing.assert_allclose(
        model.predict_proba(X), plain("ridge").fit(X, y).predict_proba(X), atol=1e-8
    )
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        plain("ridge").partial_fit(X, y)


@pytest.mark.parametrize("head", EXACT, ids=repr)
@pytest.mark.parametrize("new", [13, 99])
def test_relabelled_rows_are_as_if_they_had_come_so(head, new):
    X, y, weight = rows()
    late = np.flatnonzero(y == 3)[:20]
    model = plain(head).fit(X, y, weight)
    expected = y.copy()
    expected[late] = new
    if head.n_random_features:
        expected = refit(model, X, expected, weight)
    else:
        expected = plain(head).fit(X, expected, weight)
    model.relabel(X[late], 3, new, weight[late])
    np.testing.assert_array_equal(model.classes_, expected.classes_)
    np.testing.assert_allclose(model.predict_proba(X), expected.predict_proba(X), atol=1e-7)


@pytest.mark.parametrize("head", [RidgeHead(alpha=0.1), LDAHead(0.1), ImprintHead(10.0)], ids=repr)
def test_merging_is_a_fit_on_the_rows_of_both(head):
    X, y, weight = rows()
    mine = np.arange(len(y)) % 2 == 0
    mine &= y < 40  # one class is the other's alone
    parts = [plain(head).fit(X[rows_], y[rows_], weight[rows_]) for rows_ in (mine, ~mine)]
    other = copy.deepcopy(parts[1])
    merged = parts[0].merge(parts[1])
    expected = plain(head).fit(X, y, weight)
    np.testing.assert_allclose(merged.predict_proba(X), expected.predict_proba(X), atol=1e-8)
    assert is_same(parts[1], other, X)


@pytest.mark.parametrize("head", ["ridge", "imprint", "logistic"])
def test_exported_heads_come_in_again(head):
    X, y, weight = rows()
    left = y < 20
    one, other = (plain(head).fit(X[part], y[part], weight[part]) for part in (left, ~left))
    heads = other.export_heads()
    assert all(isinstance(part, np.ndarray) for part in heads.values())
    expected = copy.deepcopy(one)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of logistic heads that never met
        assert is_same(one.import_heads(heads), expected.merge(other), X)
    with pytest.raises(ValueError, match=r"\['coef'\] are missing"):
        one.import_heads({k: v for k, v in heads.items() if k != "coef"})
    with pytest.raises(ValueError, match=r"heads\['coef'\] must have shape \(3, 8\)"):
        one.import_heads({**heads, "coef": heads["coef"][:, 1:]})


def test_every_scorer_gives_the_right_value_after_changes():
    X, y, _ = rows()
    names = {3: "pear", 13: "apple", 23: "fig", 33: "plum", 43: "kiwi"}
    y = np.array([names[label] for label in y])
    model = plain("ridge", StandardScaler()).fit(X[y != "fig"], y[y != "fig"])
    model.add_class(X[y == "fig"], "fig").remove_class("plum")
    kept = y != "plum"
    expected = plain("ridge", FrozenEstimator(model.trunk_)).fit(X[kept], y[kept])
    new, codes, _ = rows(1)
    true = np.array([names[label] for label in codes])
    new, true = new[true != "plum"], true[true != "plum"]
    assert list(model.classes_) == ["apple", "fig", "kiwi", "pear"]
    n_compared = 0
    for name in get_scorer_names():
        try:
            want = get_scorer(name)(expected, new, true)
        except (ValueError, TypeError, AttributeError):
            continue  # not of classifiers of four classes
        assert get_scorer(name)(model, new, true) == pytest.approx(want), name
        n_compared += 1
    assert n_compared > 15
    assert get_scorer("accuracy")(model, new, true) > 0.7
    assert get_scorer("roc_auc_ovr")(model, new, true) > 0.9


@pytest.mark.parametrize("head", [LogisticHead(), PairwiseHead(epochs=100, lr=0.02)], ids=repr)
class TestTrainedHeads:
    """Heads that need rows of all classes."""

    def test_without_rows_nothing_can_be_added(self, head):
        X, y, _ = rows()
        model = plain(head).fit(X[y < 40], y[y < 40])
        before = copy.deepcopy(model)
        with pytest.raises(ValueError, match="set replay_size before fit, or use a head from"):
            model.add_class(X[y == 43], 43)
        with pytest.raises(AttributeError, match="has no attribute 'partial_fit'") as error:
            model.partial_fit(X, np.where(y == 43, 3, y))
        assert "set replay_size" in str(error.value.__cause__)
        assert is_same(model, before, X)

    def test_classes_that_never_met_are_named(self, head):
        X, y, _ = rows()
        model = plain(head).fit(X[y < 30], y[y < 30])
        old = model.coef_
        with pytest.warns(UserWarning, match="never trained with each other's rows.*3 and 33"):
            model.add_classes(X[y > 30], y[y > 30])
        np.testing.assert_array_equal(model.coef_[:3], old)
        with pytest.warns(UserWarning, match="23 and 43"):
            model.compose([23, 43])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.compose([3, 23])

    def test_a_replay_of_all_rows_is_a_fit(self, head):
        X, y, weight = rows()
        model = plain(head, replay_size=10**6).fit(X[y < 40], y[y < 40], weight[y < 40])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.add_class(X[y == 43], 43, weight[y == 43])
        order = np.argsort(y, kind="stable")
        expected = model._learner.head.train(
            X[order], y[order] // 10, weight[order], 5, balanced=False, seed=model._learner.seed
        )
        np.testing.assert_allclose(model.coef_, expected.coef, atol=1e-10)

    def test_a_small_replay_cures(self, head):
        X, y, _ = rows(n_samples=600)
        new, true, _ = rows(1)
        model = plain(head, replay_size=30).fit(X[y < 40], y[y < 40])
        model.add_class(X[y == 43], 43)
        assert model._set.met.all()
        assert [len(part.features) for part in model._set.replay] == [30] * 5
        assert model.score(new, true) > plain(head).fit(X, y).score(new, true) - 0.05

    def test_merged_classes_meet_when_refreshed(self, head):
        X, y, _ = rows()
        one, other = (
            plain(head, replay_size=20).fit(X[part], y[part]) for part in (y < 20, y > 20)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            one.merge(other)
        assert one._set.met.all()
        with pytest.raises(ValueError, match=r"both have \[23, 33, 43\]"):
            one.merge(other)


def test_probabilities_of_the_three_kinds():
    X, y, _ = rows()
    models = {
        proba: plain("logistic", proba=proba, unknown_label=-1 if proba == "open" else None).fit(
            X, y
        )
        for proba in ("conditional", "open", "sigmoid")
    }
    logits = X @ models["open"].coef_.T + models["open"].intercept_
    np.testing.assert_allclose(models["conditional"].predict_proba(X), softmax(logits, axis=1))
    np.testing.assert_allclose(models["sigmoid"].predict_proba(X), expit(logits))
    odds = np.exp(logits)
    expected = np.column_stack([np.ones(len(X)), odds]) / (1 + odds.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(models["open"].classes_, [-1, *np.unique(y)])
    np.testing.assert_allclose(models["open"].predict_proba(X), expected)
    # Independent heads: given that exactly one of the classes is right.
    p = expit(logits)
    one = np.stack([p[:, k] * np.prod(np.delete(1 - p, k, axis=1), axis=1) for k in range(5)], 1)
    np.testing.assert_allclose(
        models["conditional"].predict_proba(X), one / one.sum(axis=1, keepdims=True), atol=1e-10
    )


@pytest.mark.parametrize("head", ["ridge", "lda"])
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_reject_answers_that_share_as_unknown(head, share):
    X, y, _ = rows(n_samples=3000)
    new, _, _ = rows(1, n_samples=3000)
    model = ComposableHeadClassifier(
        trunk="passthrough",
        head=head,
        proba="open",
        unknown_label=500,
        reject=share,
        validation_fraction=0.4,
        random_state=0,
    ).fit(X, y)
    got = (model.predict(new) == 500).mean()
    assert abs(got - share) < 3 * np.sqrt(share * (1 - share) * (1 / 1200 + 1 / 3000))


def test_held_out_rows_calibrate():
    X, y = load_digits(return_X_y=True)
    train = np.arange(len(y)) % 2 == 0
    losses = {}
    for calibration in (None, "temperature"):
        model = ComposableHeadClassifier(
            trunk=StandardScaler(), head="lda", calibration=calibration, random_state=0
        ).fit(X[train], y[train])
        losses[calibration] = -get_scorer("neg_log_loss")(model, X[~train], y[~train])
    assert losses["temperature"] < losses[None] - 0.02


class TestFirstStage:
    """A first stage that is one classifier for each class."""

    @staticmethod
    def fit(first=None, **params):
        X, y, weight = rows(n_samples=1500)
        old = y < 40
        params = {"thresholds": PassBudget(0.4), "random_state": 0} | params
        model = ComposableHeadClassifier(
            first or GaussianNB(), "passthrough", head=RidgeHead(0.1), **params
        ).fit(X[old], y[old], weight[old])
        return model, X, y

    @pytest.mark.parametrize("first", [GaussianNB(), LinearSVC(), LogisticRegression()])
    def test_lazy_equals_eager(self, first):
        model, X, _ = self.fit(first)
        eager = model.stage_proba(X)
        routing = model.route(X)
        assert 0 < (routing.stage == 0).mean() < 1
        reached = (eager[:, 0] >= model.thresholds_[0]).any(axis=1)
        np.testing.assert_array_equal(routing.stage, np.where(reached, 0, 1))
        alone = np.concatenate([model.predict_proba(X[[i]]) for i in range(30)])
        np.testing.assert_allclose(alone, routing.proba[:30], atol=1e-12)
        np.testing.assert_array_equal(
            model.predict(X), model.classes_[routing.proba.argmax(axis=1)]
        )

    @pytest.mark.parametrize(
        "params",
        [
            {"head": RidgeHead()},
            {"head": LDAHead(0.1), "proba": "open", "unknown_label": -1, "reject": 0.05},
        ],
        ids=["penalty", "unknown"],
    )
    def test_a_confidence_is_proved_on_rows_that_chose_nothing(self, params, monkeypatch):
        halves, halve = [], TrainingRows.halve_held_out

        def spy(self, seed):
            halves.extend(halve(self, seed))
            return halves

        monkeypatch.setattr(TrainingRows, "halve_held_out", spy)
        X, y, _ = rows(n_samples=1500)
        policy = Agreement(0.1, confidence=0.9)
        params = {"validation_fraction": 0.2, "random_state": 0, "calibration": None} | params
        model = ComposableHeadClassifier(
            GaussianNB(), "passthrough", thresholds=policy, **params
        ).fit(X, y)
        choosing, proving = halves
        assert np.intersect1d(choosing.held_idx, proving.held_idx).size == 0
        assert choosing.held_idx.size + proving.held_idx.size == 300
        counts = [np.unique(half.held_out[0], return_counts=True)[1] for half in halves]
        assert np.abs(counts[0] - counts[1]).max() <= 1
        np.testing.assert_array_equal(X[proving.held_idx], proving.fitter.X_held_out)
        # The thresholds are those of the one half, what was chosen is that of the other.
        for half, same in ((proving, True), (choosing, False)):
            there = X[half.held_idx], y[half.held_idx]
            again = model.tune_thresholds(*there, thresholds=policy, copy=True)
            assert np.array_equal(again.thresholds_, model.thresholds_) == same
        there = X[choosing.held_idx]
        if model.reject is None:
            codes, weight = (y[choosing.held_idx] - 3) // 10, np.ones(len(there))
            how = {"balanced": False}
            best = choose_penalty(model.head_, model._set.statistics, there, codes, weight, **how)
            assert model.penalty_ == best
        else:
            unknown = model.stage_proba(there)[:, 1].argmax(axis=1) == 0  # -1 is the first class
            assert unknown.sum() == int(0.05 * len(there))

    def test_its_scores_are_those_of_the_copies(self):
        model, X, _ = self.fit()
        p = np.stack([m.predict_proba(X)[:, 1] for m in model.first_stages_.values()], axis=1)
        odds = logit(np.clip(p, 1e-12, 1 - 1e-12))
        np.testing.assert_allclose(model.stage_proba(X)[:, 0], softmax(odds, axis=1))
        composed = model.compose([3, 33])
        np.testing.assert_allclose(composed.stage_proba(X)[:, 0], softmax(odds[:, [0, 3]], axis=1))
        np.testing.assert_array_equal(composed.thresholds_[0], model.thresholds_[0, [0, 3]])

    def test_a_stale_screen_never_answers_for_what_it_does_not_know(self):
        model, X, y = self.fit(thresholds=Agreement(0.02))
        # A class on top of another one, of which the first stage is sure.
        centre = X[y == 13].mean(axis=0)
        new = centre + 0.3 * np.random.default_rng(0).normal(size=(200, 8))
        assert (model.route(new).stage == 0).mean() > 0.5
        before = (model.route(X[y < 40]).stage == 1).mean()
        with pytest.warns(UserWarning, match=r"It no longer answers \[13\]: about") as seen:
            model.add_class(new, 14)
        assert model.thresholds_[0, 1] == np.inf and model.thresholds_[0, 2] == np.inf
        assert np.isfinite(model.thresholds_[0, [0, 3, 4]]).all()
        assert (model.route(new).stage == 1).all()
        told = float(str(seen[0].message).split("about ")[1].split("%")[0]) / 100
        passed = (model.route(X[y < 40]).stage == 1).mean()
        assert passed > before + 0.1
        assert abs(told - passed) < 0.05
        assert model.first_stages_[14] is None
        stale = model.thresholds_.copy()
        all_X, all_y = np.concatenate([X[y < 40], new]), np.r_[y[y < 40], np.full(200, 14)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.refresh(all_X, all_y)
        assert np.isfinite(model.thresholds_[0]).all() and not np.isfinite(stale[0]).all()
        assert model.first_stages_[14] is not None
        assert (model.route(all_X).stage == 0).mean() > 0.15

    def test_what_is_kept_or_raised_instead(self):
        model, X, y = self.fit(thresholds=0.6)
        new = X[y == 13] + 0.01
        before = copy.deepcopy(model)
        model.set_params(on_violation="raise")
        with pytest.raises(ValueError, match=r"answers their rows as 13 .*Nothing was changed"):
            model.add_class(new, 14)
        assert is_same(model, before, X)
        model.set_params(on_violation="keep")
        with pytest.warns(UserWarning, match="on_violation='keep' lets it"):
            model.add_class(new, 14)
        np.testing.assert_array_equal(model.thresholds_[0], [0.6, 0.6, np.inf, 0.6, 0.6])

    def test_a_class_that_it_leaves_alone_changes_no_threshold(self):
        model, _, _ = self.fit(thresholds=0.9)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # Far from all in a direction in which nothing else differs: equally unlike all.
            far = np.full((50, 8), 0.0)
            model.set_params(thresholds=Agreement(1.0)).add_class(far, 14)
        np.testing.assert_array_equal(model.thresholds_[0], [0.9, 0.9, np.inf, 0.9, 0.9])

    def test_tuning_costs_and_report(self):
        model, X, y = self.fit()
        old = y < 40
        tuned = model.tune_thresholds(X[old], y[old], thresholds=PassBudget(0.2), copy=True)
        assert (tuned.route(X[old]).stage == 1).mean() <= 0.2
        assert (model.route(X[old]).stage == 1).mean() > 0.3
        first = sum(2 * m.theta_.size for m in model.first_stages_.values())
        np.testing.assert_allclose(model.stage_costs_, [first / (first + 32), 32 / (first + 32)])
        assert "heads" in str(report(model, X[old], y[old]))

    def test_open_probabilities_have_a_column_that_it_never_answers(self):
        model, X, y = self.fit(proba="open", unknown_label=0)
        np.testing.assert_array_equal(model.classes_, [0, 3, 13, 23, 33])
        assert model.thresholds_[0, 0] == np.inf
        assert (model.route(X[y == 43]).stage == 1).any()
        np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)


@pytest.mark.parametrize("proba", ["conditional", "sigmoid"])
def test_binary_to_many_and_back(proba):
    X, y, _ = rows()
    model = ComposableHeadClassifier(trunk="passthrough", proba=proba, random_state=0).fit(
        X[y < 20], y[y < 20]
    )
    before = model.predict_proba(X)
    for label in (23, 33, 43):
        model.add_class(X[y == label], label)
    assert model.score(X, y) > 0.8
    for label in (33, 23, 43):
        model.remove_class(label)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_a_hundred_classes():
    X, y, _ = rows(n_samples=4000, n_classes=100, n_features=30)
    old = y < 800
    model = ComposableHeadClassifier(trunk="passthrough", random_state=0).fit(X[old], y[old])
    model.add_classes(X[~old], y[~old])
    assert len(model.classes_) == 100
    assert model.score(X, y) > 0.8
    assert model.statistics_bytes_ == 100 * (30 * 30 + 30) * 8


def test_pipelines_searches_copies_and_frames():
    pd = pytest.importorskip("pandas")
    X, y, _ = rows()
    frame = pd.DataFrame(X, columns=list("abcdefgh"))
    frame["kind"] = np.where(X[:, 0] > 0, "up", "down")
    trunk = make_column_transformer(
        (StandardScaler(), list("abcdefgh")), (OneHotEncoder(drop="if_binary"), ["kind"])
    )
    model = ComposableHeadClassifier(trunk=trunk, random_state=0).fit(frame, y)
    assert list(model.feature_names_in_) == list(frame.columns)
    model.remove_class(13).add_class(frame[y == 13], 13)
    assert model.score(frame, y) > 0.8
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))

    pipe = make_pipeline(StandardScaler(), plain("ridge")).fit(X[y < 40], y[y < 40])
    pipe[-1].add_class(pipe[:-1].transform(X[y == 43]), 43)
    assert pipe.score(X, y) > 0.8
    assert list(pipe.classes_) == [3, 13, 23, 33, 43]

    search = GridSearchCV(
        plain("ridge", StandardScaler()),
        {"head": [RidgeHead(), LDAHead()], "trunk__with_mean": [True, False]},
        cv=3,
    ).fit(X, y)
    assert search.best_score_ > 0.8
    search = GridSearchCV(plain(RidgeHead()), {"head__alpha": [0.01, 100.0]}, cv=3).fit(X, y)
    assert search.best_estimator_.penalty_ in (0.01, 100.0)


def test_the_same_seed_gives_the_same_bits():
    X, y, _ = rows()
    models = [
        ComposableHeadClassifier(
            GaussianNB(), "passthrough", head=RidgeHead(n_random_features=20), random_state=seed
        ).fit(X, y)
        for seed in (0, 0, 1)
    ]
    assert is_same(models[0], models[1], X)
    assert not is_same(models[0], models[2], X)


class TestFixedHeads:
    """Rows that never change."""

    @pytest.mark.parametrize("kind", ["orthogonal", "hadamard", "simplex"])
    def test_the_net_is_trained_below_the_rows(self, kind):
        X, y = load_digits(return_X_y=True)
        train = np.arange(len(y)) % 3 > 0
        model = ComposableHeadClassifier(
            trunk=TabularNet(width=64, max_epochs=20), head=kind, random_state=0
        ).fit(X[train], y[train])
        rows = model.trunk_.net_.module_.head.rows.cpu().numpy()
        np.testing.assert_array_equal(model.head_.rows_, rows)
        scale = np.linalg.norm(model.coef_, axis=1)
        np.testing.assert_allclose(scale, scale[0])
        np.testing.assert_allclose(model.coef_ / scale[0], rows)
        assert model.score(X[~train], y[~train]) > 0.93
        assert model.trunk.head == "linear"  # the parameter is as it was given

    def test_scale_and_biases_are_the_most_likely(self):
        X, y, weight = rows()
        model = plain(FixedHead("simplex")).fit(X, y, weight)
        unit = X / np.linalg.norm(X, axis=1, keepdims=True)
        cosines = unit @ model.head_.rows_.T
        codes = y // 10

        def loss(theta):
            logits = np.exp(theta[0]) * cosines + np.r_[0, theta[1:]]
            likelihood = -np.average(
                np.log(softmax(logits, axis=1)[np.arange(len(y)), codes]), weights=weight
            )
            return likelihood + (theta[0] - np.log(10)) ** 2 / (2 * len(y))

        best = minimize(loss, np.r_[np.log(10.0), np.zeros(4)], options={"gtol": 1e-9}).x
        np.testing.assert_allclose(
            model.predict_proba(X),
            softmax(np.exp(best[0]) * cosines + np.r_[0, best[1:]], axis=1),
            atol=1e-3,
        )

    def test_a_class_that_comes_takes_the_free_row_nearest_to_it(self):
        X, y, _ = rows()
        model = plain(FixedHead("orthogonal", n_rows=8), replay_size=30).fit(X[y < 30], y[y < 30])
        before = model.coef_ / np.linalg.norm(model.coef_, axis=1, keepdims=True)
        new = X[y == 43]
        model.add_class(new, 43)
        after = model.coef_ / np.linalg.norm(model.coef_, axis=1, keepdims=True)
        np.testing.assert_allclose(after[:3], before, atol=1e-12)
        unit = new / np.linalg.norm(new, axis=1, keepdims=True)
        free = model.head_.rows_[3:]
        np.testing.assert_allclose(after[3], free[(free @ unit.sum(axis=0)).argmax()], atol=1e-12)
        model.add_class(X[y == 33], 33)
        assert len(np.unique(model.coef_.round(9), axis=0)) == 5

    def test_more_classes_than_rows(self):
        X, y, _ = rows()
        with pytest.raises(ValueError, match="has 3 rows, too few for 5 classes: give n_rows"):
            plain(FixedHead(n_rows=3)).fit(X, y)
        model = plain(FixedHead(n_rows=4), replay_size=30).fit(X[y < 30], y[y < 30])
        before = copy.deepcopy(model)
        with pytest.raises(ValueError, match="has 4 rows, too few for 5 classes"):
            model.add_classes(X[y > 30], y[y > 30])
        assert is_same(model, before, X)
        with pytest.raises(ValueError, match="n_features=8 has room for 1 to 8 distinct"):
            plain(FixedHead(n_rows=9)).fit(X, y)


def test_costly_features_of_the_first_stage_are_fetched_once_for_a_row():
    X, y, _ = rows()
    fetched = []

    def fetch(keys):
        fetched.append(len(keys))
        return np.asarray(keys)[:, :1] ** 2

    first = make_pipeline(CostlyFeatures(fetch, on=[0], cost=3.0), GaussianNB())
    model = ComposableHeadClassifier(
        first, "passthrough", thresholds=0.7, stage_costs=[1, 10], random_state=0
    ).fit(X, y)
    assert sum(fetched) == len(X)  # training rows, and those held out
    np.testing.assert_array_equal(model.stage_costs_, [4, 10])
    fetched.clear()
    model.predict(X[:50])
    assert sum(fetched) == 50

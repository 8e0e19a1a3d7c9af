"""Bad input of early exits is refused by name, before anything is fitted, and leaves nothing."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from skorch import NeuralNetClassifier
from torch import nn

from skmsc import (
    Agreement,
    CostBudget,
    EarlyExitClassifier,
    FocalWeights,
    LearnedWeights,
    PassBudget,
    RecallFloor,
    SurvivorWeights,
)
from skmsc.neural import MultiExitNet, TabularNet

N = 120
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
y = (X[:, 0] + RNG.normal(size=N) > 0.4).astype(int)
y3 = np.arange(N) % 3
FRAME = pd.DataFrame(X, columns=["p", "q", "r"])
WITH_NAN = np.where(np.arange(3 * N).reshape(N, 3) == 7, np.nan, X)
NONE, ALL = np.zeros(N), np.ones(N)


class Untouchable(ClassifierMixin, BaseEstimator):
    """Fails the test when it is fitted."""

    def fit(self, X, y, sample_weight=None):
        raise AssertionError("the first stage was fitted before the input was refused")

    def predict_proba(self, X):
        raise AssertionError("the first stage was asked before the input was refused")


class UntouchableNet(MultiExitNet):
    """Fails the test when it is trained."""

    def fit_exits(self, X, y, sample_weight=None, split_params=None, **how):
        raise AssertionError("the net was trained before the input was refused")


class FirstColumn(Untouchable):
    """Scores rows by the logistic function of the first column; counts its fits."""

    n_fits = 0

    def fit(self, X, y, sample_weight=None):
        FirstColumn.n_fits += 1
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        positive = 1 / (1 + np.exp(-np.asarray(X)[:, 0]))
        return np.column_stack([1 - positive, positive])


def untouchable_net(**params):
    return UntouchableNet(**({"width": 8, "depth": 2, "max_epochs": 2} | params))


def fitted_attributes(estimator):
    private = ("_stage_names", "_calibrations", "_scorer", "_accepts", "_measure")
    return [name for name in vars(estimator) if name.endswith("_") or name in private]


def refuse(error, words, *, X=X, y=y, sample_weight=None, fit_params=None, **params):
    """Check that fit raises before any fit, with all words, and that nothing is left behind."""
    defaults = {"first_stage": Untouchable(), "net": untouchable_net(), "cv": 3, "random_state": 0}
    model = EarlyExitClassifier(**(defaults | params))
    with pytest.raises(error) as caught:
        model.fit(X, y, sample_weight=sample_weight, **(fit_params or {}))
    for word in words:
        assert word in str(caught.value)
    assert fitted_attributes(model) == []


def fitted(**params):
    defaults = {
        "first_stage": LogisticRegression(),
        "net": MultiExitNet(width=8, depth=2, max_epochs=3, lr=0.05),
        "exit_weighting": "uniform",
        "thresholds": 0.8,
        "stage_costs": [1, 2, 4],
        "cv": 3,
        "random_state": 0,
    }
    return EarlyExitClassifier(**(defaults | params)).fit(X, y)


# The parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first_stage, error, words",
    [
        (5, TypeError, ["'first_stage'", "classifier", "5"]),
        ("drop", TypeError, ["'first_stage'", "classifier", "'drop'"]),
        (LogisticRegression, TypeError, ["'first_stage'", "classifier object"]),
        (LinearRegression(), TypeError, ["'first_stage' must be a classifier", "LinearRegression"]),
        (OneClassSVM(), TypeError, ["'first_stage' must be a classifier", "OneClassSVM"]),
        (make_pipeline(StandardScaler()), TypeError, ["'first_stage' must be a classifier"]),
        ([("a", Untouchable())], TypeError, ["'first_stage'", "classifier object"]),
        (
            FrozenEstimator(LogisticRegression()),
            NotFittedError,
            ["'first_stage'", "must be fitted"],
        ),
        (
            FrozenEstimator(LogisticRegression().fit(X, y + 5)),
            ValueError,
            ["'first_stage' was fitted on the classes [5 6], but y has [0 1]."],
        ),
        (
            FrozenEstimator(LogisticRegression().fit(X, y3)),
            ValueError,
            ["'first_stage' was fitted on the classes [0 1 2], but y has [0 1]."],
        ),
        (
            FrozenEstimator(LogisticRegression().fit(X[:, :2], y)),
            ValueError,
            ["'first_stage' is frozen and expects 2 features; X has 3."],
        ),
    ],
    ids=itertools.count(),
)
def test_first_stage(first_stage, error, words):
    refuse(error, words, first_stage=first_stage)


NET = "net must be a skmsc.neural.MultiExitNet or None; got"


@pytest.mark.parametrize(
    "net",
    [
        5,
        "mlp",
        MultiExitNet,
        nn.Linear(3, 2),
        NeuralNetClassifier(nn.Linear),
        TabularNet(),
        LogisticRegression(),
    ],
    ids=repr,
)
def test_net(net):
    refuse(TypeError, [NET, repr(net), "goes into MultiExitNet(trunk=...)."], net=net)


class NoExits(nn.Module):
    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(n_inputs, 4)])


class MoreBlocksThanHeads(nn.Module):
    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(n_inputs, 4), nn.Linear(4, 4)])
        self.heads = nn.ModuleList([nn.Linear(4, n_classes)])


class Empty(nn.Module):
    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.blocks, self.heads = nn.ModuleList(), nn.ModuleList()


class PlainLists(nn.Module):
    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.blocks, self.heads = [nn.Linear(n_inputs, 4)], [nn.Linear(4, n_classes)]


class OneLogit(nn.Module):
    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(n_inputs, 4)])
        self.heads = nn.ModuleList([nn.Linear(4, 1)])


class DoesNotFit(nn.Module):
    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(n_inputs, 4), nn.Linear(5, 4)])
        self.heads = nn.ModuleList([nn.Linear(4, n_classes), nn.Linear(4, n_classes)])


class NoClasses(nn.Module):
    def __init__(self, n_inputs):
        super().__init__()


@pytest.mark.parametrize(
    "trunk, error, words",
    [
        (NoExits, TypeError, ["'NoExits'", "heads are of type NoneType"]),
        (PlainLists, TypeError, ["'PlainLists'", "blocks are of type list"]),
        (MoreBlocksThanHeads, ValueError, ["it made 2 blocks and 1 heads"]),
        (Empty, ValueError, ["it made 0 blocks and 0 heads"]),
        (OneLogit, ValueError, ["logits of shape (n_rows, 2)", "[(2, 1)]"]),
        (DoesNotFit, ValueError, ["Block or head 1 of trunk 'DoesNotFit' does not run"]),
        (NoClasses, TypeError, ["trunk 'NoClasses' cannot be made of 3 inputs, 2 classes"]),
        (lambda n_inputs, n_classes: 5, TypeError, ["must make a torch module", "it made 5"]),
        (nn.Linear(3, 2), TypeError, ["trunk must be a class or a function", "module Linear"]),
        ("mpl", ValueError, ["trunk", "'mpl'"]),
    ],
    ids=itertools.count(),
)
def test_trunk(trunk, error, words):
    refuse(error, words, net=untouchable_net(trunk=trunk))


@pytest.mark.parametrize(
    "params, words",
    [
        ({"width": 0}, ["width", "0"]),
        ({"width": [8, 8, 8]}, ["width", "depth=2", "[8, 8, 8]"]),
        ({"depth": 0}, ["depth", "0"]),
        ({"dropout": 1.0}, ["dropout", "1.0"]),
        ({"lr": -1}, ["lr", "-1"]),
        ({"validation": 2.0}, ["validation", "2.0"]),
        ({"missing": "zero"}, ["missing", "'zero'"]),
        ({"device": "abacus"}, ["device", "'abacus'"]),
    ],
    ids=repr,
)
def test_parameters_of_the_net(params, words):
    refuse(ValueError, words, net=untouchable_net(**params))


WEIGHTING = (
    "exit_weighting must be one of ['focal', 'learned', 'survivors', 'uniform'], a strategy such "
    "as LearnedWeights(), or a function of (loss, confidence); got"
)


@pytest.mark.parametrize(
    "exit_weighting, words",
    [
        ("l2w", [WEIGHTING, "'l2w'"]),
        (None, [WEIGHTING, "None"]),
        (1, [WEIGHTING, "1"]),
        (LearnedWeights, [WEIGHTING, "LearnedWeights'>"]),
        (torch.ones(2), [WEIGHTING]),
        (LearnedWeights(eps=0), ["eps of LearnedWeights", "(0, 1]", "got 0"]),
        (LearnedWeights(eps=np.nan), ["eps of LearnedWeights", "(0, 1]", "got nan"]),
        (LearnedWeights(centre="all"), ["centre must be 'col', 'row' or 'mat'; got 'all'."]),
        (LearnedWeights(exit_share=0), ["exit_share", "(0, inf)", "got 0"]),
        (LearnedWeights(every=0), ["every", "an integer >= 1; got 0."]),
        (LearnedWeights(every=1.5), ["every", "an integer >= 1; got 1.5."]),
        (LearnedWeights(n_hidden=True), ["n_hidden", "an integer >= 1; got True."]),
        (LearnedWeights(lr=np.inf), ["lr of LearnedWeights", "(0, inf)", "got inf"]),
        (SurvivorWeights(strength=2), ["strength", "[0, 1]", "got 2"]),
        (SurvivorWeights(pass_rate=1), ["pass_rate", "(0, 1)", "got 1"]),
        (SurvivorWeights(temperature="a"), ["temperature", "(0, inf)", "got 'a'"]),
        (FocalWeights(gamma=0), ["gamma", "(0, inf)", "got 0"]),
        (FocalWeights(strength=-0.1), ["strength", "[0, 1]", "got -0.1"]),
    ],
    ids=itertools.count(),
)
def test_exit_weighting(exit_weighting, words):
    refuse(ValueError, words, exit_weighting=exit_weighting)


# Other parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameter, value, words",
    [
        ("confidence", "max", ["'max_proba', 'margin' or 'entropy'"]),
        ("confidence", None, ["'max_proba', 'margin' or 'entropy'"]),
        ("confidence", 0.9, ["'max_proba', 'margin' or 'entropy'"]),
        ("confidence", ["margin"], ["'max_proba', 'margin' or 'entropy'"]),
        ("calibration", "platt", ["'sigmoid', 'isotonic', 'temperature' or None"]),
        ("calibration", True, ["'sigmoid', 'isotonic', 'temperature' or None"]),
        ("validation_fraction", 0, ["a number in (0, 1) or None"]),
        ("validation_fraction", 1, ["a number in (0, 1) or None"]),
        ("validation_fraction", -0.1, ["a number in (0, 1) or None"]),
        ("validation_fraction", np.nan, ["a number in (0, 1) or None"]),
        ("validation_fraction", "a", ["a number in (0, 1) or None"]),
        ("validation_fraction", True, ["a number in (0, 1) or None"]),
        ("validation_fraction", 1e-5, ["cannot be held out of 120 rows"]),
        ("validation_fraction", 0.999, ["cannot be held out of 120 rows"]),
    ],
)
def test_other_parameters(parameter, value, words):
    refuse(ValueError, [parameter, repr(value), *words], **{parameter: value})


@pytest.mark.parametrize("ensemble", [None, 1, "yes"])
def test_ensemble(ensemble):
    refuse(TypeError, [f"ensemble must be True or False; got {ensemble!r}."], ensemble=ensemble)


LEAVES_NONE = "validation_fraction=None leaves no rows for thresholds and calibration"


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"thresholds": 0.5},
        {"calibration": None},
        {"calibration": None, "thresholds": PassBudget(0.5)},
        {"calibration": None, "thresholds": Agreement(0.1)},
        {"calibration": "sigmoid", "thresholds": [0.5, 0.6]},
    ],
    ids=repr,
)
def test_nothing_held_out_for_what_needs_rows(params):
    refuse(ValueError, [LEAVES_NONE], validation_fraction=None, **params)


COSTS = "one finite number >= 0 for each of the stages ['first_stage', 'exit_1', 'exit_2']"


@pytest.mark.parametrize(
    "stage_costs, error, words",
    [
        ("a", TypeError, ["'a'"]),
        (3, ValueError, ["got 3"]),
        ([1, 2], ValueError, ["[1, 2]"]),
        ([1, 2, 3, 4], ValueError, ["[1, 2, 3, 4]"]),
        ([1, -1, 2], ValueError, ["[1, -1, 2]"]),
        ([1, np.nan, 2], ValueError, ["nan"]),
        ([1, np.inf, 2], ValueError, ["inf"]),
        ({"first_stage": 1, "exit_1": 2}, ValueError, ["exit_1"]),
        ({"first_stage": 1, "exit_1": 2, "exit_2": -3}, ValueError, ["-3"]),
        ({"screen": 1, "exit_1": 2, "exit_2": 3}, ValueError, ["'screen'"]),
        ({"first_stage": 1, "exit_0": 2, "exit_1": 3}, ValueError, ["'exit_0'"]),
    ],
    ids=itertools.count(),
)
def test_stage_costs(stage_costs, error, words):
    refuse(error, ["stage_costs", COSTS, *words], stage_costs=stage_costs)


def test_stage_costs_without_a_first_stage_are_those_of_the_exits():
    valid = "one finite number >= 0 for each of the stages ['exit_0', 'exit_1']"
    refuse(ValueError, [valid, "[1, 2, 3]"], first_stage=None, stage_costs=[1, 2, 3])


THRESHOLDS = "a number, a list of 2 (one for each early stage), a matrix of shape (3, 2)"


@pytest.mark.parametrize(
    "thresholds, error, words",
    [
        ("high", TypeError, [THRESHOLDS, "'high'"]),
        (True, TypeError, [THRESHOLDS, "True"]),
        (PassBudget, TypeError, [THRESHOLDS, "PassBudget'>"]),
        ([0.5], ValueError, [THRESHOLDS, "shape (1,)"]),
        ([0.5, 0.5, 0.5], ValueError, [THRESHOLDS, "shape (3,)"]),
        (np.full((3, 3), -np.inf), ValueError, [THRESHOLDS, "shape (3, 3)"]),
        (np.full((2, 2), -np.inf), ValueError, [THRESHOLDS, "shape (2, 2)"]),
        (np.full((3, 2), 0.5), ValueError, ["The last row of thresholds must be -inf; got [0.5"]),
        (np.nan, ValueError, ["thresholds must not hold nan; got nan."]),
        ([0.5, np.nan], ValueError, ["thresholds must not hold nan; got [0.5, nan]."]),
        (PassBudget(1.5), ValueError, ["max_pass_rate", "[0, 1]", "1.5"]),
        (PassBudget([0.5]), ValueError, ["max_pass_rate", "2 such numbers", "[0.5]"]),
        (Agreement(2), ValueError, ["max_disagreement", "[0, 1]", "got 2"]),
        (Agreement(per_class=1), TypeError, ["per_class must be True or False; got 1."]),
        (RecallFloor(0), ValueError, ["min_recall", "(0, 1]", "got 0"]),
        (CostBudget(-1), ValueError, ["max_cost must be a number >= 0; got -1."]),
    ],
    ids=itertools.count(),
)
def test_thresholds(thresholds, error, words):
    refuse(error, words, thresholds=thresholds, stage_costs=[1, 2, 3])


@pytest.mark.parametrize("floor", [RecallFloor(0.9), RecallFloor(0.9, confidence=0.6)], ids=repr)
def test_a_recall_floor_has_no_meaning_for_three_classes(floor):
    refuse(ValueError, [f"{floor!r} needs two classes; y has 3."], y=y3, thresholds=floor)


def test_a_budget_below_the_cheapest_exit_of_given_costs():
    message = "max_cost=0.5 cannot be met: the first stage runs on every row and costs 1.0."
    refuse(ValueError, [message], thresholds=CostBudget(0.5), stage_costs=[1, 2, 3])


def test_a_budget_below_the_cheapest_exit_of_counted_costs():
    # Exit 0: 3 * 8 + 8 * 2 of 40 + 8 * 8 + 8 * 2 = 120 multiply-adds.
    refuse(
        ValueError,
        ["max_cost=0.33 cannot be met: the first stage runs on every row and costs 0.333"],
        first_stage=None,
        thresholds=CostBudget(0.33),
    )


def test_a_budget_below_the_counted_cost_of_the_first_stage_is_refused_before_the_net_is_trained():
    # 3 multiply-adds of 123.
    words = ["max_cost=0.02 cannot be met: the first stage runs on every row and costs 0.0243"]
    refuse(ValueError, words, first_stage=LogisticRegression(), thresholds=CostBudget(0.02))


def test_a_budget_without_costs():
    # Of a classifier that nobody knows the multiply-adds cannot be counted.
    budget = CostBudget(0.5)
    words = [f"{budget!r} needs the cost of every stage", "'first_stage'", "set stage_costs"]
    refuse(ValueError, words, thresholds=budget)


# Promises that cannot be kept -------------------------------------------------------------------


def test_too_few_rows_held_out_say_how_many_are_needed():
    policy = Agreement(0.1, confidence=0.9)
    words = [f"{policy!r} cannot be promised: it needs 44 rows among the rows of validation_"]
    refuse(ValueError, [*words, "=0.2; got 24."], thresholds=policy, validation_fraction=0.2)


def test_too_few_positives_held_out_say_how_many_are_needed():
    floor = RecallFloor(0.9, confidence=0.9)
    n_held = round(y.mean() * 24)
    words = [f"{floor!r} cannot be promised: it needs 59 positives, all of them caught, among"]
    words += [f"validation_fraction=0.2; got {n_held}."]
    refuse(ValueError, words, thresholds=floor, validation_fraction=0.2)


@pytest.mark.parametrize(
    "policy", [Agreement(0.4, confidence=0.5), RecallFloor(0.5, confidence=0.5)], ids=repr
)
@pytest.mark.parametrize(
    "rows, words",
    [
        ({"sample_weight": np.linspace(1, 2, N)}, ["equally weighted rows only", "1.0 and 2.0"]),
        (
            {"fit_params": {"groups": np.arange(N) // 4}},
            ["for independent rows only", "one row of each group"],
        ),
    ],
    ids=["weights", "groups"],
)
def test_no_confidence_for_rows_that_are_not_equal_independent_draws(policy, rows, words):
    refuse(
        ValueError,
        [repr(policy), *words],
        thresholds=policy,
        validation_fraction=0.4,
        cv=GroupKFold(3),
        **rows,
    )


def test_no_confidence_without_rows_held_out():
    policy = Agreement(0.4, confidence=0.5)
    refuse(ValueError, [LEAVES_NONE], thresholds=policy, calibration=None, validation_fraction=None)


# Rows, labels and weights -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows, error, words",
    [
        (X[:0], ValueError, ["0 sample(s)", "minimum of 1"]),
        (FRAME[:0], ValueError, ["0 sample(s)", "minimum of 1"]),
        (X[:, :0], ValueError, ["0 feature(s)", "minimum of 1"]),
        (X[:, 0], ValueError, ["Expected 2D array, got 1D array"]),
        (X[None], ValueError, ["dim 3"]),
        (X[:50], ValueError, ["[50, 120]"]),
        (FRAME[:50], ValueError, ["[50, 120]"]),
        (WITH_NAN, ValueError, ["X contains NaN"]),
        (np.where(np.isnan(WITH_NAN), np.inf, X), ValueError, ["X contains infinity"]),
        (sparse.csr_matrix(X), TypeError, ["Sparse data"]),
        (np.full((N, 3), "a", dtype=object), ValueError, ["could not convert string"]),
        (X * 1j, ValueError, ["Complex data"]),
    ],
    ids=itertools.count(),
)
def test_rows(rows, error, words):
    refuse(error, words, X=rows, y=y[: rows.shape[0]] if rows.shape[0] == 0 else y)


@pytest.mark.parametrize(
    "labels, words",
    [
        (None, ["y"]),
        (y[:50], ["[120, 50]"]),
        (np.where(np.arange(N) == 3, np.nan, y), ["y contains NaN"]),
        (np.where(np.arange(N) == 3, np.inf, y), ["y contains infinity"]),
        (X[:, 0], ["continuous"]),
        (np.column_stack([y, y]), ["(120, 2)"]),
        (ALL, ["EarlyExitClassifier needs at least two classes; got 1 class: [1.0]."]),
    ],
    ids=itertools.count(),
)
@pytest.mark.parametrize("rows", [X, FRAME], ids=["array", "frame"])
def test_labels(rows, labels, words):
    refuse(ValueError, words, X=rows, y=labels)


def test_one_row():
    refuse(ValueError, ["1 class"], X=X[:1], y=y[:1])


def test_two_rows():
    refuse(ValueError, ["validation_fraction=0.15 cannot be held out of 2 rows"], X=X[:2], y=[0, 1])


@pytest.mark.parametrize(
    "weight, words",
    [
        (NONE, ["ero"]),
        (-ALL, ["Negative values", "sample_weight"]),
        (np.where(y == 1, ALL, NONE), ["got 1 class: [1]."]),
        (np.full(N, np.nan), ["sample_weight contains NaN"]),
        (ALL[:5], ["sample_weight.shape == (5,)", "(120,)"]),
        (ALL[:, None], ["1D array"]),
    ],
    ids=["all zero", "negative", "one class left", "nan", "short", "2D"],
)
def test_weights(weight, words):
    refuse(ValueError, words, sample_weight=weight)


def test_a_class_of_which_no_row_is_left_to_train_on():
    # All rows of class 2 are of one group, which is held out.
    labels = np.where(np.arange(N) < 60, 2, y)
    groups = np.where(np.arange(N) < 60, 0, np.arange(N))
    # One group of 61 is held out; the seed is one with which it is the large one.
    seeds = [s for s in range(200) if held_group(labels, groups, s)]
    refuse(
        ValueError,
        ["validation_fraction=0.01 leaves no training row of the classes [2]."],
        y=labels,
        fit_params={"groups": groups},
        validation_fraction=0.01,
        cv=GroupKFold(3),
        random_state=seeds[0],
    )


def held_group(labels, groups, seed):
    """Whether the first group is the one that a fit with this seed holds out."""
    from skmsc.training_rows import choose_held_out

    _, split_seed = np.random.RandomState(seed).randint(np.iinfo(np.int32).max, size=2).tolist()
    _, held = choose_held_out(GroupKFold(3), labels, 0.01, seed=split_seed, groups=groups)
    return held[0]


@pytest.mark.parametrize(
    "fit_params, words",
    [
        ({"groups": NONE}, ["validation_fraction=0.15 cannot be held out"]),
        ({"groups": ALL[:5]}, ["inconsistent numbers of samples"]),
        ({"colour": "red"}, ["enable_metadata_routing"]),
    ],
    ids=["one group", "short", "unknown"],
)
def test_fit_parameters(fit_params, words):
    refuse(ValueError, words, fit_params=fit_params, cv=GroupKFold(2))


@pytest.mark.parametrize(
    "cv, words",
    [
        ("a", ["cv", "as an integer", "Got a"]),
        (1, ["n_splits=1"]),
        (GroupKFold(3), ["'groups'"]),
        ([], ["no split"]),
    ],
    ids=itertools.count(),
)
def test_cv(cv, words):
    refuse(ValueError, words, cv=cv)


# What fails later -------------------------------------------------------------------------------


class Broken(FirstColumn):
    def fit(self, X, y, sample_weight=None):
        raise RuntimeError("out of order")


def test_a_first_stage_that_fails_is_named():
    model = EarlyExitClassifier(Broken(), untouchable_net())
    with pytest.raises(RuntimeError, match="out of order") as caught:
        model.fit(X, y)
    assert caught.value.__notes__ == ["This happened in the fit of stage 'first_stage'."]
    assert fitted_attributes(model) == []


def weights_of_the_wrong_shape(loss, confidence):
    return torch.ones(len(loss))


def negative_weights(loss, confidence):
    return -torch.ones_like(loss)


def no_tensor(loss, confidence):
    return 1.0


@pytest.mark.parametrize(
    "function, words",
    [
        (weights_of_the_wrong_shape, ["must return a tensor of shape (", "2); got "]),
        (negative_weights, ["must return finite weights >= 0."]),
        (no_tensor, ["must return a tensor of shape", "float"]),
    ],
)
def test_a_function_that_gives_no_weights_is_named(function, words):
    net = MultiExitNet(width=8, depth=2, max_epochs=1)
    model = EarlyExitClassifier(None, net, exit_weighting=function)
    with pytest.raises(ValueError) as caught:
        model.fit(X, y)
    for word in [f"exit_weighting={function!r}", *words]:
        assert word in str(caught.value)
    assert caught.value.__notes__ == ["This happened in the fit of the net."]
    assert fitted_attributes(model) == []


def test_a_refit_that_fails_leaves_the_estimator_unfitted():
    model = fitted().set_params(confidence="max")
    with pytest.raises(ValueError, match="confidence must be"):
        model.fit(X, y)
    assert fitted_attributes(model) == []
    with pytest.raises(NotFittedError):
        model.predict(X)


# After the fit ----------------------------------------------------------------------------------


METHODS = {
    "predict": lambda model, X: model.predict(X),
    "predict_proba": lambda model, X: model.predict_proba(X),
    "route": lambda model, X: model.route(X),
    "stage_proba": lambda model, X: model.stage_proba(X),
    "staged_predict_proba": lambda model, X: list(model.staged_predict_proba(X)),
    "report": lambda model, X: model.report(X),
    "exit_distribution": lambda model, X: model.exit_distribution(X),
    "measure_costs": lambda model, X: model.measure_costs(X),
    "tune_thresholds": lambda model, X: model.tune_thresholds(X, y, thresholds=0.5),
}


@pytest.fixture(scope="module")
def model():
    return fitted()


@pytest.fixture(scope="module")
def of_the_net_alone():
    return fitted(first_stage=None, stage_costs=[1, 2])


@pytest.mark.parametrize("which", ["model", "of_the_net_alone"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "rows, error, match",
    [
        (X[:, :2], ValueError, "2 features, but .* 3 features"),
        (X[:0], ValueError, r"0 sample\(s\)"),
        (X[0], ValueError, "Expected 2D array"),
        (WITH_NAN, ValueError, "contains NaN"),
        (np.where(np.isnan(WITH_NAN), np.inf, X), ValueError, "contains infinity"),
        (X * 1j, ValueError, "Complex data"),
    ],
    ids=["fewer columns", "no rows", "1D", "nan", "infinity", "complex"],
)
def test_rows_after_the_fit(request, which, method, rows, error, match):
    with pytest.raises(error, match=match):
        METHODS[method](request.getfixturevalue(which), rows)


@pytest.mark.parametrize("method", METHODS)
def test_unfitted(method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        METHODS[method](EarlyExitClassifier(), X)


@pytest.mark.parametrize(
    "thresholds, labels, match",
    [
        ("high", y, "thresholds must be"),
        ([0.5], y, r"shape \(1,\)"),
        (np.nan, y, "must not hold nan"),
        (CostBudget(0.5), y, "max_cost=0.5 cannot be met"),
        (Agreement(0.001, confidence=0.95), y, "must be 2995 rows; got 60"),
        (RecallFloor(0.9), None, r"thresholds=RecallFloor.* requires y to be passed"),
        (RecallFloor(0.9), NONE, "no caught positive"),
        (PassBudget(0.5), y + 5, r"labels that were not seen in fit: \[5 6\]; known are \[0 1\]"),
        (PassBudget(0.5), y[:5], r"y must have shape \(120,\); got \(5,\)"),
    ],
    ids=itertools.count(),
)
def test_tuning_that_fails_changes_nothing(model, thresholds, labels, match):
    before = model.thresholds_.copy()
    with pytest.raises((TypeError, ValueError), match=match):
        model.tune_thresholds(X, labels, thresholds=thresholds)
    np.testing.assert_array_equal(model.thresholds_, before)

"""Graphs of fitted stages give the scores of the stages, on rows near and far."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA, KernelPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.random_projection import GaussianRandomProjection
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from skmsc import ComposableHeadClassifier
from skmsc.calibration import fit_calibration
from skmsc.serving._inputs import MISSING, Inputs, NotExportable
from skmsc.stages import StageScorer

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from skmsc.serving._scorer_graphs import (  # noqa: E402
    chain,
    scorer_graph,
    screen_graph,
)
from skmsc.serving._transformer_graphs import transformers_graph  # noqa: E402

N = 6
MATRIX = Inputs(N)


def data(n_classes=2):
    X, y = make_classification(
        300,
        N,
        n_informative=5,
        n_redundant=0,
        n_classes=n_classes,
        n_clusters_per_class=1,
        random_state=0,
    )
    return np.round(X, 2), y


def far_rows(X):
    """Rows near the data, far from them, and so far that probabilities are saturated."""
    rng = np.random.default_rng(0)
    return np.vstack([X, 30 * X, 1e4 * rng.normal(size=(40, N)), 1e9 * rng.normal(size=(10, N))])


def run(model, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    if isinstance(feeds, np.ndarray):
        feeds = {"X": feeds}
    return session.run(None, feeds)[0]


def log_odds(proba):
    rest = proba[:, ::-1] if proba.shape[1] == 2 else 1 - proba
    with np.errstate(all="ignore"):
        return np.log(proba / rest)


def assert_same(scores, expected, odds=True):
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9)
    if odds and expected.min() >= 0 and expected.max() <= 1:
        inside = expected * (1 - expected) > 1e-12
        one, other = log_odds(scores)[inside], log_odds(expected)[inside]
        assert (np.abs(one - other) <= 1e-5 * np.maximum(1, np.abs(other))).all()


def scorer_of(stage, y):
    return StageScorer.of("final", stage, np.unique(y))


def check(stage, X, y, rows, inputs=MATRIX, odds=True):
    """Fit a stage, and compare its scores with those of its graph, with log-odds if asked to."""
    scorer = scorer_of(stage.fit(X, y), y)
    model = scorer_graph(scorer, inputs)
    expected = scorer(rows)
    assert_same(run(model, feeds_of(rows, inputs)), expected, odds=odds)
    assert_same(run(model, feeds_of(rows[7:8], inputs)), expected[7:8], odds=odds)
    assert run(model, feeds_of(rows[:0], inputs)).shape == (0, scorer.n_classes)
    return model


def feeds_of(rows, inputs):
    if inputs.columns is None:
        return rows
    return {name: as_column(rows[name], kind) for name, kind in inputs.columns}


def as_column(values, kind):
    if kind == "str":
        values = [MISSING if pd.isna(v) else v for v in values]
        return np.array(values, dtype=object)[:, None]
    return values.to_numpy(dtype=kind)[:, None]


# --- classifiers --------------------------------------------------------------------------------
BOTH = {
    "logistic": LogisticRegression(),
    "logistic, steep": LogisticRegression(C=1e4, max_iter=1000),
    "sgd": SGDClassifier(loss="log_loss", random_state=0),
    "modified huber": SGDClassifier(loss="modified_huber", random_state=0),
    "lda": LinearDiscriminantAnalysis(),
    "ridge": RidgeClassifier(),
    "linear svc": LinearSVC(),
    "perceptron": Perceptron(),
    "svc": SVC(),
    "svc poly": SVC(kernel="poly", coef0=1.0),
    "svc sigmoid": SVC(kernel="sigmoid"),
    "svc linear": SVC(kernel="linear"),
    "gaussian nb": GaussianNB(),
    "mlp relu": MLPClassifier((5, 4), max_iter=40, solver="lbfgs", random_state=0),
    "mlp tanh": MLPClassifier((5,), "tanh", max_iter=30, solver="lbfgs", random_state=0),
    "mlp logistic": MLPClassifier((5,), "logistic", max_iter=30, solver="lbfgs", random_state=0),
    "mlp identity": MLPClassifier((5,), "identity", max_iter=30, solver="lbfgs", random_state=0),
    "dummy": DummyClassifier(),
    "sigmoid calibration": CalibratedClassifierCV(LinearSVC(), cv=2),
    "isotonic calibration": CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2),
    "isotonic of decisions": CalibratedClassifierCV(LinearSVC(), method="isotonic", cv=2),
    "voting": VotingClassifier(
        [("a", LogisticRegression()), ("b", GaussianNB())], voting="soft", weights=[1, 2]
    ),
    "bagging": BaggingClassifier(GaussianNB(), 3, max_features=0.5, random_state=0),
    "search": GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2),
    "fixed threshold": FixedThresholdClassifier(LogisticRegression()),
}


# Far from the data their probabilities near 1 are off by more than 1e-12 themselves.
ROUGH = ("gaussian nb", "voting", "bagging")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("kind", BOTH)
def test_classifiers(kind, n_classes):
    X, y = data(n_classes)
    is_search = kind == "fixed threshold" and n_classes == 3  # which is of two classes only
    stage = BOTH["search"] if is_search else BOTH[kind]
    check(stage, X, y, X)
    check(stage, X, y, far_rows(X), odds=kind not in ROUGH)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("base", [LinearSVC(), GaussianNB()])
def test_temperature_calibration(base, n_classes):
    X, y = data(n_classes)
    try:
        stage = CalibratedClassifierCV(base, method="temperature", cv=2).fit(X, y)
    except ValueError:
        pytest.skip("scikit-learn before 1.8")
    scorer = scorer_of(stage, y)
    assert_same(run(scorer_graph(scorer, MATRIX), X), scorer(X))


@pytest.mark.filterwarnings("ignore:.*probability.*:FutureWarning")
@pytest.mark.parametrize("n_classes", [2, 4])
def test_support_vectors_with_probabilities(n_classes):
    X, y = data(n_classes)
    check(SVC(probability=True, random_state=0), X, y, far_rows(X))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_cross_validated_logistic():
    X, y = data()
    check(LogisticRegressionCV(Cs=2, cv=2), X, y, far_rows(X))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "chebyshev"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_neighbors(weights, metric, n_classes):
    X, y = data(n_classes)
    X = X + 1e-3 * np.random.default_rng(0).normal(size=X.shape)  # no ties
    stage = KNeighborsClassifier(4, weights=weights, metric=metric)
    check(stage, X, y, far_rows(X)[:-10])  # farther away rounding makes ties


def test_neighbors_that_are_the_row():
    X, y = data()
    X = np.vstack([X, X[:20]])  # some of them twice, of two classes
    y = np.append(y, 1 - y[:20])
    check(KNeighborsClassifier(4, weights="distance"), X, y, X)


# --- trees --------------------------------------------------------------------------------------
def at_thresholds(X, splits):
    """Rows whose features are thresholds or their neighbours in float64 and in float32."""
    rows = []
    splits = [split for split in splits if abs(split[1]) < 1e30]  # some part nan from numbers
    for at, (feature, threshold) in enumerate(splits):
        single = np.float32(threshold)
        for value in (
            threshold,
            *np.nextafter(threshold, [-np.inf, np.inf]),
            single,
            *np.nextafter(single, np.float32([-np.inf, np.inf])),
        ):
            rows.append(X[at % len(X)].copy())
            rows[-1][feature] = value
    return np.array(rows)


def with_nan(X):
    X = X.copy()
    X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
    return X


def splits_of(trees):
    for tree in trees:
        inner = tree.tree_.children_left >= 0
        yield from zip(tree.tree_.feature[inner], tree.tree_.threshold[inner], strict=True)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "stage",
    [
        DecisionTreeClassifier(random_state=0),
        DecisionTreeClassifier(max_depth=3, class_weight="balanced"),
        RandomForestClassifier(10, random_state=0),
        ExtraTreesClassifier(10, random_state=0),
    ],
)
def test_forests(stage, n_classes):
    X, y = data(n_classes)
    X = with_nan(X)
    stage.fit(X, y)
    splits = splits_of(getattr(stage, "estimators_", [stage]))
    rows = np.vstack([X, far_rows(X), at_thresholds(X, splits)])
    check(stage, X, y, rows)


@pytest.mark.parametrize("n_classes, loss", [(2, "log_loss"), (2, "exponential"), (3, "log_loss")])
def test_gradient_boosting(n_classes, loss):
    X, y = data(n_classes)
    stage = GradientBoostingClassifier(n_estimators=8, loss=loss, random_state=0).fit(X, y)
    rows = at_thresholds(X, splits_of(np.ravel(stage.estimators_)))
    check(stage, X, y, np.vstack([far_rows(X), rows]))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_hist_gradient_boosting(n_classes):
    X, y = data(n_classes)
    X = with_nan(X)
    stage = HistGradientBoostingClassifier(max_iter=8).fit(X, y)
    splits = [
        (node["feature_idx"], node["num_threshold"])
        for trees in stage._predictors
        for tree in trees
        for node in tree.nodes
        if not node["is_leaf"]
    ]
    check(stage, X, y, np.vstack([X, far_rows(X), at_thresholds(X, splits)]))


def test_a_tree_of_one_leaf():
    X, y = data()
    check(DecisionTreeClassifier(min_samples_leaf=len(y)), X, y, X)
    check(HistGradientBoostingClassifier(min_samples_leaf=len(y), max_iter=2), X, y, X)


def test_hist_gradient_boosting_of_categories():
    X, y = data(3)
    X[:, 2] = np.round(3 * np.abs(X[:, 2]))
    X = with_nan(X)
    rows = X.copy()
    rows[:9, 2] = [np.nan, 99.0, -1.0, 1.0, 2.0, 1.5, 0.0, 50.0, 3.0]  # some are unknown
    stage = HistGradientBoostingClassifier(max_iter=8, categorical_features=[2, 4], max_bins=250)
    X[:, 4] = rows[:, 4] = np.arange(len(X)) % 40
    check(stage, X, y, rows)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"zero_as_missing": True},
        {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    ],
)
def test_lightgbm(params, n_classes):
    lightgbm = pytest.importorskip("lightgbm")
    X, y = data(n_classes)
    X = with_nan(X)
    X[::7] = 0.0
    stage = lightgbm.LGBMClassifier(n_estimators=8, verbose=-1, n_jobs=1, **params).fit(X, y)
    table = stage.booster_.trees_to_dataframe().dropna(subset="split_feature")
    features = table["split_feature"].str.removeprefix("Column_").astype(int)
    splits = zip(features, table["threshold"].astype(float), strict=True)
    rows = np.vstack([X, far_rows(X), at_thresholds(X, splits), [[1e-36] * N], [[-1e-20] * N]])
    scorer = scorer_of(stage, y)
    assert_same(run(scorer_graph(scorer, MATRIX), rows), scorer(rows))


def test_lightgbm_of_categories_by_number():
    lightgbm = pytest.importorskip("lightgbm")
    X, y = data(3)
    X[:, 2], X[:, 4] = np.round(3 * np.abs(X[:, 2])), np.arange(len(X)) % 40
    stage = lightgbm.LGBMClassifier(
        n_estimators=8, verbose=-1, n_jobs=1, min_data_per_group=1, cat_smooth=1.0
    ).fit(X, y, categorical_feature=[2, 4])
    rows = X.copy()
    rows[:8, 2] = [np.nan, 99.0, -1.0, -0.5, 1.5, 50.0, 1e9, -1e9]
    scorer = scorer_of(stage, y)
    assert_same(run(scorer_graph(scorer, MATRIX), rows), scorer(rows))


def test_lightgbm_that_stopped_early():
    lightgbm = pytest.importorskip("lightgbm")
    X, y = data()
    stage = lightgbm.LGBMClassifier(n_estimators=50, verbose=-1, n_jobs=1, learning_rate=0.5)
    stop = lightgbm.early_stopping(2, verbose=False)
    stage.fit(X[:150], y[:150], eval_X=X[150:], eval_y=y[150:], callbacks=[stop])
    assert stage.best_iteration_ < 50
    scorer = scorer_of(stage, y)
    assert_same(run(scorer_graph(scorer, MATRIX), X), scorer(X))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("params", [{}, {"base_score": 0.3}, {"num_parallel_tree": 2}])
def test_xgboost(params, n_classes):
    xgboost = pytest.importorskip("xgboost")
    X, y = data(n_classes)
    X = with_nan(X)
    stage = xgboost.XGBClassifier(n_estimators=8, n_jobs=1, **params).fit(X, y)
    table = stage.get_booster().trees_to_dataframe().dropna(subset="Split")
    splits = zip(table["Feature"].str[1:].astype(int), table["Split"], strict=True)
    rows = np.vstack([X, far_rows(X), at_thresholds(X, splits)])
    scorer = scorer_of(stage, y)
    assert_same_in_float32(run(scorer_graph(scorer, MATRIX), rows), scorer(rows))


def test_xgboost_that_stopped_early_and_is_saturated():
    xgboost = pytest.importorskip("xgboost")
    X, y = data()
    stage = xgboost.XGBClassifier(
        n_estimators=300, learning_rate=1.0, reg_lambda=0, early_stopping_rounds=30, n_jobs=1
    ).fit(X[:150], y[:150], eval_set=[(X[150:], y[150:])], verbose=False)
    assert stage.best_iteration < 299
    scorer = scorer_of(stage, y)
    assert_same_in_float32(run(scorer_graph(scorer, MATRIX), X), scorer(X))


def assert_same_in_float32(scores, expected):
    """Up to steps of float32, in which XGBoost's probabilities come."""
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2.5e-7)
    inside = np.minimum(expected, 1 - expected) > 0.05
    assert (np.abs(log_odds(scores) - log_odds(expected))[inside] <= 1e-5).all()


# --- what stands around a classifier ------------------------------------------------------------
@pytest.mark.parametrize("labels", [["no", "yes"], [False, True], [-3, 7], [1.0, 3.0]])
def test_labels_of_any_type(labels):
    X, y = data()
    check(LogisticRegression(), X, np.array(labels)[y], X)


def test_frozen_stages_and_pipelines():
    X, y = data(3)
    inner = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    check(FrozenEstimator(inner), X, y, far_rows(X))
    check(make_pipeline("passthrough", MaxAbsScaler(), FrozenEstimator(inner)), X, y, X)


@pytest.mark.parametrize("stage", [LogisticRegression(), RandomForestClassifier(5, random_state=0)])
def test_a_stage_that_does_not_know_all_classes(stage):
    X, y = data(3)
    known = y != 1
    scorer = StageScorer.of("final", stage.fit(X[known], y[known]), np.arange(3))
    scores = run(scorer_graph(scorer, MATRIX), X)
    assert_same(scores, scorer(X))
    assert (scores[:, 1] == 0).all()


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("n_classes, n_known", [(2, 2), (3, 3), (4, 3), (3, 2)])
@pytest.mark.parametrize("stage", [RidgeClassifier(), SVC()])
def test_decision_maps(stage, n_classes, n_known, method):
    X, y = data(n_classes)
    known = y < n_known
    scorer = StageScorer.of("final", stage.fit(X[known], y[known]), np.arange(n_classes))
    made = fit_calibration(method, scorer.raw(X), y, np.ones(len(y)), from_decisions=True)
    scorer = replace(scorer, decision_map=made)
    rows = far_rows(X)
    assert_same(run(scorer_graph(scorer, MATRIX), rows), scorer(rows))


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_maps_of_probabilities_are_held_back(n_classes, method):
    X, y = data(n_classes)
    scorer = scorer_of(RandomForestClassifier(5, random_state=0).fit(X[:200], y[:200]), y)
    made = fit_calibration(method, scorer(X), y, np.ones(len(y)))
    scorer = replace(scorer, decision_map=made)
    assert_same(run(scorer_graph(scorer, MATRIX), X), scorer(X))


# --- transformers -------------------------------------------------------------------------------
TRANSFORMERS = {
    "standard": StandardScaler(),
    "standard, no mean": StandardScaler(with_mean=False),
    "min max": MinMaxScaler((-1, 2)),
    "min max, clipped": MinMaxScaler(clip=True),
    "robust": RobustScaler(),
    "max abs": MaxAbsScaler(),
    "l1": Normalizer("l1"),
    "l2": Normalizer(),
    "max": Normalizer("max"),
    "binarizer": Binarizer(threshold=0.3),
    "quantiles": QuantileTransformer(n_quantiles=50),
    "normal quantiles": QuantileTransformer(n_quantiles=50, output_distribution="normal"),
    "power": PowerTransformer(),
    "power, not scaled": PowerTransformer(standardize=False),
    "bins": KBinsDiscretizer(4, encode="ordinal", strategy="uniform"),
    "one hot bins": KBinsDiscretizer(4, strategy="kmeans", random_state=0),
    "polynomials": PolynomialFeatures(3),
    "interactions": PolynomialFeatures(2, interaction_only=True, include_bias=False),
    "pca": PCA(3),
    "whitened pca": PCA(3, whiten=True),
    "svd": TruncatedSVD(3, random_state=0),
    "k best": SelectKBest(k=3),
    "identity": FunctionTransformer(),
    "one hot": OneHotEncoder(handle_unknown="ignore", min_frequency=3),
    "union": FeatureUnion(
        [("a", PCA(2)), ("b", "passthrough"), ("c", "drop"), ("d", StandardScaler())],
        transformer_weights={"a": 0.5},
    ),
    "columns": ColumnTransformer(
        [("a", StandardScaler(), [3, 1]), ("b", "drop", [2]), ("c", MinMaxScaler(), slice(4, 6))],
        remainder="passthrough",
    ),
    "columns of scaled": make_pipeline(
        StandardScaler(), ColumnTransformer([("a", PCA(1), [5, 0]), ("b", "passthrough", [1, 3])])
    ),
}


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_transformers(kind):
    X, y = data()
    X[:, 3] = np.round(X[:, 3])  # values that repeat, and with them quantiles
    X[X[:, 5] < 0, 5] = -1.0
    part = TRANSFORMERS[kind].fit(X, y)
    model = transformers_graph([part], MATRIX, "final")
    rows = far_rows(X)
    expected = part.transform(rows)
    expected = expected.toarray() if hasattr(expected, "toarray") else expected
    np.testing.assert_allclose(run(model, rows), expected, rtol=1e-12, atol=1e-9)


def test_quantiles_near_the_ends():
    X, _ = data()
    part = QuantileTransformer(n_quantiles=300, output_distribution="normal").fit(X)
    ends = np.vstack([part.quantiles_[0], part.quantiles_[-1]])
    rows = np.vstack([ends + d for d in (-1.0, -2e-7, -5e-8, 0.0, 5e-8, 2e-7, 1.0)])
    rows = np.vstack([rows, part.quantiles_, with_nan(X)])
    out = run(transformers_graph([part], MATRIX, "final"), rows)
    np.testing.assert_allclose(out, part.transform(rows), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "part",
    [
        SimpleImputer(),
        SimpleImputer(strategy="median", add_indicator=True),
        SimpleImputer(strategy="most_frequent", missing_values=-9.0),
        SimpleImputer(strategy="constant", fill_value=7.0, add_indicator=True),
        MissingIndicator(),
        make_pipeline(StandardScaler(), SimpleImputer()),
        make_pipeline(MinMaxScaler(clip=True), SimpleImputer()),
    ],
)
def test_missing_values(part):
    X, _ = data()
    X = with_nan(X)
    X[:, 2] = np.arange(len(X))
    marked = getattr(part, "missing_values", None) == -9.0
    X = np.where(np.isnan(X), -9.0, X) if marked else X
    part.fit(X)
    out = run(transformers_graph([part], MATRIX, "final"), X)
    np.testing.assert_allclose(out, part.transform(X), rtol=1e-12)


def test_columns_without_a_value_are_dropped():
    X, _ = data()
    X[:, 2] = np.nan
    for keep in (True, False):
        part = SimpleImputer(keep_empty_features=keep)
        part.fit(X)
        with nullcontext() if keep else pytest.warns(UserWarning, match="Skipping"):
            expected = part.transform(X)
        np.testing.assert_allclose(run(transformers_graph([part], MATRIX, "s"), X), expected)


# --- dataframes ---------------------------------------------------------------------------------
COLUMNS = Inputs(
    6,
    (
        ("amount", "float64"),
        ("country", "str"),
        ("n_items", "int64"),
        ("is_new", "bool"),
        ("shop", "str"),
        ("customer", "int64"),
    ),
)


def frame(missing=False, n=300, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "amount": rng.lognormal(size=n),
            "country": rng.choice(["de", "fr", "it", "ch"], size=n, p=[0.5, 0.3, 0.19, 0.01]),
            "n_items": rng.integers(1, 5, size=n),
            "is_new": rng.random(n) < 0.3,
            "shop": rng.choice(list("abcdefgh"), size=n),
            "customer": 2**60 + rng.integers(3, size=n),  # no float64 tells them apart
        }
    )
    y = ((X["country"] == "de") ^ X["is_new"] ^ (rng.random(n) < 0.2)).to_numpy().astype(int)
    if missing:
        X.loc[::9, "country"] = None
        X.loc[::7, "amount"] = np.nan
    return X, y


def encoders(*one_hot, **others):
    return make_column_transformer(
        (OneHotEncoder(**others), list(one_hot)),
        (StandardScaler(), ["amount", "n_items"]),
        (OrdinalEncoder(), ["shop"]),
    )


@pytest.mark.parametrize(
    "columns",
    [
        encoders("country", "is_new", "n_items", "customer"),
        encoders("country", "n_items", drop="first", handle_unknown="ignore"),
        encoders("country", "is_new", drop="if_binary"),
        encoders("country", "shop", min_frequency=20, handle_unknown="infrequent_if_exist"),
        encoders("country", "shop", max_categories=3, drop="first"),
        make_column_transformer(
            (OrdinalEncoder(min_frequency=20), ["country", "shop", "customer"]),
            ("passthrough", ["is_new", "n_items"]),
            (SimpleImputer(), [0]),
        ),
        make_column_transformer((TargetEncoder(), ["shop", "country", "n_items"])),
        make_column_transformer((OneHotEncoder(), make_country := (lambda X: ["country"]))),
    ],
)
def test_dataframes(columns):
    X, y = frame()
    check(make_pipeline(columns, LogisticRegression()), X, y, X, COLUMNS)
    check(make_pipeline(columns, RandomForestClassifier(5, random_state=0)), X, y, X, COLUMNS)


def test_target_encoder_of_three_classes():
    X, y = frame()
    y = y + (X["shop"] == "a").to_numpy()
    encoder = make_column_transformer((TargetEncoder(), ["shop", "country"]))
    rows = X.assign(country="unknown")
    check(make_pipeline(encoder, LogisticRegression()), X, y, rows, COLUMNS)


@pytest.mark.filterwarnings("ignore:Found unknown categories:UserWarning")
@pytest.mark.parametrize(
    "encoder",
    [
        OneHotEncoder(handle_unknown="ignore"),
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20),
        OneHotEncoder(handle_unknown="ignore", min_frequency=20, drop="first"),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
        ),
        make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()),
        make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder()),
    ],
)
def test_missing_and_unknown_categories(encoder):
    X, y = frame(missing=True)
    columns = make_column_transformer(
        (encoder, ["country", "shop"]), (SimpleImputer(add_indicator=True), ["amount", "n_items"])
    )
    ends = make_pipeline(SimpleImputer(), LogisticRegression())
    rows = X.copy()
    is_pipeline = hasattr(encoder, "steps")
    if not is_pipeline:
        rows.loc[:20, "shop"] = "unknown"
        rows.loc[30:40, "shop"] = None
    check(make_pipeline(columns, ends), X, y, rows, COLUMNS)


def test_a_numeric_encoder_of_nan():
    X, y = data()
    X = with_nan(np.round(X))
    rows = np.where(X == 1.0, 77.0, X)
    known = OneHotEncoder(handle_unknown="ignore")
    check(make_pipeline(known, LogisticRegression()), X, y, rows)
    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-5
    )
    check(make_pipeline(codes, LogisticRegression()), X, y, rows)


def test_an_unknown_category_is_an_error_where_it_was_one():
    X, y = frame()
    stage = make_pipeline(encoders("country"), LogisticRegression()).fit(X, y)
    model = scorer_graph(scorer_of(stage, y), COLUMNS)
    rows = X.assign(country="unknown")
    with pytest.raises(ValueError, match="unknown"):
        stage.predict_proba(rows)
    with pytest.raises(Exception, match="OneHotEncoder: unknown category in column country"):
        run(model, feeds_of(rows, COLUMNS))


def test_a_column_may_be_encoded_twice():
    X, y = frame()
    encoded = make_column_transformer(
        (OneHotEncoder(), ["country"]), (OneHotEncoder(), ["country"])
    )
    model = check(make_pipeline(encoded, LogisticRegression()), X, y, X, COLUMNS)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


def test_numbers_of_a_dataframe_need_no_transformer():
    X, y = frame()
    X = X[["amount", "n_items", "is_new"]]
    inputs = Inputs(3, tuple(c for c in COLUMNS.columns if c[0] in X.columns))
    check(LogisticRegression(), X, y, X, inputs)


def test_hist_gradient_boosting_of_a_dataframe_with_categories():
    X, y = frame(missing=True)
    X = X.drop(columns="customer")
    X["country"], X["shop"] = X["country"].astype("category"), X["shop"].astype("category")
    check(HistGradientBoostingClassifier(max_iter=8), X, y, X, Inputs(5, COLUMNS.columns[:5]))


def test_lightgbm_of_a_dataframe_with_categories():
    lightgbm = pytest.importorskip("lightgbm")
    X, y = frame(missing=True)
    X = X.drop(columns="customer").astype({"country": "category", "shop": "category"})
    rows = X.assign(shop=X["shop"].where(X["shop"] != "c", None))
    rows.loc[:5, "country"] = None
    stage = lightgbm.LGBMClassifier(
        n_estimators=8, verbose=-1, n_jobs=1, min_data_per_group=1, min_child_samples=5
    )
    check(stage, X, y, rows, Inputs(5, COLUMNS.columns[:5]))


@pytest.mark.parametrize("method", ["yeo-johnson", "box-cox"])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0])
def test_powers(exponent, method):
    X = np.abs(data()[0]) + 0.01
    part = PowerTransformer(method, standardize=False).fit(X)
    part.lambdas_[:3] = exponent
    rows = X if method == "box-cox" else np.vstack([X, -X, with_nan(X)])
    out = run(transformers_graph([part], MATRIX, "final"), rows)
    np.testing.assert_allclose(out, part.transform(rows), rtol=1e-12, atol=1e-12)


# --- screens ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "params", [{}, {"proba": "sigmoid"}, {"proba": "open", "unknown_label": "?"}]
)
@pytest.mark.parametrize("first", [LogisticRegression(), RidgeClassifier()])
@pytest.mark.filterwarnings("ignore:The first stage never saw:UserWarning")
def test_screens(first, params):
    X, y = data(4)
    labels = np.array(["b", "a", "d", "c"])[y]
    model = ComposableHeadClassifier(
        make_pipeline(StandardScaler(), first),
        "passthrough",
        random_state=0,
        thresholds=0.9,
        **params,
    )
    model.fit(X[y < 3], labels[y < 3])
    rows = far_rows(X)
    assert_same(run_screen(model, rows), model._first_step(rows)[0])
    model.add_class(X[y == 3], "c")
    expected = model._first_step(X)[0]  # with nothing for the class that it never saw
    assert (expected == 0).any(axis=0).sum() == 1
    assert_same(run_screen(model, X), expected)
    model.add_class(X[y == 3] + 1.0, "e")
    model = model.compose(["c", "e"])  # it knows neither
    assert_same(run_screen(model, X), model._first_step(X)[0])


def run_screen(model, rows):
    scores = run(screen_graph(model, MATRIX), rows)
    if model.proba != "sigmoid":
        return scores
    from skmsc._maps import sigmoids

    return sigmoids(scores)


# --- chains, sizes, refusals --------------------------------------------------------------------
def test_a_chain_is_the_pipeline():
    X, y = data(3)
    stage = make_pipeline(StandardScaler(), PCA(4), LogisticRegression()).fit(X, y)
    first = transformers_graph([step for _, step in stage.steps[:-1]], MATRIX, "final")
    second = scorer_graph(scorer_of(stage[-1], y), Inputs(4))
    model = chain(first, second)
    assert [v.name for v in model.graph.input] == ["X"]
    assert [v.name for v in model.graph.output] == ["scores"]
    assert_same(run(model, X), stage.predict_proba(X))


def test_a_chain_keeps_loops_and_columns():
    X, y = frame()
    stage = make_pipeline(encoders("country"), KNeighborsClassifier()).fit(X, y)
    n_between = stage[0].transform(X).shape[1]
    first = transformers_graph([stage[0]], COLUMNS, "final")
    model = chain(first, scorer_graph(scorer_of(stage[-1], y), Inputs(n_between)))
    assert_same(run(model, feeds_of(X, COLUMNS)), stage.predict_proba(X))


def test_graphs_in_a_row_must_not_share_names():
    X, y = data()
    model = scorer_graph(scorer_of(LogisticRegression().fit(X, y), y), MATRIX)
    with pytest.raises(ValueError, match=r"Both graphs have .* named \['scores'\]"):
        chain(model, model)


def test_a_chain_of_models_of_other_versions():
    import onnx
    from onnx import TensorProto, helper

    X, _ = data(3)
    nodes = [
        helper.make_node("Relu", ["X"], ["a"]),
        helper.make_node("Gelu", ["b"], ["scores"], domain="com.microsoft"),
        helper.make_node("ReduceSum", ["a", "one"], ["b"], keepdims=1),
        helper.make_node("Identity", ["more"], ["logs"]),
    ]
    nodes = [nodes[0], nodes[2], nodes[1], nodes[3]]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, n])]
        for name, n in [("X", N), ("more", 3), ("scores", 1), ("logs", 3)]
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        ends[0] + ends[1],
        ends[2] + ends[3],
        [onnx.numpy_helper.from_array(np.array([1]), "one")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    net = helper.make_model(graph, opset_imports=opsets)
    scaler = StandardScaler().fit(X)
    model = chain(transformers_graph([scaler], MATRIX, "final"), net)
    assert [v.name for v in model.graph.input] == ["X", "more"]
    assert [v.name for v in model.graph.output] == ["scores", "logs"]
    assert {o.domain: o.version for o in model.opset_import} == {
        "": 21,
        "ai.onnx.ml": 5,
        "com.microsoft": 1,
    }


def test_another_number_of_columns_is_refused():
    X, y = data()
    scorer = scorer_of(LogisticRegression().fit(X, y), y)
    with pytest.raises(ValueError, match="'final' was fitted on 6 columns; inputs have 5"):
        scorer_graph(scorer, Inputs(5))


def test_a_net_at_the_end_of_a_pipeline(monkeypatch):
    X, y = data()
    logistic = LogisticRegression().fit(StandardScaler().fit_transform(X), y)
    net = type("Net", (LogisticRegression,), {"__module__": "skmsc.neural._net"})()
    net.__dict__.update(logistic.__dict__)
    monkeypatch.setattr(
        "skmsc.serving._scorer_graphs.net_graph",
        lambda part, n, name: scorer_graph(scorer_of(logistic, y), Inputs(n)),
    )
    scaler = StandardScaler().fit(X)
    stage = make_pipeline(FrozenEstimator(scaler), net)
    stage.__sklearn_is_fitted__ = lambda: True
    scorer = SimpleNamespace(
        name="final", estimator=stage, columns=None, n_classes=2, decision_map=None, has_proba=True
    )
    expected = logistic.predict_proba(scaler.transform(X))
    assert_same(run(scorer_graph(scorer, MATRIX), X), expected)


def test_scaler_and_logistic_are_two_nodes():
    X, y = data()
    model = check(make_pipeline(StandardScaler(), LogisticRegression()), X, y, X)
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Softmax"]


def test_a_scaler_far_from_zero_is_not_taken_into_the_coefficients():
    X, y = data()
    X = 1e-3 * X + 1e7
    model = check(make_pipeline(StandardScaler(), LogisticRegression(C=1e3)), X, y, X)
    assert [node.op_type for node in model.graph.node] == ["Sub", "Gemm", "Softmax"]


class Own(LogisticRegression):
    """A class that no one knows."""


@pytest.mark.parametrize(
    "stage, match",
    [
        (
            Own(),
            "Stage 'final' cannot be exported: Own: there is no graph for this class",
        ),
        (AdaBoostClassifier(n_estimators=3), "AdaBoostClassifier: .* the operator TreeEnsemble"),
        (make_pipeline(Nystroem(n_components=5), LogisticRegression()), "Nystroem: there is no"),
        (
            make_pipeline(FunctionTransformer(np.sinh), LogisticRegression()),
            "FunctionTransformer: it calls",
        ),
        (DummyClassifier(strategy="stratified"), "DummyClassifier: strategy 'stratified'"),
        (KNeighborsClassifier(weights=np.exp), "KNeighborsClassifier: weights"),
        (SVC(kernel=lambda X, Y: X @ Y.T), "SVC: kernel"),
        (GradientBoostingClassifier(init=GaussianNB(), n_estimators=1), "starts from GaussianNB"),
    ],
)
def test_what_is_not_written_is_refused(stage, match):
    X, y = data()
    with pytest.raises(NotExportable, match=match):
        scorer_graph(scorer_of(stage.fit(X, y), y), MATRIX)


@pytest.mark.parametrize("name", ["scores", "/a", ""])
def test_columns_with_names_of_the_graph_are_refused(name):
    X, y = data()
    scorer = scorer_of(LogisticRegression().fit(X[:, :1], y), y)
    with pytest.raises(NotExportable, match="inputs: a column cannot be named"):
        scorer_graph(scorer, Inputs(1, ((name, "float64"),)))


def test_strings_that_reach_numbers_are_refused():
    X, y = frame()
    scorer = scorer_of(LogisticRegression().fit(X[["amount"]], y), y)
    with pytest.raises(NotExportable, match="LogisticRegression: it takes numbers"):
        scorer_graph(scorer, Inputs(1, (("amount", "str"),)))


def test_categories_of_another_type_than_the_column_are_refused():
    X, y = frame()
    stage = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(X[["n_items"]], y)
    with pytest.raises(NotExportable, match=r"OneHotEncoder: its categories .* the column, str"):
        scorer_graph(scorer_of(stage, y), Inputs(1, (("n_items", "str"),)))


def test_boosters_of_categories_that_are_not_strings_are_refused():
    lightgbm, xgboost = pytest.importorskip("lightgbm"), pytest.importorskip("xgboost")
    X, y = frame()
    X = X[["n_items", "amount"]].astype({"n_items": "category"})
    inputs = Inputs(2, (("n_items", "int64"), ("amount", "float64")))
    for stage in (
        lightgbm.LGBMClassifier(n_estimators=2, verbose=-1, n_jobs=1),
        xgboost.XGBClassifier(n_estimators=2, enable_categorical=True, n_jobs=1),
    ):
        with pytest.raises(NotExportable, match="encode"):
            scorer_graph(scorer_of(stage.fit(X, y), y), inputs)


# --- by skl2onnx ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "stage",
    [
        QuadraticDiscriminantAnalysis(),
        make_pipeline(KernelPCA(3), LogisticRegression()),
        make_pipeline(GaussianRandomProjection(3, random_state=0), LogisticRegression()),
    ],
    ids=["classifier", "transformer", "random projection"],
)
def test_what_has_no_graph_of_ours_is_written_by_skl2onnx(stage):
    X, y = make_classification(200, 6, n_informative=4, n_redundant=0, random_state=0)
    scorer = StageScorer.of("final", clone(stage).fit(X, y), np.array([0, 1]))
    graph = scorer_graph(scorer, Inputs(6))
    scores = run(graph, X)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, scorer(X), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "function",
    [
        "negative",
        "reciprocal",
        "log1p",
        "log",
        "log2",
        "log10",
        "sqrt",
        "square",
        "exp",
        "expm1",
        "tanh",
        "sign",
        "abs",
    ],
)
def test_functions_of_numpy(function):
    function = getattr(np, function)
    X = np.concatenate([np.geomspace(1e-12, 50.0, 30), np.linspace(0.1, 5, 30)]).reshape(-1, 2)
    graph = transformers_graph([FunctionTransformer(function).fit(X)], Inputs(2), "final")
    found = run(graph, X)
    np.testing.assert_allclose(found, function(X), rtol=1e-14, atol=1e-15)

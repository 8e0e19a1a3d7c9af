"""What TabularNet takes, and how it refuses what it does not take."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from packaging.version import Version
from scipy import sparse
from sklearn import __version__ as sklearn_version
from sklearn import config_context
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupShuffleSplit, KFold, PredefinedSplit, TimeSeriesSplit
from sklearn.utils import get_tags

torch = pytest.importorskip("torch")
skorch = pytest.importorskip("skorch")

from skmsc.neural import TabularNet  # noqa: E402

since_1_7 = pytest.mark.skipif(
    Version(sklearn_version) < Version("1.7"), reason="needs scikit-learn 1.7"
)
X, Y = make_classification(240, n_features=6, n_informative=4, random_state=0)
W = np.random.RandomState(0).uniform(0.2, 2, 240)
COUNTS = (10 * X).round()
NAMES = list("abcdef")


def small(trunk="mlp", **params):
    """A net that trains in no time."""
    defaults = {"width": 8, "lr": 0.02, "max_epochs": 3, "validation": None, "device": "cpu"}
    return TabularNet(trunk, **({"random_state": 0} | defaults | params))


class NoTraining(skorch.callbacks.Callback):
    """Fails as soon as training begins."""

    def on_train_begin(self, net, **kwargs):
        raise AssertionError("training began")


def untrained(*args, **params):
    """A net whose fit must not come as far as training."""
    return small(*args, **({"net_params": {"callbacks": [NoTraining()]}} | params))


def fitted_attributes(net):
    return [name for name in vars(net) if name.endswith("_")]


# Input

REFERENCE = small().fit(X, Y).predict_proba(X)


def read_only(rows):
    rows = rows.copy()
    rows.setflags(write=False)
    return rows


CONTAINERS = {
    "list": lambda rows: rows.tolist(),
    "fortran": np.asfortranarray,
    "reversed view": lambda rows: rows[::-1].copy()[::-1],
    "read-only": read_only,
    "big-endian": lambda rows: rows.astype(">f8"),
    "long double": lambda rows: rows.astype(np.longdouble),
    "objects": lambda rows: rows.astype(object),
    "tensor": torch.tensor,
    "csr": sparse.csr_array,
    "csr matrix": sparse.csr_matrix,
    "csc": sparse.csc_array,
    "coo": sparse.coo_array,
    "lil": sparse.lil_array,
    "dok": sparse.dok_array,
    "bsr": sparse.bsr_array,
    "pandas": lambda rows: pd.DataFrame(rows, columns=NAMES),
    "pandas index": lambda rows: pd.DataFrame(rows, index=np.arange(240)[::-1], columns=NAMES),
    "pandas nullable": lambda rows: pd.DataFrame(rows, columns=NAMES, dtype="Float64"),
    "pandas float32": lambda rows: pd.DataFrame(rows, columns=NAMES, dtype="float32"),
    "polars": lambda rows: pl.DataFrame(rows, schema=NAMES),
}
CONTAINERS = [pytest.param(convert, id=name) for name, convert in CONTAINERS.items()]


@pytest.mark.parametrize("convert", CONTAINERS)
def test_rows_of_any_kind_are_the_same_rows(convert):
    net = small().fit(convert(X), Y)
    assert net.n_features_in_ == 6
    np.testing.assert_allclose(net.predict_proba(convert(X)), REFERENCE, rtol=1e-5)


@pytest.mark.parametrize("convert", CONTAINERS)
def test_rows_of_any_kind_are_predicted(convert):
    net = small().fit(convert(X), Y)
    proba = net.predict_proba(convert(X))
    assert proba.dtype == np.float64 and proba.shape == (240, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(net.predict(convert(X)), proba.argmax(axis=1))


@pytest.mark.parametrize(
    "dtype",
    ["int8", "int16", "int32", "int64", "uint8", "uint64", "float16", "float32", ">i4", object],
)
@pytest.mark.parametrize("convert", [np.asarray, pd.DataFrame, pl.DataFrame], ids=str)
def test_numbers_of_any_dtype_are_the_same_numbers(convert, dtype):
    if dtype == ">i4" and Version(pl.__version__) < Version("1.1"):
        pytest.skip("polars 1.0 takes no numbers of another byte order")
    counts = COUNTS - COUNTS.min()
    reference = small().fit(counts, Y).predict_proba(counts)
    converted = convert(counts.astype(dtype))
    np.testing.assert_allclose(
        small().fit(converted, Y).predict_proba(converted), reference, rtol=1e-5
    )


@pytest.mark.parametrize("dtype", ["bool", "boolean", "uint8", "Int64", "float32"])
def test_flags_are_zeros_and_ones(dtype):
    reference = small().fit(1.0 * (X > 0), Y).predict_proba(1.0 * (X > 0))
    flags = pd.DataFrame(X > 0).astype(dtype)
    flags.columns = NAMES
    np.testing.assert_allclose(small().fit(flags, Y).predict_proba(flags), reference, rtol=1e-5)


def test_sparse_integers_are_numbers():
    net = small().fit(sparse.csr_array(COUNTS.astype(int)), Y)
    reference = small().fit(COUNTS, Y).predict_proba(COUNTS)
    np.testing.assert_array_equal(net.predict_proba(sparse.csr_array(COUNTS)), reference)


@pytest.mark.parametrize("frame", [pd.DataFrame(X, columns=NAMES), pl.DataFrame(X, schema=NAMES)])
def test_feature_names_are_kept_and_checked(frame):
    net = small().fit(frame, Y)
    assert net.feature_names_in_.tolist() == NAMES
    with pytest.raises(ValueError, match="The feature names should match those that were passed"):
        net.predict(frame[NAMES[::-1]])
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        net.predict(X)


def test_the_callers_rows_are_not_changed():
    rows = X.copy()
    rows[::7, 2] = np.nan
    before, weight = rows.copy(), W.copy()
    small(missing="mean", validation=0.2, class_weight="balanced").fit(rows, Y, weight)
    np.testing.assert_array_equal(rows, before)
    np.testing.assert_array_equal(weight, W)


def test_rows_are_predicted_each_by_itself():
    net = small(dtype="float64").fit(X, Y)
    one_by_one = np.vstack([net.predict_proba(row[None]) for row in X])
    np.testing.assert_allclose(one_by_one, net.predict_proba(X), rtol=1e-12)
    many = np.tile(X, (50, 1))
    np.testing.assert_allclose(net.predict_proba(many), np.tile(one_by_one, (50, 1)), rtol=1e-12)


# Labels

LABELS = {
    "strings": np.array(["no", "yes"]),
    "long strings": np.array(["no", 50 * "y"]),
    "objects": np.array(["no", "yes"], dtype=object),
    "bool": np.array([False, True]),
    "int8": np.array([3, 7], dtype=np.int8),
    "uint64": np.array([3, 2**63], dtype=np.uint64),
    "-1 and 1": np.array([-1, 1]),
    "floats": np.array([-1.0, 2.0]),
}
LABELS = [pytest.param(labels, id=name) for name, labels in LABELS.items()]


@pytest.mark.parametrize("labels", LABELS)
def test_labels_of_any_kind_come_back(labels):
    net = small(validation=(X[:40], labels[Y[:40]]), class_weight={labels[0]: 2.0})
    net.fit(X, labels[Y])
    codes = small(validation=(X[:40], Y[:40]), class_weight={0: 2.0}).fit(X, Y)
    assert net.classes_.dtype == labels.dtype
    np.testing.assert_array_equal(net.classes_, labels)
    np.testing.assert_array_equal(net.predict_proba(X), codes.predict_proba(X))
    np.testing.assert_array_equal(net.predict(X), labels[codes.predict(X)])
    net.partial_fit(X[:10], labels[Y[:10]])
    np.testing.assert_array_equal(net.classes_, labels)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "convert",
    [
        list,
        pd.Series,
        lambda y: pd.Series(y, index=np.arange(240)[::-1]),
        lambda y: pd.Series(y, dtype="category"),
        pl.Series,
    ],
    ids=["list", "pandas", "pandas index", "categories", "polars"],
)
@pytest.mark.parametrize("labels", [np.array([0, 1]), np.array(["no", "yes"])], ids=str)
def test_labels_in_any_container(convert, labels):
    net = small().fit(X, convert(labels[Y]))
    np.testing.assert_array_equal(net.predict_proba(X), REFERENCE)
    assert net.score(X, labels[Y]) == small().fit(X, Y).score(X, Y)


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "string"])
def test_nullable_labels(dtype):
    net = small().fit(X, pd.Series(Y).astype(dtype))
    np.testing.assert_array_equal(net.predict_proba(X), REFERENCE)


def test_classes_are_sorted_whatever_comes_first():
    labels = np.array(["c", "a", "b"])[np.arange(240) % 3]
    net = small(lr=0.1, max_epochs=10).fit(X + (labels == "a")[:, None], labels)
    assert net.classes_.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    "y, message",
    [
        (X[:, 0], "Unknown label type: continuous"),
        (np.eye(2)[Y], "y should be a 1d array, got an array of shape (240, 2) instead"),
        (np.where(Y == 1, 1.0, np.nan), "Input y contains NaN"),
        (np.where(Y == 1, 1.0, np.inf), "Input y contains infinity"),
        (np.zeros(240), "TabularNet needs at least two classes; got 1 class: ["),
        (Y[:5], "inconsistent numbers of samples: [240, 5]"),
        (None, "requires y to be passed, but the target y is None"),
    ],
    ids=["continuous", "indicators", "nan", "inf", "one class", "short", "none"],
)
def test_bad_labels_are_refused(y, message):
    net = untrained()
    with pytest.raises(ValueError, match=re.escape(message)):
        net.fit(X, y)
    assert fitted_attributes(net) == []


# Missing and infinite values

HOLED = X.copy()
HOLED[::7, 2] = np.nan
HOLED[3:30, 4] = np.nan

HOLED_FRAME = pd.DataFrame(HOLED)

# What is given, and the array that it stands for.
HOLED_ROWS = [
    pytest.param(HOLED, HOLED, id="dense"),
    pytest.param(sparse.csr_array(HOLED), HOLED, id="sparse"),
    pytest.param(HOLED_FRAME, HOLED, id="pandas"),
    pytest.param(HOLED_FRAME.astype("Float64").mask(np.isnan(HOLED)), HOLED, id="nullable"),
    pytest.param(
        HOLED_FRAME.round().astype("Int64").mask(np.isnan(HOLED)), HOLED.round(), id="integers"
    ),
    pytest.param(pl.DataFrame(HOLED, nan_to_null=True), HOLED, id="polars"),
]


@pytest.mark.parametrize("rows, dense", HOLED_ROWS)
def test_missing_values_are_refused_in_the_words_of_scikit_learn(rows, dense):
    message = "Input X contains NaN.\nTabularNet does not accept missing values"
    with pytest.raises(ValueError, match=message):
        untrained().fit(rows, Y)
    assert not get_tags(small()).input_tags.allow_nan


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("missing", ["error", "mean"])
@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array, pd.DataFrame], ids=str)
def test_infinity_is_refused_in_the_words_of_scikit_learn(value, missing, convert):
    rows = X.copy()
    rows[3, 1] = value
    with pytest.raises(ValueError, match="Input X contains infinity or a value too large"):
        untrained(missing=missing).fit(convert(rows), Y)
    net = small(missing=missing).fit(X, Y)
    with pytest.raises(ValueError, match="Input X contains infinity or a value too large"):
        net.predict(rows)


@pytest.mark.parametrize("rows, dense", HOLED_ROWS)
def test_missing_values_of_any_kind_are_nan(rows, dense):
    net = small(missing="mean").fit(rows, Y)
    same = small(missing="mean").fit(dense, Y)
    np.testing.assert_allclose(net.predict_proba(rows), same.predict_proba(dense), rtol=1e-5)
    assert get_tags(net).input_tags.allow_nan


def test_missing_values_become_the_mean_and_are_indicated():
    # Without layers below it, the head sees what the trunk would get.
    net = small(lambda n_inputs: torch.nn.Identity(), missing="mean", dtype="float64")
    net.fit(HOLED, Y, W)
    present = ~np.isnan(HOLED)
    weight = np.where(present, W[:, None], 0.0)
    mean = np.average(np.where(present, HOLED, 0.0), axis=0, weights=weight)
    variance = np.average(np.where(present, HOLED - mean, 0.0) ** 2, axis=0, weights=weight)
    Z = np.where(present, (HOLED - mean) / np.sqrt(variance), 0.0)
    Z = np.hstack([Z, ~present[:, [2, 4]]])
    head = net.net_.module_.head
    logits = Z @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.predict_proba(HOLED), expected)


def test_values_missing_only_in_prediction_are_the_mean():
    net = small(missing="mean").fit(HOLED, Y)
    unseen, filled = X.copy(), X.copy()
    unseen[:, 0], filled[:, 0] = np.nan, X[:, 0].mean()
    np.testing.assert_allclose(net.predict_proba(unseen), net.predict_proba(filled), rtol=1e-5)
    np.testing.assert_allclose(
        small(missing="mean").fit(X, Y).predict_proba(X), REFERENCE, rtol=1e-12
    )


def test_what_is_missing_is_settled_by_fit():
    net = small().fit(X, Y).set_params(missing="mean")
    np.testing.assert_array_equal(net.predict_proba(X), REFERENCE)
    with pytest.raises(
        ValueError, match="TabularNet does not accept missing values encoded as NaN"
    ):
        net.predict(HOLED)
    net = small(missing="mean").fit(HOLED, Y)
    before = net.predict_proba(HOLED)
    np.testing.assert_array_equal(net.set_params(missing="error").predict_proba(HOLED), before)


def test_a_column_without_any_value_says_nothing():
    empty = np.column_stack([X, np.full(240, np.nan)])
    net = small(missing="mean").fit(empty, Y)
    assert net.count_multiply_adds() == (7 + 1) * 8 + 8 * 8 + 8 * 2
    assert np.isfinite(net.predict_proba(empty)).all()
    with_value = np.column_stack([X, np.zeros(240)])
    assert np.isfinite(net.predict_proba(with_value)).all()


def test_missing_values_of_weight_zero_are_absent():
    weight = np.where(np.isnan(HOLED).any(axis=1), 0.0, 1.0)
    net = small(missing="mean").fit(HOLED, Y, weight)
    assert net.count_multiply_adds() == 6 * 8 + 8 * 8 + 8 * 2


# Scales


@pytest.mark.parametrize("factor", [1e-200, 1e-20, 1e20, 1e200, 1e300])
@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_units_do_not_matter(factor, convert):
    rows = convert(X * [1, factor, 1, factor, 1, 1])
    net = small(dtype="float64").fit(rows, Y)
    reference = small(dtype="float64").fit(X, Y).predict_proba(X)
    np.testing.assert_allclose(net.predict_proba(rows), reference, rtol=1e-6)


def test_zero_points_do_not_matter():
    # A timestamp of today keeps its seconds.
    zero = np.array([1.7e9, 0, -1.7e9, 0, 0, 0])
    proba = small().fit(X + zero, Y).predict_proba(X + zero)
    np.testing.assert_allclose(proba, REFERENCE, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:TabularNet learned nothing")
@pytest.mark.parametrize("value", [1e12, -1e300, np.finfo(float).max])
def test_huge_values_give_finite_answers(value):
    rows = X.copy()
    rows[3, 1] = value
    net = small().fit(rows, Y)
    far = X.copy()
    far[:, :3] = value
    assert np.isfinite(net.predict_proba(rows)).all()
    assert np.isfinite(net.predict_proba(far)).all()
    assert np.isfinite(small().fit(X, Y).predict_proba(far)).all()


@pytest.mark.parametrize("value", [1e6, 1e12, -1e300])
@pytest.mark.parametrize("n_huge", [1, 3, 7])
def test_huge_values_do_not_flatten_the_others(value, n_huge):
    # One column that says all, up to 3 % of it huge.
    labels = np.arange(240) % 2
    column = 2.0 * labels + np.random.RandomState(0).normal(size=240)
    clean, huge = column[:, None].copy(), column[:, None].copy()
    huge[:n_huge] = value
    net, reference = small(max_epochs=20).fit(huge, labels), small(max_epochs=20).fit(clean, labels)
    expected = reference.score(clean[n_huge:], labels[n_huge:])
    assert expected > 0.8
    assert net.score(clean[n_huge:], labels[n_huge:]) > expected - 0.05


@pytest.mark.parametrize("constant", [1e-300, -np.pi, 1e300])
def test_constants_are_nothing(constant):
    rows, zeros = np.full((240, 7), constant), np.zeros((240, 7))
    rows[:, :6] = zeros[:, :6] = X
    net, reference = small().fit(rows, Y), small().fit(zeros, Y)
    np.testing.assert_array_equal(net.predict_proba(rows), reference.predict_proba(zeros))


# What a net is told to be

CONSTRUCTOR = [
    ("trunk", "cnn", "a str among {'mlp', 'resnet', 'tabm'} or a callable"),
    ("width", 0, "an int in the range [1, inf)"),
    ("width", 1.5, "an int in the range [1, inf)"),
    ("depth", 0, "an int in the range [1, inf)"),
    ("dropout", 1.0, "a float in the range [0.0, 1.0)"),
    ("trunk_params", [("k", 3)], "an instance of 'dict' or None"),
    ("head", "cosine", "a str among {'linear', 'orthogonal', 'hadamard', 'simplex'}"),
    ("head_rows", 0, "an int in the range [1, inf) or None"),
    ("lr", 0.0, "a float in the range (0.0, inf)"),
    ("lr", np.nan, "a float in the range (0.0, inf)"),
    ("lr", np.inf, "a float in the range (0.0, inf)"),
    ("lr_schedule", "linear", "a str among {'constant', 'cosine'}"),
    ("average_epochs", -1.0, "a float in the range [0.0, inf)"),
    ("weight_decay", -0.1, "a float in the range [0.0, inf)"),
    ("max_epochs", 0, "an int in the range [1, inf)"),
    ("max_epochs", 2.0, "an int in the range [1, inf)"),
    ("batch_size", 0, "an int in the range [1, inf) or a str among {'auto'}"),
    ("batch_size", "all", "an int in the range [1, inf) or a str among {'auto'}"),
    ("patience", 0, "an int in the range [1, inf)"),
    ("class_weight", "even", "an instance of 'dict', a str among {'balanced'} or None"),
    ("class_weight", [1.0, 2.0], "an instance of 'dict', a str among {'balanced'} or None"),
    ("logit_adjustment", -1.0, "a float in the range [0.0, inf)"),
    ("missing", "drop", "a str among {'error', 'mean'}"),
    ("dtype", "float16", "a str among {'float32', 'float64'}"),
    ("net_params", [("lr", 1)], "an instance of 'dict' or None"),
    ("warm_start", "yes", f"an instance of 'bool' or an instance of 'numpy.{np.bool_.__name__}'"),
    ("device", 0, "an instance of 'str' or an instance of 'torch.device'"),
    ("random_state", "seed", "an int in the range [0, 4294967295]"),
    ("verbose", -1, "an int in the range [0, inf)"),
]


def words(text):
    """The words of a message; the names in a set come in any order."""
    return set(re.findall(r"[^\s,{}.]+", text))


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("name, value, valid", CONSTRUCTOR)
def test_parameters_are_checked_before_training(method, name, value, valid):
    net = untrained(**{name: value})
    with pytest.raises(ValueError) as caught:
        getattr(net, method)(X, Y)
    message = str(caught.value)
    assert f"The {name!r} parameter of TabularNet must be" in message
    assert words(valid) <= words(message)
    assert f"Got {value!r} instead" in message
    assert fitted_attributes(net) == []


def test_every_parameter_is_checked_here():
    assert {name for name, _, _ in CONSTRUCTOR} | {"validation"} == set(TabularNet().get_params())


NO_VALIDATION = {
    "0.0": 0.0,
    "1.0": 1.0,
    "5": 5,
    "-0.1": -0.1,
    "nan": np.nan,
    "True": True,
    repr(np.False_): np.False_,
    "'atuo'": "atuo",
    "''": "",
    "'none'": "none",
    "'0.2'": "0.2",
    "<object object at": object(),
    "<class 'sklearn.model_selection._split.KFold'>": KFold,
    "a tuple of 0": (),
    "a tuple of 1": (X,),
    "a tuple of 4": (X, Y, W, W),
}


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("shown, value", NO_VALIDATION.items(), ids=list(NO_VALIDATION))
def test_what_cannot_be_validation_is_refused(method, shown, value):
    net = untrained(validation=value)
    message = (
        "validation must be a number in (0, 1), a splitter, an iterable of (train, test) indices, "
        f"a tuple (X, y) or (X, y, sample_weight), 'auto' or None; got {shown}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        getattr(net, method)(X, Y)
    assert fitted_attributes(net) == []


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, "a", None, True], ids=repr)
def test_class_weights_that_are_no_weights_are_refused(method, value):
    net = untrained(class_weight={0: value, 1: 1.0})
    message = f"class_weight must map classes to finite numbers >= 0; got {{0: {value!r}, 1: 1.0}}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        getattr(net, method)(X, Y)
    assert fitted_attributes(net) == []


def test_class_weights_must_leave_a_row():
    net = untrained(class_weight={0: 0.0, 1: 0.0})
    with pytest.raises(ValueError, match=r"class_weight=\{0: 0\.0, 1: 0\.0\} leaves no row with a"):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:3", torch.device("cuda")], ids=str)
def test_a_device_that_is_not_there_is_named(device):
    message = re.escape(f"device must be 'auto' or a device that torch has here; got {device!r}: ")
    with pytest.raises(ValueError, match=message):
        untrained(device=device).fit(X, Y)


@pytest.mark.parametrize(
    "device, reason", [("nonsense", "Expected one of"), ("meta", "Cannot copy out of meta tensor")]
)
def test_a_device_that_cannot_train_is_named(device, reason):
    message = rf"device must be 'auto' or .*; got '{device}': {reason}"
    with pytest.raises(ValueError, match=message):
        untrained(device=device).fit(X, Y)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")], ids=repr)
def test_a_device_may_be_a_name_or_a_device(device):
    np.testing.assert_array_equal(small(device=device).fit(X, Y).predict_proba(X), REFERENCE)


RESERVED = [
    "module",
    "module__trunk",
    "lr",
    "max_epochs",
    "batch_size",
    "train_split",
    "device",
    "verbose",
    "warm_start",
    "classes",
    "dataset",
    "iterator_train",
    "iterator_train__shuffle",
    "iterator_valid__batch_size",
    "predict_nonlinearity",
    "criterion",
    "criterion__reduction",
    "optimizer__lr",
    "logit_offset",
    "callbacks__print_log",
]


@pytest.mark.parametrize("name", RESERVED)
def test_net_params_do_not_hold_what_has_a_parameter_of_its_own(name):
    message = (
        rf"net_params must not hold '{name}', which TabularNet sets itself: use its own .*'lr'"
    )
    net = untrained(net_params={name: 1, "callbacks": [NoTraining()]})
    with pytest.raises(ValueError, match=message):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("optimzer", ValueError, r"unexpected argument\(s\) optimzer"),
        ("optimizer__betaz", TypeError, "unexpected keyword argument 'betaz'"),
        ("criterion__label_smooth", TypeError, "unexpected keyword argument 'label_smooth'"),
    ],
)
def test_misspelt_net_params_are_named(name, error, message):
    net = untrained(net_params={name: 0.5, "callbacks": [NoTraining()]})
    with pytest.raises(error, match=message):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


@pytest.mark.parametrize(
    "callbacks",
    [skorch.callbacks.EpochTimer(), "disable", [1], NoTraining],
    ids=["no list", "a string", "a number", "a class"],
)
def test_callbacks_are_a_list_of_callbacks(callbacks):
    net = small(net_params={"callbacks": callbacks})
    message = r"^net_params\['callbacks'\] must be a list of skorch callbacks; got "
    with pytest.raises(TypeError, match=message):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


@pytest.mark.parametrize(
    "trunk, message",
    [
        (torch.nn.Linear(6, 5), "trunk must be a class or a function .*; got the module Linear"),
        (lambda n_inputs: None, "trunk '<lambda>' must make a torch module; it made None"),
        (lambda: torch.nn.Identity(), "trunk '<lambda>' cannot be made of 6 inputs and {}: "),
        (torch.nn.Linear, "trunk 'Linear' cannot be made of 6 inputs and {}: .*'out_features'"),
    ],
    ids=["module", "makes none", "takes no inputs", "lacks a parameter"],
)
def test_trunks_that_make_no_module_are_refused(trunk, message):
    net = untrained(trunk)
    with pytest.raises(TypeError, match=f"^{message}"):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


def test_parameters_that_a_trunk_does_not_take_are_named():
    net = untrained(trunk_params={"n_heads": 4})
    message = r"^trunk 'mlp' cannot be made of 6 inputs and .*keyword argument 'n_heads'$"
    with pytest.raises(TypeError, match=message):
        net.fit(X, Y)


class Trunk(torch.nn.Module):
    """A trunk whose output is whatever a function makes of it."""

    def __init__(self, n_inputs, made):
        super().__init__()
        self.linear, self.made = torch.nn.Linear(n_inputs, 4), made

    def forward(self, x):
        return self.made(self.linear(x))


@pytest.mark.parametrize(
    "made, shape",
    [
        (lambda x: x[:1], "(1, 4)"),
        (lambda x: x[:, 0], "(2,)"),
        (lambda x: x.sum(), "()"),
        (lambda x: x[:, None, None], "(2, 1, 1, 4)"),
        (lambda x: (x, x), "tuple"),
    ],
    ids=["a row less", "one number", "a scalar", "four dimensions", "a pair"],
)
def test_trunks_of_the_wrong_shape_are_refused(made, shape):
    net = untrained(Trunk, trunk_params={"made": made})
    message = (
        "A trunk must map (n_rows, n_inputs) to (n_rows, n_outputs), or to (n_rows, n_members, "
        f"n_outputs) for an ensemble; trunk Trunk maps (2, 6) to {shape}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


@pytest.mark.parametrize(
    "made, shape",
    [(lambda x: x, (4, 2)), (lambda x: x.unflatten(1, (2, 2)), (2, 2, 2))],
    ids=["single", "ensemble"],
)
def test_trunks_of_either_shape_are_taken(made, shape):
    net = small(Trunk, trunk_params={"made": made}).fit(X, Y)
    assert net.net_.module_.head.weight.numel() == np.prod(shape)
    np.testing.assert_allclose(net.predict_proba(X).sum(axis=1), 1)


def test_a_callable_gets_the_parameters_that_it_names():
    seen = []

    def trunk(n_inputs, depth, dropout, units):
        seen.append((n_inputs, depth, dropout, units))
        return torch.nn.Linear(n_inputs, units)

    small(trunk, width=3, depth=4, dropout=0.25, trunk_params={"units": 5}).fit(X, Y)
    small(trunk, trunk_params={"units": 6, "dropout": 0.0, "depth": 1}).fit(X, Y)
    assert seen == [(6, 4, 0.25, 5), (6, 1, 0.0, 6)]


# What a fit is given


@pytest.mark.parametrize(
    "weight, message",
    [
        (W[:5], "sample_weight.shape == (5,), expected (240,)!"),
        (np.c_[W, W], "Sample weights must be 1D array or scalar"),
        (-W, "Negative values in data passed to `sample_weight`"),
        (np.where(W > 1, np.nan, W), "Input sample_weight contains NaN"),
        (np.where(W > 1, np.inf, W), "Input sample_weight contains infinity"),
        (1.0 * (Y == 0), "TabularNet needs at least two classes; got 1 class: ["),
    ],
    ids=["short", "two columns", "negative", "nan", "inf", "one class left"],
)
def test_bad_weights_are_refused(weight, message):
    net = untrained()
    with pytest.raises(ValueError, match=re.escape(message)):
        net.fit(X, Y, weight)
    assert fitted_attributes(net) == []


def test_some_row_needs_a_weight():
    with pytest.raises(ValueError, match=r"(?i)sample.weights? .*zero"):
        untrained().fit(X, Y, np.zeros(240))


WEIGHT_CONTAINERS = [
    lambda w: w.tolist(),
    pd.Series,
    lambda w: pd.Series(w, index=np.arange(240)[::-1]),
    pl.Series,
    lambda w: w.astype(object),
]


@pytest.mark.parametrize(
    "convert", WEIGHT_CONTAINERS, ids=["list", "pandas", "pandas index", "polars", "objects"]
)
def test_weights_in_any_container(convert):
    reference = small().fit(X, Y, W).predict_proba(X)
    np.testing.assert_array_equal(small().fit(X, Y, convert(W)).predict_proba(X), reference)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
@pytest.mark.parametrize(
    "rows, message",
    [
        (X[:, :3], "X has 3 features, but TabularNet is expecting 6 features as input."),
        (X[0], "Expected 2D array, got 1D array instead"),
        (X[:0], "Found array with 0 sample(s) (shape=(0, 6))"),
        (X[None], "Found array with dim 3"),
    ],
    ids=["narrow", "one row", "no row", "three dimensions"],
)
def test_rows_of_the_wrong_shape_are_not_predicted(method, rows, message):
    net = small().fit(X, Y)
    targets = {"score": [Y]}.get(method, [])
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(net, method)(rows, *targets)


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_a_net_that_is_not_fitted_does_not_predict(method):
    with pytest.raises(NotFittedError, match="This TabularNet instance is not fitted yet"):
        getattr(small(), method)(X)


def test_a_net_that_is_not_fitted_counts_nothing():
    with pytest.raises(NotFittedError):
        small().count_multiply_adds()


# partial_fit and warm starts


def test_the_first_partial_fit_needs_the_classes():
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        untrained().partial_fit(X, Y)


def test_partial_fit_needs_two_classes():
    net = untrained()
    with pytest.raises(ValueError, match="TabularNet needs at least two classes; got 1 class"):
        net.partial_fit(X, np.zeros(240), classes=[0])
    assert fitted_attributes(net) == []


def test_partial_fit_refuses_other_classes():
    net = small().partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"`classes=\[0, 1, 2\]` is not the same as on last call"):
        net.partial_fit(X, Y, classes=[0, 1, 2])
    assert net.partial_fit(X, Y, classes=[1, 0]).n_iter_ == 2


UNSEEN = [
    pytest.param(Y + 1, "y has the labels [2], which are not among the classes [0, 1].", id="ints"),
    pytest.param(
        np.where(Y == 1, "1", "0"),
        "y has the labels ['0', '1'], which are not among the classes [0, 1].",
        id="strings",
    ),
    pytest.param(
        Y - 1, "y has the labels [-1], which are not among the classes [0, 1].", id="smaller"
    ),
    pytest.param(
        np.where(Y == 1, "b", "a").astype(object),
        "y has the labels ['a', 'b'], which are not among the classes [0, 1].",
        id="objects",
    ),
    pytest.param(
        2 + np.arange(240) % 50,
        "y has the labels [2, 3, 4, 5, 6, 7, 8, 9, 10, 11], which are not among the classes "
        "[0, 1].",
        id="many",
    ),
]


@pytest.mark.parametrize("labels, message", UNSEEN)
def test_labels_that_the_net_does_not_know_are_named(labels, message):
    net = small(warm_start=True).partial_fit(X, Y, classes=[0, 1])
    before = net.predict_proba(X)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        net.partial_fit(X, labels)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        net.fit(X, labels)
    np.testing.assert_array_equal(net.predict_proba(X), before)
    np.testing.assert_array_equal(net.classes_, [0, 1])


@pytest.mark.parametrize("labels, message", UNSEEN)
def test_labels_of_validation_that_the_net_does_not_know_are_named(labels, message):
    net = untrained(validation=(X, labels))
    message = f"The rows given as validation: {message}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


def test_the_first_partial_fit_that_fails_leaves_nothing():
    net = untrained()
    with pytest.raises(ValueError, match=r"y has the labels \[1\], which are not among"):
        net.partial_fit(X, Y, classes=[0, 5])
    assert fitted_attributes(net) == []


def test_there_is_no_partial_fit_of_balanced_classes():
    assert hasattr(small(class_weight={0: 2.0}), "partial_fit")
    assert not hasattr(small(class_weight="balanced"), "partial_fit")
    with pytest.raises(AttributeError, match="has no attribute 'partial_fit'") as caught:
        untrained(class_weight="balanced").partial_fit(X, Y, classes=[0, 1])
    assert str(caught.value.__cause__) == (
        "partial_fit does not know all rows, as class_weight='balanced' needs: give a dict of "
        "class weights."
    )


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_rows_of_another_width_are_refused_in_further_fits(method):
    net = small(warm_start=True).fit(X, Y)
    before = net.predict_proba(X)
    with pytest.raises(ValueError, match="X has 3 features, but TabularNet is expecting 6"):
        getattr(net, method)(X[:, :3], Y)
    np.testing.assert_array_equal(net.predict_proba(X), before)
    assert net.n_features_in_ == 6


# Validation

BY_GROUP = GroupShuffleSplit(1, random_state=0)
ALL = np.arange(240)
GIVEN = "The rows given as validation:"


@pytest.mark.parametrize(
    "validation, message",
    [
        ((X[:, :3], Y), f"{GIVEN} X has 3 features, but TabularNet is expecting 6 features as"),
        ((X, Y[:5]), f"{GIVEN} y must have shape (240,), like its X; got (5,)."),
        ((X, np.c_[Y, Y]), f"{GIVEN} y must have shape (240,), like its X; got (240, 2)."),
        ((HOLED, Y), f"{GIVEN} Input X contains NaN."),
        ((X, Y, W[:5]), f"{GIVEN} sample_weight.shape == (5,), expected (240,)!"),
        ((X, Y, -W), f"{GIVEN} Negative values in data passed to `sample_weight`"),
        pytest.param(
            (X, Y, 0 * W),
            f"{GIVEN} Sample weights must contain at least one non-zero number.",
            marks=since_1_7,
        ),
        ([], "validation=a list of 0 gives no split."),
        ([1, 2], "Split 0 of validation must be a pair (train, test) of indices; got 1."),
        (
            [(ALL, ALL + 1)],
            "The test part of split 0 of validation must hold indices from 0 to 239, or a mask of "
            "240 rows; got 1 to 240.",
        ),
        ([(ALL, [])], "validation=a list of 1 gives no split."),
        ([([], ALL)], "validation=a list of 1 leaves no training row of the classes [0, 1]."),
        (
            [(ALL[Y == 0], ALL[Y == 1])],
            "validation=a list of 1 leaves no training row of the classes [1].",
        ),
        (PredefinedSplit(np.where(Y == 1, 0, -1)), "leaves no training row of the classes [1]."),
        (BY_GROUP, "The 'groups' parameter should not be None."),
        (KFold(1000), "Cannot have number of splits n_splits=1000"),
    ],
)
def test_bad_validation_is_refused_before_training(validation, message):
    net = untrained(validation=validation)
    with pytest.raises(ValueError, match=re.escape(message)):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


def test_a_fraction_of_hardly_any_rows_is_refused():
    rows = [0, 1, int(np.flatnonzero(Y != Y[0])[0])]
    with pytest.raises(ValueError, match=r"validation=0\.001 leaves none of 3 rows to valid"):
        untrained(validation=0.001).fit(X[rows], Y[rows])


def test_a_splitter_in_an_error_is_short():
    net = untrained(validation=PredefinedSplit(np.where(Y == 1, 0, -1)))
    with pytest.raises(ValueError, match=r"^validation=.* leaves no training row") as caught:
        net.fit(X, Y)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    "validation",
    ["auto", None, 0.2, [(ALL, ALL)], (X, Y)],
    ids=["auto", "none", "part", "indices", "rows"],
)
@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("name", ["groups", "sample_weigth"])
def test_arguments_of_fit_that_nobody_takes_are_named(validation, routing, name):
    net = untrained(validation=validation)
    message = (
        rf"fit got the parameters \['{name}'\], which only a splitter given as validation takes; "
        "got validation="
    )
    with config_context(enable_metadata_routing=routing):
        with pytest.raises(TypeError, match=message):
            net.fit(X, Y, **{name: ALL})
    assert fitted_attributes(net) == []


def test_misspelt_arguments_are_named():
    with pytest.raises(TypeError, match="unexpected keyword argument 'group'"):
        untrained(validation=BY_GROUP).fit(X, Y, group=ALL)
    with pytest.raises(TypeError, match="unexpected keyword argument 'groups'"):
        untrained().partial_fit(X, Y, classes=[0, 1], groups=ALL)


@pytest.mark.parametrize(
    "validation, name", [(TimeSeriesSplit(3), "groups"), (BY_GROUP, "group")], ids=str
)
def test_split_parameters_that_nobody_requests_are_named(validation, name):
    with config_context(enable_metadata_routing=True):
        with pytest.raises(TypeError, match=rf"TabularNet.fit got unexpected argument.*{name}"):
            untrained(validation=validation).fit(X, Y, **{name: ALL})


def test_groups_of_the_wrong_length_are_refused():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        untrained(validation=BY_GROUP).fit(X, Y, groups=ALL[:5])

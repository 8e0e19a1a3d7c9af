"""TensorBatches gives the batches of torch's DataLoader, whole."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import make_classification

torch = pytest.importorskip("torch")
skorch = pytest.importorskip("skorch")

from skorch.callbacks import EpochScoring  # noqa: E402
from skorch.dataset import Dataset, ValidSplit  # noqa: E402
from torch.utils.data import DataLoader, Subset, TensorDataset  # noqa: E402

from skmsc.neural import TabularNet, TensorBatches  # noqa: E402
from skmsc.neural._batches import suits  # noqa: E402

N = 23
A = np.random.default_rng(0).normal(scale=20, size=(N, 3))
ROWS = np.arange(N)
LABELS = ROWS % 3
FLOATS, CLASSES = make_classification(100, n_features=6, n_informative=4, random_state=0)
FLOATS, CLASSES = FLOATS.astype(np.float32), CLASSES.astype(np.int64)

KINDS_OF_X = {
    "float64": A,
    "float32": A.astype(np.float32),
    "float16": A.astype(np.float16),
    "int8": A.astype(np.int8),
    "uint8": np.abs(A).astype(np.uint8),
    "uint16": np.abs(A).astype(np.uint16),
    "int32": A.astype(np.int32),
    "int64": A.astype(np.int64),
    "bool": A > 0,
    "one_dimension": A[:, 0],
    "three_dimensions": A[:, :, None] * np.ones(4),
    "fortran": np.asfortranarray(A),
    "every_second_column": np.repeat(A, 2, axis=1)[:, ::2],
    "rows_reversed": A[::-1],
    "masked": np.ma.array(A, mask=A > 0),
    "nan": np.where(A > 0, np.nan, A),
    "tensor": torch.tensor(A),
    "bfloat16_tensor": torch.tensor(A).bfloat16(),
    "csr": sparse.csr_matrix(A * (A > 0)),
    "csc": sparse.csc_matrix(A * (A > 0)),
    "float32_csr": sparse.csr_matrix((A * (A > 0)).astype(np.float32)),
    "dict": {"a": A, "b": LABELS, "c": torch.tensor(A)},
    "dict_of_columns": {"a": pd.Series(A[:, 0]), "b": A[:, 0].tolist()},
    "list_of_arrays": [A, A[:, :1].astype(np.float32)],
    "list_of_one_array": [A],
    "tuple_of_arrays": (A, LABELS),
    "list_of_numbers": A[:, 0].tolist(),
}
KINDS_OF_Y = {
    "none": None,
    "labels": LABELS,
    "float32": A[:, 0].astype(np.float32),
    "two_dimensions": A,
    "tensor": torch.tensor(LABELS),
    "list": LABELS.tolist(),
    "series": pd.Series(LABELS, index=range(50, 50 + N)),
    "dict": {"a": LABELS, "b": A},
    "tuple": (LABELS, A),
}
# What a DataLoader does not take, and the same in a form that it takes.
KINDS_OF_X_OF_OURS = {
    "columns_reversed": (A[:, ::-1], A[:, ::-1].copy()),
    "big_endian": (A.astype(">f8"), A),
    "big_endian_integers": (A.astype(">i4"), A.astype(np.int32)),
    "sparse_array": (sparse.csr_array(A), A),
    "coo": (sparse.coo_matrix(A), A),
    "sparse_in_dict": ({"a": sparse.csr_matrix(A), "b": A}, {"a": A, "b": A}),
    "dataframe": (
        pd.DataFrame({"a": A[:, 0], "b": LABELS, "c": A[:, 1] > 0}, index=range(50, 50 + N)),
        {"a": A[:, :1], "b": LABELS[:, None], "c": A[:, 1:2] > 0},
    ),
    "nullable_column": (
        pd.DataFrame({"a": pd.array(LABELS, dtype="Int64")}),
        {"a": LABELS[:, None]},
    ),
}
SUBSETS = {
    "all": lambda data: data,
    "list": lambda data: Subset(data, [5, 1, 1, 22, 0, 7]),
    "array": lambda data: Subset(data, np.array([5, 1, 1, 22, 0, 7], dtype=np.uint16)),
    "range": lambda data: Subset(data, range(3, 14)),
    "subset_of_subset": lambda data: Subset(Subset(data, ROWS[::2]), [3, 0, 0, 9, 4]),
    "empty": lambda data: Subset(data, []),
}
WHOLE_OR_PART = {name: SUBSETS[name] for name in ("all", "array")}
NEEDS = (
    "TensorBatches needs a skorch Dataset, or a Subset of one, whose X and y are numeric arrays, "
    "tensors, sparse matrices, dataframes or dicts of these; "
)


def named(kinds):
    return {"argvalues": list(kinds.values()), "ids": list(kinds)}


def assert_same_batches(ours, theirs):
    """Equal values, dtypes and shapes, in containers too."""
    torch.testing.assert_close(list(ours), list(theirs), rtol=0, atol=0, equal_nan=True)


def rows_in(batches):
    """Labels of one epoch, in their order."""
    return [label for _, y in batches for label in y.tolist()]


@pytest.fixture
def every_warning():
    """Torch warns of an array that it must not write to once per process, unless told otherwise."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


@pytest.mark.parametrize("subset", **named(WHOLE_OR_PART))
@pytest.mark.parametrize("X", **named(KINDS_OF_X))
def test_batches_of_X_are_those_of_a_dataloader(X, subset):
    data = subset(Dataset(X, LABELS))
    assert_same_batches(TensorBatches(data, batch_size=4), DataLoader(data, batch_size=4))


@pytest.mark.parametrize("subset", **named(WHOLE_OR_PART))
@pytest.mark.parametrize("y", **named(KINDS_OF_Y))
def test_batches_of_y_are_those_of_a_dataloader(y, subset):
    data = subset(Dataset(A, y))
    assert_same_batches(TensorBatches(data, batch_size=4), DataLoader(data, batch_size=4))


@pytest.mark.parametrize("subset", **named(WHOLE_OR_PART))
@pytest.mark.parametrize(("X", "plain"), **named(KINDS_OF_X_OF_OURS))
def test_X_that_a_dataloader_does_not_take_is_made_plain(X, plain, subset):
    ours = TensorBatches(subset(Dataset(X, LABELS)), batch_size=4)
    assert_same_batches(ours, DataLoader(subset(Dataset(plain, LABELS)), batch_size=4))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("X", [A, sparse.csr_matrix(A)], ids=["dense", "sparse"])
@pytest.mark.parametrize("subset", **named(SUBSETS))
def test_subsets_are_followed_in_every_epoch(subset, X, device, drop_last):
    data = subset(Dataset(X, LABELS))
    ours = TensorBatches(data, 4, drop_last=drop_last, device=device)
    theirs = DataLoader(data, 4, drop_last=drop_last)
    assert_same_batches(ours, theirs)
    assert_same_batches(ours, theirs)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 23, 24, np.int64(7)])
@pytest.mark.parametrize("n_samples", [0, 1, 8, 23])
def test_as_many_batches_as_a_dataloader_has(n_samples, batch_size, drop_last):
    data = Dataset(A[:n_samples], LABELS[:n_samples])
    ours = TensorBatches(data, batch_size, drop_last=drop_last)
    theirs = DataLoader(data, int(batch_size), drop_last=drop_last)
    assert len(ours) == len(theirs) == len(list(ours))


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("subset", **named(SUBSETS))
def test_a_shuffled_epoch_has_each_row_once_with_its_label(subset, device):
    data = subset(Dataset({"dense": A, "sparse": sparse.csr_matrix(A)}, ROWS))
    batches = TensorBatches(data, 4, shuffle=True, device=device)
    for X, y in batches:
        np.testing.assert_array_equal(X["dense"], A[y.numpy()])
        np.testing.assert_array_equal(X["sparse"], A[y.numpy()])
    in_order = DataLoader(subset(Dataset(A, ROWS)), 4)
    assert sorted(rows_in(batches)) == sorted(rows_in(in_order))


def test_orders_differ_between_epochs_and_repeat_with_the_seed():
    first, second = (
        TensorBatches(Dataset(A, ROWS), 4, shuffle=True, generator=torch.Generator().manual_seed(7))
        for _ in range(2)
    )
    orders = [rows_in(first) for _ in range(3)]
    assert orders == [rows_in(second) for _ in range(3)]
    assert len({tuple(order) for order in [*orders, ROWS.tolist()]}) == 4


def test_own_generator_leaves_torchs_alone_which_is_drawn_from_otherwise():
    data = Dataset(A, ROWS)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    rows_in(TensorBatches(data, 4, shuffle=True, generator=torch.Generator()))
    rows_in(TensorBatches(data, 4))
    assert torch.equal(torch.get_rng_state(), state)
    order = rows_in(TensorBatches(data, 4, shuffle=True))
    torch.manual_seed(3)
    assert rows_in(TensorBatches(data, 4, shuffle=True)) == order


def test_dropped_rows_of_a_shuffled_epoch_are_others_in_the_next():
    batches = TensorBatches(
        Dataset(A, ROWS), 4, True, drop_last=True, generator=torch.Generator().manual_seed(0)
    )
    epochs = [rows_in(batches) for _ in range(5)]
    assert [len(set(epoch)) for epoch in epochs] == [20] * 5
    assert len({frozenset(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("subset", **named(WHOLE_OR_PART))
@pytest.mark.parametrize("X", [A, np.asfortranarray(A), A[:, 1:]], ids=["C", "fortran", "view"])
def test_X_is_not_copied(X, subset, shuffle):
    batches = TensorBatches(subset(Dataset(X)), shuffle=shuffle)
    list(batches)
    assert np.shares_memory(batches._X.numpy(), X)


def test_data_of_a_sparse_X_are_not_copied():
    X = sparse.csr_matrix(A)
    assert np.shares_memory(TensorBatches(Dataset(X))._X.data, X.data)


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("make", [np.array, sparse.csr_matrix, torch.tensor])
def test_batches_may_be_written_to(make, shuffle, device):
    X, labels = make(A), LABELS.copy()
    batches = TensorBatches(Dataset(X, labels), 4, shuffle=shuffle, device=device)
    for Xi, yi in batches:
        Xi.fill_(-1)
        yi.fill_(-1)
    np.testing.assert_array_equal(sparse.csr_matrix(X).toarray(), A)
    np.testing.assert_array_equal(labels, LABELS)
    assert sorted(rows_in(batches)) == sorted(LABELS)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_memory_map_that_must_not_be_written_to(tmp_path, every_warning, shuffle):
    np.save(tmp_path / "X.npy", A)
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    batches = TensorBatches(Dataset(X, ROWS), 4, shuffle=shuffle)
    for Xi, yi in batches:
        np.testing.assert_array_equal(Xi, A[yi.numpy()])
        Xi.fill_(-1)
    np.testing.assert_array_equal(X, A)
    assert np.shares_memory(batches._X.numpy(), X)


@pytest.mark.parametrize(
    "X",
    [np.broadcast_to(A[0], A.shape), np.broadcast_to(A, (2, N, 3))[1], np.frombuffer(bytes(8 * N))],
    ids=["one_row", "view", "bytes"],
)
def test_read_only_arrays_of_any_strides(X, every_warning):
    assert not X.flags.writeable
    assert_same_batches(
        TensorBatches(Dataset(X, LABELS), 4), DataLoader(Dataset(X.copy(), LABELS), 4)
    )


def fitted(X, **params):
    torch.manual_seed(0)
    defaults = {
        "criterion": torch.nn.CrossEntropyLoss,
        "lr": 0.1,
        "max_epochs": 3,
        "batch_size": 16,
        "callbacks": [EpochScoring("roc_auc", name="train_auc", on_train=True)],
        "verbose": 0,
    }
    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    return skorch.NeuralNetClassifier(module, **(defaults | params)).fit(X, CLASSES)


@pytest.mark.parametrize(
    "iterators",
    [
        {"iterator_train": TensorBatches},
        {"iterator_valid": TensorBatches},
        {"iterator_train": TensorBatches, "iterator_valid": TensorBatches},
    ],
    ids=["train", "valid", "both"],
)
@pytest.mark.parametrize(
    ("X", "params"),
    [
        (FLOATS, {"train_split": ValidSplit(4)}),
        (FLOATS, {"train_split": ValidSplit(0.3, stratified=True, random_state=0)}),
        (FLOATS, {"train_split": ValidSplit(4), "iterator_train__drop_last": True}),
        (FLOATS, {"train_split": ValidSplit(4), "callbacks": [EpochScoring("f1")]}),
        (FLOATS, {"train_split": None}),
        (FLOATS, {"train_split": None, "batch_size": -1}),
        (sparse.csr_matrix(FLOATS), {"train_split": ValidSplit(4)}),
        ({"input": FLOATS}, {"train_split": ValidSplit(4)}),
    ],
    ids=[
        "split",
        "stratified_split",
        "drop_last",
        "callback",
        "no_split",
        "one_batch",
        "sparse",
        "dict",
    ],
)
def test_a_net_learns_and_answers_the_same_bit_for_bit(X, params, iterators):
    ours, theirs = fitted(X, **params, **iterators), fitted(X, **params)
    names = sorted(theirs.history[0].keys() - {"batches", "dur"})
    assert ours.history[:, names] == theirs.history[:, names]
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, True),
        ({"iterator_train__shuffle": True, "iterator_valid__batch_size": 8}, True),
        ({"iterator_train": TensorBatches}, False),
        ({"iterator_valid": TensorBatches}, False),
        ({"iterator_train__num_workers": 1}, False),
        ({"iterator_valid__collate_fn": list}, False),
        ({"dataset": TensorDataset}, False),
    ],
)
def test_which_nets_may_get_these_batches(params, expected):
    net = skorch.NeuralNetClassifier(torch.nn.Linear, **params)
    assert suits(net) is expected


@pytest.mark.parametrize("batch_size", [0, -1, np.int64(0)])
def test_batch_size_below_one(batch_size):
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1; got"):
        TensorBatches(Dataset(A), batch_size)


@pytest.mark.parametrize("batch_size", [2.0, True, "4", None])
def test_batch_size_that_is_no_integer(batch_size):
    with pytest.raises(TypeError) as error:
        TensorBatches(Dataset(A), batch_size)
    assert str(error.value) == f"batch_size must be an integer >= 1; got {batch_size!r}."


@pytest.mark.parametrize(
    ("X", "y", "found"),
    [
        (A.astype(object), None, "X has dtype object."),
        (A.astype(str), None, "X has dtype <U32."),
        (A + 0j, None, "X has dtype complex128."),
        (np.full((N, 1), "2020-01-01", dtype="M8[D]"), None, "X has dtype datetime64[D]."),
        ({"a": A, "b": A.astype(object)}, None, "X has dtype object."),
        ([A, A.astype(object)], None, "X has dtype object."),
        (pd.DataFrame({"a": LABELS, "b": ["x"] * N}), None, "X has dtype object."),
        (A, LABELS.astype(object), "y has dtype object."),
        (A, LABELS.astype("U1"), "y has dtype <U1."),
    ],
    ids=[
        "object",
        "string",
        "complex",
        "datetime",
        "in_dict",
        "in_list",
        "dataframe",
        "y_object",
        "y_string",
    ],
)
def test_values_that_are_no_numbers(X, y, found):
    with pytest.raises(TypeError) as error:
        TensorBatches(Dataset(X, y))
    assert str(error.value).startswith(NEEDS + found)


class Doubled(Dataset):
    def transform(self, X, y):
        return super().transform(2 * X, y)


@pytest.mark.parametrize("subset", **named(WHOLE_OR_PART))
@pytest.mark.parametrize(
    ("data", "name"),
    [
        (Doubled(A, LABELS), "Doubled"),
        (TensorDataset(torch.tensor(A), torch.tensor(LABELS)), "TensorDataset"),
        (list(zip(A, LABELS, strict=True)), "list"),
    ],
    ids=["own_transform", "tensor_dataset", "list"],
)
def test_datasets_of_another_kind(data, name, subset):
    with pytest.raises(TypeError) as error:
        TensorBatches(subset(data))
    assert str(error.value) == f"{NEEDS}got {name}."


def test_a_dataset_that_makes_its_rows_itself_is_refused():
    class Doubled(Dataset):
        def __getitem__(self, i):
            Xi, yi = super().__getitem__(i)
            return 2 * Xi, yi

    class Reversed(Subset):
        def __getitems__(self, idx):
            return super().__getitems__([len(self) - 1 - i for i in idx])

    X, y = np.ones((4, 2)), np.zeros(4)
    shifted = Dataset(X, y)
    shifted.transform = lambda X, y: (X + 1, y)
    for data in (Doubled(X, y), Reversed(Dataset(X, y), [0, 1]), shifted):
        with pytest.raises(TypeError, match="TensorBatches needs a skorch Dataset"):
            TensorBatches(data)


@pytest.mark.parametrize("idx", [[-1, 0], np.arange(8)[::-1], np.array([3, 1])])
def test_indices_as_dataloader_takes_them(idx):
    X, y = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8)
    idx = np.asarray(idx)
    idx.flags.writeable = False
    ((Xi, yi),) = TensorBatches(Subset(Dataset(X, y), idx))
    np.testing.assert_array_equal(Xi, X[idx])
    np.testing.assert_array_equal(yi, y[idx])
    assert list(TensorBatches(Subset(Subset(Dataset(X, y), idx), []))) == []


@pytest.mark.parametrize("idx", [[0.5, 1.0], [True, False], [8], [-9]])
def test_indices_that_mean_nothing_are_refused(idx):
    with pytest.raises(IndexError, match="must be integers from -8 to 7"):
        TensorBatches(Subset(Dataset(np.ones((8, 2)), np.ones(8)), idx))


@pytest.mark.parametrize("device", [None, "cpu"])
def test_batches_of_columns_in_memory_order_are_contiguous(device):
    data = Dataset(np.asfortranarray(np.random.default_rng(0).normal(size=(8, 3))), np.arange(8))
    assert all(Xi.is_contiguous() for Xi, _ in TensorBatches(data, 4, device=device))


def test_data_move_to_a_device_once():
    batches = TensorBatches(Dataset(np.ones((8, 2)), np.arange(8)), 4, device="cpu")
    list(batches)
    moved = batches._X
    list(batches)
    assert batches._X is moved


def test_lists_of_lists_hold_columns_as_skorch_has_it():
    X, y = [[1.0, 2.0, 3.0], np.array([4.0, 5.0, 6.0])], np.arange(3)
    ((Xi, _),) = TensorBatches(Dataset(X, y))
    np.testing.assert_array_equal(Xi[0], X[0])
    np.testing.assert_array_equal(Xi[1], X[1])


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"y must have 8 rows; got shape \(3,\)"):
        TensorBatches(Dataset(np.ones((8, 2)), np.ones(3), length=8))


def test_a_field_of_a_record_array():
    records = np.zeros(8, dtype=[("a", "f8"), ("b", "i4")])
    records["a"] = np.arange(8)
    ((Xi, _),) = TensorBatches(Dataset(records["a"], np.arange(8)))
    np.testing.assert_array_equal(Xi, np.arange(8))


@pytest.mark.parametrize("n_rows, batch_size", [(101, 10), (1001, 10), (7, 7), (7, 100), (8, 3)])
def test_even_batches_hold_all_rows_in_as_many_batches(n_rows, batch_size):
    data = Dataset(np.arange(n_rows)[:, None], np.arange(n_rows))
    even = [yi for _, yi in TensorBatches(data, batch_size, even=True)]
    assert len(even) == len(list(TensorBatches(data, batch_size)))
    np.testing.assert_array_equal(np.concatenate(even), np.arange(n_rows))
    sizes = [len(yi) for yi in even]
    assert max(sizes) - min(sizes) <= 1 and max(sizes) <= batch_size


def test_even_batches_leave_none_to_drop():
    with pytest.raises(ValueError, match="even=True leaves no smaller batch"):
        TensorBatches(Dataset(np.ones((8, 2)), np.ones(8)), 3, even=True, drop_last=True)


class PerFeature(torch.nn.Module):
    """A trunk that looks at columns one by one, and at rows as they lie in memory."""

    def __init__(self, n_inputs):
        super().__init__()
        self.layer = torch.nn.Linear(1, 3)

    def forward(self, x):
        return self.layer(x.view(-1, 1)).view(len(x), -1)


def test_rows_reach_a_trunk_contiguous_however_they_lie():
    X = np.random.default_rng(0).normal(size=(60, 4))
    net = TabularNet(trunk=PerFeature, max_epochs=30, validation=None, random_state=0)
    net.fit(X, X[:, 0] > 0)
    expected = net.predict_proba(X)
    for rows in (np.asfortranarray(X), X[::-1][::-1], np.repeat(X, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(net.predict_proba(rows), expected)
    backwards = X[::-1]
    np.testing.assert_allclose(net.predict_proba(backwards[:1]), expected[-1:], rtol=1e-6)

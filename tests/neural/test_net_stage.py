"""A raw skorch net under scikit-learn's conventions."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator

torch = pytest.importorskip("torch")
skorch = pytest.importorskip("skorch")

from skmsc.costs import count_multiply_adds  # noqa: E402
from skmsc.neural import NetStage, TensorBatches  # noqa: E402

X, Y = make_classification(240, n_features=6, n_informative=4, random_state=0)


def two_outputs(**kwargs):
    return skorch.NeuralNetClassifier(
        torch.nn.Linear,
        module__in_features=6,
        module__out_features=2,
        criterion=torch.nn.CrossEntropyLoss,
        lr=0.1,
        max_epochs=3,
        verbose=0,
        **kwargs,
    )


class OneOutput(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(6, 1)

    def forward(self, X):
        return self.linear(X).squeeze(-1)


def test_probabilities_are_the_modules_softmax_in_float64():
    stage = NetStage(two_outputs(), random_state=0).fit(X, Y)
    with torch.no_grad():
        logits = stage.net_.module_(torch.tensor(X, dtype=torch.float32)).double()
    expected = torch.softmax(logits, dim=-1).numpy()
    proba = stage.predict_proba(X)
    assert proba.dtype == np.float64
    np.testing.assert_allclose(proba, expected, rtol=1e-6)
    np.testing.assert_allclose(proba, stage.net_.predict_proba(X.astype(np.float32)), rtol=1e-5)


def test_extreme_rows_keep_distinct_scores():
    stage = NetStage(two_outputs(), random_state=0).fit(X, Y)
    direction = stage.net_.module_.weight.detach().numpy()
    direction = direction[1] - direction[0]
    far = np.outer([30.0, 40.0, 50.0], direction / (direction @ direction))
    small = stage.predict_proba(-far)[:, 1]
    assert (np.diff(small) < 0).all() and small[-1] > 0


@pytest.mark.parametrize(
    "as_given",
    [
        sparse.csr_matrix,
        lambda X: pd.DataFrame(X, columns=list("abcdef")),
        lambda X: X.tolist(),
        np.asfortranarray,
    ],
    ids=["sparse", "dataframe", "list", "fortran"],
)
def test_containers_and_labels_of_any_kind(as_given):
    plain = NetStage(two_outputs(), random_state=0).fit(X, Y)
    other = NetStage(two_outputs(), random_state=0).fit(as_given(X), np.where(Y == 1, "b", "a"))
    np.testing.assert_allclose(other.predict_proba(as_given(X)), plain.predict_proba(X), rtol=1e-6)
    np.testing.assert_array_equal(other.predict(X) == "b", plain.predict(X) == 1)


def test_one_output_nets_work():
    net = skorch.NeuralNetBinaryClassifier(OneOutput, lr=0.1, max_epochs=5, verbose=0)
    stage = NetStage(net, random_state=0).fit(X, Y)
    proba = stage.predict_proba(X)
    assert proba.shape == (240, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert stage.score(X, Y) > 0.6


def test_same_seed_same_bits_and_torchs_generator_is_left_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = NetStage(two_outputs(iterator_train__shuffle=True), random_state=5).fit(X, Y)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    second = NetStage(two_outputs(iterator_train__shuffle=True), random_state=5).fit(X, Y)
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


def test_multiply_adds_of_linear_layers():
    assert NetStage(two_outputs(), random_state=0).fit(X, Y).count_multiply_adds() == 12


class RowNet(skorch.NeuralNetClassifier):
    """A net that makes its iterators itself."""

    def get_iterator(self, dataset, training=False):
        return super().get_iterator(dataset, training=training)


def test_default_iterators_give_way_to_whole_batches_with_the_same_result():
    plain = two_outputs()
    with torch.random.fork_rng():
        torch.manual_seed(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
        plain.fit(X.astype(np.float32), Y)
    stage = NetStage(two_outputs(), random_state=0).fit(X, Y)
    assert stage.net_.iterator_train is stage.net_.iterator_valid is TensorBatches
    assert stage.net_.history[:, "valid_loss"] == plain.history[:, "valid_loss"]
    np.testing.assert_array_equal(
        stage.predict_proba(X), NetStage.of_fitted(plain).predict_proba(X)
    )


def iterators(**params):
    return NetStage(two_outputs(**params), random_state=0).fit(X, Y).net_.iterator_train


def test_iterators_of_the_callers_own_stay():
    loader = torch.utils.data.DataLoader
    assert iterators(iterator_train__num_workers=0) is loader
    assert iterators(iterator_train=TensorBatches, iterator_train__shuffle=True) is TensorBatches
    net = RowNet(torch.nn.Linear, module__in_features=6, module__out_features=2, verbose=0)
    net.set_params(criterion=torch.nn.CrossEntropyLoss, max_epochs=1)
    stage = NetStage(net, random_state=0).fit(sparse.csr_matrix(X), Y)
    assert stage.net_.iterator_train is loader
    assert stage.predict_proba(sparse.csr_matrix(X)).shape == (240, 2)


@pytest.mark.parametrize("batch_size", [7, -1])
def test_a_fitted_net_predicts_by_whole_batches_and_is_not_changed(batch_size):
    net = two_outputs(batch_size=batch_size).fit(X.astype(np.float32), Y)
    stage = NetStage.of_fitted(net)
    np.testing.assert_allclose(
        stage.predict_proba(X), net.predict_proba(X.astype(np.float32)), rtol=1e-5
    )
    assert net.iterator_valid is torch.utils.data.DataLoader


def test_a_fit_that_fails_leaves_nothing_fitted():
    stage = NetStage(two_outputs(), random_state=0).fit(X, Y)
    stage.set_params(net=two_outputs(optimizer__nonsense=1))
    with pytest.raises(TypeError):
        stage.fit(X, np.where(Y == 1, "b", "a"))
    assert not hasattr(stage, "net_") and not hasattr(stage, "classes_")


def test_multiply_adds_of_a_frozen_net():
    net = two_outputs().fit(X.astype(np.float32), Y)
    assert count_multiply_adds(FrozenEstimator(net)) == 12

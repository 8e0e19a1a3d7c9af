"""Features from every kind of trunk."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier

from skmsc import ComposableHeadClassifier
from skmsc.neural import TabularNet
from skmsc.trunks import RandomReLU, Trunk, check_trunk, fit_trunk, same_features, trunk_input_tags


def rows(seed=0, n_samples=200):
    """Features and three classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n_samples)
    return rng.normal(size=(n_samples, 6)) + np.eye(6)[y] * 3, y


def fit(trunk, X, y, sample_weight=None):
    """A fitted trunk."""
    check_trunk(trunk)
    return Trunk(fit_trunk(trunk, X, y, sample_weight, 0, {}))


class Perceptron(torch.nn.Module):
    """One hidden layer and a head."""

    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.Dropout(0.5), torch.nn.ReLU()
        )
        self.head = torch.nn.Linear(16, 3)

    def forward(self, X):
        """Logits."""
        return self.head(self.hidden(X))


def skorch_net(**params):
    """A skorch net of it."""
    return NeuralNetClassifier(
        Perceptron, criterion=torch.nn.CrossEntropyLoss, max_epochs=3, verbose=0, **params
    )


def hidden(module, X):
    """What the hidden layer of a module gives in eval mode."""
    module.eval()
    with torch.no_grad():
        return module.hidden(torch.from_numpy(X.astype(np.float32))).double().numpy()


def test_a_tabular_net_is_a_trunk_below_its_head():
    X, y = rows()
    trunk = fit(TabularNet(width=16, max_epochs=3), X, y)
    np.testing.assert_array_equal(trunk(X), trunk.estimator.features(X))
    assert trunk(X).dtype == np.float64 and trunk(X).shape == (200, 16)
    head = trunk.estimator.net_.module_.head
    weight, bias = (t.detach().double().cpu().numpy() for t in (head.weight, head.bias))
    logits = trunk(X) @ weight.T + bias
    np.testing.assert_array_equal(logits.argmax(axis=1), trunk.estimator.predict(X))


def test_a_skorch_net_is_a_trunk_below_its_last_linear_layer():
    X, y = rows()
    trunk = fit(skorch_net(), X, y)
    np.testing.assert_allclose(trunk(X), hidden(trunk.estimator.net_.module_, X), atol=1e-6)
    net = skorch_net().fit(X.astype(np.float32), y)
    frozen = fit(FrozenEstimator(net), X, y)
    assert frozen.estimator is net
    np.testing.assert_allclose(frozen(X), hidden(net.module_, X), atol=1e-6)
    in_pipeline = fit(make_pipeline(StandardScaler(), skorch_net()), X, y)
    scaler, stage = (step for _, step in in_pipeline.estimator.steps)
    np.testing.assert_allclose(
        in_pipeline(X), hidden(stage.net_.module_, scaler.transform(X)), atol=1e-6
    )


def test_a_module_is_used_as_it_is():
    X, y = rows()
    module = Perceptron().hidden.train()
    trunk = fit(module, X, y)
    module.eval()
    with torch.no_grad():
        expected = module(torch.from_numpy(X.astype(np.float32))).numpy()
    np.testing.assert_allclose(trunk(X), expected, atol=1e-6)
    assert trunk.estimator is not module and not trunk.estimator.training
    model = ComposableHeadClassifier(trunk=module, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.7


def test_transformers_pipelines_and_frozen_ones():
    X, y = rows()
    pca = PCA(3, random_state=0).fit(X)
    np.testing.assert_array_equal(fit(FrozenEstimator(pca), X, y)(X), pca.transform(X))
    np.testing.assert_allclose(fit(PCA(3, random_state=0), X, y)(X), pca.transform(X))
    both = make_pipeline(StandardScaler(), PCA(3, random_state=0))
    np.testing.assert_allclose(fit(both, X, y)(X), both.fit_transform(X))
    np.testing.assert_array_equal(fit("passthrough", X, y)(X), X)
    np.testing.assert_array_equal(fit("passthrough", X, y)(sparse.csr_array(X)), X)
    weight = np.random.default_rng(0).random(len(y))
    expected = StandardScaler().fit(X, sample_weight=weight).transform(X)
    np.testing.assert_allclose(fit(StandardScaler(), X, y, weight)(X), expected)


def test_random_features_by_hand():
    X, _ = rows()
    weight = np.random.default_rng(0).random(len(X))
    lift = RandomReLU(50, random_state=3).fit(X, sample_weight=weight)
    rng = np.random.RandomState(3)
    directions, biases = rng.normal(size=(6, 50)) / np.sqrt(6), rng.normal(scale=0.5, size=50)
    Z = StandardScaler().fit(X, sample_weight=weight).transform(X)
    np.testing.assert_allclose(lift.transform(X), np.maximum(Z @ directions + biases, 0))
    constant = np.column_stack([X, np.ones(len(X))])
    assert np.isfinite(RandomReLU(5, random_state=0).fit(constant).transform(constant)).all()


def test_what_trunks_accept():
    assert trunk_input_tags("passthrough") == (True, False)
    assert trunk_input_tags(TabularNet(missing="mean")) == (True, True)
    assert trunk_input_tags(TabularNet()) == (True, False)
    assert trunk_input_tags(StandardScaler())[1] is False
    assert trunk_input_tags(make_pipeline(SimpleImputer(), StandardScaler()))[1] is True
    X, y = rows()
    X[::7, 2] = np.nan
    model = ComposableHeadClassifier(
        trunk=make_pipeline(SimpleImputer(), StandardScaler()), random_state=0
    ).fit(X, y)
    assert model.score(X, y) > 0.7
    with pytest.raises(ValueError, match="Input X contains NaN"):
        ComposableHeadClassifier(trunk=StandardScaler()).fit(X, y)


def test_trunks_are_told_apart_by_their_features():
    X, y = rows()
    one, other = (fit(PCA(3, random_state=0), part, None) for part in (X, X[:100]))
    again = Trunk(PCA(3, random_state=0).fit(X))
    assert same_features(one, one, 6) and same_features(one, again, 6)
    assert not same_features(one, other, 6)
    models = [
        ComposableHeadClassifier(trunk=FrozenEstimator(t.estimator), random_state=0).fit(X, y)
        for t in (one, again, other)
    ]
    models[0].merge(models[1])
    with pytest.raises(ValueError, match="The trunks give other features"):
        models[0].merge(models[2])


@pytest.mark.parametrize(
    ("trunk", "error", "says"),
    [
        ("identity", ValueError, "trunk must be a TabularNet.*got 'identity'"),
        (LogisticRegression(), TypeError, "trunk must be a TabularNet"),
        (PCA, TypeError, "trunk must be a TabularNet"),
        (3, TypeError, "trunk must be a TabularNet"),
        (FrozenEstimator(PCA()), NotFittedError, "trunk is a FrozenEstimator and must be fitted"),
        (FrozenEstimator(skorch_net()), NotFittedError, "must be fitted"),
    ],
)
def test_bad_trunks(trunk, error, says):
    X, y = rows()
    with pytest.raises(error, match=says):
        ComposableHeadClassifier(trunk=trunk).fit(X, y)


def test_features_that_are_no_numbers():
    X, y = rows()
    with pytest.raises(ValueError, match="The trunk must give a matrix of finite features"):
        Trunk(FrozenEstimator(StandardScaler().fit(X)))(np.full((2, 6), np.nan))
    with pytest.raises(TypeError, match="has none: give a torch module"):
        net = NeuralNetClassifier(
            torch.nn.LayerNorm, module__normalized_shape=6, train_split=None, verbose=0
        )
        fit(net, X, y)(X)

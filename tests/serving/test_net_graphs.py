"""The graphs of nets, exits and heads give what the estimators' steps give."""

from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

torch = pytest.importorskip("torch")
skorch = pytest.importorskip("skorch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from skmsc import ComposableHeadClassifier, EarlyExitClassifier, FixedHead, RidgeHead  # noqa: E402
from skmsc._maps import sigmoids  # noqa: E402
from skmsc.neural import MultiExitNet, NetStage, TabularNet  # noqa: E402
from skmsc.neural._onnx import to_onnx as _onnx_of_torch  # noqa: E402
from skmsc.serving._inputs import FEATURES, Inputs, NotExportable  # noqa: E402
from skmsc.serving._net_graphs import (  # noqa: E402
    _features_graph,
    exit_graphs,
    heads_graph,
    net_graph,
    with_logs,
)
from skmsc.stacking import stack_logs  # noqa: E402
from skmsc.training.heads import HEADS, _StatisticsHead  # noqa: E402
from skmsc.trunks import RandomReLU  # noqa: E402

# Nets are trained for two epochs.
pytestmark = pytest.mark.filterwarnings("ignore:.* learned nothing")

needs_tabm = pytest.mark.skipif(find_spec("tabm") is None, reason="tabm is not installed")

X, Y = make_classification(
    200, n_features=6, n_informative=5, n_redundant=0, n_classes=3, random_state=0
)
X[:, 2] = 3.0
X[:, 3] += 1e9  # a timestamp
INPUTS = Inputs(6)
FAR = np.vstack([X[:4] * 1e3, -X[:4] * 1e12, np.full((1, 6), 1e300), np.zeros((1, 6))])
ROWS = np.vstack([X[:40], FAR])

SIZES = {"width": 8, "max_epochs": 2, "lr": 0.01, "random_state": 0, "device": "cpu"}


def run(graph, **arrays):
    """Outputs of a graph by name."""
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    given = session.run(None, arrays)
    return dict(zip((output.name for output in session.get_outputs()), given, strict=True))


def assert_same_scores(scores, expected):
    """Equal within 1e-5, and so are log-odds wherever calibration looks at them."""
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)
    seen = expected * (1 - expected) > 1e-12
    odds, theirs = (np.log(p[seen]) - np.log1p(-p[seen]) for p in (scores, expected))
    assert (np.abs(odds - theirs) <= 1e-5 * np.maximum(1, np.abs(theirs))).all()


def kinds(graph):
    return [node.op_type for node in graph.graph.node]


# --- nets ---------------------------------------------------------------------------------------
class Bends(torch.nn.Module):
    """A trunk of other layers, which asks for the number of its rows."""

    def __init__(self, n_inputs, width):
        super().__init__()
        self.linear = torch.nn.Linear(n_inputs, width)
        self.norm = torch.nn.BatchNorm1d(width)
        self.conv = torch.nn.Conv1d(1, 2, 3, padding=1)

    def forward(self, x):
        x = torch.nn.functional.gelu(self.norm(self.linear(x)))
        return self.conv(x[:, None]).reshape(len(x), -1)


class Branches(torch.nn.Module):
    """A trunk that looks at the values of its rows, which a graph cannot follow."""

    def __init__(self, n_inputs):
        super().__init__()
        self.linear = torch.nn.Linear(n_inputs, 4)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else self.linear(2 * x)


class Noise(torch.nn.Module):
    """A trunk that draws numbers whenever it runs."""

    def __init__(self, n_inputs):
        super().__init__()
        self.linear = torch.nn.Linear(n_inputs, 4)

    def forward(self, x):
        return self.linear(x) + torch.randn_like(x[:, :4])


def test_a_net_with_missing_values(capfd, caplog):
    holes = X.copy()
    holes[::5, 1] = holes[::7, 4] = np.nan
    net = TabularNet(missing="mean", **SIZES).fit(holes, Y)
    capfd.readouterr()
    graph = net_graph(FrozenEstimator(net), 6, "final")
    assert capfd.readouterr() == ("", "")
    assert not [told for told in caplog.records if told.levelname != "DEBUG"]

    rows = np.vstack([ROWS, holes[:20], np.full((1, 6), np.nan)])
    expected = net.predict_proba(rows)
    assert_same_scores(run(graph, X=rows)["scores"], expected)
    for n_rows in (1, 0):
        assert_same_scores(run(graph, X=rows[:n_rows])["scores"], expected[:n_rows])

    # All weights are inside, nothing of the machine that made them, and no needless node.
    onnx.checker.check_model(graph, full_check=True)
    assert all(not weights.external_data for weights in graph.graph.initializer)
    assert b".py" not in graph.SerializeToString()
    assert [opset.domain for opset in graph.opset_import] == [""]
    assert len(graph.graph.node) <= 24
    assert kinds(graph)[-7:] == ["Gemm", "Relu", "Gemm", "Relu", "Gemm", "Cast", "Softmax"]


@pytest.fixture
def by_torch(monkeypatch):
    """A list of the modules that torch exported."""
    modules = []

    def to_onnx(module, *args, **params):
        modules.append(type(module).__name__)
        return _onnx_of_torch(module, *args, **params)

    monkeypatch.setattr("skmsc.neural._onnx.to_onnx", to_onnx)
    return modules


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "params",
    [
        {"trunk": "mlp", "trunk_params": {"width": [8, 4]}},
        {"trunk": "resnet", "missing": "mean"},
        {"trunk": "resnet", "head": "simplex"},
        {"trunk": "mlp", "head": "orthogonal", "head_rows": 5},
    ],
    ids=str,
)
def test_own_nets_are_written_without_torch(params, dtype, by_torch):
    net = TabularNet(**(SIZES | params), dtype=dtype).fit(X, Y)
    graph = net_graph(net, 6, "final")
    onnx.checker.check_model(graph, full_check=True)
    assert_same_scores(run(graph, X=ROWS)["scores"], net.predict_proba(ROWS))
    features = _features_graph(net, 6, "heads")
    given = run(features, X=ROWS)[FEATURES]
    np.testing.assert_allclose(given, net.features(ROWS), rtol=1e-4, atol=1e-5)
    assert not by_torch


def test_a_net_of_exits_that_answers_by_its_last_is_written_without_torch(by_torch):
    net = MultiExitNet(**SIZES, depth=2, trunk="resnet").fit(X, Y)
    scores = run(net_graph(net, 6, "final"), X=ROWS)["scores"]
    assert_same_scores(scores, net.predict_proba(ROWS))
    assert not by_torch


def test_hooks_are_left_to_torch(by_torch):
    net = TabularNet(**SIZES).fit(X, Y)
    net.net_.module_.head.register_forward_hook(lambda module, args, output: 2 * output)
    scores = run(net_graph(net, 6, "final"), X=ROWS)["scores"]
    assert_same_scores(scores, net.predict_proba(ROWS))
    assert by_torch == ["TabularModule"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"trunk": "tabm", "trunk_params": {"k": 4}}, marks=needs_tabm),
        {"trunk": Bends},
    ],
)
def test_nets_of_every_trunk(params):
    net = TabularNet(**SIZES, **params).fit(X, Y)
    graph = net_graph(net, 6, "final")
    assert_same_scores(run(graph, X=ROWS)["scores"], net.predict_proba(ROWS))
    assert not [kind for kind in kinds(graph) if kind.startswith("Sequence")]


class Turned(skorch.NeuralNetClassifier):
    def infer(self, x, **params):
        return super().infer(-x, **params)


def skorch_net(last, criterion, kind=skorch.NeuralNetClassifier):
    class Net(torch.nn.Sequential):
        def __init__(self):
            super().__init__(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3), last)

    return kind(Net, criterion=criterion, max_epochs=2, lr=0.1, verbose=0, train_split=None)


Z = StandardScaler().fit_transform(X)
NEAR = np.vstack([Z[:40], 30 * Z[:4], np.zeros((1, 6))])
FAR_Z = np.vstack([Z[:40], 1e3 * Z[:4], 1e30 * Z[4:8]])


@pytest.mark.slow
def test_a_skorch_net_that_gives_logits():
    net = skorch_net(torch.nn.Identity(), torch.nn.CrossEntropyLoss, Turned)
    net = NetStage(net, random_state=0)
    graph = net_graph(net.fit(Z, Y), 6, "final")
    assert_same_scores(run(graph, X=FAR_Z)["scores"], net.predict_proba(FAR_Z))


@pytest.mark.slow
def test_a_frozen_skorch_net_that_gives_probabilities():
    torch.manual_seed(0)
    net = skorch_net(torch.nn.Softmax(dim=-1), torch.nn.NLLLoss)
    net.fit(Z.astype(np.float32), Y.astype(np.int64))
    expected = NetStage.of_fitted(net).predict_proba(FAR_Z)
    scores = run(net_graph(FrozenEstimator(net), 6, "final"), X=FAR_Z)["scores"]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-30)  # a softmax in float32


@pytest.mark.slow
def test_a_skorch_net_with_one_output():
    class OneOutput(torch.nn.Linear):
        def __init__(self):
            super().__init__(6, 1)

    net = NetStage(
        skorch.NeuralNetBinaryClassifier(OneOutput, max_epochs=2, verbose=0, train_split=None),
        random_state=0,
    ).fit(Z, Y == 1)
    scores = run(net_graph(net, 6, "final"), X=FAR_Z)["scores"]
    assert_same_scores(scores, net.predict_proba(FAR_Z))


def test_what_is_no_net_of_ours_is_not_exported():
    class Shifted(TabularNet):
        def predict_proba(self, X):
            return super().predict_proba(X + 1)

    net = Shifted(**SIZES).fit(X, Y)
    with pytest.raises(NotExportable, match=r"Stage 'final': Shifted.* in a way of its own"):
        net_graph(net, 6, "final")

    class Steps(skorch.NeuralNetClassifier):
        def evaluation_step(self, batch, training=False):
            return super().evaluation_step((-batch[0], batch[1]), training)

    raw = skorch_net(torch.nn.Identity(), torch.nn.CrossEntropyLoss, Steps)
    with pytest.raises(NotExportable, match=r"Stage 'final': NetStage.* in a way of its own"):
        net_graph(NetStage(raw).fit(Z, Y), 6, "final")


def test_torchs_reason_is_kept():
    net = TabularNet(Branches, **SIZES).fit(X, Y)
    message = "Stage 'final' cannot be exported: its net TabularModule: "
    with pytest.raises(NotExportable, match=f"^{message}.*data-dependent") as caught:
        net_graph(net, 6, "final")
    assert caught.value.__cause__ is not None and "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_graph_that_answers_otherwise_than_its_net_is_refused():
    net = TabularNet(Noise, **SIZES).fit(X, Y)
    with pytest.raises(NotExportable, match="does not give what the module gives"):
        net_graph(net, 6, "final")


# --- exits --------------------------------------------------------------------------------------
class Sines(torch.nn.Module):
    """Two exits of ensembles of three members, on hidden features of shape (b, 3, width)."""

    def __init__(self, n_inputs, n_classes, width):
        super().__init__()

        class Stack(torch.nn.Module):
            def forward(self, x):
                return torch.stack([x, x.sin(), x.relu()], dim=1)

        first = torch.nn.Sequential(torch.nn.Linear(n_inputs, width), Stack())
        self.blocks = torch.nn.ModuleList([first, torch.nn.Tanh()])
        self.heads = torch.nn.ModuleList(torch.nn.Linear(width, n_classes) for _ in range(2))


def early_exits(first_stage=None, ensemble=True, **params):
    """A fitted classifier with two exits."""
    net = MultiExitNet(depth=2, **(SIZES | {"validation": 0.3} | params))
    model = EarlyExitClassifier(
        first_stage,
        net,
        ensemble=ensemble,
        thresholds=0.9,
        calibration=None,
        validation_fraction=None,
        cv=2,
        random_state=0,
    ).fit(X, Y)
    assert (model.ensemble_weights_ is not None) == ensemble
    return model


def step_scores(model, rows):
    """Scores of every stage on all rows."""
    scores, carry = [], rows
    for step in model._steps():
        proba, carry = step(carry)
        scores.append(proba)
    return scores


def graph_scores(graphs, **carry):
    """The same of the exits' graphs, each on what those before it give and it asks for."""
    scores = []
    for graph in graphs:
        given = run(graph, **{one.name: carry[one.name] for one in graph.graph.input})
        scores.append(given.pop("scores"))
        carry |= given
    return scores, given


def test_exits_behind_a_first_stage_that_they_recall():
    screen = make_pipeline(StandardScaler(), LogisticRegression())
    model = early_exits(screen)
    graphs = exit_graphs(model, INPUTS)
    logs = stack_logs(model.first_stage_.predict_proba(ROWS))
    scores, left = graph_scores(graphs, X=ROWS, logs_0=logs)
    for given, expected in zip(scores, step_scores(model, ROWS)[1:], strict=True):
        assert_same_scores(given, expected)
    assert [[one.name for one in graph.graph.input] for graph in graphs] == [
        ["X", "logs_0"],
        ["hidden_1", "logs_0", "logs_1"],
    ]
    assert not left  # nobody comes after the last


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        {"trunk": Sines, "dtype": "float64", "ensemble": False},
        pytest.param({"trunk": "tabm", "trunk_params": {"k": 4}}, marks=needs_tabm),
    ],
)
def test_exits_of_every_trunk(params):
    model = early_exits(**params)
    scores, _ = graph_scores(exit_graphs(model, INPUTS), X=ROWS)
    for given, expected in zip(scores, step_scores(model, ROWS), strict=True):
        assert_same_scores(given, expected)


@pytest.mark.parametrize("ensemble", [True, False])
@pytest.mark.parametrize(
    "params",
    [
        {"trunk": "mlp", "missing": "mean"},
        {"trunk": "mlp", "width": [4, 8], "dtype": "float64"},
        {"trunk": "resnet", "width": [8, 4], "missing": "mean"},
        {"trunk": "resnet", "dtype": "float64"},
    ],
    ids=str,
)
def test_own_exits_are_written_without_torch(params, ensemble, by_torch):
    model = early_exits(ensemble=ensemble, **params)
    graphs = exit_graphs(model, INPUTS)
    scores, _ = graph_scores(graphs, X=ROWS)
    for given, expected in zip(scores, step_scores(model, ROWS), strict=True):
        assert_same_scores(given, expected)
    assert not by_torch


class Kept(torch.nn.Module):
    """Two exits, of which the second looks at what the first has."""

    def __init__(self, n_inputs, n_classes, width):
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(n_inputs, width), torch.nn.Identity()])
        self.heads = torch.nn.ModuleList(torch.nn.Linear(width, n_classes) for _ in range(2))


def test_a_block_that_computes_nothing_is_left_to_torch(by_torch):
    model = early_exits(trunk=Kept)
    scores, _ = graph_scores(exit_graphs(model, INPUTS), X=ROWS)
    for given, expected in zip(scores, step_scores(model, ROWS), strict=True):
        assert_same_scores(given, expected)
    assert len(by_torch) == 1


def test_logs_of_a_first_stage():
    helper = onnx.helper
    kind = onnx.TensorProto.DOUBLE
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["X"], ["scores"])],
        "first_stage",
        [helper.make_tensor_value_info("X", kind, [None, 3])],
        [helper.make_tensor_value_info("scores", kind, [None, 3])],
    )
    opsets = [helper.make_opsetid("", 21)]
    graph = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    told = with_logs(graph, 0)
    assert [output.name for output in graph.graph.output] == ["scores"]  # a copy
    given = run(told, X=np.array([[0.0, 1, 2], [0, 50, 100], [0, 0, 2000]]))
    np.testing.assert_allclose(given["logs_0"], stack_logs(given["scores"]), rtol=1e-12)


def test_exits_that_run_in_another_way_are_not_exported():
    class Other(MultiExitNet):
        def run_exit(self, k, carry, *, log=False):
            return super().run_exit(k, carry, log=log)

    model = early_exits()
    model.net_.__class__ = Other
    with pytest.raises(NotExportable, match=r"Stage 'exit_0': Other.* in a way of its own"):
        exit_graphs(model, INPUTS)


# --- trunks with heads --------------------------------------------------------------------------
def with_heads(trunk="passthrough", rows=Z, labels=Y, **params):
    """A fitted classifier on one trunk."""
    return ComposableHeadClassifier(trunk=trunk, random_state=0, **params).fit(rows, labels)


def assert_same_heads(model, rows, inputs=INPUTS, **arrays):
    """The graph gives the scores of the heads; returns the graph."""
    graph = heads_graph(model, inputs)
    scores = run(graph, **(arrays or {"X": rows}))["scores"]
    scores = sigmoids(scores) if model.proba == "sigmoid" else scores
    assert_same_scores(scores, model._heads_step(rows)[0])
    return graph


@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("proba", ["conditional", "sigmoid", "open"])
def test_heads_of_every_kind(head, proba):
    unknown = -1 if proba == "open" else None
    model = with_heads(head=head, proba=proba, unknown_label=unknown)
    graph = assert_same_heads(model, NEAR)
    assert len(graph.graph.node) <= 12


@pytest.mark.parametrize("head", ["ridge", "imprint"])
@pytest.mark.parametrize("unknown", [1, 7])
def test_the_unknown_class_stands_where_its_label_is_sorted(head, unknown):
    labels = np.array([0, 2, 5])[Y]
    model = with_heads(labels=labels, head=head, proba="open", unknown_label=unknown, reject=0.1)
    assert_same_heads(model, Z[:40])


def test_log_odds_are_those_of_the_heads():
    model = with_heads(proba="sigmoid", head="lda")
    logits = model._logits(Z[:40])
    expected = model._odds_slope * model._set.heads.log_odds(logits)
    assert model._odds_slope != 1
    odds = run(heads_graph(model, INPUTS), X=Z[:40])["scores"]
    np.testing.assert_allclose(odds, expected, rtol=1e-9)


def test_random_features_as_trunk_and_of_the_head():
    model = with_heads(RandomReLU(50, random_state=1), head=RidgeHead(n_random_features=30))
    graph = assert_same_heads(model, Z)
    assert kinds(graph) == ["Gemm", "Relu", "Gemm", "Relu", "Gemm", "Softmax"]


def test_classes_that_came_later_and_those_without_a_row():
    model = ComposableHeadClassifier(
        trunk="passthrough", validation_fraction=None, random_state=0
    ).partial_fit(Z, Y, classes=[0, 1, 2, 3])
    assert np.isneginf(model.intercept_).any()
    assert_same_heads(model, Z)
    model.add_class(Z[:50] + 3, 4)
    assert_same_heads(model, Z)


def test_columns_are_inputs_of_their_own():
    frame = pd.DataFrame(
        {"X": Z[:, 0], "scores_of": np.arange(200) % 7, "flag": Z[:, 2] > 0, "features": Z[:, 3]}
    )
    columns = (("X", "float64"), ("scores_of", "int64"), ("flag", "bool"), ("features", "float64"))
    model = with_heads(rows=frame)
    arrays = {name: frame[[name]].to_numpy() for name in frame}
    assert_same_heads(model, frame, Inputs(4, columns), **arrays)
    with pytest.raises(NotExportable, match="a column of its rows has strings"):
        heads_graph(model, Inputs(4, (*columns[:2], ("flag", "str"), columns[3])))


@pytest.mark.slow
@pytest.mark.parametrize(
    "trunk, head",
    [
        (TabularNet(**SIZES), FixedHead("orthogonal", n_rows=4)),
        (skorch_net(torch.nn.LogSoftmax(dim=-1), torch.nn.NLLLoss), "ridge"),
    ],
)
def test_nets_as_trunks(trunk, head):
    assert_same_heads(with_heads(clone(trunk), head=head), NEAR)


@pytest.mark.slow
def test_a_module_as_trunk():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh())
    model = with_heads(module, head="logistic")
    assert_same_heads(model, FAR_Z)


@pytest.mark.parametrize(
    "trunk",
    [
        PCA(3),
        make_pipeline(StandardScaler(), PCA(3)),
        make_pipeline(StandardScaler(), RandomReLU(20, random_state=0)),
        FrozenEstimator(make_pipeline(StandardScaler(), "passthrough", PCA(3)).fit(Z)),
    ],
)
def test_transformers_as_trunks(trunk):
    assert_same_heads(with_heads(clone(trunk)), Z)


@pytest.mark.slow
def test_a_net_behind_transformers_as_trunk():
    assert_same_heads(with_heads(make_pipeline(PCA(3), TabularNet(**SIZES))), Z)


def test_heads_and_trunks_of_other_kinds_are_not_exported():
    class Doubled(_StatisticsHead):
        def prepare(self, features):
            return 2 * features

    model = with_heads()
    model.head_ = Doubled()
    with pytest.raises(NotExportable, match=r"Stage 'heads': Doubled.* in a way of its own"):
        heads_graph(model, INPUTS)

    class Sums(LogisticRegression):
        def features(self, X):
            return X.sum(axis=1, keepdims=True)

    with pytest.raises(NotExportable, match=r"Stage 'heads': Sums.* in a way of its own"):
        heads_graph(with_heads(Sums()), INPUTS)

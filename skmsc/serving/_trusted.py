"""The types that a file may hold without asking, and how they may be made.

Whoever writes a file may have any of these made with attributes of his choice. So a name belongs
here only when that does no harm: no net of skorch does, as it unpickles what it is restored from.
"""

from functools import cache

_OF_MODULES = {
    "skmsc._composable_head": ("ComposableHeadClassifier",),
    "skmsc._early_exit": ("EarlyExitClassifier",),
    "skmsc._feedback_cascade": ("FeedbackCascadeClassifier",),
    "skmsc._maps": ("Calibration", "Sigmoid", "Steps", "Temperature"),
    "skmsc._splitters": ("LabeledTestFolds", "TimeDelaySplit"),
    "skmsc.costly_features": ("CostlyFeatures",),  # what it fetches by is asked for itself
    "skmsc.metrics": (
        "neg_mean_cost_scorer",
        "neg_pass_rate_scorer",
        "retained_recall_scorer",
    ),
    "skmsc.model_selection._final_cut": ("FinalCutClassifier",),
    "skmsc.model_selection._search": ("ThresholdSearchCV",),
    "skmsc.neural._batches": ("TensorBatches",),
    "skmsc.neural._exits": ("Exits", "MultiExitModule", "ResidualBlock"),
    "skmsc.neural._modules": (
        "Dropout",
        "FixedHead",
        "MLPTrunk",
        "MemberHeads",
        "ResNetTrunk",
        "Standardise",
        "TabularModule",
        "last_exit_proba",
        "to_proba",
    ),
    "skmsc.neural._multi_exit_net": ("MultiExitNet",),
    "skmsc.neural._net_stage": ("NetStage",),
    "skmsc.neural._optimizer": ("AdamW",),
    "skmsc.neural._plain": ("PlainName", "PlainNet", "PlainTensor"),
    "skmsc.neural._scaling": ("Scaling",),
    "skmsc.neural._tabular_net": ("TabularNet",),
    "skmsc.reporting._monitor": ("ScoreReference",),
    "skmsc.screens": ("Screen",),
    "skmsc.serving._files": ("PlainDict",),
    "skmsc.stages": ("StageScorer",),
    "skmsc.thresholds._alert_budget": ("AlertBudget",),
    "skmsc.thresholds._expected_cost": ("ExpectedCost",),
    "skmsc.thresholds._policies": ("Agreement", "CostBudget", "PassBudget", "RecallFloor"),
    "skmsc.training.composition": ("HeadSet", "Learner", "Replay"),
    "skmsc.training.exits": (
        "FocalWeights",
        "LearnedWeights",
        "SurvivorWeights",
        "UniformWeights",
    ),
    "skmsc.training.feedback": ("AutoFeedback", "CaughtFeedback", "GainFeedback"),
    "skmsc.training.heads": (
        "ClassStatistics",
        "FixedHead",
        "Heads",
        "ImprintHead",
        "LDAHead",
        "LogisticHead",
        "PairwiseHead",
        "RidgeHead",
    ),
    "skmsc.trunks": ("RandomReLU", "Trunk"),
    # What scikit-learn's estimators hold; the estimators themselves skops knows.
    "collections": ("OrderedDict",),
    "numpy": ("dtype",),
    "sklearn.calibration": ("_CalibratedClassifier", "_SigmoidCalibration"),
    "sklearn.ensemble._hist_gradient_boosting.predictor": ("TreePredictor",),  # checked
    "sklearn.metrics._scorer": ("_MultimetricScorer", "_PassthroughScorer", "_Scorer"),
    "sklearn.neural_network._stochastic_optimizers": ("AdamOptimizer", "SGDOptimizer"),
    "sklearn.tree._tree": ("Tree",),  # checked
    "sklearn.utils._bunch": ("Bunch",),
    "sklearn.utils._metadata_requests": (
        "MetadataRequest",
        "MethodMetadataRequest",
    ),
    # What nets are made of.
    "skorch.dataset": ("Dataset", "ValidSplit"),
    "skorch.history": ("History",),
    "tabm": ("EnsembleView", "LinearBatchEnsemble", "MLPBackboneBatchEnsemble", "TabM"),
    "torch.nn.modules.activation": (
        *("ELU", "GELU", "LeakyReLU", "LogSoftmax", "Mish", "PReLU", "ReLU", "ReLU6", "SELU"),
        *("SiLU", "Sigmoid", "Softmax", "Tanh"),
    ),
    "torch.nn.modules.batchnorm": ("BatchNorm1d",),
    "torch.nn.modules.container": ("ModuleDict", "ModuleList", "ParameterList", "Sequential"),
    "torch.nn.modules.conv": ("Conv1d",),
    "torch.nn.modules.dropout": ("AlphaDropout", "Dropout", "Dropout1d"),
    "torch.nn.modules.flatten": ("Flatten", "Unflatten"),
    "torch.nn.modules.linear": ("Bilinear", "Identity", "Linear"),
    "torch.nn.modules.loss": (
        *("BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "MSELoss", "NLLLoss"),
    ),
    "torch.nn.modules.normalization": ("GroupNorm", "LayerNorm", "RMSNorm"),
    "torch.nn.modules.sparse": ("Embedding",),
    "torch.optim.adagrad": ("Adagrad",),
    "torch.optim.adam": ("Adam",),
    "torch.optim.adamw": ("AdamW",),
    "torch.optim.nadam": ("NAdam",),
    "torch.optim.radam": ("RAdam",),
    "torch.optim.rmsprop": ("RMSprop",),
    "torch.optim.sgd": ("SGD",),
    "torch.utils.data.dataloader": ("DataLoader",),
}

# How skops makes what it finds. These take what has a name as it is, or give it attributes.
_NAMING = {"FunctionNode", "JsonNode", "ObjectNode", "TupleNode", "TypeNode"}
# These call it, and may call what is theirs only. Others, which call anything, are refused.
_CALLING = {
    "BytearrayNode": ("builtins.bytearray",),
    "BytesNode": ("builtins.bytes",),
    "DTypeNode": ("numpy.dtype",),
    "DefaultDictNode": ("collections.defaultdict",),
    "DictNode": ("builtins.dict", "collections.OrderedDict", "sklearn.utils._bunch.Bunch"),
    "ListNode": ("builtins.list", "skorch.history.History"),
    "LossNode": ("sklearn._loss.",),
    "MaskedArrayNode": ("numpy.ma.",),
    "NdArrayNode": ("numpy.",),
    "RandomGeneratorNode": ("numpy.random.",),
    "RandomStateNode": ("numpy.random.",),
    "SetNode": ("builtins.set",),
    "SliceNode": ("builtins.slice",),
    "SparseMatrixNode": ("scipy.sparse.",),
    "TreeNode": ("sklearn.tree._tree.Tree",),
}
_OF_KEYS = {"builtins.bool", "builtins.float", "builtins.int", "builtins.str"}


def may_make(loader, name):
    """Whether skops may make what has this name by this loader."""
    return loader in _NAMING or any(
        name == known or (known.endswith(".") and name.startswith(known))
        for known in _CALLING.get(loader, ())
    )


def may_make_key(loader, name):
    """Whether skops may call what has this name, by this loader, with the text of a dict's key."""
    return loader == "TypeNode" and name in _OF_KEYS


@cache
def trusted_names():
    """Names of all types and functions that are trusted, splitters and metrics of scikit-learn."""
    from sklearn import metrics, model_selection

    names = {f"{module}.{name}" for module, parts in _OF_MODULES.items() for name in parts}
    for part in vars(model_selection).values():
        if isinstance(part, type) and hasattr(part, "split"):
            names.add(f"{part.__module__}.{part.__qualname__}")
    for name in metrics.get_scorer_names():
        metric = metrics.get_scorer(name)._score_func
        names.add(f"{metric.__module__}.{metric.__name__}")
    return frozenset(names)

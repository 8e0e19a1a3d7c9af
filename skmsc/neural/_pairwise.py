"""Heads of classes that are trained one by one: two-way layers on features of a frozen trunk.

Shapes: K classes that are trained at once, b rows in a batch, d features. A two-way layer has a
positive and a negative row, each of d weights and a bias.
"""

import numpy as np
import torch
from torch.nn import functional as F

from skmsc._checks import check_weight
from skmsc.neural._batches import _as_sliceable

_BETAS, _EPS = (0.9, 0.999), 1e-8  # of Adam, torch's default ones
_GATHERED_AT_ONCE = 2**24  # values in the batches of all classes: 128 MiB


def _softmax(logits, target):
    """Cross-entropy of the two-way softmax."""
    return -(target * F.log_softmax(logits, dim=-1)).sum(-1)


def _sigmoid(logits, target):
    """Mean of the cross-entropies of two sigmoids that know nothing of each other."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(-1)


def _softmax_bce(logits, target):
    """Mean of the binary cross-entropies of the two outputs of a softmax."""
    proba = F.softmax(logits, dim=-1)
    return F.binary_cross_entropy(proba, target, reduction="none").mean(-1)


# Losses of rows (K, b), of logits and one-hot targets (K, b, 2).
LOSSES = {"softmax": _softmax, "sigmoid": _sigmoid, "softmax_bce": _softmax_bce}


def fit_pairwise(
    features,
    codes,
    sample_weight,
    n_classes,
    *,
    loss="softmax",
    keep="difference",
    epochs=5,
    lr=1e-3,
    batch_size=64,
    seed=0,
    device="cpu",
):
    """Linear heads that are trained class by class, each against as many rows of the others.

    For each class a layer with two outputs learns to tell all its rows from as many rows of the
    other classes, drawn once and without replacement; from all of those where they are fewer. The
    layer starts at random, as `torch.nn.Linear` does, and is trained by Adam in float64. What is
    kept of it is one row: its output is the logit of the class.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features), float64
        Finite features.
    codes : ndarray of shape (n_samples,), int
        Classes of the rows, from 0 to ``n_classes - 1``.
    sample_weight : ndarray of shape (n_samples,) or None
        Weights of the rows in the loss. A row of weight 0 is not there; how many rows are drawn,
        and which, depends on no other weight.
    n_classes : int
        At least 2.
    loss : {"softmax", "sigmoid", "softmax_bce"}, default="softmax"
        Cross-entropy of the softmax of both outputs; binary cross-entropy of the sigmoid of each
        output; or binary cross-entropy of the softmax's outputs.
    keep : {"difference", "positive"}, default="difference"
        The log-odds of the class, or the positive row alone, which is Lee's rule.
    epochs : int, default=5
        Passes over the rows of each class.
    lr : float, default=1e-3
        Learning rate.
    batch_size : int, default=64
        Rows of a class in a batch; the last of an epoch may have fewer.
    seed : int, default=0
        Of the rows drawn, the initial weights and the order of the rows. A class has random numbers
        of its own, and torch's generators are left alone.
    device : str or torch.device, default="cpu"
        Where the layers are trained; it must have float64.

    Returns
    -------
    coef : ndarray of shape (n_classes, n_features), float64
        Weights of the logits.
    intercept : ndarray of shape (n_classes,), float64
        Intercepts of the logits. A head that saw a share beta of the negatives has its logit too
        high by ``-log(beta)`` [2]_; that is left to the caller.
    negative_share : ndarray of shape (n_classes,), float64
        That beta: the share of the other classes' weight that the drawn rows have, in (0, 1].

    Raises
    ------
    ValueError
        When a class has no rows of positive weight, there are fewer than two classes, or `loss` or
        `keep` is unknown.

    Notes
    -----
    Let w+ and w- be the rows of a layer. Under the softmax the log-odds is w+ - w-: both rows get
    opposite gradients, so w+ + w- stays what it was at the start, and w+ alone is half the
    log-odds plus half of that random sum. Under independent sigmoids w+ already is the log-odds,
    and w- another estimate of it, with the opposite sign; "difference" is the mean of the two,
    (w+ - w-) / 2.

    The binary cross-entropies of both outputs of a two-way softmax are the same number, its
    cross-entropy: "softmax_bce" differs from "softmax" by rounding alone, up to logits so far apart
    that a probability rounds to 0 or 1.

    References
    ----------
    .. [1] J. Lee. Dynamic Model Construction for Efficient Classification. There all rows of the
       other classes are negatives; here as many are drawn as the class has rows.
    .. [2] A. Dal Pozzolo et al. Calibrating Probability with Undersampling for Unbalanced
       Classification. SSCI 2015. doi:10.1109/SSCI.2015.33
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {sorted(LOSSES)}; got {loss!r}.")
    if keep not in ("difference", "positive"):
        raise ValueError(f"keep must be 'difference' or 'positive'; got {keep!r}.")
    codes = np.asarray(codes)
    weight = check_weight(sample_weight, len(codes))
    features = np.asarray(features, dtype=np.float64)
    generators = [np.random.default_rng((seed, k)) for k in range(n_classes)]
    rows, negative_share = _draw_rows(codes, weight, generators)

    X, y, w = (
        _as_sliceable(part, name, len(codes)).to(device)
        for part, name in ((features, "features"), (codes, "codes"), (weight, "sample_weight"))
    )
    # Classes of like size finish an epoch together, and do not wait for each other.
    order = np.argsort([-len(part) for part in rows], kind="stable")
    n_gathered = min(batch_size, len(rows[order[0]])) * X.shape[1]
    n_at_once = max(1, _GATHERED_AT_ONCE // n_gathered)
    layers = np.empty((n_classes, 2, X.shape[1] + 1))
    for start in range(0, n_classes, n_at_once):
        block = order[start : start + n_at_once]
        layers[block] = _fit_layers(
            (X, y, w),
            block,
            [rows[k] for k in block],
            [generators[k] for k in block],
            LOSSES[loss],
            epochs,
            lr,
            batch_size,
        )
    kept = layers[:, 0]
    if keep == "difference":
        kept = (kept - layers[:, 1]) / (2.0 if loss == "sigmoid" else 1.0)
    return kept[:, :-1].copy(), kept[:, -1].copy(), negative_share


def _draw_rows(codes, weight, generators):
    """For each class its rows and the negatives drawn for it, and the share that those are."""
    if len(generators) < 2:
        raise ValueError(f"A class needs others to be told from; n_classes is {len(generators)}.")
    present = np.flatnonzero(weight)
    rows, negative_share = [], np.empty(len(generators))
    for k, generator in enumerate(generators):
        is_positive = codes[present] == k
        positive, others = present[is_positive], present[~is_positive]
        if not positive.size:
            raise ValueError(f"Class {k} has no rows with a weight above 0.")
        if not others.size:
            raise ValueError(f"Class {k} is the only one with rows of a weight above 0.")
        drawn = generator.choice(others, min(positive.size, others.size), replace=False)
        drawn.sort()
        rows.append(np.concatenate([positive, drawn]))
        negative_share[k] = weight[drawn].sum() / weight[others].sum()
    return rows, negative_share


def _fit_layers(data, classes, rows, generators, loss, epochs, lr, batch_size):
    """Two-way layers of classes, as an array (K, 2, d + 1) with the bias in the last column.

    Losses are summed over classes, so a layer sees the gradients that it would see alone, and Adam
    works on each number alone. A class that has no batch left in an epoch rests: a step with a
    gradient of 0 would still move it.

    Parameters
    ----------
    data : tuple of torch.Tensor
        X (n, d), codes (n,) and weights (n,).
    classes : ndarray of shape (K,)
        Codes of the classes.
    rows : list of K ndarray
        Rows that each class is trained on; not fewer than those of the next class.
    generators : list of K numpy.random.Generator
        Of the initial weights and the orders.
    """
    X, y, weight = data
    device, n_features = X.device, X.shape[1]
    sizes = np.array([len(part) for part in rows])
    size = torch.tensor(sizes, device=device)[:, None]
    start = size.cumsum(0) - size
    code = torch.tensor(classes, device=device)[:, None]
    # Weights with mean 1 in each class's problem.
    scale = torch.stack([1 / weight[torch.tensor(part, device=device)].mean() for part in rows])
    bound = n_features**-0.5
    layer = np.stack([g.uniform(-bound, bound, (2, n_features + 1)) for g in generators])
    layer = torch.tensor(layer, device=device)
    mean, square = torch.zeros_like(layer), torch.zeros_like(layer)
    n_steps = torch.zeros(len(rows), 1, 1, dtype=layer.dtype, device=device)
    offset = torch.arange(min(batch_size, sizes[0]), device=device)
    for _ in range(epochs):
        shuffled = [g.permutation(part) for g, part in zip(generators, rows, strict=True)]
        shuffled = torch.tensor(np.concatenate(shuffled), device=device)
        for first in range(0, sizes[0], batch_size):
            a = np.count_nonzero(sizes > first)  # so many classes have rows left
            at = first + offset
            present = at < size[:a]  # (a, b)
            idx = shuffled[(start[:a] + at).clamp(max=len(shuffled) - 1)]
            positive = (y[idx] == code[:a]).to(layer.dtype)
            target = torch.stack([positive, 1 - positive], dim=-1)  # (a, b, 2)
            # The mean over a batch's own rows; what fills it up counts nothing.
            w = weight[idx] * present * scale[:a, None] / present.sum(1, keepdim=True)
            trained = layer[:a].requires_grad_()
            with torch.enable_grad():
                logits = torch.baddbmm(trained[:, None, :, -1], X[idx], trained[..., :-1].mT)
                total = (w * loss(logits, target)).sum()
            (grad,) = torch.autograd.grad(total, trained)
            n_steps[:a] += 1
            layer[:a] -= lr * _adam_direction(grad, mean[:a], square[:a], n_steps[:a])
    return layer.cpu().numpy()


def _adam_direction(grad, mean, square, n_steps):
    """Direction of an Adam step; updates running means (K, 2, d + 1). `n_steps` is (K, 1, 1)."""
    mean.lerp_(grad, 1 - _BETAS[0])
    square.lerp_(grad.square(), 1 - _BETAS[1])
    correction, square_correction = (1 - beta**n_steps for beta in _BETAS)
    return mean / correction / ((square / square_correction).sqrt() + _EPS)

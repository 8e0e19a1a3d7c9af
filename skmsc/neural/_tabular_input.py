"""What a TabularNet is given: its parameters checked, labels coded, rows weighed and split."""

import math

import numpy as np
import torch
from sklearn.utils import compute_class_weight

from skmsc._checks import is_number
from skmsc.neural._tabular_training import Parts
from skmsc.splits import check_all_train, make_splits

_AUTO_VALIDATION = (100, 0.1)  # from so many rows on, validation="auto" takes such a part

# What TabularNet sets itself and net_params may not hold: with all that begins so, or as it stands.
_OWN_PREFIXES = ("module", "dataset", "iterator_train", "iterator_valid", "train_split")
_OWN = ("lr", "max_epochs", "batch_size", "device", "warm_start", "classes", "verbose")
_OWN += ("predict_nonlinearity", "logit_offset", "optimizer__lr", "criterion")
_OWN += ("criterion__reduction", "weigher")


def is_splitter(validation):
    """Whether `validation` splits rows; strings have a method `split` too."""
    return hasattr(validation, "split") and not isinstance(validation, (str, bytes, type))


def check_validation(validation):
    """Raise unless `validation` is one of the things that it may be."""
    if isinstance(validation, str):
        valid = validation == "auto"
    elif isinstance(validation, tuple):
        valid = len(validation) in (2, 3)
    elif is_number(validation):
        valid = 0 < validation < 1
    else:
        of_splits = hasattr(validation, "__iter__") and not isinstance(validation, (type, bytes))
        valid = validation is None or of_splits or is_splitter(validation)
    if not valid:
        raise ValueError(
            "validation must be a number in (0, 1), a splitter, an iterable of (train, test) "
            "indices, a tuple (X, y) or (X, y, sample_weight), 'auto' or None; got "
            f"{shown(validation)}."
        )


def check_trunk(trunk):
    """Raise for a module in place of what makes one."""
    if isinstance(trunk, torch.nn.Module):
        raise TypeError(
            "trunk must be a class or a function that makes a module from the number of inputs; "
            f"got the module {type(trunk).__name__}."
        )


def check_class_weight(class_weight):
    """Raise unless the values of a dict are weights."""
    if isinstance(class_weight, dict) and not all(
        is_number(value) and 0 <= value < math.inf for value in class_weight.values()
    ):
        raise ValueError(
            f"class_weight must map classes to finite numbers >= 0; got {class_weight!r}."
        )


def check_net_params(net_params, names):
    """Raise for what a net cannot be given beside the parameters of TabularNet, its `names`."""
    callbacks = (net_params or {}).get("callbacks")
    if not isinstance(callbacks, (list, tuple, type(None))) or not all(
        hasattr(item[-1] if isinstance(item, (tuple, list)) and item else item, "on_train_begin")
        for item in callbacks or ()
    ):
        raise TypeError(
            f"net_params['callbacks'] must be a list of skorch callbacks; got {callbacks!r}."
        )
    taken = {item[0] for item in callbacks or () if isinstance(item, (tuple, list))}
    taken &= {"averaging", "early_stopping", "lr_schedule"}
    if taken:
        raise ValueError(
            f"net_params['callbacks'] must not hold the names {sorted(taken)}, which TabularNet "
            "gives its own."
        )
    for name in net_params or {}:
        own = name in _OWN or name.split("__")[0] in _OWN_PREFIXES
        if own or name.startswith("callbacks__"):
            raise ValueError(
                f"net_params must not hold {name!r}, which TabularNet sets itself: use its own "
                f"parameters {sorted(names)}."
            )


def find_device(device):
    """A device as torch has it; raises ValueError where there is none such."""
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        # Input is standardised in float64; "meta", without data, does not implement .cpu().
        torch.empty(1, dtype=torch.float64, device=found).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"device must be 'auto' or a device that torch has here; got {device!r}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return found


def encode_labels(y, classes, used):
    """Positions of labels among the classes; raises for a label that they lack.

    Labels of rows that are not `used` may be any.
    """
    try:
        codes = np.searchsorted(classes, y).clip(max=classes.size - 1)
        unknown = used & (classes[codes] != y)
    except TypeError:  # labels that do not compare
        unknown = used
    if unknown.any():
        raise ValueError(
            f"y has the labels {np.unique(y[unknown])[:10].tolist()}, which are not among the "
            f"classes {classes.tolist()}."
        )
    return codes


def weigh_rows(codes, weight, used, classes, class_weight):
    """Weights times class weights; None where there are neither."""
    if class_weight is None:
        return weight
    weight = np.ones(len(codes)) if weight is None else weight
    if isinstance(class_weight, str):  # "balanced"
        total = np.bincount(codes, weight, minlength=classes.size)
        present = total > 0
        of_class = np.zeros(classes.size)
        of_class[present] = total.sum() / (present.sum() * total[present])
    else:
        present = classes[np.unique(codes[used])]
        of_class = compute_class_weight(class_weight, classes=classes, y=present)
    weight = weight * of_class[codes]
    if not weight[used].any():
        raise ValueError(f"class_weight={class_weight!r} leaves no row with a weight.")
    return weight


def validation_share(validation, n_rows):
    """Share of so many rows that `validation` draws by chance; None: it draws none so."""
    if isinstance(validation, str):  # "auto"
        least, share = _AUTO_VALIDATION
        return share if n_rows >= least else None
    return validation if is_number(validation) else None


def split_rows(validation, X, y, codes, used, *, classes, split_params, seed):
    """`Parts` of the rows in use that train and that validate; None: all rows train.

    `validation` is as TabularNet has it, but no tuple.
    """
    idx = np.flatnonzero(used)
    if isinstance(validation, str):
        validation = validation_share(validation, idx.size)
    if validation is None:
        return None if idx.size == codes.size else Parts(idx, None)
    if is_number(validation):
        chosen = choose_validation(codes[idx], validation, np.random.RandomState(seed))
        fit_idx, valid_idx = idx[~chosen], idx[chosen]
    else:
        splits = make_splits(validation, X, y, used=used, params=split_params, name="validation")
        if not splits:
            raise ValueError(f"validation={shown(validation)} gives no split.")
        fit_idx, valid_idx = (idx[part] for part in splits[-1])
    if not valid_idx.size:
        raise ValueError(
            f"validation={shown(validation)} leaves none of {idx.size} rows to validate with."
        )
    check_all_train(f"validation={shown(validation)}", classes, codes[idx], codes[fit_idx])
    return Parts(fit_idx, valid_idx)


def choose_validation(codes, fraction, rng):
    """Mask of a stratified share of the rows, one row of each class at least left out of it.

    A row of each class is put aside; of the others, sorted by class and shuffled within,
    evenly spaced ones are taken. The number is exact to a row, and classes may be as small as they
    like.
    """
    order = np.lexsort([rng.random_sample(codes.size), codes])
    others = np.delete(order, np.unique(codes[order], return_index=True)[1])
    share = min(fraction * codes.size / max(others.size, 1), 1.0)
    ticks = np.floor(share * np.arange(others.size + 1) + rng.random_sample())
    chosen = np.zeros(codes.size, dtype=bool)
    chosen[others[np.diff(ticks) > 0]] = True
    return chosen


def shown(value):
    """A value in an error: its repr where that is short, else its type."""
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"

"""From a `thresholds` argument to a threshold matrix."""

import numpy as np

from skmsc._acting import answered_class, eager_stage
from skmsc._checks import as_numbers, warn
from skmsc.thresholds._cuts import SLACK
from skmsc.thresholds._policies import Agreement, RecallFloor

_NEEDS_UNTOUCHED = (
    "{!r} promises its confidence only on rows that no stage, calibrator or catch threshold saw: "
    "set validation_fraction, or call tune_thresholds with new rows."
)

_NEEDS_METADATA = (
    "{0!r} reads {1} of each row, and none was given: pass {1}=..., an array of shape (n_samples,),"
    " to fit or tune_thresholds (through a Pipeline as stepname__{1}=..., or with metadata routing "
    "enabled)."
)


def fit_thresholds(thresholds, scores):
    """Threshold matrix from a policy, a number, or an array of numbers.

    Parameters
    ----------
    thresholds : policy, float, array-like or None
        As in the estimators; see `check_policy` for what is valid. None keeps quality: for two
        classes a `RecallFloor` of .99 of the caught positives with a cap on the pass rate of .2,
        or twice the share of caught positives where they are common; for more, `Agreement(0.01)`.
        For two classes that early stages may both answer, `Agreement` in each class.
    scores : StageScores
        The rows to learn from; numbers do not need them.

    Returns
    -------
    matrix : ndarray of shape (n_stages, n_classes)

    Raises
    ------
    ValueError
        When the policy cannot be met, or needs what the scores do not have.
    """
    if scores.n_stages == 1:
        return np.full(scores.stage_proba.shape[1:], -np.inf)
    if thresholds is None:
        thresholds = _default_policy(scores)
    if not hasattr(thresholds, "find_thresholds"):
        return _matrix_from_numbers(np.asarray(thresholds, dtype=np.float64), scores)
    if getattr(thresholds, "confidence", None) is not None and not scores.untouched:
        raise ValueError(_NEEDS_UNTOUCHED.format(thresholds))
    check_independent(thresholds, scores.sample_weight)
    _warn_about_ties(scores)
    return thresholds.find_thresholds(scores)


def check_policy(thresholds, *, n_stages, n_classes, untouched, stage_costs=None, given=()):
    """Validate a `thresholds` argument before any work is done.

    `untouched` tells whether the policy will see rows that nothing was fitted on, `given` holds the
    names of the metadata that the rows come with.

    Valid are: an object with a ``find_thresholds(scores)`` method (its ``check`` is called where it
    has one); a number; one number for each of the n_stages - 1 early stages; a matrix of shape
    (n_stages, n_classes), whose last row must be -inf.
    """
    if thresholds is None:
        return
    if hasattr(thresholds, "find_thresholds") and not isinstance(thresholds, type):
        if hasattr(thresholds, "check"):
            thresholds.check(n_stages=n_stages, stage_costs=stage_costs)
        if n_classes > 2 and getattr(thresholds, "needs_two_classes", False):
            raise ValueError(f"{thresholds!r} needs two classes; y has {n_classes}.")
        if getattr(thresholds, "confidence", None) is not None and not untouched:
            raise ValueError(_NEEDS_UNTOUCHED.format(thresholds))
        for name in row_metadata(thresholds):
            if name not in given:
                raise ValueError(_NEEDS_METADATA.format(thresholds, name))
        return
    valid = (
        f"a number, a list of {n_stages - 1} (one for each early stage), a matrix of shape "
        f"({n_stages}, {n_classes}) with -inf in its last row, a policy such as PassBudget(0.1), "
        "or None"
    )
    values = as_numbers(thresholds, f"thresholds must be {valid}; got {thresholds!r}.")
    if np.isnan(values).any():
        raise ValueError(f"thresholds must not hold nan; got {thresholds!r}.")
    if values.ndim == 2 and values.shape == (n_stages, n_classes):
        if not (values[-1] == -np.inf).all():
            raise ValueError(f"The last row of thresholds must be -inf; got {values[-1]}.")
    elif values.shape not in ((), (n_stages - 1,)):
        raise ValueError(f"thresholds must be {valid}; got an array of shape {values.shape}.")


def needs_last_stage(thresholds):
    """Whether a `thresholds` argument looks at the last stage's scores: numbers do not.

    A policy says so by its attribute of this name, True where it has none.
    """
    return getattr(thresholds, "needs_last_stage", needs_rows(thresholds))


def needs_labels(thresholds):
    """Whether a `thresholds` argument looks at labels; said as in `needs_last_stage`."""
    return getattr(thresholds, "needs_labels", needs_rows(thresholds))


def needs_rows(thresholds):
    """Whether thresholds are found from the scores of rows, rather than given as numbers."""
    return thresholds is None or hasattr(thresholds, "find_thresholds")


def needs_costs(thresholds):
    """Whether a `thresholds` argument needs the costs of the stages."""
    return not isinstance(thresholds, type) and getattr(thresholds, "needs_costs", False)


def row_metadata(thresholds):
    """Names of the metadata that a `thresholds` argument reads of each row."""
    return () if isinstance(thresholds, type) else getattr(thresholds, "row_metadata", ())


def find_row_values(thresholds, given, sample_weight):
    """What a checked policy reads of each row, a dict of arrays of shape (n_samples,).

    `given` is the metadata of all rows by name, `sample_weight` has their weights. What the policy
    does not read is warned of, or, where it has it as a number, refused.
    """
    names = row_metadata(thresholds)
    for name in given:
        if name in names:
            continue
        if getattr(thresholds, name, None) is not None:
            raise ValueError(
                f"{name} was given for each row, and {thresholds!r} has it as a number: leave one "
                "of the two out."
            )
        warn(f"{name} was given for each row, but thresholds={thresholds!r} does not read it.")
    if not names:
        return {}
    return thresholds.per_row({name: given[name] for name in names}, sample_weight)


def refuse_blind_raise(policy, old, new, scores):
    """Raise where a floor would dismiss more rows, and no row tells what is dismissed now.

    `old` and `new` are threshold matrices; the labelled rows of `scores` may be of a sample in
    which what `old` dismisses is missing, since nobody looked at it.
    """
    if policy is None:
        blind = scores.negative is not None  # a recall floor
    else:
        blind = getattr(policy, "needs_dismissed", False)
    if not blind:
        return
    c = 0 if scores.negative is None else scores.negative
    stage = eager_stage(scores.acting, old)
    for k, name in enumerate(scores.stage_names[:-1]):
        dismissed = answered_class(scores.acting[stage == k, k], old[k]) == c
        if new[k, c] < old[k, c] < np.inf and not dismissed.any():
            raise ValueError(
                f"thresholds={policy!r} would let stage {name!r} dismiss more rows than now, those "
                f"whose negative score reaches {new[k, c]:.6g} rather than {old[k, c]:.6g}. But "
                f"none of the {scores.y.size} labelled rows is one that it dismisses now: nothing "
                "tells which positives are lost there, and each such step would hide more of them."
                " Label a share of the dismissed rows, too, with their weight: see "
                "skmsc.routing.Routing.shadow."
            )


def _default_policy(scores):
    """Policy that keeps quality where the user names none."""
    if scores.negative is None:
        return Agreement(0.01, per_class=scores.stage_proba.shape[2] == 2)
    if not scores.caught.any():
        raise ValueError(
            "thresholds=None keeps the positives that the last stage catches, and it catches none "
            f"of the {scores.y.size} rows that thresholds are set on: set thresholds, or another "
            "catch_threshold."
        )
    # A fifth of the rows is plenty for rare positives and cannot hold common ones.
    share = np.average(scores.caught, weights=scores.sample_weight)
    return RecallFloor(0.99, max_pass_rate=float(np.clip(2 * share, 0.2, 1.0)))


def _matrix_from_numbers(values, scores):
    """Threshold matrix from numbers in the user's terms."""
    if values.ndim == 2:
        return values.copy()
    cuts = np.broadcast_to(values, (scores.n_stages - 1,))
    if scores.negative is not None:
        # The user says: pass when the positive score is above t. The negative score is 1 minus
        # it, up to a rounding that must not let a row at t pass.
        cuts = np.nextafter(1.0 - cuts, -np.inf)
    return scores.matrix(cuts)


def check_independent(policy, sample_weight, groups=None):
    """Refuse a promise of confidence on rows that are not equal, independent draws.

    Rows of weight 0 are as good as absent.
    """
    if getattr(policy, "confidence", None) is None:
        return
    if groups is not None:
        raise ValueError(
            f"{policy!r} promises its confidence for independent rows only, and rows of one group "
            "are not: fit without confidence, then call tune_thresholds with one row of each group."
        )
    if sample_weight is None:
        return
    weight = sample_weight[sample_weight > 0]
    if np.ptp(weight) > SLACK * weight.max():
        raise ValueError(
            f"{policy!r} promises its confidence for equally weighted rows only; got sample_weight "
            f"between {weight.min()} and {weight.max()}."
        )


def _warn_about_ties(scores):
    """Warn of early stages whose scores are too coarse to be cut where wanted."""
    for k, name in enumerate(scores.stage_names[:-1]):
        n_distinct = np.unique(scores.confidence(k)).size
        if n_distinct < 20 <= scores.y.size:
            warn(
                f"Stage {name!r} gives only {n_distinct} distinct scores, and tied rows are cut "
                "together: the share of rows that passes can be far below the one asked for."
            )

"""Rows, labels and what comes with them: checked before anything is done with them."""

import contextlib

import numpy as np
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.model_selection import check_cv
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from skmsc._checks import check_weight
from skmsc._sklearn import (
    _check_feature_names,
    _check_n_features,
    _num_samples,
    _raise_for_params,
    _routing_enabled,
    is_dataframe,
)
from skmsc.splits import takes_time
from skmsc.thresholds import check_policy, row_metadata, rows_needed

_FLOATS = (np.float64, np.float32)

# Rows that go through the stages together, fewer where _COPIES of them in float64 would take more
# than scikit-learn's `working_memory`. So many that a call's own cost is lost among them, and so
# few that four copies of 20 columns take 170 MB. Fewer than _FEW_ROWS would gain nothing.
_ROWS_AT_ONCE, _FEW_ROWS, _COPIES = 262_144, 256, 4


class ChecksRows:
    """What the multi-stage classifiers ask of rows and of the metadata of `fit`.

    It reads ``_accepts``, ``_first_checks_all``, ``_positive`` and ``_stage_names`` of the
    classifier.
    """

    def _check_rows(self, X):
        """Rows to predict: arrays are checked, of dataframes only names and counts.

        This is on the path of a single row: no tags are computed and nothing is checked twice.
        """
        if not hasattr(self, "thresholds_"):
            check_is_fitted(self)
        if self._needs_no_check(X):
            return X
        _check_feature_names(self, X, reset=False)
        if is_dataframe(X):
            check_not_empty(X)
        else:
            X = check_array(X, **self._array_checks(), estimator=self, input_name="X")
        _check_n_features(self, X, reset=False)
        return X

    def _array_checks(self):
        """What scikit-learn's check of an array must let through."""
        sparse, allow_nan = self._accepts
        return {
            "accept_sparse": "csr" if sparse else False,
            "ensure_all_finite": "allow-nan" if allow_nan else True,
        }

    def _needs_no_check(self, X):
        """Whether X is an array that the checks would give back as it is."""
        if type(X) is not np.ndarray or X.dtype not in _FLOATS or X.ndim != 2:
            return False
        if X.shape[1] != self.n_features_in_ or not len(X) or hasattr(self, "feature_names_in_"):
            return False
        if self._first_checks_all and len(X) <= self._rows_at_once(X):
            return True  # of more rows, the first error may come late
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(np.isfinite(X.sum()))

    def _rows_at_once(self, X):
        """How many rows are routed together, so that copies of them fit in memory."""
        n_rows = _num_samples(X)
        if n_rows <= _FEW_ROWS:
            return n_rows
        width = X.nnz / n_rows if issparse(X) else self.n_features_in_
        bytes_per_row = 8 * _COPIES * (width + len(self.classes_))
        room = get_config()["working_memory"] * 2**20
        return max(min(_ROWS_AT_ONCE, int(room / bytes_per_row)), _FEW_ROWS)

    def _check_X_y(self, X, y, sample_weight):
        """X, y and weights (None stays None) of rows to train on, checked as scikit-learn does.

        Of dataframes only names, count and length are checked.
        """
        if is_dataframe(X):
            X, y = validate_data(self, X, y, skip_check_array=True)
            check_not_empty(X)
            y = column_or_1d(y, warn=True)
            check_consistent_length(X, y)
            y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
        else:
            X, y = validate_data(self, X, y, **self._array_checks())
        check_classification_targets(y[self._find_labeled(y)])
        return X, y, None if sample_weight is None else check_weight(sample_weight, len(y))

    def _check_policy(self, n_classes, stage_costs, given=()):
        """Validate `thresholds` for the stages as they are named; see `check_policy`."""
        check_policy(
            self.thresholds,
            n_stages=len(self._stage_names),
            n_classes=n_classes,
            untouched=self.validation_fraction is not None,
            stage_costs=stage_costs,
            given=given,
        )

    def _check_held_out(self, y, which="the rows"):
        """Raise before any fit when the held-out rows are too few for the policy's promise."""
        n_rows, n_positive = rows_needed(
            self.thresholds, len(self._stage_names), len(self.classes_)
        )
        held = f"among {which} of validation_fraction={self.validation_fraction}"
        if len(y) < n_rows:
            raise ValueError(
                f"{self.thresholds!r} cannot be promised: it needs {n_rows} rows {held}; got "
                f"{len(y)}."
            )
        found = 0 if self._positive is None else (y == self.classes_[self._positive]).sum()
        if found < n_positive:
            raise ValueError(
                f"{self.thresholds!r} cannot be promised: it needs {n_positive} positives, "
                f"all of them caught, {held}; got {found}."
            )

    def _metadata_router(self, pairs):
        """Router of fit: `sample_weight` here, the rest to `cv` and to the parts, (name, part).

        What the policy of the thresholds reads of each row is asked for, unless the caller said
        otherwise.
        """
        own = self._get_metadata_request()
        for name in row_metadata(getattr(self, "thresholds", None)):
            unset = (None, False) if name == "time" else (None,)
            if own.fit.requests.get(name) in unset:
                own.fit.add_request(param=name, alias=True)
        router = MetadataRouter(owner=type(self).__name__).add_self_request(own)
        if hasattr(self, "cv"):
            router.add(
                cv=self.cv if hasattr(self.cv, "split") else check_cv(),
                method_mapping=MethodMapping().add(caller="fit", callee="split"),
            )
        for name, part in pairs:
            router.add(
                **{name: part}, method_mapping=MethodMapping().add(caller="fit", callee="fit")
            )
        return router

    def _take_row_metadata(self, fit_params):
        """What `fit` was given of each row for a policy; what only that reads leaves `fit_params`.

        With metadata routing `fit_params` stays, since other parts may ask for the same.
        """
        names = {"false_negative_cost", "false_positive_cost", *row_metadata(self.thresholds)}
        metadata = without_none(**{name: fit_params.get(name) for name in names})
        if not _routing_enabled():
            cv = getattr(self, "cv", None)
            for name in names:
                if name != "time" or not takes_time(cv):
                    fit_params.pop(name, None)
        return metadata

    def _route_metadata(self, fit_params, pairs):
        """Parameters of the splitter, and of each part's fit by name; `pairs` as for the router."""
        if _routing_enabled():
            routed = process_routing(self, "fit", **fit_params)
            return routed["cv"].split, part_params(routed, pairs)
        given = {name: fit_params.pop(name, None) for name in ("groups", "time")}
        _raise_for_params(fit_params, self, "fit")
        return {name: value for name, value in given.items() if value is not None}, {}

    def _check_some_labels(self, X, y, label_weight):
        """Class codes, and how many rows each label stands for: 0 where it is not known."""
        if label_weight is None:
            codes, weight = self._check_labels(X, y, None)
            return codes, None if y is None else weight
        if y is None:
            raise ValueError("label_weight needs y.")
        weight = check_weight(label_weight, _num_samples(X), "label_weight")
        y = np.asarray(y)
        if y.shape != weight.shape:
            raise ValueError(f"y must have shape {weight.shape}; got {y.shape}.")
        idx, codes = np.flatnonzero(weight), np.zeros(weight.size, dtype=np.intp)
        known = y[idx]
        if known.dtype == object:
            known = np.array(known.tolist())  # what is not known may have been of any type
        codes[idx], labeled = self._check_labels(idx, known, None)
        weight[idx] *= labeled
        return codes, weight

    def _find_labeled(self, y):
        """Mask of the rows with a label."""
        return np.ones(len(y), dtype=bool)

    def _check_labels(self, X, y, sample_weight):
        """Class codes (None without y) and weights of rows that are not trained on.

        A row without a label has weight 0.
        """
        weight = check_weight(sample_weight, _num_samples(X))
        if y is None:
            return None, weight
        y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
        if y.shape != (_num_samples(X),):
            raise ValueError(f"y must have shape ({_num_samples(X)},); got {y.shape}.")
        labeled = self._find_labeled(y)
        unknown = labeled & ~np.isin(y, self.classes_)
        if unknown.any():
            strange = y[unknown]
            with contextlib.suppress(TypeError):  # of kinds that do not compare
                strange = np.unique(strange)
            raise ValueError(
                f"y holds labels that were not seen in fit: {strange[:10]}; known are "
                f"{self.classes_}."
            )
        if not (weight * labeled).any():
            raise ValueError("y holds no label in rows with a weight.")
        codes = np.zeros(labeled.size, dtype=np.intp)
        codes[labeled] = np.searchsorted(self.classes_, y[labeled])
        return codes, weight * labeled


def part_params(routed, pairs):
    """Parameters of each part's fit by name, as they were routed; `pairs` are (name, part)."""
    for name, _ in pairs:
        if "sample_weight" in routed[name].fit:
            raise ValueError(
                f"Stage {name!r} must get its weights from this classifier: let it request "
                "sample_weight by no other name."
            )
    return {name: dict(routed[name].fit) for name, _ in pairs}


def without_none(**metadata):
    """The metadata that was given."""
    return {name: values for name, values in metadata.items() if values is not None}


def check_not_empty(X):
    """Raise scikit-learn's error for a dataframe without rows."""
    if _num_samples(X) == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is required."
        )

"""Classes that come and go: what a classifier of heads can do after its fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d

from skmsc._checks import check_weight, no_half_fit, warn
from skmsc._labels import cast_labels
from skmsc._sklearn import _check_partial_fit_first_call, _num_samples, take_rows
from skmsc.screens import find_violations
from skmsc.thresholds import check_independent
from skmsc.training.heads import check_head
from skmsc.trunks import same_features

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from skmsc._typing import Label, Rows


def _can_learn_on(model):
    """Whether heads can learn from more rows; raises AttributeError if not."""
    if check_head(model.head).needs_rows and not model.replay_size:
        raise AttributeError(
            f"head={model.head!r} is trained on rows and cannot learn from more of them without "
            "the others: set replay_size, or use a head from statistics such as 'ridge'."
        )
    return True


class ChangesClasses:
    """The methods of `ComposableHeadClassifier` that add, remove, compose and merge classes.

    It has the state: ``_set``, a `HeadSet`, is never changed but replaced, and so is ``_screen``;
    whatever raises leaves both as they were.
    """

    if TYPE_CHECKING:  # the estimator has the rest

        def __getattr__(self, name: str) -> Any: ...

    @available_if(_can_learn_on)
    def partial_fit(
        self,
        X: Rows,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn from more rows: the heads; in the first call all that `fit` learns.

        Heads that are trained on rows need `replay_size` for it.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Labels. New ones raise an error unless `allow_new_classes`.
        classes : array-like of shape (n_classes,), default=None
            All labels that are expected; needed in the first call. A class of which no row has come
            yet has probability 0.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0.

        Returns
        -------
        self : ComposableHeadClassifier
        """
        if not self.__sklearn_is_fitted__():
            with no_half_fit(self, self._fitted_names):
                _check_partial_fit_first_call(self, classes)
                expected = np.asarray(self.classes_)
                self._finish(self._learn(X, y, sample_weight, expected=expected))
            return self
        if classes is not None and not np.array_equal(np.unique(classes), self._set.labels):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                f"{self._set.labels!r}"
            )
        X, y, weight = self._check_more_rows(X, y, sample_weight)
        new = np.setdiff1d(y, self._set.labels)
        if new.size and not self.allow_new_classes:
            raise ValueError(
                f"y contains new labels: {new.tolist()}; known are {self._set.labels.tolist()}. "
                "Set allow_new_classes=True, or call add_classes."
            )
        return self._add(X, y, weight)

    def add_class(self, X: Rows, label: Label, sample_weight: ArrayLike | None = None) -> Self:
        """Add a class.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows of the class.
        label : label
            Its label, of the type of the others.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0.

        Returns
        -------
        self : ComposableHeadClassifier

        Raises
        ------
        ValueError
            When the class is there already, or the head needs rows of other classes and has none.
        """
        check_is_fitted(self)
        label, X = self._check_label(label), self._check_rows(X)
        return self._add_new(X, np.repeat(np.array([label]), _num_samples(X)), sample_weight)

    def add_classes(self, X: Rows, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Add classes.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows of the new classes.
        y : array-like of shape (n_samples,)
            Their labels, none of which is in ``classes_``.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0.

        Returns
        -------
        self : ComposableHeadClassifier
        """
        check_is_fitted(self)
        return self._add_new(X, y, sample_weight)

    def _add_new(self, X, y, sample_weight):
        """Add classes that are not there."""
        X, y, weight = self._check_more_rows(X, y, sample_weight)
        new = np.unique(y)
        there = np.intersect1d(new, self.classes_)
        if there.size:
            raise ValueError(
                f"The classes {there.tolist()} are there already; known are "
                f"{self.classes_.tolist()}. partial_fit learns more rows of them."
            )
        return self._add(X, y, weight)

    def remove_class(self, label: Label) -> Self:
        """Remove a class: exactly what there would be without it.

        Parameters
        ----------
        label : label
            One of ``classes_``; two must stay.

        Returns
        -------
        self : ComposableHeadClassifier
        """
        check_is_fitted(self)
        label = self._check_label(label)
        self._set.index_of([label])
        if len(self._set.labels) <= 2:
            raise ValueError(
                f"Two classes must stay, and {self._set.labels.tolist()} are all there are; "
                f"{label!r} cannot be removed."
            )
        changed = self._learner.remove(self._set, label)
        reopened = (None, None)
        if self._screen is not None:
            reopened = self._screen.reopen(self._cuts(), label)
        self._change(changed, *reopened)
        return self

    def relabel(
        self, X: Rows, old: Label, new: Label, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Count rows that were learned as one class as another: labels often come late.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows that `fit`, `partial_fit` or `add_class` have seen as class `old`, not among the
            held-out ones.
        old : label
            What they were counted as; some of its weight must stay.
        new : label
            What they are; a new class or one that is there.
        sample_weight : array-like of shape (n_samples,), default=None
            The weights that they were learned with.

        Returns
        -------
        self : ComposableHeadClassifier
        """
        check_is_fitted(self)
        old, new = self._check_label(old), self._check_label(new)
        if old == new:
            raise ValueError(f"old and new must be two labels; both are {old!r}.")
        X = self._check_rows(X)
        weight = None if sample_weight is None else check_weight(sample_weight, _num_samples(X))
        to = self._as_known([new], "the label")
        changed = self._learner.relabel(self._set, self._trunk(X), old, to, weight)
        self._change(changed, *self._screened(X, np.full(_num_samples(X), new), weight))
        return self

    def compose(self, classes: ArrayLike) -> Self:
        """Make a classifier of some of the classes.

        Its heads are found anew where they come from statistics. It shares the trunk and the
        statistics with this one, and later changes of the one do not touch the other.

        Parameters
        ----------
        classes : array-like of labels
            At least two of ``classes_``, in any order.

        Returns
        -------
        composed : ComposableHeadClassifier
            With the sorted labels in ``classes_``.

        Warns
        -----
        UserWarning
            When some of their heads were never trained with each other's rows as negatives.
        """
        check_is_fitted(self)
        labels = self._as_known(classes, "classes")
        if labels.ndim != 1:
            raise ValueError(f"classes must be a list of two or more labels; got {classes!r}.")
        labels = labels.tolist()
        idx = np.unique(self._set.index_of(labels))
        if len(idx) < len(labels):
            raise ValueError(f"classes must be distinct; got {labels}.")
        if len(idx) < 2:
            raise ValueError(
                f"classes must be two or more of {self._set.labels.tolist()}; got {labels}."
            )
        composed = self._copy()
        composed._change(self._learner.compose(self._set, idx))
        _warn_of_strangers(composed._set)
        return composed

    def merge(self, other: ChangesClasses) -> Self:
        """Take over the classes of another classifier with the same trunk.

        Statistics of a class that both have are added, so that parts of the rows may be learned in
        several places.

        Parameters
        ----------
        other : ComposableHeadClassifier
            Fitted, with the same trunk and head; it is not changed.

        Returns
        -------
        self : ComposableHeadClassifier

        Raises
        ------
        ValueError
            When the trunks give other features, or the heads differ.
        """
        check_is_fitted(self)
        if not isinstance(other, ChangesClasses):
            raise TypeError(f"other must be a ComposableHeadClassifier; got {other!r}.")
        check_is_fitted(other)
        self._as_known(other._set.labels, "the labels of other")
        if type(self.head_) is not type(other.head_):
            raise ValueError(f"The heads differ: {self.head_!r} and {other.head_!r}.")
        parameters = [model.head_.get_params() for model in (self, other)]
        if self.head_.needs_rows and repr(parameters[0]) != repr(parameters[1]):
            raise ValueError(f"The heads differ: {self.head_!r} and {other.head_!r}.")
        names, others = (getattr(model, "feature_names_in_", None) for model in (self, other))
        if names is not None and others is not None and list(names) != list(others):
            raise ValueError(
                f"The feature names differ: {names.tolist()} and, of other, {others.tolist()}."
            )
        if self.n_features_in_ != other.n_features_in_ or not same_features(
            self._trunk, other._trunk, self.n_features_in_, names
        ):
            raise ValueError(
                "The trunks give other features: fit both classifiers with one frozen trunk, such "
                "as trunk=FrozenEstimator(first.trunk_), and the same random features."
            )
        merged = self._learner.merge(self._set, other._set)
        silenced = self._silenced(merged.labels)
        _warn_of_strangers(merged)
        self._change(merged, *silenced)
        return self

    def refresh(
        self, X: Rows = None, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Find the heads anew; with rows, fit the first stage and its thresholds anew, too.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features), default=None
            Rows of all known classes. They train the first stage and set its thresholds, as in
            `fit`; the heads do not learn them again. None: the heads alone, from statistics or from
            the rows of `replay_size`.
        y : array-like of shape (n_samples,), default=None
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0.

        Returns
        -------
        self : ComposableHeadClassifier
        """
        check_is_fitted(self)
        if X is None:
            if y is not None:
                raise ValueError("refresh got y without X.")
            self._change(self._learner.refresh(self._set))
            return self
        if self._screen is None:
            raise ValueError("Rows refresh the first stage, and first_stage is None: give no rows.")
        X, y, weight = self._check_more_rows(X, y, sample_weight)
        absent = np.setdiff1d(self._set.labels, y)
        unknown = np.setdiff1d(y, self._set.labels)
        if absent.size or unknown.size:
            raise ValueError(
                f"The rows to refresh with must be of all known classes {self._set.labels.tolist()}"
                f" and of no others; {absent.tolist()} are absent, {unknown.tolist()} unknown."
            )
        self._check_policy(len(self.classes_), self.stage_costs_)
        check_independent(self.thresholds, weight)
        rows = self._choose_rows(X, y, weight, {})
        refreshed = self._copy()
        refreshed._screen = refreshed._fit_screen(rows, self._set.labels, {})
        last = refreshed._calibrations[-1:]
        evidence = refreshed._gather_evidence(rows, False)
        refreshed._decide(evidence, last)
        refreshed._keep_reference(evidence.scores)
        refreshed._count_costs()
        self.__dict__.update(refreshed.__dict__)
        return self

    def export_heads(self) -> dict[str, NDArray[Any]]:
        """Give the heads as plain arrays.

        Returns
        -------
        heads : dict of str to ndarray
            "classes", "coef" and "intercept"; for heads from statistics "count", "n_rows", "total"
            and, for "ridge" and "lda", "gram", of shape (n_heads, n_hidden, n_hidden).
        """
        check_is_fitted(self)
        known = self._set
        heads = {
            "classes": known.labels.copy(),
            "coef": known.heads.coef.copy(),
            "intercept": known.heads.intercept.copy(),
        }
        if known.statistics is not None:
            heads["count"] = np.array([s.count for s in known.statistics])
            heads["n_rows"] = np.array([s.n_rows for s in known.statistics])
            heads["total"] = np.stack([s.total for s in known.statistics])
            if self.head_.needs_gram:
                heads["gram"] = np.stack([s.gram for s in known.statistics])
        return heads

    def import_heads(self, heads: Mapping[str, NDArray[Any]]) -> Self:
        """Take over heads that another classifier with the same trunk and head has exported.

        Parameters
        ----------
        heads : mapping of str to ndarray
            What `export_heads` gives, of the trunk of this classifier; nothing tells whether it is.

        Returns
        -------
        self : ComposableHeadClassifier

        Raises
        ------
        ValueError
            When an array is missing or of another shape, or, for heads that are trained on rows, a
            class is there already.
        """
        check_is_fitted(self)
        if isinstance(heads, Mapping) and "classes" in heads:
            classes = self._as_known(heads["classes"], "heads['classes']")
            heads = {**heads, "classes": classes}
        other = self._learner.read(self._set, heads)
        merged = self._learner.merge(self._set, other)
        silenced = self._silenced(merged.labels)
        _warn_of_strangers(merged)
        self._change(merged, *silenced)
        return self

    def _add(self, X, y, weight):
        """Learn rows of known or new classes."""
        changed = self._learner.add(self._set, self._trunk(X), y, weight)
        screened = self._screened(X, y, weight)
        _warn_of_strangers(changed)
        self._change(changed, *screened)
        return self

    def _change(self, changed, screen=None, cuts=None):
        """Take over a set of heads, and a first stage with its cuts by label if they change."""
        cuts = self._cuts() if cuts is None else cuts
        screen = self._screen if screen is None else screen
        classes, columns = self._order_classes(changed.labels)
        self._check_on_stage_error(len(classes) == 2)
        matrix = np.full((len(self._stage_names), len(classes)), np.inf)
        matrix[-1] = -np.inf
        if screen is not None:
            matrix[0, columns] = [cuts.get(label, np.inf) for label in changed.labels.tolist()]
            screen = screen.only(changed.labels)
        costs = self._find_costs(changed, screen)
        self._set, self._screen = changed, screen
        self.classes_, self._columns, self.stage_costs_ = classes, columns, costs
        self._positive = self._find_positive()
        self._set_thresholds(matrix)
        self._reference = None  # of other classes

    def _screened(self, X, y, weight):
        """The first stage and its cuts once classes come that it never saw; None: as they are."""
        if self._screen is None:
            return None, None
        new = np.array([label for label in np.unique(y) if label not in self._screen.scorers])
        if not new.size:
            return None, None
        rows = np.flatnonzero(np.isin(y, new))
        weight = np.ones(len(y)) if weight is None else weight
        scores, _ = self._first_step(take_rows(X, rows))
        otherwise = 0.01 if self.thresholds is None else 0.0
        tolerated = getattr(self.thresholds, "max_disagreement", otherwise)
        known = self._set.labels.tolist()
        worst = find_violations(
            self._answered_first(scores), y[rows], weight[rows], len(known), tolerated
        )
        if not worst:
            return None, None
        told = ", ".join(f"{known[k]!r} ({share:.1%})" for k, share in worst.items())
        says = (
            f"The first stage never saw {new.tolist()} and answers their rows as {told}; "
            f"{tolerated:.1%} are tolerated"
        )
        if self.on_violation == "raise":
            raise ValueError(f"{says}, and on_violation='raise'. Nothing was changed.")
        if self.on_violation == "keep":
            says += ". on_violation='keep' lets it; refresh(X, y) fits it anew."
            warn(says)
            return None, None
        closed = [known[k] for k in worst]
        screen, cuts = self._screen.close(self._cuts(), closed, new.tolist())
        before = self._screen.shares
        left = sum(before[label] for label, cut in cuts.items() if cut < np.inf and label in before)
        says += f". It no longer answers {closed}"
        if before:
            says += (
                f": about {1 - left:.1%} of the rows of known classes pass instead of "
                f"{1 - sum(before.values()):.1%}"
            )
        says += ", until refresh(X, y) fits it anew."
        warn(says)
        return screen, cuts

    def _silenced(self, labels):
        """The first stage and its cuts once classes come without rows; None: as they are."""
        if self._screen is None or np.isin(labels, self._set.labels).all():
            return None, None
        warn(
            "The first stage never saw the rows of all these classes together: it answers nothing "
            "until refresh(X, y) fits it anew, and all rows pass."
        )
        return self._screen, {}

    def _check_more_rows(self, X, y, sample_weight):
        """Further rows, labels and weights (None: no weights), without rows of weight 0."""
        if y is None:
            raise ValueError("y must be the labels of the rows; got None.")
        X = self._check_rows(X)
        y = column_or_1d(check_array(y, ensure_2d=False, dtype=None, input_name="y"), warn=True)
        if y.shape != (_num_samples(X),):
            raise ValueError(f"y must have shape ({_num_samples(X)},); got {y.shape}.")
        check_classification_targets(y)
        y = self._as_known(y, "y")
        if sample_weight is None:
            return X, y, None
        weight = check_weight(sample_weight, len(y))
        used = np.flatnonzero(weight > 0)
        if used.size == len(y):
            return X, y, weight
        return take_rows(X, used), y[used], weight[used]

    def _check_label(self, label):
        """A label in the type of the known ones; raises unless it can be one beside them."""
        if np.ndim(label) != 0:
            raise TypeError(f"A label must be a single value; got {label!r}.")
        return self._as_known([label], "the label").tolist()[0]

    def _as_known(self, labels, what):
        """Labels in the type of the known ones; raises unless they can be such labels."""
        known = self._set.labels
        labels = cast_labels(labels, known, what)
        if self._unknown is not None and (labels == self._unknown[0]).any():
            raise ValueError(
                f"{what} must not be unknown_label={self.unknown_label!r}, which is no class."
            )
        return labels


def _warn_of_strangers(known):
    """Warn of classes whose heads were never trained with each other's rows as negatives."""
    strangers = known.strangers()
    if strangers:
        told = ", ".join(f"{one!r} and {other!r}" for one, other in strangers[:10])
        more = f" and {len(strangers) - 10} more pairs" if len(strangers) > 10 else ""
        warn(
            "The heads of these classes were never trained with each other's rows, and their "
            f"logits need not compare: {told}{more}. replay_size keeps rows to train them with."
        )

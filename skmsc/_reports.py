"""What a fitted multi-stage classifier tells of rows: a report, a monitor, seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from skmsc._checks import check_integer, check_weight, warn
from skmsc._sklearn import _num_samples
from skmsc.reporting._monitor import ScoreReference, monitor_report
from skmsc.reporting._report import stage_report, watch_steps

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skmsc._typing import Floats, Rows
    from skmsc.reporting import MonitorReport, StageReport


class Reports:
    """The methods of a multi-stage classifier that tell what its stages do."""

    stage_costs_: Floats | None

    if TYPE_CHECKING:  # the classifier has the rest

        def __getattr__(self, name: str) -> Any: ...

    def report(
        self,
        X: Rows,
        y: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        measure_time: bool = False,
    ) -> StageReport:
        """Tell, stage by stage, how many rows came in, left, and what was lost.

        Of two classes the positive one (``classes_[1]``, where the classifier has no `pos_label`)
        is the one that can be lost.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,), default=None
            Labels; without them the report tells rows and costs only.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights; every count then is a sum of weights.
        measure_time : bool, default=False
            Whether to tell how long each stage took for the rows that reached it.

        Returns
        -------
        report : skmsc.reporting.StageReport
        """
        X = self._check_rows(X)
        codes, weight = self._check_labels(X, y, sample_weight)
        last, kept = len(self._stage_names) - 1, []
        seconds = np.zeros(last + 1)

        def see(k, scores, taken):
            seconds[k] += taken
            if k == last:
                kept.append(scores.copy())

        routing = self._route(X, steps=watch_steps(self._steps(), see))
        answers, alerts = routing.proba.argmax(axis=1), None
        if self.alert_threshold_ is not None:
            alerts = self._find_alerts(routing)
        positive = None if codes is None else self._is_positive(codes)
        if positive is not None:
            positive &= weight > 0
        caught = None
        if positive is not None and positive.any():
            last_proba = np.full_like(routing.proba, np.nan)
            if kept:
                last_proba[routing.stage == last] = np.concatenate(kept)
            caught = self._caught_or_unknown(X, positive, last_proba)
        return stage_report(
            self._stage_names,
            routing.stage,
            weight,
            answer=answers,
            classes=self.classes_.tolist(),
            stage_costs=self.stage_costs_,
            seconds=seconds if measure_time else None,
            correct=None if codes is None else answers == codes,
            positive=positive,
            caught=caught,
            alerts=alerts,
            failed=routing.failed,
            pos_label=self._pos_label(),
        )

    def _caught_or_unknown(self, X, positive, last_proba):
        """What `_caught` gives; None, with a warning, where the last stage raises and may."""
        try:
            return self._caught(X, positive, last_proba)
        except Exception as error:
            if self.on_stage_error == "raise":
                raise
            warn(
                "The report tells no retained recall: the last stage, asked for the positives that "
                f"do not reach it, raised {type(error).__name__}: {error}",
                RuntimeWarning,
            )
            return None

    def monitor(
        self,
        X: Rows,
        y: ArrayLike | None = None,
        *,
        reference: Rows = None,
        label_weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> MonitorReport:
        """Compare new rows with earlier ones, such as those that the thresholds were set on.

        Pass rates and score distributions need no labels. Where some labels are known, the report
        also estimates what each stage lost.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            New rows.
        y : array-like of shape (n_samples,), default=None
            Labels, of any value where they are not known.
        reference : {array-like, sparse matrix, dataframe} of shape (n_reference, n_features), \
default=None
            Rows to compare with, best ones that nothing was fitted on. None: those that the
            thresholds were set on, of which histograms are kept.
        label_weight : array-like of shape (n_samples,), default=None
            How many rows each label stands for: 0 where the label is not known, 1 where it surely
            is, and one over the chance for rows that were drawn to be labelled, such as a shadow
            sample of those that an early stage dismissed. A mask tells which labels are known and
            stand for all rows of their stage alike. None: every row has a label.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights; every count then is a sum of weights.

        Returns
        -------
        report : skmsc.reporting.MonitorReport

        Raises
        ------
        ValueError
            When there is nothing to compare with: the thresholds were set on no rows, or heads or
            classes have changed since.
        """
        X = self._check_rows(X)
        if reference is not None:
            reference = self._check_rows(reference)
        elif self._reference is None:
            raise ValueError(
                "There is nothing to compare with, as the thresholds were set on no rows, or heads "
                "or classes have changed since: give rows as reference."
            )
        codes, label_weight = self._check_some_labels(X, y, label_weight)
        weight = check_weight(sample_weight, _num_samples(X))

        known = self._reference
        if reference is not None:
            routing, scores = self._watch(reference)
            known = ScoreReference.of(routing.stage, scores, np.ones(routing.stage.size))
        routing, scores = self._watch(X)
        used, labels = weight > 0, {}
        if codes is not None:
            wrong, positive = routing.proba.argmax(axis=1) != codes, self._is_positive(codes)
            labels["label_weight"] = label_weight[used]
            labels["wrong"] = (wrong if positive is None else wrong & positive)[used]
            labels["positive"] = None if positive is None else positive[used]
        scores = [score[used[routing.stage >= k]] for k, score in enumerate(scores)]
        return monitor_report(
            self._stage_names,
            known,
            routing.stage[used],
            scores,
            weight[used],
            pos_label=self._pos_label(),
            **labels,
        )

    def _watch(self, X, keep=None):
        """Routing of checked rows, and for each stage what it says of those that reach it.

        ``keep(scores)`` is kept of the raw scores, a copy; None: the scores that the stage is cut
        at, of shape (n_rows_in,).
        """
        keep, kept = keep or self._cut_at, [[] for _ in self._stage_names]

        def see(k, scores, _):
            kept[k].append(keep(scores))

        routing = self._route(X, steps=watch_steps(self._steps(), see))
        nothing = keep(np.empty((0, len(self.classes_))))
        return routing, [np.concatenate([nothing, *parts]) for parts in kept]

    def _cut_at(self, scores):
        """Score that a stage is cut at, one number a row, from its raw scores."""
        acts = self._acting(scores)
        return acts.max(axis=1) if self._negative is None else acts[:, self._negative].copy()

    def measure_costs(self, X: Rows, *, n_repeats: int = 5, store: bool = False) -> Floats:
        """Measure the time that each stage takes for a row.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows; every stage is timed on all of them, so their number should be that of the
            batches at work. Costly features are fetched at every run.
        n_repeats : int, default=5
            Runs of each stage; the median counts.
        store : bool, default=False
            Whether to keep the result as ``stage_costs_``, for `route`, `report` and policies.

        Returns
        -------
        costs : ndarray of shape (n_stages,)
            Seconds per row.
        """
        check_integer("n_repeats", n_repeats, 1)
        X = self._check_rows(X)
        costs, carry = [], X
        for step in self._steps():
            times = []
            for _ in range(n_repeats):
                start = time.perf_counter()
                _, result = step(carry)
                times.append(time.perf_counter() - start)
            carry = result
            costs.append(np.median(times) / _num_samples(X))
        costs = np.array(costs)
        if store:
            self.stage_costs_ = costs
        return costs

"""What a stage answers: calibrated probabilities, in which its answer is the likeliest class."""

import numpy as np

from skmsc.calibration import Temperature, fit_calibration
from skmsc.thresholds import answered_class, eager_stage


class Answers:
    """How raw scores become the answers of a multi-stage classifier.

    It reads ``_calibrations``, ``thresholds_`` and ``alert_threshold_`` of the classifier.
    """

    def _set_how_answers_show(self):
        """Set what it takes for answers to be the likeliest class, and dismissed rows no alerts."""
        thresholds = self.thresholds_
        two = thresholds.shape[1] == 2 and self._measure == "max_proba"
        self._other_top = _other_top(thresholds, self._calibrations) if two else None
        self._other_limit = np.full(thresholds.shape, 0.5)
        if self.alert_threshold_ is not None:
            self._other_limit[:-1, 1 - self._positive] = min(self.alert_threshold_, 0.5)
        self._keeps_answers = [
            (self._other_top[k] < self._other_limit[k]).all()
            if two
            else self.alert_threshold_ is None and self._keeps_likeliest(cuts, calibration)
            for k, (cuts, calibration) in enumerate(
                zip(thresholds[:-1], self._calibrations[:-1], strict=True)
            )
        ]
        # Where early stages may answer any class, what they are held to is the last one's raw word.
        last = self._calibrations[-1]
        keeps_last = last is None or isinstance(last, Temperature)
        self._keeps_answers.append(self._negative is not None or keeps_last)

    def _keeps_likeliest(self, cuts, calibration):
        """Whether a stage is sure to answer with the one likeliest class, and shows it as such."""
        no_tie = {"max_proba": 0.5, "margin": 0.0, "entropy": np.inf}[self._measure]
        keeps_order = calibration is None or isinstance(calibration, Temperature)
        return keeps_order and (cuts == cuts[0]).all() and cuts[0] > no_tie

    def _calibrated(self, k, scores, overwrite=False):
        """Probabilities of shape (n_samples, n_classes) from the raw scores of stage k."""
        calibration = self._calibrations[k]
        return scores.copy() if calibration is None else calibration(scores, overwrite)

    def _answer(self, k, scores):
        """What stage k answers to rows of such scores, if it answers them.

        Calibrated probabilities; those of the other classes are lowered, if need be, until the
        class that the stage answers is the likeliest.
        """
        if self._keeps_answers[k]:
            # New memory costs large arrays more than the arithmetic does.
            return self._calibrated(k, scores, overwrite=self._gives_own_arrays[k])
        return self._keep_answer(k, scores, self._calibrated(k, scores))

    def _keep_answer(self, k, raw, proba):
        """Probabilities in which the class that stage k answered is the likeliest."""
        answer = answered_class(self._acting(raw), self.thresholds_[k])
        rows = np.arange(len(proba))
        if self._other_top is not None:
            # One map for the stage and class, so that the order of its rows stays.
            kept = np.empty_like(proba)
            top, limit = self._other_top[k, answer], self._other_limit[k, answer]
            other = below(proba[rows, 1 - answer], top, limit)
            kept[rows, answer], kept[rows, 1 - answer] = 1 - other, other
            return kept
        own = np.maximum(proba[rows, answer], 1e-12)
        rivals = proba.copy()
        rivals[rows, answer] = 0.0
        factor = np.minimum(1.0, own * (1 - 1e-9) / np.maximum(rivals.max(axis=1), 1e-300))
        kept = rivals * factor[:, None]
        kept[rows, answer] = own
        kept /= kept.sum(axis=1, keepdims=True)
        if self.alert_threshold_ is not None and k < len(self._stage_names) - 1:
            other = below(kept[rows, 1 - answer], 1.0, self._other_limit[k, answer])
            kept[rows, answer], kept[rows, 1 - answer] = 1 - other, other
        return kept


def fit_calibrations(method, seen, thresholds, of_all=None):
    """One map for each stage, fitted on the scores of the rows that reach it.

    `seen` are `StageScores` of rows that the stages were not fitted on. Among those that reach a
    stage its score means more than among all rows: a forest's 0 is less certain for a row that the
    screen found suspicious. `of_all`, a dict by stage, keeps the maps fitted on all rows, as that
    of stage 0 always is, for other thresholds.
    """
    of_all = {} if of_all is None else of_all
    stage, calibrations = eager_stage(seen.acting, thresholds), []
    for k in range(seen.n_stages):
        known = ~np.isnan(seen.stage_proba[:, k, 0])
        rows = known & (stage >= k)
        if np.unique(seen.y[rows]).size < np.unique(seen.y).size:
            rows = known
        takes_all = np.array_equal(rows, known)
        if not (takes_all and k in of_all):
            calibration = fit_calibration(
                method, seen.stage_proba[rows, k], seen.y[rows], seen.sample_weight[rows]
            )
            if takes_all:
                of_all[k] = calibration
        calibrations.append(of_all[k] if takes_all else calibration)
    return calibrations


def _other_top(thresholds, calibrations):
    """Highest probability of the other class when stage k answers class c, (n_stages, 2).

    It is the one at the cut; 0 where the stage never answers the class.
    """
    top = np.zeros(thresholds.shape)
    for k in range(len(thresholds)):
        for c in range(2):
            # The class that is answered is the likelier of those that reached their thresholds.
            least = max(thresholds[k, c], min(0.5, 1.0 - thresholds[k, 1 - c]))
            cut = np.clip(least, 0.0, 1.0)
            # A score that rounds to 1 leaves the other class up to a rounding error.
            other = min(1 - cut + np.finfo(np.float64).eps, 1.0)
            at_cut = np.array([[cut, other]]) if c == 0 else np.array([[other, cut]])
            proba = at_cut if calibrations[k] is None else calibrations[k](at_cut)
            top[k, c] = proba[0, 1 - c] if thresholds[k, c] <= 1 else 0.0
    return top


def below(proba, top, limit):
    """Probabilities in [0, top] as ones below a limit, in their order; up to half of it they stay.

    The limit is at most 1/2.
    """
    half = limit / 2
    squeezed = half + (proba - half) * (half - 2e-9 * limit) / np.maximum(top - half, half)
    return np.where((top >= limit) & (proba > half), squeezed, proba)

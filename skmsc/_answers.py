"""What a stage answers: calibrated probabilities, in which its answer is the likeliest class.

NumPy only, as exported classifiers answer by it too.
"""

import numpy as np

from skmsc._acting import acting_scores, answered_class
from skmsc._maps import Temperature

# What becomes of rows at which a stage raises, by `on_stage_error`.
INSTEAD = {
    "answer_earlier": "are answered by the stage before",
    "alert": "are answered as positive",
}


class Answers:
    """How raw scores become the answers of a multi-stage classifier.

    It reads ``_calibrations``, ``thresholds_``, ``alert_threshold_``, ``_positive``, ``_negative``,
    ``_stage_names``, ``_gives_own_arrays``, ``_measure`` and ``on_stage_error`` of the classifier.
    """

    def _acting(self, scores):
        """What thresholds act on, from raw scores of shape (..., n_classes)."""
        return acting_scores(scores, self._measure)

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

    def _answer_instead(self, k, scores):
        """Answer of rows at which stage k > 0 raised, from their scores of the stage before."""
        if self.on_stage_error == "answer_earlier":
            return self._calibrated(k - 1, scores)
        proba = np.zeros_like(scores)
        proba[:, self._positive] = 1.0
        return proba

    def _find_alerts(self, routing):
        """Mask of the rows that are alerts, as those are that a failed stage leaves for one."""
        alerts = routing.proba[:, self._positive] >= self.alert_threshold_
        return alerts | routing.failed if self.on_stage_error == "alert" else alerts

    def _answer_apart(self, k, scores):
        """What stage k answers where probabilities need not sum to 1, and are not made to."""
        proba, rows = scores.copy(), np.arange(len(scores))
        answer = answered_class(scores, self.thresholds_[k])
        own = proba[rows, answer]
        np.minimum(proba, np.nextafter(own, -1.0)[:, None], out=proba)
        if self.alert_threshold_ is not None and k < len(self._stage_names) - 1:
            other = proba[rows, 1 - answer]
            proba[rows, 1 - answer] = below(other, 1.0, self._other_limit[k, answer])
        proba[rows, answer] = own
        return proba


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

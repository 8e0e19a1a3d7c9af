"""The reverse pass: an earlier stage is fitted on what the later ones make of its rows."""

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.frozen import FrozenEstimator

from skmsc.calibration import fit_calibration
from skmsc.training.feedback import (
    AutoFeedback,
    LaterStages,
    best_f1_cut,
    feedback_for,
    guesses_for,
)
from skmsc.training_rows import TrainingRows

__all__ = []  # for the package's own use


def find_catch_threshold(catch_threshold, proba, rows, positive):
    """Score of the last stage from which a positive counts as caught; None without positives.

    `proba` are the last stage's out-of-fold scores of the `TrainingRows`, `positive` the code of
    the positive class or None.
    """
    if positive is None:
        return None
    if not isinstance(catch_threshold, str):
        return float(catch_threshold)
    if catch_threshold == "argmax":
        return 0.5
    scored = rows.fitter.scored & ~np.isnan(proba[:, 0])
    is_positive = rows.fitter.codes[scored] == positive
    return best_f1_cut(is_positive, proba[scored, positive], rows.weight[scored])


@dataclass(frozen=True)
class Guide:
    """What is known of the later stages of a cascade when a stage is to be trained.

    Attributes
    ----------
    fits : list of CrossFit
        The later stages in working order; none for the last stage.
    rows : TrainingRows
        The rows; labelled ones that have no out-of-fold scores count as their class does.
    positive : int or None
        Code of the positive class of two.
    catch_threshold : float or None
        Score at which the last stage catches.
    stage_costs : ndarray of shape (n_stages,) or None
        Costs of all stages, as given.
    """

    fits: list
    rows: TrainingRows
    positive: int | None
    catch_threshold: float | None
    stage_costs: np.ndarray | None

    @cached_property
    def signal(self):
        """What is known of the later stages on the labelled rows that have scores."""
        codes, scored = self.rows.fitter.codes, self.rows.fitter.scored
        costs = self.stage_costs
        return LaterStages(
            positive=codes[scored] == self.positive,
            later_proba=np.column_stack([fit.proba[scored, self.positive] for fit in self.fits]),
            catch_threshold=self.catch_threshold,
            sample_weight=self.rows.weight[scored],
            later_costs=None if costs is None else costs[-len(self.fits) :],
        )

    @cached_property
    def of_unlabeled(self):
        """For the fit on all rows and for each fold's: mask, later scores and chance.

        Each fold has scores of the later stages' own fits on its training part, so that no label of
        a test row reaches the stage by way of its unlabelled neighbours. What is left is global:
        the calibration, the catch threshold, the scale of the weights; and, as in any stacking,
        the scores that weigh a fold's labelled rows come from fits that saw its test rows. A stage
        between has learned the unlabelled rows that it scores.
        """
        if self.rows.fitter.unlabeled.size == 0:
            return []
        calibration = self._calibration
        parts = []
        for scores in zip(*(fit.unlabeled_proba for fit in self.fits), strict=True):
            trains = ~np.isnan(scores[-1][:, 0])
            chance = calibration(scores[-1][trains])[:, self.positive]
            later_proba = np.column_stack([score[trains, self.positive] for score in scores])
            parts.append((trains, later_proba, chance))
        return parts

    @cached_property
    def chance_caught(self):
        """Chance that each row is a positive that the last stage catches; 0 without a score.

        It is known of labelled rows, by their out-of-fold scores. Of the others that a fold scores
        it is their chance to be positive, where the last stage's score reaches the threshold.
        """
        fitter, last = self.rows.fitter, self.fits[-1]
        chance = (fitter.scored & (fitter.codes == self.positive)).astype(np.float64)
        score = last.proba[:, self.positive].copy()
        if fitter.unlabeled.size:
            of_unlabeled = last.unlabeled_proba[0]
            score[fitter.unlabeled] = of_unlabeled[:, self.positive]
            chance[fitter.unlabeled] = self._calibration(of_unlabeled)[:, self.positive]
            chance[~fitter.tested] = 0.0
        return np.where(score >= self.catch_threshold, chance, 0.0)

    @cached_property
    def _calibration(self):
        """Map of the last stage's scores to chances, fitted out-of-fold on the labelled rows."""
        scored = self.rows.fitter.scored
        codes, weight = self.rows.fitter.codes[scored], self.rows.weight[scored]
        return fit_calibration("sigmoid", self.fits[-1].proba[scored], codes, weight)


def train_stage(feedback, name, stage, guide, score_unlabeled):
    """Fit a stage on what the later ones make of its rows.

    Parameters
    ----------
    feedback : strategy, "auto", "caught", "gain", "none" or callable
        A checked `feedback` argument. The last stage learns the labels whatever it is.
    name : str
        Name of the stage.
    stage : estimator
        Not changed.
    guide : Guide
        The rows and the later stages.
    score_unlabeled : bool
        Whether to score the unlabelled rows: an earlier stage needs that.

    Returns
    -------
    fit : CrossFit
    weight : ndarray of shape (n_samples,)
        What the rows weighed, before the caller's weights are multiplied in; of an unlabelled row
        both its weights together, or nan.
    comparison : dict of str to list
        What `AutoFeedback` compared; empty for another feedback.

    Raises
    ------
    ValueError
        When the weights of a callable leave one class.
    """
    if isinstance(feedback, str) and feedback == "auto":
        feedback = AutoFeedback()
    automatic = bool(guide.fits) and isinstance(feedback, AutoFeedback)
    schemes = [feedback] if guide.fits else ["none"]
    if automatic:  # a frozen stage has nothing to learn
        schemes = ["none", *([] if isinstance(stage, FrozenEstimator) else feedback.candidates)]
    rows, fits, weights = guide.rows, [], []
    for scheme in schemes:
        codes, weight, guesses = teach(scheme, guide, is_candidate=automatic)
        if fits and weight is None:  # nothing to learn: as without feedback, which came first
            fits.append(fits[0])
            weights.append(weights[0])
            continue
        fit = rows.fit_stage(
            name,
            stage,
            rows.fitter.classes[codes],
            rows.fitter.sample_weight if weight is None else rows.weight * weight,
            guesses=guesses,
            score_unlabeled=score_unlabeled,
        )
        shown = np.ones(codes.size) if weight is None else weight
        unlabeled = rows.fitter.unlabeled
        both = np.nan if guesses is None else guesses[0].sum(axis=1) / rows.weight[unlabeled]
        shown[unlabeled] = both
        fits.append(fit)
        weights.append(shown)
    if not automatic:
        return fits[0], weights[0], {}
    best, comparison = _compare(feedback, fits, guide)
    names = [scheme if isinstance(scheme, str) else repr(scheme) for scheme in schemes]
    comparison = {"stage": [name] * len(fits), "feedback": names, **comparison}
    return fits[best], weights[best], comparison


def teach(feedback, guide, is_candidate=False):
    """What later stages want an earlier one to be trained on.

    Parameters
    ----------
    feedback : strategy, "caught", "gain", "none" or callable
        A checked `feedback` argument other than "auto".
    guide : Guide
        The later stages.
    is_candidate : bool, default=False
        Whether a scheme that leaves nothing to learn may pass for "none" without a word.

    Returns
    -------
    wanted : ndarray of shape (n_samples,)
        Class codes: the positive one for the rows that the stage should pass.
    weight : ndarray of shape (n_samples,) or None
        Weights, before the caller's are multiplied in; None: all rows count as they are.
    guesses : ndarray of shape (n_splits + 1, n_unlabeled, 2) or None
        The unlabelled rows' weights as of the first and as of the second class, with the caller's
        weights multiplied in; None when they are not learned from.

    Raises
    ------
    ValueError
        When the weights of a callable leave one class.
    """
    fitter, positive = guide.rows.fitter, guide.positive
    if isinstance(feedback, str) and feedback == "none":
        return fitter.codes, None, None
    wanted, weight = fitter.codes.copy(), fitter.labeled.astype(np.float64)
    passes, weight[fitter.scored] = feedback_for(feedback, guide.signal)
    wanted[fitter.scored] = np.where(passes, positive, 1 - positive)
    for code in (0, 1):
        # Rows that no fold scores count like the mean of their class: were they to count 1, a
        # scheme that balances the classes would leave them out of balance.
        mine = fitter.codes == code
        known = mine & fitter.scored
        if known.any():
            weight[mine & ~known] = np.average(weight[known], weights=guide.rows.weight[known])
    if not all(fitter.can_train(wanted, weight > 0)):
        if is_candidate:
            return fitter.codes, None, None
        if callable(feedback):
            raise ValueError(
                f"The weights of feedback={feedback!r} are 0 for a whole class in some training "
                "part of cv, which leaves nothing to learn."
            )
        warnings.warn(
            f"By feedback={feedback!r} it pays, in some training part of cv, to pass every row "
            "or none, which leaves nothing to learn: the stage is trained without feedback. "
            "Consider other costs or another catch_threshold.",
            UserWarning,
            stacklevel=4,
        )
        return fitter.codes, None, None
    if fitter.unlabeled.size == 0:
        return wanted, weight, None
    guesses = np.full((len(guide.of_unlabeled), fitter.unlabeled.size, 2), np.nan)
    for guess, (trains, later_proba, chance) in zip(guesses, guide.of_unlabeled, strict=True):
        as_either = guesses_for(feedback, guide.signal, later_proba, chance)
        guess[trains] = as_either[:, [1 - positive, positive]]
        guess *= guide.rows.weight[fitter.unlabeled, None]
    return wanted, weight, guesses


def _compare(automatic, fits, guide):
    """Retained recall of the schemes' fits, the first of which had none.

    Returns the place of the one to keep, and a dict of lists with one entry for each.
    """
    rows, tests = guide.rows, [test for _, test in guide.rows.fitter.splits]
    weight = rows.weight * guide.chance_caught
    passed = [
        share_passed(fit.proba[:, guide.positive], rows.weight, tests, automatic.pass_rate)
        for fit in fits
    ]
    # The fits of the folds share rows.
    labeled, splits = rows.fitter.labeled, rows.fitter.splits
    ratio = sum(labeled[test].sum() / labeled[train].sum() for train, test in splits)
    table = {"retained_recall": [], "difference": [], "standard_error": []}
    for share in passed:
        difference, error = _paired(share - passed[0], weight)
        retained = np.average(share, weights=weight) if weight.any() else np.nan
        table["retained_recall"].append(float(retained))
        table["difference"].append(difference)
        table["standard_error"].append(error * np.sqrt(1 + ratio))
    table["standard_error"][0] = 0.0
    best = int(np.argmax(table["difference"]))
    if not table["difference"][best] > automatic.margin * table["standard_error"][best]:
        best = 0  # also without a caught positive, where all is nan
    return best, {**table, "chosen": [i == best for i in range(len(fits))]}


def share_passed(score, weight, tests, pass_rate):
    """Chance that each row passes when a share of every test part does, the highest scores first.

    Rows that tie at the cut share what is left of it. A row of several test parts has the mean.
    """
    share, count = np.zeros(score.size), np.zeros(score.size)
    for test in tests:
        _, level = np.unique(-score[test], return_inverse=True)
        mass = np.bincount(level, weight[test])
        before = np.cumsum(mass) - mass
        passes = np.clip((pass_rate * mass.sum() - before) / mass, 0.0, 1.0)
        share[test] += passes[level]
        count[test] += 1
    return share / np.maximum(count, 1)


def _paired(difference, weight):
    """Weighted mean of differences and its standard error, no less than one more row's part."""
    if not weight.any():
        return np.nan, np.nan
    mean, total = np.average(difference, weights=weight), weight.sum()
    squares = (weight**2) @ (difference - mean) ** 2 + weight.max() ** 2
    return float(mean), float(np.sqrt(squares) / total)

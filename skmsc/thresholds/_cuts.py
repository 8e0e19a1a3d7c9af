"""Cuts of one confidence or of several in a row, from cumulative sums over distinct values."""

from bisect import bisect_left

import numpy as np

from skmsc.calibration import fit_calibration

# Sums of weights carry rounding; a budget of .29 on 100 rows means 29 rows.
SLACK = 1e-9


def tail_sums(confidence, *loads):
    """Distinct confidences, highest first, and the sums of each load over the rows down to each.

    Returns arrays of shape (n_distinct,) and, for each load, (n_distinct + 1,): entry j sums the
    rows with the j highest confidences, those that are answered when the cut is below them.
    """
    values, inverse = np.unique(confidence, return_inverse=True)
    sums = [
        np.concatenate([[0.0], np.cumsum(np.bincount(inverse, load, values.size)[::-1])])
        for load in loads
    ]
    return values[::-1], *sums


def cut_below(values, j):
    """Cut that answers the j highest of the distinct confidences, midway to the next.

    Where all are answered there is no next one, and it is the lowest: what would be lower was not
    seen.
    """
    if j == 0:
        return np.inf
    if j == values.size:
        return values[-1]
    midway = values[j] + (values[j - 1] - values[j]) / 2
    return midway if midway > values[j] else values[j - 1]


def cut_for_pass(confidence, weight, most):
    """Highest cut at which rows of at most this weight pass; -inf when none may."""
    values, answered = tail_sums(confidence, weight)
    passing = answered[-1] - answered
    j = np.argmax(passing <= most + SLACK * answered[-1])
    return -np.inf if j == values.size else cut_below(values, j)


def cut_for_loss(confidence, loss, most):
    """Lowest cut at which the answered rows lose at most this much."""
    values, lost = tail_sums(confidence, loss)
    j = np.flatnonzero(lost <= most + SLACK * lost[-1])[-1]
    return cut_below(values, j)


def cuts_by_loss(scores, loss_of, most):
    """One cut for each early stage; together the stages lose at most `most`.

    Each stage may use its equal part of the allowance, and what the stages before it left over.
    """
    waiting = np.ones(scores.y.size, dtype=bool)
    n_early, spent, cuts = scores.n_stages - 1, 0.0, []
    for k in range(n_early):
        confidence, loss = scores.confidence(k), loss_of(k)
        allowed = max(most * (k + 1) / n_early - spent, 0.0)
        cut = cut_for_loss(confidence[waiting], loss[waiting], allowed)
        cuts.append(cut)
        answered = waiting & (confidence >= cut)
        spent += loss[answered].sum()
        waiting &= ~answered
        if not waiting.any():
            return cuts + [np.inf] * (n_early - k - 1)
    return cuts


def cuts_by_class(scores, allowance):
    """Cuts at which each class, as the last stage tells it, loses at most its allowance of weight.

    A row is lost when an early stage answers another class; each stage may use its equal part of a
    class's allowance, and what the stages before it left over. Of shape (n_early, n_classes) for
    two classes that early stages may both answer: a class is lost by answers of the other, so each
    answer has a cut of its own. Else of shape (n_early,): one cut that keeps all classes.
    """
    n_early, n_classes = scores.n_stages - 1, scores.stage_proba.shape[2]
    weight, last = scores.sample_weight, scores.answers[:, -1]
    spent, waiting = np.zeros(n_classes), np.ones(last.size, dtype=bool)
    by_answer = n_classes == 2 and scores.negative is None
    cuts = np.full((n_early, n_classes), np.inf)
    for k in range(n_early):
        confidence, loss = scores.confidence(k), weight * scores.disagrees(k)
        answer, allowed = scores.answers[:, k], allowance * (k + 1) / n_early - spent

        def cut(c, rows, confidence=confidence, loss=loss, allowed=allowed):
            """Lowest cut of the rows, a mask, at which class c loses no more than it may."""
            if not rows.any():
                return np.inf
            most = max(allowed[c], 0.0)
            return cut_for_loss(confidence[rows], (loss * (last == c))[rows], most)

        if by_answer:
            cuts[k] = [cut(1 - a, waiting & (answer == a)) for a in (0, 1)]
        else:
            cuts[k] = max(cut(c, waiting) for c in np.unique(last))
        answered = waiting & (confidence >= cuts[k, answer])
        spent += np.bincount(last[answered], loss[answered], n_classes)
        waiting &= ~answered
    return cuts if by_answer else cuts[:, 0]


def cuts_by_pass(scores, rates):
    """One cut for each early stage, so that at most ``rates[k]`` of all rows pass stage k."""
    waiting = np.ones(scores.y.size, dtype=bool)
    total, cuts = scores.sample_weight.sum(), []
    for k, rate in enumerate(rates):
        confidence = scores.confidence(k)
        if not waiting.any():
            cuts.append(np.inf)
            continue
        cut = cut_for_pass(confidence[waiting], scores.sample_weight[waiting], rate * total)
        cuts.append(cut)
        waiting &= confidence < cut
    return cuts


def cuts_by_agreement(scores, measure, most):
    """One cut for each early stage, all at one price of agreement with the last.

    How likely a stage of some confidence agrees with the last stage is a monotone function of the
    confidence, fitted for each stage. A stage answers a row when the chance that it does not agree
    is worth less than what the next stage costs, at one price for all stages: the lowest at which
    ``measure(stage)``, of the stages where the rows leave, is at most `most`. Where costs are not
    known all stages cost the same.
    """
    n_early, weight = scores.n_stages - 1, scores.sample_weight
    confidence = np.column_stack([scores.confidence(k) for k in range(n_early)])
    level = np.column_stack(
        [_agreement(confidence[:, k], ~scores.disagrees(k), weight) for k in range(n_early)]
    )
    if scores.stage_costs is not None:
        next_cost = scores.stage_costs[1:] / max(scores.stage_costs[1:].max(), 1e-300)
        level = (level - 1.0) / np.maximum(next_cost, 1e-6)
    levels = np.append(np.inf, np.unique(level)[::-1])  # from no early answer to all at stage 0

    def is_met(j):
        answered = np.column_stack([level >= levels[j], np.ones(len(level), dtype=bool)])
        return measure(answered.argmax(axis=1)) <= most * (1 + SLACK)

    first = bisect_left(range(levels.size - 1), True, key=is_met)
    return [_cut_at(confidence[:, k], level[:, k] >= levels[first]) for k in range(n_early)]


def _agreement(confidence, agrees, weight):
    """Fitted likelihood of agreement of each row, a monotone function of its confidence."""
    scores = np.column_stack([1.0 - confidence, confidence])
    return fit_calibration("sigmoid", scores, agrees.astype(np.intp), weight)(scores)[:, 1]


def _cut_at(confidence, answered):
    """Cut between rows that are answered, those of the highest confidences, and the others."""
    values = np.unique(confidence)[::-1]
    return cut_below(values, np.unique(confidence[answered]).size)


def geometric(rate, n_early):
    """Pass rates that fall by one factor from stage to stage and end at `rate`."""
    return rate ** (np.arange(1, n_early + 1) / n_early)

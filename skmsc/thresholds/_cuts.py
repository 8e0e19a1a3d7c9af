"""Cuts of one confidence or of several in a row, from cumulative sums over distinct values."""

import numpy as np

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
    """Cut that answers the j highest of the distinct confidences, midway to the next."""
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


def geometric(rate, n_early):
    """Pass rates that fall by one factor from stage to stage and end at `rate`."""
    return rate ** (np.arange(1, n_early + 1) / n_early)

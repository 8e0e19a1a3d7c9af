"""What is measured, how repeats are summarised, and how results are written."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from scipy.stats import t as student_t
from sklearn.metrics import accuracy_score, average_precision_score, log_loss, roc_auc_score

PACKAGES = ("skmsc", "scikit-learn", "numpy", "scipy", "joblib", "threadpoolctl", "pandas")
PACKAGES += ("torch", "skorch", "tabm", "onnxruntime")
PACKAGES += ("lightgbm", "xgboost-cpu", "scikit-fallback", "river", "MAPIE")  # the peers


# --- measures ---------------------------------------------------------------------------------
def card_precision(y, score, customer, day, *, k=100):
    """Mean over days of the share of compromised cards among the k cards of highest score.

    A card scores as its highest row of the day, and a card that was found is out of play on the
    days after. Cards of equal score are ordered by their number: any fixed order would do.
    """
    found, shares = np.empty(0, dtype=customer.dtype), []
    for one_day in np.unique(day):
        rows = (day == one_day) & ~np.isin(customer, found)
        cards, card_of_row = np.unique(customer[rows], return_inverse=True)
        card_score = np.full(len(cards), -np.inf)
        np.maximum.at(card_score, card_of_row, score[rows])
        is_compromised = np.zeros(len(cards), dtype=bool)
        np.logical_or.at(is_compromised, card_of_row, y[rows] == 1)
        top = np.argsort(-card_score, kind="stable")[:k]
        hits = cards[top][is_compromised[top]]
        found = np.concatenate([found, hits])
        shares.append(len(hits) / k)
    return float(np.mean(shares))


def measure(split, answers, *, screen_cost, caught=None):
    """All measures of one method on one split.

    Parameters
    ----------
    split : datasets.Split
    answers : methods.Answers
    screen_cost : float
        Cost of running the screen on one row, in calls of the last stage.
    caught : ndarray of bool of shape (n_test_samples,) or None
        Positives that the last stage alone would catch.

    Returns
    -------
    dict of str to float
        ``pass_rate`` is realised on the test rows, ``cost`` is the mean per row in calls of the
        last stage, ``retained`` the share of the caught positives that no early stage dismisses.
    """
    weight = split.w_test
    pass_rate = float(np.average(answers.passed, weights=weight))
    values = measure_ranking(split, answers.score)
    values["pass_rate"] = pass_rate
    values["cost"] = screen_cost * answers.screened + pass_rate
    if caught is not None:
        values["retained"] = retained_recall(answers.kept, caught, weight)
    return {name: float(value) for name, value in values.items()}


def measure_ranking(split, score):
    """Measures of a score of the positive class, which see the order of the rows only."""
    values = {
        "auc": roc_auc_score(split.y_test, score, sample_weight=split.w_test),
        "ap": average_precision_score(split.y_test, score, sample_weight=split.w_test),
    }
    if split.customer_test is not None:
        values["cp100"] = card_precision(split.y_test, score, split.customer_test, split.day_test)
    return values


def measure_proba(split, proba):
    """Measures of probabilities, shape (n_test_samples, n_classes), of unweighted test rows.

    Of more than two classes: accuracy, and the mean over classes of the AUC of one against the
    rest.
    """
    labels = np.arange(proba.shape[1])
    if len(labels) == 2:
        values = measure_ranking(split, proba[:, 1])
    else:
        values = {
            "auc": roc_auc_score(split.y_test, proba, multi_class="ovr", labels=labels),
            "accuracy": accuracy_score(split.y_test, proba.argmax(axis=1)),
        }
    values["log_loss"] = log_loss(split.y_test, proba, labels=labels)
    return {name: float(value) for name, value in values.items()}


def retained_recall(kept, caught, weight=None):
    """Share of the caught positives that are kept, that is, not rejected by an early stage."""
    return float(np.average(kept[caught], weights=None if weight is None else weight[caught]))


def best_f1_cut(y, score, weight=None):
    """The cut of best F1, midway between neighbouring scores: ``score >= cut`` is caught."""
    weight = np.ones(len(y)) if weight is None else weight
    order = np.argsort(-score, kind="stable")
    score, y, weight = score[order], y[order], weight[order]
    n_flagged, n_hit = np.cumsum(weight), np.cumsum(weight * y)
    last_of_ties = np.flatnonzero(np.append(score[1:] != score[:-1], True))
    f1 = 2 * n_hit[last_of_ties] / (n_flagged[last_of_ties] + n_hit[-1])
    best = last_of_ties[np.argmax(f1)]
    below = score[best + 1] if best + 1 < len(score) else score[best]
    return float((score[best] + below) / 2)


# --- repeats ----------------------------------------------------------------------------------
def interval(values):
    """Mean, standard error and half width of the 95 % Student interval over repeats."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    # One repeat has no interval; None, because JSON knows no nan.
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    half_width = float(student_t.ppf(0.975, n - 1)) * error if n > 1 else None
    return {"mean": float(values.mean()), "se": error, "half_width": half_width, "n": n}


def paired(records, key, value, of, against):
    """Interval of ``value`` of the records matching `of` minus those matching `against`.

    `key` names the field that pairs them (the week, the seed); `of` and `against` are dicts.
    """

    def column(wanted):
        rows = [r for r in records if all(r[field] == v for field, v in wanted.items())]
        found = {r[key]: r[value] for r in rows}
        if len(found) != len(rows) or not rows:
            raise ValueError(
                f"{wanted} must match one record per {key}, got {len(rows)} of {len(found)}."
            )
        return found

    left, right = column(of), column(against)
    if left.keys() != right.keys():
        raise ValueError(f"{of} and {against} were not run on the same {key}s.")
    return interval([left[repeat] - right[repeat] for repeat in left])


def over_repeats(records, method, value, against=None):
    """Interval over repeats of the mean over seeds; over seeds where there is one repeat only.

    With `against`, of the difference from that method's mean over seeds in the same repeat.
    """

    def by_repeat(name):
        found = {}
        for record in records:
            if record["method"] == name:
                found.setdefault(record["repeat"], []).append(record[value])
        return found

    own = by_repeat(method)
    other = by_repeat(against) if against else {repeat: [0.0] for repeat in own}
    differences = [np.array(values) - np.mean(other[repeat]) for repeat, values in own.items()]
    if len(differences) == 1:
        return interval(differences[0])
    return interval([values.mean() for values in differences])


def expect(what, value, *, at_least=None, at_most=None):
    """One expectation, with its number and whether it holds."""
    bound = at_least if at_least is not None else at_most
    holds = value >= bound if at_least is not None else value <= bound
    sign = ">=" if at_least is not None else "<="
    return {
        "what": what,
        "value": float(value),
        "expected": f"{sign} {bound}",
        "holds": bool(holds),
    }


# --- writing ----------------------------------------------------------------------------------
def plus_minus(summary, digits=3):
    """`interval` as text."""
    if summary["n"] == 1:
        return f"{summary['mean']:.{digits}f}"
    return f"{summary['mean']:.{digits}f} ± {summary['half_width']:.{digits}f}"


def markdown_table(header, rows):
    """A Markdown table; the first column is text, the others are aligned right."""
    rows = [[str(cell) for cell in row] for row in rows]
    width = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells):
        padded = [
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, width, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = (
        "| "
        + " | ".join("-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(width))
        + " |"
    )
    return "\n".join([line(header), rule, *map(line, rows)])


def expectation_table(expectations):
    """Expectations as a table; a lost one is spelled in capitals."""
    return markdown_table(
        ["expectation", "bound", "measured", "verdict"],
        [
            [
                e["what"],
                e["expected"],
                f"{e['value']:.4g}",
                "holds" if e["holds"] else "DOES NOT HOLD",
            ]
            for e in expectations
        ],
    )


def machine():
    """Cores and versions: numbers without them cannot be compared."""
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


def write(name, text, content, *, quick):
    """Write ``results/<name>.md`` and ``.json`` and print the text.

    A quick run writes to ``results/quick``: it must not overwrite the numbers of a full one.
    """
    folder = Path(__file__).parent / "results" / ("quick" if quick else "")
    folder.mkdir(parents=True, exist_ok=True)
    here = machine()
    versions = ", ".join(f"{package} {number}" for package, number in here["versions"].items())
    if quick:
        text = "**Quick run: it shows that the code runs, its numbers are no evidence.**\n\n" + text
    text += (
        f"\n\nMachine: {here['cores']} cores, {here['architecture']}, Python {here['python']}; "
        f"{versions}.\n"
    )
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / f"{name}.json").write_text(
        json.dumps({"machine": here, "quick": quick, **content}, indent=1) + "\n", encoding="utf-8"
    )
    print(text, flush=True)

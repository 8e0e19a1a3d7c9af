"""The answer to one row in plain numbers is that of arrays."""

import numpy as np
import pytest

from skmsc._answers import Answers
from skmsc.calibration import fit_calibration
from skmsc.serving._one_row import answer_of_one

EXTREME = [0.0, 5e-324, 1e-300, 1e-17, 1e-9, 0.5, 1 - 1e-9, 1 - 1e-16, 1.0]
METHODS = ["sigmoid", "isotonic", "temperature", None]


class Answering(Answers):
    """What `Answers` reads, and nothing else."""

    _measure, _positive, _negative, _stage_names = "max_proba", 1, 0, ["screen", "final"]
    _gives_own_arrays = [False, False]

    def __init__(self, calibrations, thresholds, alert_threshold):
        self._calibrations, self.thresholds_ = calibrations, thresholds
        self.alert_threshold_ = alert_threshold
        self._set_how_answers_show()


def scores_and_labels(rng, n_rows=400):
    positive = np.concatenate([rng.beta(0.7, 2, n_rows), EXTREME])
    y = (rng.uniform(size=positive.size) < 0.2 + 0.6 * positive**2).astype(int)
    return np.column_stack([1 - positive, positive]), y


@pytest.mark.parametrize("alert_threshold", [None, 0.05])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "cuts", [(0.9, np.inf), (0.2, np.inf), (0.7, 0.9), (0.3, 0.4)], ids=lambda cuts: f"{cuts}"
)
def test_one_row_equals_arrays(method, cuts, alert_threshold):
    scores, y = scores_and_labels(np.random.default_rng(0))
    maps = [fit_calibration(method, scores, y, np.ones(y.size)) for _ in range(2)]
    thresholds = np.array([cuts, (-np.inf, -np.inf)])
    known = Answering(maps, thresholds, alert_threshold)
    for k in range(2):
        mine = scores[(scores >= thresholds[k]).any(axis=1)]
        answer = answer_of_one(
            maps[k],
            thresholds[k].tolist(),
            known._keeps_answers[k],
            known._other_top[k].tolist(),
            known._other_limit[k].tolist(),
        )
        found = np.array([answer(*row) for row in mine.tolist()])
        expected = known._answer(k, mine.copy())
        np.testing.assert_allclose(found, expected[:, 1], rtol=1e-9, atol=1e-15)
        np.testing.assert_array_equal(found > 0.5, expected.argmax(axis=1) == 1)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_one_row_of_decision_values(method):
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    score = rng.normal(size=300) + y
    decisions = np.column_stack([-score, score])
    one = fit_calibration(method, decisions, y, np.ones(300), from_decisions=True)
    thresholds = np.full((1, 2), -np.inf)
    answer = answer_of_one(one, thresholds[0].tolist(), True, (1.0, 1.0), (0.5, 0.5))
    wide = np.linspace(-50, 50, 201)
    wide = np.column_stack([-wide, wide])
    found = [answer(*row) for row in wide.tolist()]
    np.testing.assert_allclose(found, one(wide)[:, 1], rtol=1e-9, atol=1e-15)

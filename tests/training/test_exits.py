"""Weights of rows at exits, against their formulas in NumPy."""

import re
from itertools import pairwise

import numpy as np
import pytest
from sklearn.base import clone

from skmsc import FocalWeights, LearnedWeights, SurvivorWeights, UniformWeights
from skmsc.training.exits import STRATEGIES, check_exit_weighting, start_weigher

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")


def batch_of(n_rows=40, n_exits=3, n_stages=None, seed=0, dtype=torch.float64):
    """Losses at the exits and confidences at the stages, without ties."""
    rng = np.random.RandomState(seed)
    loss = rng.exponential(size=(n_rows, n_exits))
    confidence = rng.uniform(0.34, 1, (n_rows, n_stages or n_exits))
    return torch.as_tensor(loss).to(dtype), torch.as_tensor(confidence).to(dtype)


def mixed(emphasis, strength):
    return 1 - strength + strength * emphasis / emphasis.mean(axis=0)


def focal(loss, strength, gamma):
    return mixed((1 - np.exp(-loss)) ** gamma, strength)


def survivors(confidence, n_exits, strength, pass_rate, temperature):
    """Chance to reach an exit, one row, exit and earlier stage after the other."""
    n_rows, n_stages = confidence.shape
    chance = np.ones((n_rows, n_exits))
    for i in range(n_rows):
        for k in range(n_exits):
            for stage in range(n_stages - n_exits + k):
                rank = (confidence[:, stage] < confidence[i, stage]).sum() / (n_rows - 1)
                chance[i, k] *= 1 / (1 + np.exp(-(pass_rate - rank) / temperature))
    return mixed(chance, strength)


def weigh(strategy, loss, confidence):
    return strategy.start(0).weigh(loss, confidence)


# Focal weights


@pytest.mark.parametrize("strength", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("gamma", [0.5, 1, 2.0, 5.0])
def test_focal_weights_are_their_formula(strength, gamma):
    loss, confidence = batch_of()
    found = weigh(FocalWeights(strength, gamma), loss, confidence)
    np.testing.assert_allclose(found, focal(loss.numpy(), strength, gamma), rtol=1e-12)


def test_focal_weights_by_hand():
    # Probabilities 1/2 and 1/4 of the own class at one exit, 1 and 1/2 at another.
    loss = -torch.tensor([[0.5, 1.0], [0.25, 0.5]], dtype=torch.float64).log()
    found = weigh(FocalWeights(strength=0.5, gamma=1.0), loss, None)
    # h = 1/2 and 3/4, mean 5/8; 0 and 1/2, mean 1/4.
    expected = [[0.5 + 0.5 * 0.8, 0.5], [0.5 + 0.5 * 1.2, 0.5 + 0.5 * 2]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_focal_weights_know_no_confidence():
    loss, confidence = batch_of()
    found = weigh(FocalWeights(), loss, confidence)
    assert torch.equal(found, weigh(FocalWeights(), loss, confidence.flip(0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_rows_without_any_loss_at_an_exit_have_finite_focal_weights(strength, dtype):
    loss, confidence = batch_of(dtype=dtype)
    loss[:, 1] = 0.0
    found = weigh(FocalWeights(strength), loss, confidence)
    np.testing.assert_allclose(found[:, 1], 1 - strength, rtol=1e-6)
    np.testing.assert_allclose(found.mean(0)[[0, 2]], 1, rtol=1e-5)


def test_losses_that_floats_make_negative_have_focal_weights_of_hardly_any():
    loss = torch.tensor([[-1e-7], [1.0]])
    assert weigh(FocalWeights(strength=1.0, gamma=0.5), loss, None).tolist() == [[0.0], [2.0]]


# Survivors

SURVIVORS = [(0.0, 0.6, 0.1), (0.7, 0.6, 0.1), (1.0, 0.25, 0.5), (1.0, 0.9, 0.02)]


@pytest.mark.parametrize("n_stages", [3, 4, 5], ids=["net", "a first stage", "two of them"])
@pytest.mark.parametrize("strength, pass_rate, temperature", SURVIVORS)
def test_survivor_weights_are_their_formula(strength, pass_rate, temperature, n_stages):
    loss, confidence = batch_of(n_stages=n_stages)
    found = weigh(SurvivorWeights(strength, pass_rate, temperature), loss, confidence)
    expected = survivors(confidence.numpy(), 3, strength, pass_rate, temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_survivor_weights_by_hand():
    # Ranks 0, 1/2 and 1; at pass_rate 1/2 half a unit of rank are odds of 9 to 1.
    confidence = torch.tensor([[0.2, 0.5], [0.9, 0.6], [0.4, 0.7]], dtype=torch.float64)
    strategy = SurvivorWeights(1.0, pass_rate=0.5, temperature=0.5 / np.log(9))
    found = weigh(strategy, torch.ones(3, 2, dtype=torch.float64), confidence)
    np.testing.assert_allclose(found, [[1, 1.8], [1, 0.2], [1, 1.0]], rtol=1e-12)
    # The same stages, and only the second is an exit: all its rows have passed the first.
    found = weigh(strategy, torch.ones(3, 1, dtype=torch.float64), confidence)
    np.testing.assert_allclose(found, [[1.8], [0.2], [1.0]], rtol=1e-12)


def test_all_rows_count_the_same_at_a_first_exit_and_not_behind_a_first_stage():
    loss, confidence = batch_of(n_stages=4)
    strategy = SurvivorWeights()
    first = weigh(strategy, loss, confidence[:, 1:])[:, 0]
    np.testing.assert_allclose(first, 1.0, rtol=1e-12)
    assert weigh(strategy, loss, confidence)[:, 0].std() > 0.1


def test_only_the_order_of_confidences_counts():
    loss, confidence = batch_of(n_stages=4)
    found = weigh(SurvivorWeights(), loss, confidence)
    assert torch.equal(weigh(SurvivorWeights(), loss, confidence**7 / 3), found)
    assert torch.equal(weigh(SurvivorWeights(), 5 * loss, confidence), found)


def test_the_last_stages_confidence_does_not_count():
    loss, confidence = batch_of()
    found = weigh(SurvivorWeights(), loss, confidence)
    confidence[:, -1] = confidence[:, -1].flip(0)
    assert torch.equal(weigh(SurvivorWeights(), loss, confidence), found)


def test_rows_that_are_equally_sure_weigh_the_same():
    # As of a first stage with few scores, a tree or nearest neighbours.
    loss, confidence = batch_of(n_exits=1, n_stages=2)
    confidence[:, 0] = torch.as_tensor(np.random.RandomState(0).permutation(np.arange(40) % 4))
    weights = weigh(SurvivorWeights(), loss, confidence)[:, 0]
    of_score = [weights[confidence[:, 0] == score] for score in range(4)]
    assert max(np.ptp(tied.numpy()) for tied in of_score) < 1e-9
    assert all(now.min() > then.max() for now, then in pairwise(of_score))


def test_a_surer_row_counts_less_at_the_next_exit():
    loss, confidence = batch_of(n_exits=2)
    found = weigh(SurvivorWeights(), loss, confidence)[:, 1]
    assert (found[confidence[:, 0].argsort()].diff() < 0).all()


@pytest.mark.parametrize("n_stages", [3, 4])
def test_a_row_alone_has_weight_1(n_stages):
    loss, confidence = batch_of(n_rows=1, n_stages=n_stages)
    for strategy in (FocalWeights(), SurvivorWeights()):
        np.testing.assert_allclose(weigh(strategy, loss, confidence), np.ones((1, 3)), rtol=1e-12)


# All strategies

FORMULAS = [
    FocalWeights(),
    FocalWeights(1.0, 0.3),
    SurvivorWeights(),
    SurvivorWeights(1.0, 0.1, 0.02),
]


@pytest.mark.parametrize("n_stages", [3, 4])
@pytest.mark.parametrize("strategy", FORMULAS, ids=repr)
def test_weights_have_mean_1_at_every_exit_and_follow_their_rows(strategy, n_stages):
    loss, confidence = batch_of(n_stages=n_stages)
    weights = weigh(strategy, loss, confidence)
    assert weights.shape == (40, 3) and weights.min() >= 0
    np.testing.assert_allclose(weights.mean(0), 1, rtol=1e-12)
    order = torch.as_tensor(np.random.RandomState(1).permutation(40))
    shuffled = weigh(strategy, loss[order], confidence[order])
    np.testing.assert_allclose(shuffled, weights[order], rtol=1e-12)


@pytest.mark.parametrize("strategy", [FocalWeights, SurvivorWeights])
def test_strength_mixes_with_uniform_weights(strategy):
    loss, confidence = batch_of()
    full, part, none = (weigh(strategy(strength=s), loss, confidence) for s in (1, 0.25, 0))
    np.testing.assert_allclose(none, 1)
    np.testing.assert_allclose(part, 0.75 + 0.25 * full)
    assert full.std() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strategy", FORMULAS, ids=repr)
def test_weights_are_new_tensors_of_the_losses_dtype(strategy, dtype):
    loss, confidence = batch_of(dtype=dtype)
    before = loss.clone(), confidence.clone()
    assert weigh(strategy, loss, confidence).dtype == dtype
    assert torch.equal(loss, before[0]) and torch.equal(confidence, before[1])


def test_uniform_weights_are_none():
    assert UniformWeights().start(0) is None
    assert UniformWeights().check() is None


CUSTOM = [
    (FocalWeights(0.3, 1.5), {"strength": 0.3, "gamma": 1.5}),
    (SurvivorWeights(0.3, 0.5, 1.0), {"strength": 0.3, "pass_rate": 0.5, "temperature": 1.0}),
    (
        LearnedWeights(0.3, "mat", 0.5, 2, 10, 0.1),
        {"eps": 0.3, "centre": "mat", "exit_share": 0.5, "every": 2, "n_hidden": 10, "lr": 0.1},
    ),
    (UniformWeights(), {}),
]


@pytest.mark.parametrize("strategy, params", CUSTOM)
def test_strategies_have_parameters_of_scikit_learn(strategy, params):
    assert strategy.get_params() == params
    copy = clone(strategy)
    assert copy is not strategy and copy.get_params() == params
    assert type(strategy)().set_params(**params).get_params() == params


@pytest.mark.parametrize(
    "strategy, text",
    [
        (UniformWeights(), "UniformWeights()"),
        (FocalWeights(), "FocalWeights()"),
        (FocalWeights(gamma=1.0), "FocalWeights(gamma=1.0)"),
        (SurvivorWeights(0.3), "SurvivorWeights(strength=0.3)"),
        (LearnedWeights(every=2), "LearnedWeights(every=2)"),
    ],
)
def test_reprs_show_what_is_not_the_default(strategy, text):
    assert repr(strategy) == text


# Checks

HALF_OPEN = [-1.0, 0.0, np.inf, np.nan, "1", None, True, [1.0]]
CLOSED = [-0.1, 1.1, np.inf, np.nan, "1", None, False]
OPEN = [0.0, 1.0, -0.5, 2.0, np.nan, "1", None, True]
LEFT_OPEN = [0.0, 1.01, -0.5, np.inf, np.nan, "1", None, True]

NUMBERS = [
    (FocalWeights, "strength", "[0, 1]", CLOSED),
    (FocalWeights, "gamma", "(0, inf)", HALF_OPEN),
    (SurvivorWeights, "strength", "[0, 1]", CLOSED),
    (SurvivorWeights, "pass_rate", "(0, 1)", OPEN),
    (SurvivorWeights, "temperature", "(0, inf)", HALF_OPEN),
    (LearnedWeights, "eps", "(0, 1]", LEFT_OPEN),
    (LearnedWeights, "exit_share", "(0, inf)", HALF_OPEN),
    (LearnedWeights, "lr", "(0, inf)", HALF_OPEN),
]
NUMBERS = [(*case, value) for *case, values in NUMBERS for value in values]


@pytest.mark.parametrize("strategy, name, interval, value", NUMBERS)
def test_numbers_outside_their_interval_are_refused(strategy, name, interval, value):
    strategy = strategy(**{name: value})
    expected = f"{name} of {strategy!r} must be a number in {interval}; got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        strategy.check()
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        check_exit_weighting(strategy)


@pytest.mark.parametrize("name", ["every", "n_hidden"])
@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None, np.nan])
def test_counts_that_are_none_are_refused(name, value):
    strategy = LearnedWeights(**{name: value})
    expected = f"{name} of {strategy!r} must be an integer >= 1; got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        strategy.check()


@pytest.mark.parametrize("value", ["cols", "", None, 0, ["col"]])
def test_another_centre_is_refused(value):
    expected = f"centre must be 'col', 'row' or 'mat'; got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        LearnedWeights(centre=value).check()


@pytest.mark.parametrize(
    "strategy",
    [
        FocalWeights(0, 1e-3),
        FocalWeights(1, 100),
        FocalWeights(np.float32(0.5), np.int64(1)),
        SurvivorWeights(0, 1e-9, 1e9),
        SurvivorWeights(1, 0.999, 1),
        LearnedWeights(1, "row", 5, np.int64(1), 1, 10),
        LearnedWeights(1e-3, "mat", 1e-3),
        *(strategy() for strategy in STRATEGIES.values()),
    ],
    ids=repr,
)
def test_values_inside_are_taken(strategy):
    strategy.check()
    check_exit_weighting(strategy)


class Own:
    """A strategy of somebody's own, without parameters to check."""

    def start(self, seed):
        return ("started", seed)


@pytest.mark.parametrize(
    "valid", [*STRATEGIES, *(s() for s in STRATEGIES.values()), Own(), lambda loss, confidence: 1]
)
def test_names_strategies_and_functions_are_taken(valid):
    check_exit_weighting(valid)


@pytest.mark.parametrize(
    "value", ["focals", "", None, 3, 1.0, FocalWeights, Own, dict, torch.ones(3, 2), ["focal"]]
)
def test_what_is_no_weighting_is_refused(value):
    expected = (
        "exit_weighting must be one of ['focal', 'learned', 'survivors', 'uniform'], a strategy "
        f"such as LearnedWeights(), or a function of (loss, confidence); got {value!r}."
    )
    with pytest.raises(ValueError) as error:
        check_exit_weighting(value)
    assert str(error.value) == expected


# What weighs


def test_names_start_the_strategies_with_their_defaults():
    assert start_weigher("uniform", 0) is None
    for name, strategy in (("focal", FocalWeights), ("survivors", SurvivorWeights)):
        weigher = start_weigher(name, 0)
        assert type(weigher) is strategy
        assert weigher.get_params() == strategy().get_params()
    weigher = start_weigher("learned", 7)
    assert type(weigher).__name__ == "LearnedWeigher" and weigher.seed == 7
    params = LearnedWeights().get_params()
    assert {name: getattr(weigher, name) for name in params} == params


def test_strategies_start_with_the_seed():
    assert start_weigher(Own(), 5) == ("started", 5)
    strategy = LearnedWeights(every=3)
    first, second = start_weigher(strategy, 5), start_weigher(strategy, 5)
    assert first is not second and first.every == 3 and first.network is None


def test_a_function_gives_its_own_weights():
    loss, confidence = batch_of(n_stages=4)
    seen = []

    def own(*arguments):
        seen.append(arguments)
        return arguments[0] * 2

    found = start_weigher(own, 0).weigh(loss, confidence)
    assert torch.equal(found, 2 * loss)
    assert seen[0][0] is loss and seen[0][1] is confidence


@pytest.mark.parametrize(
    "weights, shown",
    [
        (torch.ones(40), "torch.Size([40])"),
        (torch.ones(40, 4), "torch.Size([40, 4])"),
        (torch.ones(3, 40), "torch.Size([3, 40])"),
        (torch.tensor(1.0), "torch.Size([])"),
        (1.0, "float"),
        (None, "NoneType"),
        ([[1.0] * 3] * 40, "list"),
    ],
    ids=str,
)
def test_weights_of_another_shape_are_refused(weights, shown):
    def own(loss, confidence):
        return weights

    with pytest.raises(ValueError) as error:
        start_weigher(own, 0).weigh(*batch_of(n_stages=4))
    assert str(error.value) == (
        f"exit_weighting={own!r} must return a tensor of shape (40, 3); got {shown}."
    )


def test_arrays_in_place_of_tensors_are_refused():
    def own(loss, confidence):
        return np.ones((40, 3))

    expected = f"exit_weighting={own!r} must return a tensor of shape (40, 3); got "
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        start_weigher(own, 0).weigh(*batch_of())


@pytest.mark.parametrize("value", [-1e-9, -1.0, np.nan, np.inf, -np.inf])
def test_weights_that_are_no_weights_are_refused(value):
    def own(loss, confidence):
        weights = torch.ones_like(loss)
        weights[7, 1] = value
        return weights

    with pytest.raises(ValueError) as error:
        start_weigher(own, 0).weigh(*batch_of())
    assert str(error.value) == f"exit_weighting={own!r} must return finite weights >= 0."

"""The optimizers are torch's to the last bit."""

import pickle

import pytest
import torch

from skmsc.neural import _optimizer

SETTINGS = [{"fused": True}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}]


def module_and_data():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    return module, torch.randn(16, 4)


def trained(make, keep=lambda optimizer, module: optimizer):
    """Losses and weights of ten steps; after five the optimizer goes through `keep`."""
    module, X = module_and_data()
    optimizer, losses = make(module.parameters()), []

    def closure():
        optimizer.zero_grad()
        loss = module(X).square().mean()
        loss.backward()
        return loss

    for n_steps in range(10):
        if n_steps == 5:
            optimizer = keep(optimizer, module)
        losses.append(optimizer.step(closure).item())
    return losses, torch.nn.utils.parameters_to_vector(module.parameters())


@pytest.mark.parametrize("params", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_steps_are_those_of_torch(name, params):
    ours, torchs = getattr(_optimizer, name), getattr(torch.optim, name)
    losses, weights = trained(lambda part: ours(part, lr=0.01, **params))
    same_losses, same_weights = trained(lambda part: torchs(part, lr=0.01, **params))
    assert losses == same_losses
    assert torch.equal(weights, same_weights)
    assert losses[0] != losses[-1]


def test_states_go_to_another_optimizer_and_back():
    def by_state(optimizer, module):
        another = torch.optim.AdamW(module.parameters())
        another.load_state_dict(optimizer.state_dict())
        back = _optimizer.AdamW(module.parameters())
        back.load_state_dict(another.state_dict())
        return back

    straight, detour = (trained(_optimizer.AdamW, *keep) for keep in ((), (by_state,)))
    assert straight[0] == detour[0]
    assert torch.equal(straight[1], detour[1])


def test_pickles_and_has_groups_of_its_own():
    module, _ = module_and_data()
    optimizer = _optimizer.AdamW(module[0].parameters(), lr=0.5)
    optimizer.add_param_group({"params": module[2].parameters(), "lr": 0.25})
    copy = pickle.loads(pickle.dumps(optimizer))
    assert type(copy) is _optimizer.AdamW
    assert [group["lr"] for group in copy.param_groups] == [0.5, 0.25]
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": module[2].parameters()})


def test_steps_are_differentiated_when_asked_to():
    def gradient(make):
        weight = torch.ones(3, requires_grad=True)
        part = weight.clone()
        optimizer = make([part], lr=0.1, differentiable=True)
        part.grad = (weight**2).detach() * weight
        optimizer.step()
        return torch.autograd.grad(part.sum(), weight)[0]

    assert torch.equal(gradient(_optimizer.AdamW), gradient(torch.optim.AdamW))

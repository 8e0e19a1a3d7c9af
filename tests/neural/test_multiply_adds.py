"""Counts are those of torch's own counter."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from skmsc.neural import _multiply_adds

ROWS = torch.ones(1, 7, 4)
MODULES = {
    "mlp": nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)),
    "convolutions": nn.Sequential(nn.Conv1d(7, 8, 3), nn.ConvTranspose1d(8, 4, 3)),
    "attention": nn.TransformerEncoderLayer(4, 2, 16, dropout=0, batch_first=True),
    "recurrent": nn.GRU(4, 3),
}


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_counts_are_those_of_torch(module):
    with FlopCounterMode(display=False) as counter:
        same = module.train()(ROWS)
    for mode in (module.train(), module.eval()):
        out, count = _multiply_adds.count_multiply_adds(mode, ROWS)
        assert count == counter.get_total_flops() // 2 > 0
        for part, same_part in zip(out, same, strict=True):
            torch.testing.assert_close(part, same_part)
            assert not part.requires_grad


def test_a_layer_that_torch_computes_in_one_by_hand():
    width, n_hidden, n_steps = 8, 16, 5
    encoder = nn.TransformerEncoderLayer(width, 2, n_hidden, batch_first=True).eval()
    expected = n_steps * (4 * width**2 + 2 * width * n_hidden)  # of its linear maps
    rows = torch.ones(1, n_steps, width)
    with torch.no_grad():  # where torch has kernels of whole layers
        assert _multiply_adds.count_multiply_adds(encoder, rows)[1] == expected


def test_a_product_of_matrices_by_hand():
    first, second = torch.ones(5, 6), torch.ones(6, 7)
    assert _multiply_adds.count_multiply_adds(torch.matmul, first, second)[1] == 5 * 6 * 7

"""LA-LoRA's filter changes gradients as its formula says, and nothing else."""

import pytest
import torch
from torch import nn

from silotune.core import Key, Role
from silotune.optim import SGD, LowPassConfig
from silotune.optim.low_pass import low_pass

A, B, D = Key("q", Role.A), Key("q", Role.B), Key("q", Role.D)
HEAD = Key("classifier", Role.HEAD, "weight")
SHAPES = {A: (2, 7), B: (5, 2), D: (5, 7), HEAD: (3, 7)}


@pytest.fixture
def tensors():
    return {k: nn.Parameter(torch.randn(shape, dtype=torch.float64)) for k, shape in SHAPES.items()}


def matrix(features: int):
    """The filter as a matrix."""
    return low_pass(torch.eye(features, dtype=torch.float64)).T


def test_the_filter_runs_along_features_and_leaves_heads_and_whole_matrices_alone(tensors):
    grads = {k: torch.randn_like(p) for k, p in tensors.items()}
    before = {k: p.detach().clone() for k, p in tensors.items()}
    for key, p in tensors.items():
        p.grad = grads[key].clone()
    LowPassConfig(SGD(lr=1.0)).build(tensors, 1.0).step()
    moved = {k: before[k] - p.detach() for k, p in tensors.items()}
    torch.testing.assert_close(moved[A], grads[A] @ matrix(7).T)
    torch.testing.assert_close(moved[B], matrix(5) @ grads[B])
    for key in (HEAD, D):
        torch.testing.assert_close(moved[key], grads[key])


def test_inside_it_is_the_papers_kernel():
    row = torch.randn(1, 11, dtype=torch.float64)
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=torch.float64) / 16
    for i in range(2, 9):
        torch.testing.assert_close(low_pass(row)[0, i], (row[0, i - 2 : i + 3] * kernel).sum())


def test_at_the_edges_the_sequence_is_its_mirror_image():
    row = torch.randn(1, 6, dtype=torch.float64)
    mirrored = torch.cat([row.flip(1), row, row.flip(1)], dim=1)
    torch.testing.assert_close(low_pass(row), low_pass(mirrored)[:, 6:12])


@pytest.mark.parametrize("features", [1, 2, 3, 8])
def test_constants_and_sums_stay_and_the_gradient_still_points_downhill(features):
    m = matrix(features)
    ones = torch.ones(features, dtype=torch.float64)
    torch.testing.assert_close(m @ ones, ones)
    torch.testing.assert_close(m, m.T)
    assert torch.linalg.eigvalsh(m).min() > -1e-15


def test_white_noise_keeps_70_parts_of_256():
    torch.testing.assert_close(matrix(9)[4].square().sum().item(), 70 / 256)

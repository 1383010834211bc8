"""Compressed attribute vectors: what comes back is what went in, but for the weak singular values and rounding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dfi_server.vectors import low_rank


def difference(vector: torch.Tensor, rank: int) -> float:
    """Energy lost in compressing, as a fraction."""
    lost = low_rank.expand(low_rank.compress(vector, rank)) - vector
    return float(lost.square().sum() / vector.square().sum())


@given(
    channels=st.integers(1, 20),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    true_rank=st.integers(1, 4),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_has_a_low_rank_comes_back(
    channels: int, height: int, width: int, true_rank: int, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(channels, true_rank, generator=generator)
    right = torch.randn(true_rank, height, width, generator=generator)
    assert difference(scale * torch.einsum("cr,rhw->chw", left, right), true_rank) < 1e-3


@given(rank=st.integers(1, 40))
def test_a_higher_rank_loses_no_more(rank: int) -> None:
    vector = torch.randn(24, 6, 6, generator=torch.Generator().manual_seed(1))
    assert difference(vector, rank + 1) < difference(vector, rank) + 1e-3


@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 1, 1), (7, 2, 9)])
def test_a_vector_of_zeros_stays_one(shape: tuple[int, ...]) -> None:
    assert torch.equal(low_rank.expand(low_rank.compress(torch.zeros(shape), 4)), torch.zeros(shape))


def test_it_takes_a_fraction_of_the_space() -> None:
    vector = torch.randn(128, 50, 50)
    parts = low_rank.compress(vector, 48)
    assert set(parts) == set(low_rank.PARTS)
    stored = sum(tensor.numel() * tensor.element_size() for tensor in parts.values())
    assert stored < vector.numel() * 2 / 5  # of float16

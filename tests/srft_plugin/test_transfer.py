"""Ranks: the definition, ties, the histogram's error, and the mistake of the public code."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srft_plugin.transfer import (
    BINS,
    histogram,
    histogram_rank,
    histograms,
    magnitude_bins,
    percentile_rank,
    percentile_rank_reference,
    sample,
    sparsity,
    tables_from_counts,
)


def test_distinct_values_get_the_inverse_permutation():
    """ranks[argsort] = linspace, not linspace[argsort]: here the two differ at every place."""
    values = torch.tensor([30.0, 10.0, 20.0, 50.0, 40.0])
    assert percentile_rank(values).tolist() == [0.5, 0.0, 0.25, 1.0, 0.75]
    order = values.argsort()
    expected = torch.empty(5)
    expected[order] = torch.linspace(0, 1, 5)
    assert torch.equal(percentile_rank(values), expected)
    assert not torch.equal(torch.linspace(0, 1, 5)[order], expected)


def test_ties_zeros_and_single_elements():
    assert percentile_rank(torch.tensor([0.0, 0.0, 0.0, 2.0, 2.0])).tolist() == pytest.approx(
        [0.25, 0.25, 0.25, 0.875, 0.875]
    )
    assert percentile_rank(torch.zeros(7)).tolist() == [0.5] * 7
    assert percentile_rank(torch.tensor([3.0])).tolist() == [0.5]
    assert percentile_rank(torch.empty(0)).tolist() == []


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_sorting_equals_the_definition(values):
    values = torch.tensor(values, dtype=torch.float32).view(1, -1)
    ranks = percentile_rank(values)
    torch.testing.assert_close(ranks.double(), percentile_rank_reference(values))
    assert ranks.mean().item() == pytest.approx(0.5, abs=1e-6)


def gradients(kind, n, seed):
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(n, generator=generator)
    if kind == "lognormal":
        return g.sign() * (2 * torch.randn(n, generator=generator)).exp() * 1e-8
    if kind == "sparse":
        return g * (torch.rand(n, generator=generator) < 0.1)
    if kind == "layered":  # rows of very different scale, as in a weight matrix
        return (g.view(64, -1) * torch.logspace(-6, 1, 64)[:, None]).flatten()
    return g


@pytest.mark.parametrize("kind", ["normal", "lognormal", "sparse", "layered"])
def test_histogram_is_within_half_a_percent_and_a_sample_within_two(kind):
    g = gradients(kind, 1 << 18, 3)
    exact = percentile_rank(g.abs())
    assert (histogram_rank(g) - exact).abs().max() <= 0.005
    subset = sample(g.view(512, -1))
    assert 1 << 14 <= len(subset) <= 1 << 15
    table = tables_from_counts(histogram(subset))
    assert (table[magnitude_bins(g)] - exact).abs().max() <= 0.02


def test_several_tensors_are_ranked_and_counted_as_each_alone(monkeypatch):
    rows = torch.randint(0, 4, (5, 30)).float()
    together = percentile_rank(rows)
    assert torch.equal(together, torch.stack([percentile_rank(row) for row in rows]))
    parts = [gradients("lognormal", n, n) for n in (1, 70, 300)]
    rows = [0, 0, 2]  # the first two together; none in row 1
    expected = torch.stack([histogram(torch.cat(parts[:2])), torch.zeros(BINS, dtype=torch.int64),
                            histogram(parts[2])])  # fmt: skip
    for copied in (0, 40, 1 << 20):
        monkeypatch.setattr("srft_plugin.transfer.COPIED", copied)
        assert torch.equal(histograms(list(zip(parts, rows, strict=True)), 3), expected)


@settings(deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_subnormal=False, width=32), min_size=1, max_size=40)
)
def test_bins_keep_the_order_of_magnitudes(values):
    g = torch.tensor(values)
    order = g.abs().argsort()
    assert (magnitude_bins(g)[order].diff() >= 0).all()
    coarse = percentile_rank(magnitude_bins(g))
    torch.testing.assert_close(histogram_rank(g), coarse)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_rank_alike(dtype):
    g = torch.randn(5000).to(dtype)
    torch.testing.assert_close(histogram_rank(g), histogram_rank(g.float()))


def test_sample_visits_all_columns():
    columns = torch.arange(768.0).expand(3072, 768)
    assert len(sample(columns).unique()) == 768
    assert len(sample(torch.empty(0))) == 0


def test_sample_visits_all_channels_of_a_convolution():
    """A stride of 6 would see 128 of the 768 input channels, in every step."""
    channels = torch.arange(768.0).view(1, -1, 1, 1).expand(256, -1, 1, 1)
    assert len(sample(channels).unique()) == 768


def test_sparsity_by_hand():
    assert sparsity(torch.full((9,), -2.0)).item() == pytest.approx(1)
    assert sparsity(torch.tensor([0.0, 5.0, 0.0, 0.0])).item() == pytest.approx(0.5)

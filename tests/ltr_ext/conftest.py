"""Fixtures of the tests of networks and training."""

import pytest
import torch


@pytest.fixture(scope="session")
def random_batch():
    """Makes a batch of noise for a network's spec: three samples, one of each modality."""

    def make(spec):
        generator = torch.Generator().manual_seed(0)
        values = {"modality": torch.tensor([1, 2, 3])}
        for name, size in (("template", spec.template_size), ("search", spec.search_size)):
            shape = (3, spec.in_channels, size, size)
            values[name] = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
            values[f"{name}_box"] = 0.3 + 0.4 * torch.rand(3, 4, generator=generator)
        return values

    return make

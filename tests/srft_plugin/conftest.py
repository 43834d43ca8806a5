"""Small networks that have every kind of parameter the method must know."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A pre-norm transformer block with layer scale, as in ViT trackers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim, bias=False)
        self.gamma = nn.Parameter(torch.linspace(0.5, 1.5, dim))
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.gamma * self.proj(F.scaled_dot_product_attention(q, k, v))
        return x + self.mlp(self.norm2(x))


class ToyTracker(nn.Module):
    """Template and search through one patch embedding and blocks, a convolutional head."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.position_z = nn.Parameter(torch.randn(1, 1, dim) * 0.1)
        self.position_x = nn.Parameter(torch.randn(1, dim, 2, 2) * 0.1)
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim) for _ in range(2))
        self.head = nn.Sequential(
            nn.Conv2d(dim, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        )
        self.out = nn.Conv2d(4, 1, 1)
        self.unused = nn.Parameter(torch.zeros(3))
        self.head[1].running_mean.normal_()

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        tokens = [self.patch(image).flatten(2).mT for image in (template, search)]
        x = torch.cat([self.token.expand(len(template), -1, -1)] + tokens, 1)
        position = torch.cat([self.position_z, self.position_x.flatten(2).mT], 1)
        x = torch.cat([x[:, :1], x[:, 1:] + position], 1)
        for block in self.blocks:
            x = block(x)
        return self.out(self.head(x[:, -4:].mT.unflatten(2, (2, 2)))).flatten(1)


def toy_loss(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """(n,) squared errors."""
    return (network(batch["template"], batch["search"]) - batch["target"]).square().sum(1)


def toy_batch(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"template": (n, 3, 4, 4), "search": (n, 3, 8, 8), "target": (n, 4)}
    return {k: torch.randn(s, generator=generator, dtype=dtype) for k, s in shapes.items()}


@pytest.fixture
def tracker() -> ToyTracker:
    torch.manual_seed(0)
    return ToyTracker().double().eval()


@pytest.fixture
def loss_fn():
    return toy_loss


@pytest.fixture
def make_batch():
    return toy_batch

"""The prior sensitivity of a network's operations: to a file, to another network, to ranks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import Parameter

from srft_plugin.errors import UserError, some
from srft_plugin.groups import operation_groups
from srft_plugin.transfer import percentile_rank

Shapes = list[list[int]]
SHOWN = 8  # operations in an error
WRAPPERS = ("module", "_orig_mod")  # how data parallelism and torch.compile call what they wrap


@dataclass(frozen=True)
class Prior:
    """Leading eigenvalues of the Fisher information of each operation.

    Attributes:
        spectra: operation to its leading eigenvalues, float64, descending. An empty spectrum means
            that the operation has no prior: its module is new, or the loss did not depend on it.
        shapes: operation to the shapes of its parameters.
        metadata: how the estimate was made (method, top_k, samples, weights_sha256, ...).
    """

    spectra: dict[str, Tensor]
    shapes: dict[str, Shapes]
    metadata: dict[str, str] = field(default_factory=dict)

    def sensitivity(self) -> dict[str, float]:
        """s^p of each operation: the mean of its leading eigenvalues (Eq. 8).

        Operations without a prior are left out. For a smaller K than was stored, see ``leading``;
        an operation with fewer parameters than K has the mean of what it has.
        """
        return {name: float(s.mean()) for name, s in self.spectra.items() if len(s)}

    def leading(self, top_k: int) -> Prior:
        """The prior of the ``top_k`` leading eigenvalues of each operation.

        Raises:
            UserError: it was estimated with fewer.
        """
        held = int(self.metadata.get("top_k", top_k))
        if held < top_k:
            raise UserError(f"the prior holds {held} eigenvalues per operation, top_k is {top_k}")
        spectra = {name: s[:top_k] for name, s in self.spectra.items()}
        return Prior(spectra, self.shapes, self.metadata | {"top_k": str(top_k)})

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: one tensor per operation, the rest as metadata."""
        entries = self.metadata | {"format": "srft-prior-1", "shapes": json.dumps(self.shapes)}
        # Operations of a renamed prior may share a spectrum, which the format does not allow.
        save_file({name: s.clone() for name, s in self.spectra.items()}, path, entries)

    @classmethod
    def load(cls, path: str | Path) -> Prior:
        """Read a file written by ``save``.

        Raises:
            UserError: no such file, not a prior, or a damaged one.
        """
        if not Path(path).is_file():
            raise UserError(f"no prior file at {path}; make one with estimate_prior(...).save(...)")
        try:
            with safe_open(path, "pt") as file:
                metadata = dict(file.metadata() or {})
                spectra = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise UserError(
                f"{path} is not a safetensors file ({error}); was it cut short?"
            ) from error
        if metadata.pop("format", None) != "srft-prior-1":
            raise UserError(
                f"{path} is a safetensors file but not a prior (entries such as "
                f"{next(iter(spectra), 'none')!r}); expected one written by Prior.save"
            )
        try:
            shapes = json.loads(metadata.pop("shapes"))
            return cls({name: spectra[name] for name in shapes}, shapes, metadata)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is a damaged prior ({error!r}); delete it and make it anew"
            ) from error

    def renamed(self, mapping: Mapping[str, str | None]) -> Prior:
        """The prior for a network built from this one's.

        Args:
            mapping: operation of the new network to the operation here whose prior it takes; a
                source may serve several (fusion blocks copied from block i). None marks a freshly
                added module, which has no prior.

        Raises:
            UserError: a source that this prior does not have.
        """
        unknown = sorted({s for s in mapping.values() if s is not None and s not in self.spectra})
        if unknown:
            raise UserError(f"the prior has no operations {some(unknown, SHOWN)}; it has "
                            f"{some(list(self.spectra), SHOWN)}")  # fmt: skip
        empty = torch.empty(0, dtype=torch.float64)
        return type(self)(
            {new: empty if old is None else self.spectra[old] for new, old in mapping.items()},
            {new: [] if old is None else self.shapes[old] for new, old in mapping.items()},
            self.metadata,
        )

    def bind(self, network: nn.Module, groups: Mapping[str, list[str]] | None = None) -> BoundPrior:
        """Rank the operations of ``network`` by their prior sensitivity.

        The ranks are percentiles over the trainable operations that have a prior, equal values
        sharing the mean of their ranks; frozen operations (the box head, in the paper) take no
        part. An operation without a prior has rank 0: it holds no knowledge to protect.

        Args:
            network: the network to be tuned, with ``requires_grad`` as it will be trained.
            groups: its operations; ``operation_groups(network)`` unless given.

        Raises:
            UserError: the prior is of another network; the message lists the differences.
        """
        groups = operation_groups(network) if groups is None else groups
        operations = _trainable_operations(network, groups)
        self._check_same(operations, groups, dict(network.named_parameters()))
        ranked = [name for name in operations if len(self.spectra[name])]
        sensitivity = self.sensitivity()
        ranks = percentile_rank(torch.tensor([sensitivity[name] for name in ranked]).double())
        return BoundPrior(operations, dict(zip(ranked, ranks.tolist(), strict=True)))

    def _check_same(
        self,
        operations: Mapping[str, list[Parameter]],
        groups: Mapping[str, list[str]],
        parameters: Mapping[str, Parameter],
    ) -> None:
        absent = [name for name in self.spectra if name not in groups]
        new = [name for name in operations if name not in self.spectra]
        different = [
            f"{name} (prior {self.shapes[name]}, network {found})"
            for name, members in groups.items()
            if self.shapes.get(name)
            and (found := [list(parameters[p].shape) for p in members]) != self.shapes[name]
        ]
        problems = [
            f"{what}: {some(names, SHOWN)}"
            for what, names in (
                ("only in the prior", absent),
                ("only in the network", new),
                ("of another shape", different),
            )
            if names
        ]
        if problems:
            wrapped = [w for w in WRAPPERS if new and all(name.startswith(w + ".") for name in new)]
            remedy = (
                f"Bind it to the network inside the wrapper, network.{wrapped[0]}"
                if wrapped
                else "Estimate it for this network, or say with Prior.renamed which operation "
                "takes which prior (None for new modules)"
            )
            raise UserError(f"the prior is of another network: {'; '.join(problems)}. {remedy}")


@dataclass(frozen=True)
class BoundPrior:
    """The operations of one network, with the rank of their prior where they have one.

    Attributes:
        operations: operation to its trainable parameters.
        ranks: operation to the rank of its prior sensitivity in [0, 1]; those without a prior,
            whose rank counts as 0, are left out.
    """

    operations: dict[str, list[Parameter]]
    ranks: dict[str, float]

    @property
    def has_prior(self) -> bool:
        """Whether any operation has a prior."""
        return bool(self.ranks)

    def partition(self, parameters: Iterable[Parameter]) -> list[tuple[list[Parameter], float]]:
        """Split ``parameters`` by operation: [(parameters, rank of the prior), ...].

        Raises:
            UserError: some parameters are of no operation.
        """
        owner = {p: name for name, members in self.operations.items() for p in members}
        members: dict[str, list[Parameter]] = {}
        unknown = []
        for p in parameters:
            if p in owner:
                members.setdefault(owner[p], []).append(p)
            else:
                unknown.append(tuple(p.shape))
        if unknown:
            raise UserError(
                f"{len(unknown)} of the optimizer's parameters (shapes {some(unknown, SHOWN)}) are "
                f"unknown to the bound prior; bind it to the network being trained, after the "
                f"network is complete, unfrozen and sharded"
            )
        return [(group, self.ranks.get(name, 0.0)) for name, group in members.items()]


def bind_operations(network: nn.Module) -> BoundPrior:
    """The trainable operations of ``network`` without any prior, for the transfer mode."""
    return BoundPrior(_trainable_operations(network, operation_groups(network)), {})


def _trainable_operations(
    network: nn.Module, groups: Mapping[str, list[str]]
) -> dict[str, list[Parameter]]:
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    members = {name: [trainable[p] for p in group if p in trainable]
               for name, group in groups.items()}  # fmt: skip
    return {name: parameters for name, parameters in members.items() if parameters}

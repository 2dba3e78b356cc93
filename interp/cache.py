"""What one run captured: tensors by site, looked up by TransformerLens' names or by our short forms."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from interp.errors import UsageError
from interp.sites import KINDS, Site, parse_sites


class ActivationCache(Mapping[str, Tensor]):
    """A read-only mapping from site names to tensors, in the order a forward reaches them.

    ``cache["blocks.5.hook_resid_post"]``, ``cache["resid_post@5"]`` and ``cache["resid_post@-1"]`` are the same to it as the
    model's sites allow. Shapes are those of ``interp.sites.KINDS``; the batch axis is always there.
    """

    def __init__(self, tensors: Mapping[Site, Tensor], n_layers: int) -> None:
        self._tensors = dict(sorted(tensors.items(), key=lambda item: item[0].order))
        self._n_layers = n_layers
        self._names = {site.name: site for site in self._tensors}

    @property
    def sites(self) -> tuple[Site, ...]:
        """The captured sites."""
        return tuple(self._tensors)

    def __getitem__(self, key: str | Site) -> Tensor:
        site = self._names.get(key) if isinstance(key, str) else key
        if site is None or site not in self._tensors:
            site = self._find(key)
        return self._tensors[site]

    def _find(self, key: str | Site) -> Site:
        every = {kind: tuple(range(self._n_layers)) if info.per_layer else (None,) for kind, info in KINDS.items()}
        sites = parse_sites(key, every, self._n_layers)
        present = [site for site in sites if site in self._tensors]
        if not present:
            kinds = ", ".join(dict.fromkeys(site.kind for site in self._tensors)) or "nothing"
            raise UsageError(f"{sites[0].name} was not captured; captured: {kinds}. Add it to capture=[...]")
        if len(present) > 1 or len(sites) > 1:
            kind = present[0].kind
            raise UsageError(f"{str(key)!r} names several sites; add the layer ('{kind}@5') or use stack({kind!r})")
        return present[0]

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str | Site):
            return False
        try:
            self[key]
        except UsageError:
            return False
        return True

    def get(self, key: str | Site, default: Any = None) -> Any:
        """The tensor of a site, or ``default`` where it was not captured."""
        try:
            return self[key]
        except UsageError:
            return default

    def __iter__(self) -> Iterator[str]:
        return (site.name for site in self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def layers(self, kind: str) -> tuple[int, ...]:
        """The layers whose ``kind`` was captured."""
        return tuple(site.layer for site in self._tensors if site.kind == kind and site.layer is not None)

    def stack(self, kind: str) -> Tensor:
        """The captured layers of one kind in a new first axis, in order: ``[layer batch pos d_model]`` for the residual stream.

        Layers that are on several devices are brought to the last one's.
        """
        tensors = [tensor for site, tensor in self._tensors.items() if site.kind == kind]
        if not tensors:
            self._find(kind)
        return torch.stack([tensor.to(tensors[-1].device) for tensor in tensors])

    @property
    def bytes(self) -> int:
        """Bytes of distinct storage that the tensors hold."""
        return sum(
            {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self._tensors.values()}.values()
        )

    def __repr__(self) -> str:
        kinds = ", ".join(dict.fromkeys(site.kind for site in self.sites))
        return f"ActivationCache({len(self)} tensors, {self.bytes / 1e6:.1f} MB: {kinds})"

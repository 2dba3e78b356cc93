"""A loaded model: the untouched Hugging Face model with the map of its parts and the ways to run it."""

import datetime
import inspect
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp._version import __version__
from interp.interventions import Intervention
from interp.maths.norms import Norm
from interp.maths.unembedding import Unembedding
from interp.models.atlas import Atlas, build_atlas, module_at
from interp.models.cache import Step
from interp.models.loading import Source, load_parts
from interp.models.norms import read_norm
from interp.models.offload import execution_device, is_dispatched, is_offloaded, read_weight
from interp.models.placement import DeviceMap
from interp.prompts import PromptLike
from interp.results import Provenance
from interp.runner.batch import tokens_of
from interp.runner.generation import Generation, generate
from interp.runner.gradients import Gradients, gradients
from interp.runner.plan import Logits, Request, SiteTable
from interp.runner.ports import bind_sites
from interp.runner.run import Run, run
from interp.tokens import Tokens


def load(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    offline: bool = False,
    device_map: DeviceMap | None = None,
    offload_folder: str | os.PathLike[str] | None = None,
    max_memory: Mapping[Any, Any] | None = None,
    progress: Step | None = None,
    notify: Callable[[str], None] | None = None,
) -> "Model":
    """Loads a model by alias, Hugging Face id, folder of safetensors, or ``.gguf`` file.

    ``device`` is auto (cuda, then mps, then cpu) or a torch device; ``dtype`` auto (as stored; fp32 on the CPU), float32, bfloat16 or
    float16. ``revision`` is a branch, tag or commit of a hub model; ``offline`` uses only what is cached. ``progress`` is called with
    (what, done, total) while bytes move; ``notify`` with one line when something worth knowing happens, such as work being cut
    smaller to fit in memory.

    ``device_map`` spreads the weights over GPUs, host memory and disk with accelerate, in place of ``device``: "auto", "balanced",
    "balanced_low_0", "sequential", or a mapping from module paths to devices, "cpu" and "disk" ("" is the rest). ``max_memory`` limits
    what it takes of each (``{0: "20GB", "cpu": "60GB"}``). ``offload_folder`` is needed only where weights for the disk cannot be read
    from the model's own files. See docs/how-to/large-models.md.

    Raises UsageError for an unavailable device, ModelError when the model cannot be found or read, NumericsError when its weights
    hold NaN or infinity, MemoryLimitError, before any weight is read, when they do not fit.
    """
    parts = load_parts(
        name,
        device=device,
        dtype=dtype,
        revision=revision,
        offline=offline,
        device_map=device_map,
        offload_folder=offload_folder,
        max_memory=max_memory,
        progress=progress,
    )
    return Model(parts.hf, parts.tokenizer, source=parts.source, notify=notify)


class Model:
    """A Hugging Face model ``hf`` with its ``tokenizer``, its ``atlas`` (where things are) and its ``source`` (where it is from).

    ``Model(hf, tokenizer)`` takes a model that is already in memory; token ids are enough where there is no tokenizer.
    """

    def __init__(
        self,
        hf: Any,
        tokenizer: Any = None,
        *,
        source: Source | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.hf: Any = hf
        self.tokenizer: Any = tokenizer
        self.source = source
        self.atlas: Atlas = build_atlas(hf)
        self.notify: Callable[[str], None] = notify or _ignore

    @property
    def name(self) -> str:
        """The name it was loaded by; for a model made in memory, its class."""
        return self.source.name if self.source else f"{self.atlas.architecture} in memory"

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go: where its embeddings are computed."""
        return execution_device(self._module(self.atlas.embed))

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Every device that computes, in the order of a forward; one but for a model with a device map."""
        if not is_dispatched(self.hf):
            return (self.device,)
        paths = (self.atlas.embed, *(block.o for block in self.atlas.blocks), self.final_path, self.atlas.unembed)
        return tuple(dict.fromkeys(execution_device(self._module(path)) for path in paths))

    @property
    def reading_device(self) -> torch.device:
        """Where the unembedding is computed, and what is read through it."""
        return execution_device(self._module(self.atlas.unembed))

    @property
    def together(self) -> torch.device | None:
        """For ``cache_device``, where activations of several layers are set against each other: None where they are on one device."""
        return self.reading_device if len(self.devices) > 1 else None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's activations."""
        return self.hf.get_input_embeddings().weight.dtype

    @cached_property
    def sites(self) -> SiteTable:
        """The sites that can be captured and changed in this model."""
        return SiteTable.of(self.atlas, bind_sites(self.hf, self.atlas))

    @cached_property
    def takes_position_ids(self) -> bool:
        """Whether the model's forward accepts ``position_ids``."""
        return "position_ids" in inspect.signature(self.hf.forward).parameters

    @property
    def separate_patterns(self) -> bool:
        """Whether attention patterns need a forward of their own: the family computes them only in its eager attention."""
        return not self.atlas.routed_attention and self.hf.config._attn_implementation != "eager"

    @property
    def final_path(self) -> str:
        """The module that reads the last residual stream: the final norm, or the unembedding where there is none."""
        return self.atlas.ln_final or self.atlas.unembed

    def tokens(self, prompt: PromptLike | Tokens) -> Tokens:
        """The prompt's tokens. Raises UsageError when it is empty or longer than the context."""
        return tokens_of(self, prompt)

    def run(
        self,
        prompts: Any,
        capture: Request = (),
        interventions: Intervention | Iterable[Intervention] = (),
        *,
        logits: Logits = "all",
        positions: int | Sequence[int] | None = None,
        stop_at_layer: int | None = None,
        cache_device: str | torch.device | None = None,
        resumable: bool = False,
    ) -> Run:
        """Runs one prompt, or a list of prompts side by side, and returns logits and captures.

        ``prompts`` are texts, conversations, token ids or ``Tokens``. ``capture`` names sites (``"resid_post"``,
        ``"attn.pattern@5,7"``, ``"blocks.5.attn.hook_z"``, ``"all"``) or holds ``Capture(site, reduce=...)``. A capture sees the
        tensor after all ``interventions``.
        ``logits`` is "all", "last", False, a position or a list of positions; without logits the forward ends with the last capture.
        ``positions`` keeps only these positions of every capture, sliced as it is made. ``stop_at_layer=k`` runs blocks 0 to k - 1.
        ``cache_device`` moves captures there while the forward goes on; without it each stays where its layer computes.
        ``resumable`` keeps what ``Run.resume`` needs.

        Without interventions the logits are bit-equal to the plain model's on the same batch. Prompts of different lengths are
        padded on the right, where causal attention never looks; each gets the numbers it has alone (1e-4 in fp32).

        Raises UsageError for a bad prompt, site, layer, head or position and MemoryLimitError when the request cannot fit.
        """
        return run(self, prompts, capture, interventions, logits, positions, stop_at_layer, cache_device, resumable)

    def generate(self, prompt: PromptLike | Tokens, **options: Any) -> Generation:
        """Continues a prompt token by token with the KV cache. See ``interp.runner.generation.generate``."""
        return generate(self, prompt, **options)

    def gradients(self, prompts: Any, metric: "Callable[[Tensor], Tensor]", wrt: Request, **options: Any) -> Gradients:
        """Gradients of a metric of the logits with respect to sites. See ``interp.runner.gradients.gradients``."""
        return gradients(self, prompts, metric, wrt, **options)

    @torch.no_grad()
    def final_norm(self, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The model's own final norm applied to any residual stream."""
        if self.atlas.ln_final is None:
            return resid.to(self.reading_device)
        module = self._module(self.atlas.ln_final)
        return module(resid.to(execution_device(module))).to(self.reading_device)

    @cached_property
    def final_norm_parts(self) -> Norm | None:
        """The final norm taken apart; None where the model has none."""
        if self.atlas.ln_final is None:
            return None
        norm = read_norm(self._module(self.atlas.ln_final))
        parts = {name: getattr(norm, name) for name in ("weight", "bias")}
        moved = {name: None if part is None else part.to(self.reading_device) for name, part in parts.items()}
        return replace(norm, **moved)

    @property
    def unembedding(self) -> Unembedding:
        """The map from the normed stream to logits, with what the model does to them afterwards.

        It shares the model's weight, unless that is offloaded.
        """
        module, transform = self._module(self.atlas.unembed), self.atlas.logits
        weight = read_weight(module)
        assert weight is not None, "the atlas checked that the unembedding has a weight"
        return Unembedding(
            weight=weight,
            bias=read_weight(module, "bias"),
            scale=transform.scale,
            softcap=transform.softcap,
        )

    def provenance(self, *, seed: int | None = None, command: str | None = None) -> Provenance:
        """Which model, versions, device and settings a result comes from."""
        return Provenance(
            model=self.name,
            weights_sha256=self.source.weights_sha256 if self.source else None,
            architecture=self.atlas.architecture,
            dtype=str(self.dtype).removeprefix("torch."),
            device=self._places(),
            threads=torch.get_num_threads(),
            seed=seed,
            command=command if command is not None else _command(),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            versions={
                "interp": __version__,
                "torch": torch.__version__,
                "transformers": version("transformers"),
                "python": platform.python_version(),
            },
            attention=self.hf.config._attn_implementation,
        )

    def _places(self) -> str:
        """The devices in words; what is offloaded is said too."""
        names = [str(device) for device in self.devices]
        return ", ".join(names) + (" (weights offloaded)" if is_offloaded(self.hf) else "")

    def _module(self, path: str) -> Any:
        module = module_at(self.hf, path)
        assert isinstance(module, nn.Module), f"the atlas holds {path}, which is not in the model"
        return module

    def __repr__(self) -> str:
        a = self.atlas
        return (
            f"Model({self.name!r}: {a.architecture}, {a.n_layers} layers x {a.n_heads} heads, d_model {a.d_model}, "
            f"vocabulary {a.d_vocab}, {str(self.dtype).removeprefix('torch.')} on {self._places()})"
        )


def _ignore(message: str) -> None:
    """Where no one listens, nothing is said."""


def _command() -> str | None:
    """The command line, where interp runs as a command."""
    name = sys.argv[0].rsplit("/", 1)[-1] if sys.argv and sys.argv[0] else ""
    return shlex.join(["interp", *sys.argv[1:]]) if name == "interp" else None

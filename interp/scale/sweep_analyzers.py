"""The analyzers that a sweep can run, each with what it needs of an item, what can be set, and what its summary averages."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from interp.editing.settings import EditSettings
from interp.errors import unknown
from interp.prompts import Conversation

if TYPE_CHECKING:
    from pandas import DataFrame

    from interp.runner.model import Model

_NOT_SETTINGS = frozenset(
    {"model", "prompts", "seed", "checkpoint", "progress", "lens", "reference", "moments", "contexts"}
)
"""What a sweep gives an analyzer itself, and what no file can spell."""
_PROMPTS = frozenset({"prompt", "clean", "corrupted"})


@dataclass(frozen=True, kw_only=True)
class SweepAnalyzer:
    """An analyzer ``name`` (the function in ``home``) and how a sweep uses it.

    ``needs`` and ``takes`` are fields of an item that must and can be there. With ``many`` the function takes ``prompts``, and an item
    may hold several. The summary averages the columns ``measures`` (with their words), first within an item over the rows of each
    ``group``, then over items; its picture has the group column ``axis`` from left to right, and ``across`` upwards where there is one.
    With ``one_seed`` every item has the sweep's own seed, for what is drawn once and serves all of them, such as second moments.
    ``together`` is the function in ``home`` that runs several prompts in one forward, where there is one; it takes the fields of all
    items as lists (``prompts``, ``targets``) and draws nothing.
    """

    name: str
    home: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    many: bool = False
    group: tuple[str, ...]
    measures: Mapping[str, str]
    axis: str
    across: str | None = None
    extra_settings: tuple[str, ...] = ()
    one_seed: bool = False
    together: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field that an item can have."""
        return (*self.needs, *(("prompts",) if self.many else ()), *self.takes)

    @property
    def is_edit(self) -> bool:
        """Whether items are facts to edit with their test prompts, not prompts alone."""
        return self.name == "edit"

    def settings(self) -> frozenset[str]:
        """The names that can be set, or varied in a grid; "seed" is the sweep's own."""
        own = inspect.signature(self._function()).parameters
        valid = {name for name in own if name not in _NOT_SETTINGS and name not in self.fields and name != "settings"}
        return frozenset(valid | set(self.extra_settings) | {"seed"})

    def run(self, model: "Model", item: Mapping[str, Any], settings: Mapping[str, Any], seed: int) -> "DataFrame":
        """The table of one item. Raises what the analyzer raises."""
        function = self._function()
        given = {name: read_field(name, value) for name, value in item.items()}
        if self.many:
            given["prompts"] = given.get("prompts") or [given["prompt"]]
            given.pop("prompt", None)
        if "seed" in inspect.signature(function).parameters:
            given["seed"] = seed
        return self._with_numbers(function(model, **given, **settings).to_frame())

    def run_together(
        self, model: "Model", items: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> "list[DataFrame]":
        """The tables of several items, whose prompts share a forward. Raises what the analyzer raises for any of them."""
        assert self.together is not None, "the analyzer takes one prompt at a time"
        given = {f"{name}s": [read_field(name, item.get(name)) for item in items] for name in self.fields}
        found = getattr(import_module(self.home), self.together)(model, **given, **settings)
        return [self._with_numbers(one.to_frame()) for one in found]

    def _with_numbers(self, frame: "DataFrame") -> "DataFrame":
        """The table with columns out of its names: the ``number`` of a head, the ``stream`` and ``layer`` of a site."""
        if "number" in self.group and "number" not in frame:
            frame["number"] = frame["head"].str.extract(r"H(\d+)$", expand=False).astype(int)
        if "stream" in self.group:
            frame[["layer", "stream"]] = frame["site"].str.extract(r"^blocks\.(\d+)\.hook_(.+)$")
            frame["layer"] = frame["layer"].astype(int)
        return frame

    def _function(self) -> Any:
        return getattr(import_module(self.home), self.name)


def read_field(name: str, value: Any) -> Any:
    """A field of an item as the analyzer takes it: lists of messages are conversations."""
    if name == "prompts":
        return [read_field("prompt", one) for one in value]
    if name in _PROMPTS and isinstance(value, list) and value and isinstance(value[0], Mapping):
        return Conversation.from_messages(value)
    return value


_EFFECT = {"effect": "effect of patching"}
_ANSWERS = ("target", "against")
_PATCHING = {"needs": ("clean", "corrupted"), "takes": _ANSWERS, "group": ("site", "layer"), "axis": "layer"}

ANALYZERS: Mapping[str, SweepAnalyzer] = {
    analyzer.name: analyzer
    for analyzer in (
        SweepAnalyzer(
            name="logit_lens",
            home="interp.analyzers.logit_lens",
            needs=("prompt",),
            takes=("target",),
            group=("stream", "layer"),
            measures={
                "kl_nats": "divergence from the model's answer (nats)",
                "entropy_nats": "entropy (nats)",
                "target_log_prob_nats": "log-probability of the target (nats)",
                "target_rank": "rank of the target",
            },
            axis="layer",
            together="logit_lenses",
        ),
        SweepAnalyzer(
            name="residual_story",
            home="interp.analyzers.residual_story",
            needs=("prompt",),
            group=("layer",),
            measures={
                "stream_norm": "norm of the stream",
                "attn_norm": "norm of what attention writes",
                "mlp_norm": "norm of what the MLP writes",
                "stream_cos_final": "cosine of the stream to the last",
            },
            axis="layer",
        ),
        SweepAnalyzer(
            name="attention_patterns",
            home="interp.analyzers.attention_patterns",
            needs=("prompt",),
            group=("layer", "head"),
            measures={
                "entropy_nats": "entropy of attention (nats)",
                "distance_tokens": "distance looked (tokens)",
                "first_token_mass": "attention to the first token",
                "previous_token_mass": "attention to the previous token",
            },
            axis="head",
            across="layer",
        ),
        SweepAnalyzer(
            name="head_profiles",
            home="interp.analyzers.head_profiles",
            needs=("prompt",),
            many=True,
            group=("measure", "layer", "number"),
            measures={"value": "measure", "excess": "measure less its null"},
            axis="number",
            across="layer",
        ),
        SweepAnalyzer(
            name="induction_heads",
            home="interp.analyzers.induction_heads",
            group=("layer", "number"),
            measures={"stripe": "attention on the induction stripe", "prefix_matching": "prefix-matching score"},
            axis="number",
            across="layer",
        ),
        SweepAnalyzer(
            name="causal_trace",
            home="interp.analyzers.causal_trace",
            needs=("prompt", "subject"),
            takes=(*_ANSWERS, "replacements"),
            group=("kind", "layer", "place"),
            measures={
                "probability_effect": "indirect effect on the probability",
                "logit_difference_effect_logits": "indirect effect on the logit difference (logits)",
            },
            axis="layer",
            across="place",
        ),
        SweepAnalyzer(
            name="direct_logit_attribution",
            home="interp.analyzers.direct_logit_attribution",
            needs=("prompt",),
            takes=_ANSWERS,
            group=("component",),
            measures={"contribution_logits": "contribution to the target's logit (logits)"},
            axis="component",
        ),
        SweepAnalyzer(
            name="ablation",
            home="interp.analyzers.ablation",
            needs=("prompt",),
            takes=_ANSWERS,
            many=True,
            group=("unit", "component"),
            measures={"change_nats": "change by ablation (nats)", "change": "change by ablation"},
            axis="component",
        ),
        SweepAnalyzer(
            name="activation_patching", home="interp.analyzers.activation_patching", measures=_EFFECT, **_PATCHING
        ),
        SweepAnalyzer(
            name="attribution_patching", home="interp.analyzers.attribution_patching", measures=_EFFECT, **_PATCHING
        ),
        SweepAnalyzer(
            name="path_patching",
            home="interp.analyzers.path_patching",
            needs=("clean", "corrupted"),
            takes=_ANSWERS,
            group=("receiver", "layer", "head"),
            measures=_EFFECT,
            axis="head",
            across="layer",
        ),
        SweepAnalyzer(
            name="edit",
            home="interp.scale.sweep_edit",
            needs=("subject", "template", "target", "true"),
            takes=("paraphrases", "neighbours", "portability", "locality", "generation_prompts"),
            group=("score", "when"),
            measures={"value": "score"},
            axis="score",
            extra_settings=tuple(field.name for field in fields(EditSettings)),
            one_seed=True,
        ),
    )
}


def analyzer_named(name: str) -> SweepAnalyzer:
    """The analyzer of a name. Raises UsageError with the valid ones."""
    if name not in ANALYZERS:
        raise unknown("analyzer", name, ANALYZERS)
    return ANALYZERS[name]

"""What ``interp report`` can run on a prompt: one entry an analysis. To add one, write how it runs and give it a line in ``ANALYSES``."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from interp.errors import UsageError, unknown

if TYPE_CHECKING:
    from interp.models.cache import Step
    from interp.prompts import Fact, PromptLike
    from interp.results import Result
    from interp.runner.model import Model


GENERATED = 16
"""Tokens that the page shows the model going on with, at most."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks about; what it does not say is None."""

    prompt: "PromptLike"
    target: str | int | None = None
    subject: str | None = None
    corrupted: "PromptLike | None" = None
    fact: "Fact | None" = None
    seed: int = 0


Run: TypeAlias = "Callable[[Model, Asked, Step], Iterator[Result]]"


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """One analysis: what it shows, how it runs, the option that it cannot do without, and whether a page has it anyway.

    One that ``needs`` an option runs by default where that option is given.
    """

    shows: str
    run: Run
    default: bool = False
    needs: str | None = None


NEEDS = {"--subject": "subject", "--corrupted": "corrupted", "--edit": "fact"}
"""The options that an analysis can need, and the field of ``Asked`` that each fills."""


def chosen(sections: str | None, asked: Asked) -> tuple[str, ...]:
    """The names of the analyses to run, in the order of ``ANALYSES``.

    None stands for ``default``: those of every page, and those whose option is given. ``all`` is every one whose option is given or that
    needs none. --edit and --corrupted have no other purpose than their sections, so these are always among them when given.

    Raises UsageError for an unknown name, none at all, or one whose option is missing.
    """
    given = {name for name, analysis in ANALYSES.items() if analysis.needs and _has(asked, analysis.needs)}
    groups = {
        "all": {name for name, analysis in ANALYSES.items() if not analysis.needs} | given,
        "default": {name for name, analysis in ANALYSES.items() if analysis.default} | given,
    }
    if sections is None:
        wanted = groups["default"]
    else:
        listed = [part.strip() for part in sections.split(",") if part.strip()]
        if not listed:
            raise UsageError(f"--sections names no section; valid: {', '.join((*groups, *ANALYSES))}")
        for name in listed:
            if name not in groups and name not in ANALYSES:
                raise unknown("section", name, (*groups, *ANALYSES))
        wanted = set().union(*(groups.get(name, {name}) for name in listed))
        wanted |= {name for name in given if ANALYSES[name].needs != "--subject"}
    for name in sorted(wanted):
        needed = ANALYSES[name].needs
        if needed and not _has(asked, needed):
            raise UsageError(f"the section {name!r} needs {needed}; give it, or leave {name!r} out of --sections")
    return tuple(name for name in ANALYSES if name in wanted)


def analyse(model: "Model", asked: Asked, names: Sequence[str], progress: "Step") -> "list[Result]":
    """Runs the named analyses one after the other."""
    results: list[Result] = []
    for done, name in enumerate(names):
        progress("sections", done, len(names))
        results += ANALYSES[name].run(model, asked, progress)
    progress("sections", len(names), len(names))
    return results


def _has(asked: Asked, option: str) -> bool:
    return getattr(asked, NEEDS[option]) is not None


def _story(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    from interp.analyzers.residual_story import residual_story

    yield residual_story(model, asked.prompt)


def _embeddings(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    from interp.analyzers.embedding_geometry import embedding_geometry

    yield embedding_geometry(model, asked.prompt)


def _positions(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    from interp.analyzers.position_encoding import position_encoding

    yield position_encoding(model)


def _readers(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    """Nothing, and a word about it, where the model does not show its patterns."""
    from interp.analyzers.attention_summary import attention_summary

    if len(model.sites.available.get("attn.pattern", ())) == model.atlas.n_layers:
        yield attention_summary(model, asked.prompt)
    else:
        model.notify("this model shows no attention patterns, so the page does not say who reads whom")


def _experts(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    """Nothing where the model has no router."""
    from interp.analyzers.expert_routing import expert_routing

    if any(block.router for block in model.atlas.blocks):
        yield expert_routing(model, asked.prompt)


def _attention(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    from interp.analyzers.attention_patterns import attention_patterns

    yield attention_patterns(model, asked.prompt)


def _induction(model: "Model", asked: Asked, progress: "Step") -> "Iterator[Result]":
    from interp.analyzers.induction_heads import induction_heads

    yield induction_heads(model, seed=asked.seed, progress=progress)


def _lens(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    from interp.analyzers.logit_lens import logit_lens

    yield logit_lens(model, asked.prompt, target=asked.target)


def _attribution(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    from interp.analyzers.direct_logit_attribution import direct_logit_attribution

    yield direct_logit_attribution(model, asked.prompt, target=asked.target)


def _logits(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    from interp.analyzers.next_token_logits import next_token_logits

    yield next_token_logits(model, asked.prompt)


def _decoding(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    from interp.analyzers.decoding_choices import decoding_choices

    yield decoding_choices(model, asked.prompt)


def _generation(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    yield model.generate(asked.prompt, max_new_tokens=GENERATED)


def _losses(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    """Nothing for a prompt of one token, which has no loss."""
    from interp.analyzers.token_losses import token_losses

    if len(model.tokens(asked.prompt)) > 1:
        yield token_losses(model, asked.prompt)


def _tensors(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    from interp.analyzers.architecture import architecture

    yield architecture(model)


def _patching(model: "Model", asked: Asked, progress: "Step") -> "Iterator[Result]":
    from interp.analyzers.activation_patching import activation_patching

    assert asked.corrupted is not None, "chosen() saw to it"
    sites = ("resid_pre", "attn_out", "mlp_out")
    yield activation_patching(
        model, asked.prompt, asked.corrupted, target=asked.target, sites=sites, seed=asked.seed, progress=progress
    )


def _heads(model: "Model", asked: Asked, progress: "Step") -> "Iterator[Result]":
    from interp.analyzers.head_profiles import head_profiles

    yield head_profiles(model, seed=asked.seed, progress=progress)


def _circuits(model: "Model", asked: Asked, _: "Step") -> "Iterator[Result]":
    """Of the head that adds most to the answer."""
    from interp.analyzers.direct_logit_attribution import direct_logit_attribution
    from interp.analyzers.head_circuits import head_circuits

    heads = direct_logit_attribution(model, asked.prompt, target=asked.target, by="head").heads
    assert heads is not None, "asked for by head"
    yield head_circuits(model, divmod(int(heads.argmax()), heads.shape[1]), seed=asked.seed)


def _trace(model: "Model", asked: Asked, progress: "Step") -> "Iterator[Result]":
    from interp.analyzers.causal_trace import causal_trace

    assert asked.subject is not None, "chosen() saw to it"
    yield causal_trace(model, asked.prompt, asked.subject, target=asked.target, seed=asked.seed, progress=progress)


def _ablation(model: "Model", asked: Asked, progress: "Step") -> "Iterator[Result]":
    """Of heads and MLPs, each held at its mean over the texts that come with interp."""
    from interp.analyzers.ablation import ablation
    from interp.analyzers.head_prompts import PROMPTS

    yield ablation(
        model,
        [asked.prompt],
        units=["heads", "mlps"],
        metric="log_prob",
        target=asked.target,
        reference=list(PROMPTS),
        seed=asked.seed,
        progress=progress,
    )


def _edit(model: "Model", asked: Asked, progress: "Step") -> "Iterator[Result]":
    """The edit and what it changes; the weights are as before afterwards, which the result proves."""
    from interp.editing.edit_facts import edit_facts
    from interp.editing.effect import edit_effect

    assert asked.fact is not None, "chosen() saw to it"
    made = edit_facts(model, asked.fact, seed=asked.seed, progress=progress)
    yield edit_effect(model, made, progress=progress)


ANALYSES: dict[str, Analysis] = {
    "story": Analysis(shows="what each layer adds to the stream, and the next token", run=_story, default=True),
    "embeddings": Analysis(shows="what lies near each token's embedding", run=_embeddings, default=True),
    "positions": Analysis(shows="how the model tells positions apart", run=_positions, default=True),
    "readers": Analysis(shows="who reads whom in each layer", run=_readers, default=True),
    "experts": Analysis(shows="which experts each token passes, where there are any", run=_experts, default=True),
    "attention": Analysis(shows="what every head attends to", run=_attention),
    "induction": Analysis(shows="which heads repeat what came before", run=_induction),
    "lens": Analysis(shows="what each layer would answer", run=_lens, default=True),
    "attribution": Analysis(shows="what each part adds to the answer's logit", run=_attribution, default=True),
    "logits": Analysis(shows="from the stream to logits and probabilities", run=_logits, default=True),
    "decoding": Analysis(shows="what greedy, temperatures, top-k and top-p leave", run=_decoding, default=True),
    "generation": Analysis(shows="the next tokens, with times and the cache", run=_generation, default=True),
    "losses": Analysis(shows="the loss of each token of the prompt", run=_losses, default=True),
    "patching": Analysis(shows="what tells two prompts apart", run=_patching, needs="--corrupted"),
    "heads": Analysis(shows="what every head does over many prompts", run=_heads),
    "circuits": Analysis(shows="the weights of the head that adds most to the answer", run=_circuits),
    "trace": Analysis(shows="which states carry the answer", run=_trace, needs="--subject"),
    "ablation": Analysis(shows="what the answer loses without each head and MLP", run=_ablation),
    "tensors": Analysis(shows="every tensor of the model and what it does", run=_tensors, default=True),
    "edit": Analysis(shows="the model with another fact, before and after", run=_edit, needs="--edit"),
}
"""By name, in the order of the page. The edit is the last to run: everything else is of the model as it is."""

"""A small result of every kind that the page shows: of a tiny model where that is quick, drawn up by hand where it is not."""

from pathlib import Path

import interp
import sweep_cases
import tiny_models
from interp.report.sections import BUILDERS
from interp.results import Result
from interp.runner.model import Model
from interp.scale.sweep import sweep
from report import decoding_samples, edit_samples, patching_samples, samples

PROMPT = "The tower of Pisa is in the"
OTHER = "The tower of Bob is in the"
ANSWERS = {"target": " city", "against": " lake"}


def every_kind(model: Model, folder: Path) -> dict[str, Result]:
    """The results by kind; ``model`` reads words, ``folder`` holds it and gets a sweep."""
    lens = interp.logit_lens(model, PROMPT)
    results = [
        lens,
        interp.attention_patterns(model, PROMPT),
        interp.residual_story(model, PROMPT),
        interp.direct_logit_attribution(model, PROMPT, target=" city"),
        interp.causal_trace(model, PROMPT, "tower of Pisa", samples=1, kinds="resid"),
        interp.ablation(model, [PROMPT], units="mlps", method="zero"),
        interp.path_patching(model, PROMPT, OTHER, **ANSWERS),
        interp.attribution_patching(model, PROMPT, OTHER, **ANSWERS),
        interp.head_profiles(model, [PROMPT, OTHER], n_shuffles=1),
        interp.head_circuits(model, "L1H2", draws=4),
        interp.head_composition(model, heads=["L1H2"], draws=4),
        interp.induction_heads(model, periods=(8,), seeds=1),
        interp.architecture(model),
        interp.attention_summary(model, PROMPT),
        interp.embedding_geometry(model, PROMPT, pairs=50),
        interp.position_encoding(model),
        interp.expert_routing(Model(tiny_models.build("mixtral")), [5, 9, 33, 71]),
        interp.compare(lens, interp.logit_lens(model, OTHER)),
        sweep(sweep_cases.trace_of(str(folder / "model"), sweep_cases.FACTS[:2]), str(folder / "a-sweep")),
        *(edit_samples.edit(), edit_samples.effect(), edit_samples.scores(1), edit_samples.sequence(2, 1)),
        patching_samples.patching(),
        *(decoding_samples.next_token_logits(), decoding_samples.decoding_choices(), decoding_samples.token_losses()),
        samples.generation(),
    ]
    by_kind = {result.kind: result for result in results}
    assert set(by_kind) == set(BUILDERS), set(by_kind) ^ set(BUILDERS)
    return by_kind

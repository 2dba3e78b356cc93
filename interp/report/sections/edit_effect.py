"""What an edit changed: answers and a continuation before and after, and where in the network the change can be read."""

from typing import Any

from interp.figures.edit_effect import LENS, answer_bars, lens_map
from interp.figures.lens import target_trajectory
from interp.report.blocks import Axis, Block, Picture, Section, Table, Version
from interp.report.markup import Child, Html, element, join, quoted, token
from interp.report.sections import edit
from interp.report.sections.edit_words import answer_token, fact_told, findings, layers_told, number_of
from interp.tokens import visible

_MAPS = {"difference": "Difference", "before": "Before", "after": "After"}


def changed(result: Any, prompt: str) -> Section | None:
    """The prompt's answers, those of paraphrases and neighbours, and a continuation, before and after."""
    lead = (
        "What does the model say now? Everything was asked before the edit, and again after it was applied. The prompt shows its "
        "[[efficacy]]; paraphrases, which ask for the same in other words, its [[generalisation]]; neighbours, which ask about "
        "other subjects, its [[specificity]]."
    )
    blocks: list[Block] = [_asked(result), _answers(result, prompt), _tops(result), *_related(result)]
    if result.continuation_before is not None and result.continuation_after is not None:
        blocks.append(_continuations(result))
    return Section(
        name="edit",
        title="What the edit changed",
        label="Edit",
        lead=lead,
        place=82,
        blocks=blocks,
        findings=findings(result),
    )


def value(result: Any, prompt: str) -> Section | None:
    """How the value of the fact was found."""
    return edit.value_section(result.edit, [result.edit.facts.index(result.fact)], prompt)


def weights(result: Any, prompt: str) -> Section | None:
    """What was written into which matrices, and that it was taken back."""
    return edit.weights_section(result.edit, result.proofs)


def acts(result: Any, prompt: str) -> Section | None:
    """The target in the logit lens before and after, over layers and tokens."""
    lead = (
        "Where does the edit act? The [[logit lens]] reads the [[log-probability]] of the target's first token after each layer, at each "
        f"token of the prompt, before and after. The edit changes {layers_told(_layers(result))}: below, nothing differs; there, a token "
        "gets something new as far as its [[key]] is like that of the subject's last token; later attention carries it on, to the last "
        "token, where the answer is read."
    )
    return Section(
        name="edit-lens",
        title="Where the edit acts",
        label="Where it acts",
        lead=lead,
        place=84,
        blocks=(_maps(result, prompt), _lines(result, prompt)),
    )


def _layers(result: Any) -> list[int]:
    return [change.layer for change in result.edit.layers]


def _asked(result: Any) -> Html:
    """The fact, and the probabilities of target and old answer."""
    row = result.of("prompt")[0]
    others = len(result.edit.facts) - 1
    among = f" (one of {others + 1} facts of the edit)" if others else ""
    parts: list[Child] = ["Asked", among, ": ", fact_told(result.fact), ". "]
    parts += ["The probability of the target ", answer_token(result.target)]
    parts.append(f" went from {number_of(row.target_before)} to {number_of(row.target_after)}")
    if result.old.ids != result.target.ids:
        parts += [", that of the old answer ", answer_token(result.old)]
        parts.append(f" from {number_of(row.old_before)} to {number_of(row.old_after)}")
    return element("p", *parts, ".", class_="lead")


def _answers(result: Any, prompt: str) -> Picture:
    words, before, after = zip(*result.answers, strict=True)
    figure = answer_bars([visible(word) for word in words], before, after)
    shown = result.before.top_ids.shape[1]
    caption = f"Next tokens after the prompt: those among the {shown} likeliest before the edit or after it, with both probabilities."
    return Picture(versions={"Answers": Version(figure=figure)}, caption=caption, prompt=prompt)


def _tops(result: Any) -> Table:
    tops = zip(result.top("before"), result.top("after"), strict=True)
    rows: list[list[Child]] = [[str(rank), *(_chosen(*one) for one in pair)] for rank, pair in enumerate(tops)]
    return Table(
        columns=("rank", "before", "after"),
        rows=rows,
        numeric=frozenset({0}),
        caption=f"The {len(rows)} likeliest next tokens after the prompt, with their probability",
    )


def _related(result: Any) -> list[Table]:
    """A table of the paraphrases and one of the neighbours, as far as there are some."""
    said = {
        "paraphrase": "Paraphrases ask for the same fact: the target should come first.",
        "neighbour": "Neighbours ask about other subjects: their first choice should be kept.",
    }
    return [
        Table(
            columns=("prompt", "before", "after", "target", "first choice"),
            rows=[_related_row(row) for row in result.of(role)],
            caption=f"{words} Next to the first choices are their probabilities; the target's is of all its tokens",
            long=True,
        )
        for role, words in said.items()
        if result.of(role)
    ]


def _related_row(row: Any) -> list[Child]:
    return [
        quoted(row.tokens.text),
        _chosen(row.before_token, row.before_probability),
        _chosen(row.after_token, row.after_probability),
        f"{number_of(row.target_before)} → {number_of(row.target_after)}",
        row.verdict,
    ]


def _chosen(piece: str, probability: float) -> Html:
    return join([token(piece), " ", number_of(probability)])


def _continuations(result: Any) -> Table:
    """Both texts side by side, and from which token on they differ."""
    both = (result.continuation_before, result.continuation_after)
    one, two = (text.ids.tolist() for text in both)
    length = f"{len(one)} tokens" if len(one) == len(two) else f"{len(one)} and {len(two)} tokens"
    if one == two:
        parting = "they are the same"
    else:
        pairs = zip(one, two, strict=False)
        same = next((step for step, pair in enumerate(pairs) if pair[0] != pair[1]), min(len(one), len(two)))
        parting = f"they differ from token {same + 1} on"
    return Table(
        columns=("before", "after"),
        rows=[[quoted(text.text) for text in both]],
        caption=f"How the model goes on after the prompt, greedily, {length}; {parting}",
    )


def _axes(result: Any) -> tuple[Axis, Axis]:
    layers = tuple(range(len(result.lens_before_nats)))
    return Axis(of="token"), Axis(of="layer", layers=layers, labels=tuple(map(str, layers)))


def _maps(result: Any, prompt: str) -> Picture:
    before, after = result.lens_before_nats.double().numpy(), result.lens_after_nats.double().numpy()
    tokens, layers = _axes(result)
    versions = {
        _MAPS[what]: Version(
            figure=lens_map(
                before,
                after,
                what=what,
                labels=result.prompt.labels,
                subject=result.subject_position,
                edited=_layers(result),
            ),
            x=tokens,
            y=layers,
        )
        for what in LENS
    }
    caption = (
        "The target's log-probability as the lens reads it, layers upwards: after the edit less before it (blue: more likely, orange: "
        "less), or either. * and the orange square mark the subject's last token and the edited layer, where the new value is written."
    )
    return Picture(versions=versions, caption=caption, prompt=prompt)


def _lines(result: Any, prompt: str) -> Picture:
    before, after = result.lens_before_nats.double().numpy(), result.lens_after_nats.double().numpy()
    layers = _axes(result)[1]
    last = {"before": before[:, -1], "after": after[:, -1]}
    figure = target_trajectory(last, rows=layers.labels, unit="log-probability of the target (nats)")
    version = Version(figure=figure, follow=[{"y": before}, {"y": after}], x=layers)
    caption = "The target at the selected token, from the first layer to the last, before the edit and after it."
    return Picture(versions={"Log-probability": version}, caption=caption, prompt=prompt)

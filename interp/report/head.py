"""The head of the page: which models and prompts it is about, what the model answers, and the most notable measured facts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from interp.report.blocks import Prompt
from interp.report.findings import Found
from interp.report.markup import Child, Html, element, join, quoted
from interp.report.sections.answer import answer_of
from interp.results import Provenance, Result
from interp.tokens import visible

_HERO = 160


class Models:
    """The models that results come from, and what each is called: by its name, with its weights' digest where names are equal."""

    def __init__(self, results: Sequence[Result]) -> None:
        self._names: dict[tuple[str, str | None], str] = {}
        for result in results:
            self._names[_identity(result.provenance)] = result.provenance.model
        names = list(self._names.values())
        for identity, name in self._names.items():
            if names.count(name) > 1:
                self._names[identity] = f"{name} ({(identity[1] or 'in memory')[:9]})"

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.values())

    def of(self, result: Result) -> str:
        """What the model of a result is called on this page."""
        return self._names[_identity(result.provenance)]


def head(
    results: Sequence[Result], prompts: Mapping[str, Prompt], found: Sequence[Found], heading: str, models: Models
) -> Html:
    """Each prompt with the model's answer (or ``heading``, where there is none), where it comes from, and what was found."""
    parts = [element("p", "interp", *(join([" · ", quoted(name)]) for name in models), class_="overline")]
    own = {key: prompt for key, prompt in prompts.items() if any(_same_text(result, prompt) for result in results)}
    if not own:
        parts += _compared(results) or [element("h1", heading, class_="hero")]
    texts = list(texts_of(own).values())
    for number, key in enumerate(texts, start=1):
        prompt = prompts[key]
        if len(texts) > 1:
            parts.append(element("p", f"prompt {number}", class_="overline"))
        answering = [result for result in results if _same_text(result, prompt)]
        parts += _hero("h1" if number == 1 else "p", prompt, answering, models)
    origins = [result.provenance for result in results]
    architectures = dict.fromkeys(origin.architecture for origin in origins)
    precisions = dict.fromkeys(f"{origin.dtype} on {origin.device}" for origin in origins)
    made = sorted({origin.created for origin in origins})
    one_day = made[0].partition("T")[0] == made[-1].partition("T")[0]
    dates = [quoted(made[0])] if one_day else [quoted(made[0]), " to ", quoted(made[-1])]
    byline = [join(map(quoted, architectures), ", "), join(map(quoted, precisions), ", "), join(dates)]
    parts.append(element("p", join(byline, " · "), class_="byline"))
    items = [
        element("li", element("span", item.markup), element("a", item.label, href=f"#{item.anchor}")) for item in found
    ]
    return join([*parts, element("ul", *items, class_="findings")] if items else parts, "\n")


def _hero(tag: str, prompt: Prompt, results: Sequence[Result], models: Models) -> list[Html]:
    """A prompt with what follows it; where models answer it differently, each answer with the model's name."""
    text = prompt.tokens.text.strip(" ")
    heading: list[Child] = [element("span", quoted(_shortened(text)), class_="prompt")]
    answers = {
        name: answer
        for name in models
        if (answer := answer_of([result for result in results if models.of(result) == name])) is not None
    }
    for name, answer in answers.items():
        words = "the model's next token" if len(models) == 1 else f"the next token of {visible(name)}"
        heading += [" ", element("span", visible(answer.strip(" ")), class_="answer", title=words, dir="auto")]
        if len(models) > 1:
            heading += [" ", element("small", "(", quoted(name), ")")]
    parts = [element(tag, *heading, class_="hero")]
    if _shortened(text) != text:
        summary = element("summary", f"Show the whole prompt ({len(text):,} characters)")
        parts.append(element("details", summary, element("p", quoted(text), class_="whole"), class_="prompt"))
    return parts


def _compared(results: Sequence[Any]) -> list[Html]:
    """Both prompts of a comparison of two, each under its side's name."""
    for result in results:
        sides = (result.a, result.b) if result.kind == "comparison" else ()
        if len({side.text for side in sides if side.text}) > 1:
            names = [element("p", quoted(side.name), class_="overline") for side in sides]
            shown = [element("span", quoted(_shortened(side.text.strip(" "))), class_="prompt") for side in sides]
            return [
                names[0],
                element("h1", shown[0], class_="hero compared"),
                names[1],
                element("p", shown[1], class_="hero"),
            ]
    return []


def _identity(provenance: Provenance) -> tuple[str, str | None]:
    return provenance.model, provenance.weights_sha256


def _shortened(text: str) -> str:
    """A long prompt's start and end, which the answer follows; cut between words where there are some."""
    if len(text) <= _HERO:
        return text
    half = _HERO // 2
    start, end = text[:half], text[-half:]
    return f"{start.rpartition(' ')[0] or start} … {end.partition(' ')[2] or end}"


def texts_of(prompts: Mapping[str, Prompt]) -> dict[str, str]:
    """The distinct texts, each with the key of the first prompt that has it: others may be about some of its positions only."""
    texts: dict[str, str] = {}
    for key, prompt in prompts.items():
        texts.setdefault(prompt.tokens.text, key)
    return texts


def name_of(key: str, prompts: Mapping[str, Prompt]) -> str:
    """What a prompt is called where there are several: by the number of its text, and by its positions where these tell it apart."""
    prompt, texts = prompts[key], list(texts_of(prompts))
    alike = [other for other in prompts.values() if other.tokens.text == prompt.tokens.text]
    parts = [f"prompt {texts.index(prompt.tokens.text) + 1}"] if len(texts) > 1 or len(alike) == 1 else []
    if len(alike) > 1:
        whole = prompt.positions == tuple(range(max(len(other.tokens) for other in alike)))
        places = f"position{'s'[: len(prompt.positions) != 1]} {_spans(prompt.positions)}"
        parts.append("all positions" if whole else places)
    return ", ".join(parts)


def _spans(positions: Sequence[int]) -> str:
    """Positions in short, such as 3, 5 to 8."""
    runs: list[list[int]] = []
    for position in positions:
        if runs and position == runs[-1][1] + 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    return ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in runs)


def _same_text(result: Result, prompt: Prompt) -> bool:
    own = Prompt.of(result)
    return own is not None and own.tokens.text == prompt.tokens.text

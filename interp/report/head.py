"""The head of the page: which models and prompts it is about, what the model answers, and the most notable measured facts."""

from collections.abc import Iterator, Mapping, Sequence

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
    origin = results[0].provenance
    parts = [element("p", "interp", *(join([" · ", quoted(name)]) for name in models), class_="overline")]
    if not prompts:
        parts.append(element("h1", heading, class_="hero"))
    texts = _by_text(prompts)
    for key, prompt in texts.items():
        if len(texts) > 1:
            parts.append(element("p", f"prompt {int(key[1:]) + 1}", class_="overline"))
        parts += _hero(key, prompt, [result for result in results if _same_text(result, prompt)], models)
    precision = f"{origin.dtype} on {origin.device}"
    architectures = dict.fromkeys(result.provenance.architecture for result in results)
    byline = [join(map(quoted, architectures), ", "), quoted(precision), quoted(origin.created)]
    parts.append(element("p", join(byline, " · "), class_="byline"))
    items = [
        element("li", element("span", item.markup), element("a", item.label, href=f"#{item.anchor}")) for item in found
    ]
    return join([*parts, element("ul", *items, class_="findings")] if items else parts, "\n")


def _hero(key: str, prompt: Prompt, results: Sequence[Result], models: Models) -> list[Html]:
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
    parts = [element("h1" if key == "p0" else "p", *heading, class_="hero")]
    if _shortened(text) != text:
        summary = element("summary", f"Show the whole prompt ({len(text):,} characters)")
        parts.append(element("details", summary, element("p", quoted(text), class_="whole"), class_="prompt"))
    return parts


def _identity(provenance: Provenance) -> tuple[str, str | None]:
    return provenance.model, provenance.weights_sha256


def _shortened(text: str) -> str:
    """A long prompt's start and end, which the answer follows; cut between words where there are some."""
    if len(text) <= _HERO:
        return text
    half = _HERO // 2
    start, end = text[:half], text[-half:]
    return f"{start.rpartition(' ')[0] or start} … {end.partition(' ')[2] or end}"


def _by_text(prompts: Mapping[str, Prompt]) -> dict[str, Prompt]:
    """Of prompts that differ only in the positions shown, the first."""
    texts: dict[str, str] = {}
    for key, prompt in prompts.items():
        texts.setdefault(prompt.tokens.text, key)
    return {key: prompts[key] for key in texts.values()}


def _same_text(result: Result, prompt: Prompt) -> bool:
    own = Prompt.of(result)
    return own is not None and own.tokens.text == prompt.tokens.text

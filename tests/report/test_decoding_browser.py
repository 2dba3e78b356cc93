"""The end of the walkthrough in a real browser: drawn without a complaint, each picture with its table, losses linked to the tokens."""

import pytest

from interp.report import report
from report import decoding_samples, samples


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "page.html"
    made = [decoding_samples.next_token_logits(), decoding_samples.decoding_choices(), samples.generation()]
    report([*made, decoding_samples.token_losses()]).save(path)
    return path


def rows(page, section: str) -> list[list[str]]:
    """The table behind the picture of a section."""
    page.run(f"document.querySelector('#{section} .picture details').open = true")
    table = f"[...document.querySelectorAll('#{section} .picture details tr')].map(row => [...row.children].map(cell => cell.innerText))"
    page.until(f"{table}.length > 1")
    return page.run(table)


@pytest.mark.long
def test_pictures_are_drawn_and_tables_say_the_same(page):
    page.draw_all()
    assert page.problems == []
    logits, result = rows(page, "next-token-logits"), decoding_samples.next_token_logits()
    assert len(logits) == 1 + len(result.bin_counts)
    assert logits[1][0] == f"from {result.bin_start:.1f}".replace("-", "−")
    assert [int(row[1].replace("–", "0")) for row in logits[1:]] == result.bin_counts.tolist()
    choices, chosen = rows(page, "decoding-choices"), decoding_samples.decoding_choices()
    assert choices[0] == ["next token", *(choice.label for choice in chosen.choices)]
    assert choices[1][0] == "␣Paris"
    assert float(choices[1][3]) == pytest.approx(float(chosen.probs[2, 0]), rel=6e-3)
    assert choices[2][1] == "–"  # greedy leaves the second token out
    losses = rows(page, "token-losses")
    assert losses[0] == ["token", "loss", "expected (entropy)"]
    assert losses[1] == ["0 The", "–", "–"]
    assert losses[2][:2] == ["1 ␣Eiffel", "9"]


@pytest.mark.long
def test_a_click_on_a_loss_selects_its_token(page):
    page.draw_all()
    bar = "document.querySelectorAll('#token-losses .bars .point')[2]"
    page.run(f"{bar}.scrollIntoView({{ block: 'center', behavior: 'instant' }})")
    box = f"{bar}.getBoundingClientRect()"
    x, y = page.run(f"{box}.x + {box}.width / 2"), page.run(f"{box}.y + {box}.height / 2")
    page.click(x, y)
    page.until("document.querySelector('.strip [aria-pressed=true]').innerText.includes('Tower')", seconds=10)


@pytest.mark.long
def test_each_version_of_the_loop_is_drawn(page):
    page.draw_all()
    page.run("document.querySelectorAll('#generation .switch button')[2].click()")
    page.until("document.querySelector('#generation .plot').innerText.includes('MB')")
    assert rows(page, "generation")[0] == ["step", "kept", "with a key and a value for each query head"]
    page.run("document.querySelectorAll('#generation .switch button')[1].click()")
    page.until("document.querySelector('#generation .plot').innerText.includes('milliseconds')")
    assert rows(page, "generation")[1][:2] == ["0 ␣Paris", "250"]
    assert page.problems == []

"""A page about 1,000 tokens and 1,024 heads stays usable."""

import pytest

from interp.report import report
from interp.report.fitting import LIMIT
from report import samples

TOKENS, LAYERS, HEADS = 1000, 32, 32
TOOK = """(async (step) => {
  const start = performance.now();
  selection.step(step);
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))));
  return performance.now() - start;
})"""


@pytest.mark.slow
def test_a_step_takes_less_than_a_third_of_a_second(browser, tmp_path):
    pieces = tuple(f" w{index}" for index in range(TOKENS))
    attention = samples.attention(pieces, layers=LAYERS, heads=HEADS, exact=False, sharpness=2.2)
    made = report([attention, samples.lens(pieces, layers=8), samples.story(pieces, layers=8)])
    assert len(made.html().encode()) <= LIMIT
    assert "squares of" in made.notes[0]
    made.save(tmp_path / "large.html")
    browser.resize(1280, 900)
    browser.open_report(tmp_path / "large.html")
    browser.draw_all()
    took = {}
    for section in ("tokens", "story", "attention", "lens"):
        browser.run(f"document.getElementById('{section}').scrollIntoView({{ behavior: 'instant' }})")
        browser.run("new Promise(done => setTimeout(done, 500))")
        for step in ("{ pos: -1 }", "{ layer: -1 }", "{ head: 1 }"):
            # The least of several: what else runs on the machine only adds to it.
            times = []
            for _ in range(5):
                times.append(browser.run(f"{TOOK}({step})"))
                browser.run("new Promise(done => setTimeout(done, 600))")
            took[section, step] = min(times)
    assert max(took.values()) < 300, took
    assert browser.problems == []

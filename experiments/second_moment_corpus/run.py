"""``python -m experiments.second_moment_corpus.run --cases FILE --texts FILE [--quick]``: edits with second moments of other text.

Second moments go to out/ and are not made again. Without ``--quick`` results.json and the tables of README.md are written beside this
file; the exit code is then 1 where a figure is not what is expected.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

from experiments.publishing import draw, publish, say, stay_offline
from experiments.rome.workshop import Workshop
from experiments.second_moment_corpus.config import FOLDER, Config
from experiments.second_moment_corpus.edits import write_all
from experiments.second_moment_corpus.figure import corpus_figure
from experiments.second_moment_corpus.moments import tried_moments
from experiments.second_moment_corpus.scores import score_all
from experiments.second_moment_corpus.summary import difference_lines, distance_lines, more, score_lines, values
from interp.runner.model import Model, load

OUT = FOLDER / "out"


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where every figure is as expected, else 1."""
    parser = argparse.ArgumentParser(prog="python -m experiments.second_moment_corpus.run", description=__doc__)
    parser.add_argument("--cases", type=Path, required=True, help="CounterFact-style records")
    parser.add_argument(
        "--texts", type=Path, required=True, help="texts, one a line: the first for second moments, the last held out"
    )
    parser.add_argument("--quick", action="store_true", help="two facts, compared with nothing")
    asked = parser.parse_args(arguments)
    stay_offline()
    config = Config().quick() if asked.quick else Config()
    model = load(config.model, device="cpu", dtype="float32")
    moments = OUT / _key(model, config, asked.texts)
    folder = moments / ("quick" if asked.quick else "all")
    folder.mkdir(parents=True, exist_ok=True)
    shop = Workshop.of(model, config.rome(), asked.cases, asked.texts, folder, say, float("inf"))
    (layer,) = shop.layers(config.method)
    tried = list(tried_moments(shop, layer, config, moments))
    written = write_all(shop, layer, tried)
    scored = score_all(shop, tried, written)
    draw(corpus_figure(scored), OUT / "corpus.html")
    tables = {
        "scores": score_lines(scored),
        "differences": difference_lines(scored),
        "distances": distance_lines(scored),
    }
    facts = [case.name or case.fact.prompt for case in shop.singles]
    kept = more(scored, facts) | {"layer": layer}
    return publish(FOLDER, model, config.to_json(), values(scored), tables, kept, quick=folder if asked.quick else None)


def _key(model: Model, config: Config, texts: Path) -> str:
    """A name for the second moments of these weights and texts; their own names tell the sizes."""
    digest = hashlib.sha256(texts.read_bytes()).hexdigest() if texts.is_file() else None
    parts = [
        config.default_tokens,
        config.moment_texts,
        config.other_texts,
        config.seed,
        model.source.weights_sha256 if model.source else None,
        digest,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())

"""CounterFact-style records and texts of the word model's words, as the experiments on edits read them."""

import json
from collections.abc import Sequence
from pathlib import Path

import word_model
from interp.runner.model import Model


def write_fact_files(folder: Path, model: Model, subjects: Sequence[str], words_a_line: int) -> tuple[Path, Path]:
    """(cases, texts): a fact of each subject whose true object is what the model says, and a dozen lines."""
    records = []
    for i, subject in enumerate(subjects):
        prompt = f"the {subject} is in the city of"
        said = word_model.WORDS[int(model.run(prompt, logits="last").last_logits.argmax())]
        records.append(
            {
                "case_id": i, "prompt": prompt, "subject": subject, "target_new": "Ann" if said != "Ann" else "Bob",
                "ground_truth": said, "rephrase_prompt": f"near the {subject} lies", "locality_prompt": "Carl lies near",
                "locality_ground_truth": "Dora",
            }
        )  # fmt: skip
    (folder / "cases.json").write_text(json.dumps(records))
    words = word_model.WORDS
    lines = [" ".join(words[(7 * row + 3 * i) % len(words)] for i in range(words_a_line)) for row in range(12)]
    (folder / "texts.txt").write_text("\n".join(lines) + "\n")
    return folder / "cases.json", folder / "texts.txt"

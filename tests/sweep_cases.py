"""A tiny model in a folder, facts that it can read, and the sweeps of the tests."""

import word_model

FACTS = [
    {"prompt": f"The {subject} is in the", "subject": subject, "target": target}
    for subject, target in [
        ("tower of Pisa", " city"),
        ("bridge", " lake"),
        ("store", " city"),
        ("capital city", " red"),
        ("lake", " green"),
        ("shop", " blue"),
    ]
]
TRACE = {"kinds": ["resid"], "samples": 2}


def save_model(folder, seed=0):
    """The tiny model of words with its tokenizer, as a folder that ``interp.load`` takes; the folder's path as text."""
    model = word_model.build(seed=seed)
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return str(folder)


def trace_of(model, items=FACTS, **more):
    """The configuration of a sweep of traces."""
    return {"analyzer": "causal_trace", "model": model, "device": "cpu", "items": items, "settings": TRACE} | more

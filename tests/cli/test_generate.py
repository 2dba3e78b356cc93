"""``interp generate`` on the default model."""

import json
from pathlib import Path

import pytest

from interp.prompts import Conversation
from interp.results import load_result

PROMPT = "The Eiffel Tower is located in the city of"
ON_CPU = ("--device", "cpu", "--dtype", "float32")


@pytest.mark.model
def test_json_is_what_python_gives(interp, model) -> None:
    ended = interp("generate", PROMPT, "-n", "4", "--json", *ON_CPU)
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)
    expected = model.generate(PROMPT, max_new_tokens=4)
    assert (found["command"], found["schema_version"]) == ("generate", 1)
    assert found["text"] == expected.text
    assert found["text"].startswith(" Paris")
    assert found["result"]["ids"] == expected.ids.tolist()
    (formula,) = found["kv_cache_formula"]
    assert formula.endswith(f"= {expected.cache_bytes:,}")
    assert found["kv_cache_bytes"] == expected.cache_bytes
    assert found["kv_cache_bytes_multi_head"] == 3 * expected.cache_bytes


@pytest.mark.model
def test_text_steps_and_file(interp, tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    ended = interp("generate", PROMPT, "-n", "3", "--steps", "-o", str(path), *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith(" Paris")
    for word in (
        "␣Paris",
        "likeliest other",
        "read, 10 tokens: The ␣E iffel ␣Tower",
        "prefill",
        "decode",
        "tokens/s",
        "KV cache",
        "2 x 30 layers x 3 kv heads x 64 d_head x 4 bytes x 12 tokens",
        "with keys and values for all 9 query heads, not 3",
    ):
        assert word in ended.stdout
    assert ended.stderr.endswith(f"wrote {path}\n")
    assert load_result(path).text == ended.stdout.splitlines()[0]


@pytest.mark.model
@pytest.mark.long
def test_chat_and_sampling(interp, model) -> None:
    sampling = ("--temperature", "1.5", "--top-k", "20", "--top-p", "0.9", "--seed", "7")
    ended = interp("generate", "Hi", "--system", "Be brief.", "-n", "5", *sampling, "--json", "-q", *ON_CPU)
    assert (ended.code, ended.stderr) == (0, "")
    expected = model.generate(
        Conversation.of("Hi", system="Be brief."), max_new_tokens=5, temperature=1.5, top_k=20, top_p=0.9, seed=7
    )
    found = json.loads(ended.stdout)["result"]
    assert "Be brief." in found["tokens"]["text"]
    assert found["ids"] == expected.ids.tolist()
    assert found["provenance"]["seed"] == 7


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("",), 2, "the prompt is empty"),
        (("Hi", "-o", "out.xyz"), 2, "valid: .safetensors, .json, .csv"),
        (("Hi", "--model", "smollm"), 3, "smollm"),
        (("Hi", "--device", "cuda:99"), 2, "cuda:99"),
        (("Hi", "--dtype", "float8"), 2, "valid: auto, float32, bfloat16, float16"),
        (("Hi", "--model", "/nowhere"), 3, "/nowhere"),
    ],
)
def test_mistakes_are_one_line(interp, arguments: tuple[str, ...], code: int, said: str) -> None:
    ended = interp("generate", *arguments)
    assert (ended.code, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.model
@pytest.mark.parametrize(
    "arguments", [("--top-p", "1.5", "--temperature", "1"), ("--top-p", "0", "--temperature", "1")]
)
def test_a_bad_top_p_names_the_valid_values(interp, arguments: tuple[str, ...]) -> None:
    ended = interp("generate", "Hi", *arguments)
    assert ended.code == 2
    assert "top_p" in ended.stderr
    assert "valid: above 0, at most 1" in ended.stderr

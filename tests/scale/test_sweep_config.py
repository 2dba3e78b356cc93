"""What a sweep's configuration may say, and the one line that says what is wrong with it."""

import json

import pandas as pd
import pytest

from interp.errors import UsageError
from interp.scale.sweep_config import read_config

LENS = {"analyzer": "logit_lens", "items": ["The lake is in"]}
TRACE = {"analyzer": "causal_trace", "items": [{"prompt": "The lake is in", "subject": "lake"}]}

TOML = """
analyzer = "causal_trace"
models = ["one", { name = "two", dtype = "bfloat16" }]
seed = 7
threads = 2
[items]
file = "facts.jsonl"
skip = 1
limit = 2
fields = { prompt = "{question} ->", target = " {answer}" }
[settings]
kinds = ["resid"]
[grid]
noise = [1.0, 3.0]
samples = [2, 4]
"""
YAML = """
analyzer: causal_trace
models: [one, {name: two, dtype: bfloat16}]
seed: 7
threads: 2
items:
  file: facts.jsonl
  skip: 1
  limit: 2
  fields: {prompt: "{question} ->", target: " {answer}"}
settings: {kinds: [resid]}
grid: {noise: [1.0, 3.0], samples: [2, 4]}
"""


@pytest.fixture
def written(tmp_path):
    facts = [{"question": f"Where is {name}", "subject": name, "answer": name[::-1], "id": 1} for name in "abcd"]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    (tmp_path / "sweep.toml").write_text(TOML)
    (tmp_path / "sweep.yaml").write_text(YAML)
    return tmp_path


def test_toml_and_yaml_say_the_same(written) -> None:
    toml, yaml = read_config(written / "sweep.toml"), read_config(str(written / "sweep.yaml"))
    assert toml.plain() == yaml.plain()
    assert toml.items == yaml.items
    assert toml.items == (
        {"prompt": "Where is b ->", "subject": "b", "target": " b"},
        {"prompt": "Where is c ->", "subject": "c", "target": " c"},
    )
    assert {label: spec.dtype for label, spec in toml.models.items()} == {"one": "auto", "two": "bfloat16"}
    assert (toml.seed, toml.threads, toml.n_tasks) == (7, 2, 16)


def test_how_a_model_is_loaded_is_said_for_all_or_for_one(tmp_path) -> None:
    (tmp_path / "sweep.toml").write_text(
        """
analyzer = "logit_lens"
items = ["a"]
dtype = "bfloat16"
device_map = "auto"
offload_folder = "spill"
gpus = 2
[max_memory]
0 = "20GB"
cpu = 1000
[[models]]
name = "one"
[[models]]
name = "two"
dtype = "float32"
device_map = { "model.embed_tokens" = 0, "" = "cpu" }
"""
    )
    found = read_config(tmp_path / "sweep.toml")
    one, two = found.models.values()
    assert (one.dtype, one.device_map, one.offload_folder) == ("bfloat16", "auto", str(tmp_path / "spill"))
    assert one.limits() == {0: "20GB", "cpu": 1000}
    assert (two.dtype, two.device_map) == ("float32", {"model.embed_tokens": 0, "": "cpu"})
    assert found.gpus == 2.0
    assert json.loads(json.dumps(found.plain())) == found.plain()


def test_tasks_go_models_then_points_then_items(written) -> None:
    tasks = list(read_config(written / "sweep.toml").tasks())
    assert [task.index for task in tasks] == list(range(16))
    assert [task.model for task in tasks] == ["one"] * 8 + ["two"] * 8
    points = [(task.point["noise"], task.point["samples"], task.item["subject"]) for task in tasks[:8]]
    assert points == [(noise, samples, name) for noise in (1.0, 3.0) for samples in (2, 4) for name in "bc"]
    assert tasks[0].settings == {"kinds": ["resid"], "noise": 1.0, "samples": 2}
    assert len({task.digest for task in tasks}) == 16


def test_a_seed_comes_from_the_sweeps_seed_and_the_item_alone(written) -> None:
    tasks = list(read_config(written / "sweep.toml").tasks())
    assert len({task.seed for task in tasks}) == 2
    assert {task.seed for task in tasks if task.item["subject"] == "b"} == {tasks[0].seed}
    alone = read_config(TRACE | {"items": [tasks[1].item], "seed": 7})
    assert next(alone.tasks()).seed == tasks[1].seed
    assert next(read_config(TRACE | {"items": [tasks[1].item], "seed": 8}).tasks()).seed != tasks[1].seed
    varied = read_config(TRACE | {"grid": {"seed": [7, 8]}})
    assert len({task.seed for task in varied.tasks()}) == 2
    assert all("seed" not in task.settings for task in varied.tasks())


def test_items_come_from_every_kind_of_file(tmp_path) -> None:
    (tmp_path / "texts.txt").write_text("one two\n\nthree\n")
    pd.DataFrame({"text": ["a b", "c d"]}).to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "chats.json").write_text(
        json.dumps([{"prompt": [{"role": "user", "content": "Hi"}]}, {"prompt": [3, 4]}])
    )

    def items(file: str, **more: object) -> list[object]:
        found = read_config({"analyzer": "logit_lens", "items": {"file": str(tmp_path / file), **more}})
        return [item["prompt"] for item in found.items]

    assert items("texts.txt") == ["one two", "three"]
    assert items("rows.parquet", fields={"prompt": "{text}"}, limit=1) == ["a b"]
    assert items("chats.json") == [[{"role": "user", "content": "Hi"}], [3, 4]]


def test_a_prompt_is_made_of_template_and_subject(tmp_path) -> None:
    (tmp_path / "facts.json").write_text(json.dumps([{"template": "The {} is in", "subject": "lake"}]))
    found = read_config({"analyzer": "causal_trace", "items": {"file": str(tmp_path / "facts.json")}})
    assert found.items == ({"prompt": "The lake is in", "subject": "lake"},)


def test_published_cases_are_items_of_an_edit_sweep(tmp_path) -> None:
    case = {
        "case_id": 1,
        "requested_rewrite": {
            "prompt": "{} is in",
            "subject": "The lake",
            "target_new": {"str": "Rome"},
            "target_true": {"str": "Paris"},
        },
        "paraphrase_prompts": ["Where is The lake?"],
        "neighborhood_prompts": ["The shop is in"],
    }
    (tmp_path / "cases.json").write_text(json.dumps([case]))
    (item,) = read_config({"analyzer": "edit", "items": {"file": str(tmp_path / "cases.json")}}).items
    assert item == {
        "subject": "The lake",
        "template": "{} is in",
        "target": " Rome",
        "true": " Paris",
        "paraphrases": ["Where is The lake?"],
        "neighbours": ["The shop is in"],
    }


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "'analyzer' is missing"),
        (LENS | {"analyser": "x"}, "unknown key 'analyser' (did you mean 'analyzer'?); valid: analyzer, model, models"),
        (LENS | {"analyzer": "lens"}, "unknown analyzer 'lens'; valid: logit_lens"),
        (LENS | {"analyzer": 3}, "'analyzer' must be text, got 3"),
        (
            LENS | {"settings": {"topk": 3}},
            "unknown setting of logit_lens 'topk' (did you mean 'top_k'?); valid: positions",
        ),
        (LENS | {"settings": {"target": " a"}}, "unknown setting of logit_lens 'target'"),
        (LENS | {"settings": [1]}, "'settings' must be a table, got [1]"),
        (LENS | {"grid": {"top_k": 3}}, "grid 'top_k' must be a list of values, got 3"),
        (LENS | {"grid": {"top_k": []}}, "grid 'top_k' must be a list of values, got []"),
        (LENS | {"grid": {"top_k": [3, 3]}}, "grid 'top_k' has the same value twice"),
        (LENS | {"grid": {"top_k": [3]}, "settings": {"top_k": 3}}, "'top_k' is in settings and in grid"),
        (LENS | {"threads": 0}, "threads is 0; give 1 or more"),
        (LENS | {"threads": True}, "'threads' must be a whole number, got True"),
        (LENS | {"seed": "x"}, "'seed' must be a whole number, got 'x'"),
        (LENS | {"model": "a", "models": ["b"]}, "'model' and 'models' were both given"),
        (LENS | {"models": []}, "'models' is empty"),
        (LENS | {"models": ["a", "a"]}, "the model 'a auto auto' is there twice"),
        (LENS | {"model": {"nam": "a"}}, "a model is a name, or a table with 'name'; got {'nam': 'a'}"),
        (
            LENS | {"model": {"name": "a", "size": 1}},
            "unknown key of a model 'size'; valid: name, revision, dtype, device",
        ),
        (LENS | {"dtype": "int8"}, "unknown dtype 'int8'; valid: auto, float32, bfloat16, float16"),
        (LENS | {"model": {"name": "a", "dtype": "fp16"}}, "unknown dtype 'fp16'"),
        (LENS | {"device_map": "autp"}, "unknown device map 'autp' (did you mean 'auto'?); valid: auto, balanced,"),
        (LENS | {"device_map": 1}, "'device_map' must be text, or a table from module paths to devices, got 1"),
        (LENS | {"device_map": {}}, "'device_map' is empty; leave it out"),
        (
            LENS | {"device_map": {"model": True}},
            "device_map of 'model' must be a device, such as \"cpu\" or 0, got True",
        ),
        (LENS | {"device_map": {"model": -1}}, "device_map of 'model' must be a device, such as \"cpu\" or 0, got -1"),
        (LENS | {"device_map": "auto", "device": "cuda"}, "device 'cuda' and device_map were both given"),
        (LENS | {"max_memory": {"cpu": "1GB"}}, 'max_memory is of a device map; give device_map = "auto" with it'),
        (LENS | {"offload_folder": "x"}, "offload_folder is of a device map; give device_map"),
        (LENS | {"device_map": "auto", "max_memory": "1GB"}, "'max_memory' must be a table from devices to sizes"),
        (LENS | {"device_map": "auto", "max_memory": {"cpu": 1.5}}, "max_memory of 'cpu' must be a size"),
        (LENS | {"batch_tokens": 0}, "batch_tokens is 0; give 1 or more"),
        (LENS | {"batch_tokens": "all"}, "'batch_tokens' must be a whole number, got 'all'"),
        (LENS | {"gpus": -1}, "gpus is -1; give 0 or more"),
        (LENS | {"gpus": "one"}, "'gpus' must be a number, got 'one'"),
        ({"analyzer": "logit_lens"}, "'items' is missing; logit_lens needs items with prompt"),
        (LENS | {"items": []}, "holds no item"),
        (LENS | {"items": "texts"}, "'items' must be a list of items, or a table with 'file'; got 'texts'"),
        (LENS | {"items": [3]}, "item 0: must be text (a prompt) or a table of fields, got 3"),
        (LENS | {"items": [{"promt": "x"}]}, "unknown field of an item of logit_lens 'promt' (did you mean 'prompt'?)"),
        (LENS | {"items": [{"prompt": ""}]}, "item 0: the field 'prompt' holds '', which is no text or token ids"),
        (LENS | {"items": [{"prompt": 3}]}, "item 0: the field 'prompt' holds '3', which is no text or token ids"),
        (TRACE | {"items": ["x"]}, "item 0: causal_trace needs the field 'subject', got: prompt"),
        (LENS | {"items": {"path": "x"}}, "unknown key of items 'path'; valid: file, limit, skip, fields"),
        (LENS | {"items": {"limit": 1}}, "items needs 'file'"),
        (LENS | {"items": {"file": "no.txt"}}, "cannot read no.txt: No such file"),
        (LENS | {"items": {"file": "no.txt", "limit": -1}}, "items 'limit' must be a whole number from 0, got -1"),
        (LENS | {"items": {"file": "no.txt", "fields": {"prompt": 3}}}, "fields must be a table of texts"),
        (
            LENS | {"items": {"file": "no.txt", "fields": {"subjct": "{a}"}}},
            "unknown field of an item of logit_lens 'subjct'",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(config, said, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as raised:
        read_config(config)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("sweep.json", "{}", "ends in '.json'; valid: .toml, .yaml, .yml"),
        ("sweep.toml", "analyzer = ", "is not TOML: Invalid value (at end of document)"),
        ("sweep.yaml", "a: [", "is not YAML: while parsing"),
        ("sweep.yaml", "", "holds no keys; a sweep needs at least 'analyzer'"),
        (
            "sweep.yaml",
            "analyzer: logit_lens\nitems: [x]\nsettings: {top_k: 2020-01-01}",
            "settings may hold text, numbers",
        ),
        (
            "sweep.toml",
            'analyzer = "logit_lens"\n[items]\nfile = "sweep.toml"\nfields = {prompt = "{a}"}',
            "no field 'a'",
        ),
    ],
)
def test_a_bad_file_is_said_in_one_line(name, text, said, tmp_path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as raised:
        read_config(tmp_path / name)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_missing_or_no_text_is_said(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*gone.toml: No such file"):
        read_config(tmp_path / "gone.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"bytes.toml is not UTF-8 text \(byte 0\)"):
        read_config(tmp_path / "bytes.toml")

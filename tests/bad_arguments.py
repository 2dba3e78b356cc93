"""The tables of bad arguments: for each command a line that works, and what is added to it with what the one line then says.

An argument that is added comes last, and the last one of an option counts. ``WHOLE`` has command lines that stand for themselves.
A word of ``says`` that holds several is looked for one by one, so that "valid: resid, mlp" asks for these words in this order.
"""

from dataclasses import dataclass

from bad_workspace import PROMPT, SHORT

LONG = "word40 " * 100
ON_MODEL = ("--model", "model", "--device", "cpu")

WORKS: dict[str, tuple[str, ...]] = {
    "report": (PROMPT, "--sections", "lens", "-o", "new.html", *ON_MODEL),
    "lens": (PROMPT, *ON_MODEL),
    "attention": (PROMPT, *ON_MODEL),
    "heads": ("--prompts", "texts.txt", *ON_MODEL),
    "circuits": ("L1H2", *ON_MODEL),
    "induction": ("--periods", "8", "--seeds", "1", "--scan-only", *ON_MODEL),
    "trace": (PROMPT, "--subject", "tower of Pisa", "--samples", "1", *ON_MODEL),
    "patch": ("--clean", PROMPT, "--corrupted", "The tower of Bob is in the", "-t", " city", "--against", " lake", *ON_MODEL),
    "ablate": (PROMPT, "--units", "mlps", "--method", "zero", *ON_MODEL),
    "compare": (PROMPT, SHORT, *ON_MODEL),
    "edit": (
        *(PROMPT, "-s", "tower of Pisa", "-t", " city", "-l", "1", "--moments", "moments.safetensors", "--steps", "1"),
        *("-n", "1", *ON_MODEL),
    ),
    "edit show": ("edit.safetensors",),
    "edit apply": ("edit.safetensors", "model"),
    "edit undo": ("model",),
    "edit export": ("edit.safetensors", "--peft", "adapter"),
    "edit eval": ("edit.safetensors", "--cases", "cases.json", *ON_MODEL),
    "moments": ("model", "-l", "1", "-c", "texts.txt", "-o", "new.safetensors", "--device", "cpu"),
    "collect": ("-s", "resid_post@1", "-c", "texts.txt", "-o", "new-store", *ON_MODEL),
    "store": ("store",),
    "sweep": ("sweep.yaml", "-o", "new-sweep"),
    "generate": (PROMPT, "-n", "2", *ON_MODEL),
    "models": (),
    "models fetch": ("half.gguf",),
    "tensors": ("model",),
    "doctor": (),
}  # fmt: skip
"""A command line of each command that works (``models fetch`` fails: what can be fetched here is there), for the rows to spoil."""


@dataclass(frozen=True)
class Bad:
    """What is added to the line that works, or in its place; what stderr then says; the exit code."""

    command: str
    added: tuple[str, ...]
    says: tuple[str, ...]
    code: int = 2
    whole: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command line."""
        start = () if self.whole else WORKS[self.command]
        return (*self.command.split(), *start, *self.added)

    def __str__(self) -> str:
        return " ".join((self.command, *self.added))[:60]


def bad(command: str, added: str | tuple[str, ...], *says: str, code: int = 2) -> Bad:
    """A row that adds to the line that works; ``added`` as text is split at spaces."""
    return Bad(command, tuple(added.split()) if isinstance(added, str) else added, says, code)


def whole(command: str, arguments: str | tuple[str, ...], *says: str, code: int = 2) -> Bad:
    """A row that takes nothing of the line that works."""
    added = tuple(arguments.split()) if isinstance(arguments, str) else arguments
    return Bad(command, added, says, code, whole=True)


LAYERS = ("layer 99 is out of range; valid: 0 to 2",)


def _prompts(command: str, rest: tuple[str, ...] = ON_MODEL) -> list[Bad]:
    """Prompts that no command takes."""
    return [
        whole(command, ("", *rest), "the prompt is empty"),
        whole(command, (LONG, *rest), "100 tokens", "64"),
        whole(command, ("@no.json", *rest), "cannot read no.json"),
        whole(command, ("@noise.json", *rest), "noise.json, line 1: not JSON"),
        whole(command, ("@role.json", *rest), "wizard", "valid: "),
        whole(command, ("@latin.txt.json", *rest), "cannot read latin.txt.json"),
        whole(command, ("@talk.json", "--system", "x", *rest), "--system and @talk.json were both given"),
        whole(command, ("The", "--chat", *rest), "chat template"),
    ]


ROWS: tuple[Bad, ...] = (
    # report
    *_prompts("report", ("-o", "new.html", "--sections", "lens", *ON_MODEL)),
    whole("report", (), "a prompt is needed, such as: interp report"),
    whole("report", "The tower is", "3 arguments are neither one prompt nor saved results"),
    bad("report", "--save lens.safetensors", "lens.safetensors"),
    bad("report", "--sections lenses", "unknown section 'lenses' (did you mean 'lens'?)", "valid: all, default, story"),
    bad("report", ("--sections", ","), "names no section", "valid: all"),
    bad("report", "--sections trace", "needs --subject"),
    bad("report", "--sections patching", "needs --corrupted"),
    bad("report", "--edit Rome", "--edit needs --subject"),
    bad("report", ("-t", "red blue"), "2 tokens"),
    bad("report", ("-t", ""), "the target is empty"),
    bad("report", "--subject Rome --sections trace", "'Rome' is not in the prompt"),
    bad("report", ("--corrupted", "The bridge"), "tokens"),
    bad("report", ("--subject", "Pisa", "--edit", ""), "the target is empty"),
    whole("report", "lens.safetensors --subject x -o new.html", "--subject is of a prompt"),
    whole("report", "no.safetensors -o new.html", "there is no file no.safetensors", code=3),
    whole("report", "page.safetensors -o new.html", "page.safetensors is not a readable result file", code=3),
    whole("report", "cut-lens.safetensors -o new.html", "cut-lens.safetensors is not a readable result file", code=3),
    whole("report", "page.json -o new.html", "page.json is not a readable result file", code=3),
    whole("report", "noise.json -o new.html", "noise.json is not a readable result file", code=3),
    whole("report", "talk.json -o new.html", "talk.json is JSON but not a saved result", code=3),
    whole("report", "model/model.safetensors -o new.html", "is a safetensors file but not a saved result", code=3),
    whole("report", "lens.safetensors texts.txt -o new.html", "ends in neither .safetensors nor .json"),
    bad("report", "-o report.pdf", "ends in '.pdf'; valid: .html"),
    # lens
    *_prompts("lens"),
    bad("lens", "--site resid_past", "resid_past", "resid_post"),
    bad("lens", "--site resid_post@99", "99", "0 to 2"),
    bad("lens", "-p 99", "position 99 is out of range; valid: 0 to 6"),
    bad("lens", "-p -8", "position -8 is out of range"),
    bad("lens", "-k 98", "top_k", "97"),
    bad("lens", ("-t", "red blue"), "2 tokens"),
    bad("lens", "--tuned no.safetensors", "there is no file no.safetensors", code=3),
    bad("lens", "--tuned lens.safetensors", "holds a 'logit_lens' result, not 'tuned_lens", code=3),
    bad("lens", "--tuned page.safetensors", "page.safetensors is not a readable result file", code=3),
    # attention
    *_prompts("attention"),
    bad("attention", "-l 99", *LAYERS),
    bad("attention", "-l 1-", "'1-'"),
    bad("attention", "--head 9", "head 9", "0 to 3"),
    bad("attention", "--head L99H0", "head L99H0 is out of range; valid: L0H0 to L2H3"),
    bad("attention", "--head x", "'x'"),
    bad("attention", "--sort size", "size", "valid: layer, previous, first, own, entropy, distance"),
    # heads
    bad("heads", "--prompts no.txt", "cannot read no.txt"),
    bad("heads", "--prompts latin.txt", "latin.txt is not UTF-8 text (byte 3)"),
    bad("heads", "--prompts empty.txt", "empty.txt holds no prompt"),
    bad("heads", "--prompts broken.jsonl", "broken.jsonl, line 2"),
    bad("heads", "--prompts folder", "cannot read folder"),
    bad("heads", "-l 99", *LAYERS),
    bad("heads", "--head L0H9", "head L0H9 is out of range; valid: L0H0 to L2H3"),
    bad("heads", "--head nine", "'nine'"),
    bad("heads", "--margin 7", "margin", "0", "1"),
    bad("heads", "--margin -1", "margin", "0", "1"),
    bad("heads", "--margin nan", "margin"),
    # circuits
    whole("circuits", ("x", *ON_MODEL), "'x'", "L5H3"),
    whole("circuits", ("L9H0", *ON_MODEL), "head L9H0 is out of range; valid: L0H0 to L2H3"),
    whole("circuits", ("L0H9", *ON_MODEL), "head L0H9 is out of range; valid: L0H0 to L2H3"),
    whole("circuits", ("", *ON_MODEL), "L5H3"),
    bad("circuits", "--directions 99", "directions", "8"),
    bad("circuits", "-k 98", "top_k", "97"),
    # induction
    bad("induction", "--prompts no.txt", "cannot read no.txt"),
    bad("induction", "--prompts blank.txt", "blank.txt holds no prompt"),
    bad("induction", "--prompts latin.txt", "latin.txt is not UTF-8 text"),
    bad("induction", "--heads L9H9", "head L9H9 is out of range; valid: L0H0 to L2H3"),
    bad("induction", "--heads all", "'all'"),
    bad("induction", "--periods x", "cannot read the periods 'x'"),
    bad("induction", "--periods 0", "period"),
    bad("induction", "--periods 60", "64"),
    bad("induction", "--copies 40", "copies is 40; valid: 2 to 32"),
    bad("induction", "--threshold 2", "threshold", "1"),
    bad("induction", "--threshold nan", "threshold"),
    bad("induction", "--corpus no.txt", "cannot read no.txt"),
    bad("induction", "--corpus empty.txt", "corpus"),
    bad("induction", "--corpus latin.txt", "latin.txt is not UTF-8 text"),
    # trace
    *_prompts("trace", ("-s", "The", *ON_MODEL)),
    bad("trace", "-s Rome", "'Rome' is not in the prompt"),
    bad("trace", ("-s", ""), "the subject is empty"),
    bad("trace", ("-s", "i"), "more than once"),
    bad("trace", ("-t", ""), "the target is empty"),
    bad("trace", ("--against", ""), "the answer against the target is empty"),
    bad("trace", "--noise -1", "noise"),
    bad("trace", "--noise nan", "noise"),
    bad("trace", "--noise inf", "noise"),
    whole("trace", (PROMPT, "-s", "Pisa", "--replace", "one two", *ON_MODEL), "tokens"),
    bad("trace", "--replace Bob", "--replace puts other tokens in place"),
    bad("trace", "--kinds mlps", "unknown kind 'mlps' (did you mean 'mlp'?); valid: resid, mlp, attn"),
    bad("trace", ("--kinds", ","), "names nothing to restore; valid: resid"),
    # patch
    whole("patch", ON_MODEL, "--clean and --corrupted are missing"),
    bad("patch", ("--clean", ""), "--clean: the prompt is empty"),
    bad("patch", ("--corrupted", ""), "--corrupted: the prompt is empty"),
    bad("patch", ("--corrupted", SHORT), "7 tokens and the corrupted one 5"),
    bad("patch", ("--clean", LONG), "100 tokens"),
    bad("patch", ("-t", ""), "the target is empty"),
    bad("patch", ("--against", ""), "the answer against the target is empty"),
    bad("patch", ("--against", " city"), "begin with the same token"),
    bad("patch", "--pairs pairs.jsonl", "--pairs and --clean, --corrupted, --target, --against were both given"),
    whole("patch", ("--pairs", "no.jsonl", *ON_MODEL), "cannot read no.jsonl"),
    whole("patch", ("--pairs", "keyless.jsonl", *ON_MODEL), "keyless.jsonl, line 1: the key 'corrupted' is missing"),
    whole("patch", ("--pairs", "broken.jsonl", *ON_MODEL), "broken.jsonl, line 2: not JSON"),
    whole("patch", ("--pairs", "empty.txt", *ON_MODEL), "empty.txt holds no pair"),
    bad("patch", "--metric loss", "unknown metric 'loss'", "logit_difference, "),
    bad("patch", "--by token", "valid: position, layer, head, head_position"),
    bad("patch", "--direction up", "'up'", "denoising, noising"),
    bad("patch", "-s resid_past", "resid_past", "resid_post"),
    bad("patch", ("-s", ""), "site"),
    bad("patch", "-l 99", *LAYERS),
    # ablate
    whole("ablate", ON_MODEL, "there is no text"),
    whole("ablate", ("", *ON_MODEL), "the prompt is empty"),
    whole("ablate", ("The", *ON_MODEL), "token"),
    whole("ablate", ("@no.json", *ON_MODEL), "cannot read no.json"),
    whole("ablate", ("-", "-", *ON_MODEL), "'-' reads all of stdin, so it can be given once"),
    bad("ablate", "--text texts.txt", "texts and --text were both given"),
    whole("ablate", ("--text", "no.txt", *ON_MODEL), "cannot read no.txt"),
    whole("ablate", ("--text", "blank.txt", *ON_MODEL), "blank.txt holds no text"),
    whole("ablate", ("--text", "broken.jsonl", *ON_MODEL), "broken.jsonl, line 2: not JSON"),
    bad("ablate", "-u neurons", "'neurons'", "heads, attention, mlps, layers"),
    bad("ablate", "--method knockout", "'knockout'", "zero, mean, resample"),
    bad("ablate", "--metric accuracy", "'accuracy'", "loss"),
    bad("ablate", ("-t", ""), "the target is empty"),
    bad("ablate", ("-t", " lake", "--against", " lake"), "begin with the same token"),
    bad("ablate", "--metric loss --against lake", "loss"),
    bad("ablate", "--method mean --reference no.txt", "cannot read no.txt"),
    bad("ablate", "--reference texts.txt", "reference"),
    bad("ablate", "-l 99", *LAYERS),
    bad("ablate", "--position 99", "99"),
    bad("ablate", "--position x", "'x'"),
    bad("ablate", "--context 0", "context"),
    bad("ablate", "--context 99", "64"),
    # compare
    whole("compare", ON_MODEL, "a prompt is needed"),
    whole("compare", ("The", *ON_MODEL), "one prompt alone has nothing beside it"),
    whole("compare", ("", "The", *ON_MODEL), "the prompt is empty"),
    whole("compare", ("The", LONG, *ON_MODEL), "100 tokens"),
    whole("compare", ("a", "b", "c", *ON_MODEL), "one thing differs at a time"),
    bad("compare", "--model-b model", "one thing differs at a time"),
    whole("compare", ("The", "--model-b", "none-such", *ON_MODEL), "unknown model 'none-such'", code=3),
    whole("compare", ("The", "--edit", "no.safetensors", *ON_MODEL), "there is no file no.safetensors", code=3),
    whole("compare", ("The", "--edit", "lens.safetensors", *ON_MODEL), "holds a 'logit_lens' result, not an edit", code=3),
    whole("compare", ("The", "--edit", "other.safetensors", *ON_MODEL), "other", code=3),
    bad("compare", "-w lenses", "'lenses'", "valid: lens, story"),
    bad("compare", ("-w", ","), "names nothing to compare; valid: lens"),
    bad("compare", "-w heads", "compare them with --model-b or --edit"),
    bad("compare", "-w trace", "--what trace needs --subject"),
    bad("compare", "-w trace -s Rome", "'Rome' is not in the prompt"),
    bad("compare", "-w trace -s The --subject-b Rome", "'Rome' is not in the prompt"),
    bad("compare", ("-t", "red blue"), "2 tokens"),
    bad("compare", "--chat", "chat template"),
    whole("compare", "lens.safetensors attention.safetensors", "logit_lens", "attention_patterns"),
    whole("compare", "lens.safetensors", "two saved results are compared, got 1"),
    whole("compare", "lens.safetensors cut-lens.safetensors", "cut-lens.safetensors is not a readable", code=3),
    whole("compare", "lens.safetensors lens.safetensors --edit edit.safetensors", "--edit is of a prompt"),
    # edit
    bad("edit", "-s Rome", "the subject 'Rome' is not in the prompt"),
    bad("edit", ("-s", ""), "the subject is empty"),
    bad("edit", "-s i", "occurs more than once"),
    bad("edit", ("-t", ""), "the target is empty"),
    whole("edit", ("", "-s", "x", "-t", "y", *ON_MODEL), "the prompt is empty"),
    whole("edit", ("The {} is", "-s", "The", "-t", "y", *ON_MODEL), "stands for the subject in a fact"),
    whole("edit", ("@talk.json", "-s", "The", "-t", "y", *ON_MODEL), "plain text"),
    whole("edit", (LONG + "The", "-s", "The", "-t", " city", "-l", "1", "--moments", "moments.safetensors", *ON_MODEL), "tokens"),
    whole("edit", (PROMPT, "-s", "Pisa"), "Missing option '--target'"),
    bad("edit", "--method finetune", "'finetune'", "rome, rome-original, memit, alphaedit"),
    bad("edit", "-l 99", *LAYERS),
    bad("edit", "-l middle", "'middle'"),
    bad("edit", "--moments no.safetensors", "there is no file no.safetensors", code=3),
    bad("edit", "--moments lens.safetensors", "holds a 'logit_lens' result, not 'second_moment'", code=3),
    bad("edit", "--moments cut-moments.safetensors", "cut-moments.safetensors is not a readable", code=3),
    bad("edit", ("--paraphrase", ""), "a prompt of --paraphrase is empty"),
    bad("edit", ("--neighbour", ""), "a prompt of --neighbour is empty"),
    bad("edit", ("--paraphrase", LONG), "tokens"),
    bad("edit", "-o edit.txt", "valid: .safetensors, .json, .csv, .html"),
    # edit show, apply, undo, export, eval
    whole("edit show", "no.safetensors", "there is no file no.safetensors", code=3),
    whole("edit show", "lens.safetensors", "not an edit", code=3),
    whole("edit show", "cut-edit.safetensors", "cut-edit.safetensors is not a readable", code=3),
    whole("edit show", "page.safetensors", "page.safetensors is not a readable", code=3),
    whole("edit show", "texts.txt", "texts.txt is not a readable", code=3),
    whole("edit apply", "no.safetensors model", "there is no file no.safetensors", code=3),
    whole("edit apply", "cut-edit.safetensors model", "cut-edit.safetensors is not a readable", code=3),
    whole("edit apply", "edit.safetensors no", "no", code=3),
    whole("edit apply", "edit.safetensors folder", "folder holds no model.safetensors", code=3),
    whole("edit apply", "edit.safetensors cut", "cut/model.safetensors: truncated", code=3),
    whole("edit apply", "edit.safetensors pickled", "a pickle, which is never read", code=3),
    whole("edit apply", "other.safetensors model", "other", code=3),
    whole("edit apply", "edit.safetensors", "Missing argument 'FOLDER'"),
    whole("edit undo", "no", "no", code=3),
    whole("edit undo", "model", "model", "edit"),
    whole("edit undo", "folder", "folder", code=3),
    whole("edit undo", "model no.safetensors", "there is no file no.safetensors", code=3),
    whole("edit undo", "model edit.safetensors", "edit"),
    whole("edit export", "edit.safetensors", "say what to write: --peft FOLDER"),
    bad("edit export", "--model-folder other-new", "say what to write"),
    bad("edit export", "-m model", "an adapter needs no model"),
    bad("edit export", "--peft folder", "folder exists already"),
    bad("edit export", "--peft no/where", "no"),
    whole("edit export", "no.safetensors --peft adapter", "there is no file no.safetensors", code=3),
    whole("edit export", "edit.safetensors --model-folder new -m none-such", "unknown model 'none-such'", code=3),
    whole("edit export", "other.safetensors --model-folder new -m model", "other", code=3),
    whole("edit eval", ("no.safetensors", "-c", "cases.json", *ON_MODEL), "there is no file no.safetensors", code=3),
    whole("edit eval", ("nothing", "-c", "cases.json", *ON_MODEL), "there is no file nothing", code=3),
    whole("edit eval", ("lens.safetensors", "-c", "cases.json", *ON_MODEL), "not an edit", code=3),
    whole("edit eval", ("other.safetensors", "-c", "cases.json", *ON_MODEL), "other", code=3),
    bad("edit eval", "-c no.json", "cannot read no.json"),
    bad("edit eval", "-c page.json", "page.json"),
    bad("edit eval", "-c strange-cases.json", "strange-cases.json"),
    bad("edit eval", "-c empty.txt", "empty.txt"),
    bad("edit eval", "--texts no.txt", "cannot read no.txt"),
    bad("edit eval", "--texts latin.txt", "latin.txt is not UTF-8 text"),
    bad("edit eval", "--unrelated blank.txt", "blank.txt holds no text"),
    # moments
    whole("moments", "model -c texts.txt -o new.safetensors", "no layer is given"),
    whole("moments", "model -l 1 -c texts.txt", "the second moments would be lost"),
    whole("moments", "none-such -l 1", "unknown model 'none-such'", code=3),
    bad("moments", "-l 1", "a layer is given twice"),
    whole("moments", "model -l 99 -c texts.txt -o new.safetensors --device cpu", *LAYERS),
    bad("moments", "-l top", "'--layer' / '-l'", "got 'top'"),
    bad("moments", "-c no.txt", "no.txt"),
    bad("moments", "-c empty.txt", "empty.txt"),
    bad("moments", "-c latin.txt", "latin.txt"),
    bad("moments", "-c broken.jsonl", "broken.jsonl"),
    bad("moments", "-o new.npz", "valid: .safetensors"),
    # collect
    whole("collect", "-c texts.txt -o new-store", "no site is given"),
    whole("collect", "-s resid_post@1 -o new-store", "no corpus is given"),
    whole("collect", "-s resid_post@1 -c texts.txt", "no store is given"),
    bad("collect", "-s resid_past@1", "resid_past", "resid_post"),
    bad("collect", "-s resid_post@99", "99", "0 to 2"),
    bad("collect", "-s attn.pattern@1", "pattern"),
    bad("collect", "-c no.txt", "no.txt"),
    bad("collect", "-c latin.txt", "latin.txt"),
    bad("collect", "-c blank.txt", "blank.txt"),
    bad("collect", "-c broken.jsonl", "broken.jsonl"),
    bad("collect", "-o texts.txt", "texts.txt is not a folder"),
    bad("collect", "-o folder", "folder"),
    bad("collect", "-o store --store-dtype float16", "store was begun otherwise: dtype"),
    bad("collect", "-o bad-store", "store.json in bad-store is damaged", code=3),
    bad("collect", "--positions some", "'some'", "all", "last"),
    bad("collect", "--store-dtype int8", "'int8'", "float32, float16, bfloat16"),
    bad("collect", "-c broken.jsonl --field no", "broken.jsonl"),
    bad("collect", "--window 99", "64"),
    bad("collect", "--engine dask", "unknown engine 'dask'", "embedded, ray"),
    bad("collect", "--address auto", "the address auto is of a Ray cluster; add --engine ray"),
    bad("collect", "--workers 0", "--workers", "0"),
    bad("collect", "--threads 0", "--threads", "0"),
    bad("collect", "--workers two", "--workers", "two"),
    bad("collect", "-o store --threads 3", "store was begun otherwise: threads"),
    # store
    whole("store", "no", "there is no activation store in no"),
    whole("store", "folder", "there is no activation store in folder"),
    whole("store", "texts.txt", "there is no activation store in texts.txt"),
    whole("store", "bad-store", "store.json in bad-store is damaged", code=3),
    whole("store", "cut-store --verify", "shard-000000.safetensors in cut-store is damaged", code=3),
    whole("store", "none-such://bucket/x", "none-such"),
    # sweep
    whole("sweep", "no.toml", "no.toml"),
    whole("sweep", "texts.txt", "texts.txt", ".toml"),
    whole("sweep", "broken.toml", "broken.toml"),
    whole("sweep", "broken.yaml", "broken.yaml"),
    whole("sweep", "misspelt.yaml", "'analyser'", "analyzer"),
    whole("sweep", "unknown.yaml", "'lense'", "logit_lens"),
    bad("sweep", "-o texts.txt", "texts.txt is a file"),
    bad("sweep", "-o folder", "folder"),
    bad("sweep", "--engine dask", "'dask'", "embedded, ray"),
    bad("sweep", "--address auto", "address", "ray"),
    # generate
    *_prompts("generate"),
    bad("generate", "--temperature nan", "temperature"),
    bad("generate", "--temperature inf", "temperature"),
    bad("generate", "--temperature 1 --top-p 0", "top_p", "0", "1"),
    bad("generate", "--temperature 1 --top-p 1.5", "top_p", "1"),
    # models, tensors, doctor
    bad("models", "list", "No such command 'list'; valid: fetch"),
    whole("models fetch", "none-such", "unknown model 'none-such'", "smollm2-135m", code=3),
    whole("models fetch", "half.gguf", "half.gguf: truncated", code=3),
    whole("models fetch", "page.gguf", "page.gguf: it is a web page", code=3),
    whole("models fetch", "no.gguf", "no.gguf", code=3),
    whole("models fetch", "smollm2-135m --revision main", "one fixed revision", code=3),
    whole("models fetch", "", "Missing argument 'NAME'"),
    whole("tensors", "none-such", "unknown model 'none-such'", code=3),
    whole("tensors", "page.safetensors", "page.safetensors: it is a web page", code=3),
    whole("tensors", "cut", "cut/model.safetensors: truncated", code=3),
    whole("tensors", "half.gguf", "half.gguf: truncated", code=3),
    whole("tensors", "texts.txt", "texts.txt", code=3),
    whole("tensors", "folder", "folder holds no model.safetensors", code=3),
    whole("tensors", "org/none-such", "org/none-such is not cached", code=3),
)  # fmt: skip

MODELS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("none-such", ("unknown model 'none-such'", "smollm2-135m"), 3),
    ("./none-such", ("./none-such: no such file or folder",), 3),
    ("texts.txt", ("texts.txt is no model",), 3),
    ("folder", ("folder holds no model.safetensors",), 3),
    ("cut", ("cut/model.safetensors: truncated",), 3),
    ("headless", ("headless/config.json: not valid JSON",), 3),
    ("pickled", ("holds its weights as pytorch_model.bin, a pickle",), 3),
    ("page.gguf", ("page.gguf: it is a web page",), 3),
    ("half.gguf", ("half.gguf: truncated",), 3),
    ("nan", ("model.norm.weight (1 NaN, 0 infinite)",), 4),
)
"""What ``--model`` can be given that is none; every command that loads a model says the same."""

ANY_TEXT = {"--system", "--revision", "--address"}
"""Options for which every text is a value."""

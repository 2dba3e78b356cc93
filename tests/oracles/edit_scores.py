"""The scores of an edit by plain loops over plain Hugging Face forwards, one prompt and one answer at a time.

Written from Meng et al. 2022 (section 4.1, appendix) and the protocol of their code; nothing of interp is used. A case is a dictionary:
prompt, new, true, paraphrases, neighbours, locality, portability (pairs).
"""

import math

import torch


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=True)["input_ids"]


def logits_of(hf, ids):
    with torch.no_grad():
        return hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()


def answer_logits(hf, tokenizer, prompt, answer):
    """Rows at positions len(prompt) + j - 1 of the joined text, and the answer's tokens."""
    n_prompt, ids = len(ids_of(tokenizer, prompt)), ids_of(tokenizer, prompt + answer)
    wanted = tokenizer(answer, add_special_tokens=False)["input_ids"]
    assert ids[n_prompt:] == wanted
    logits = logits_of(hf, ids)
    return [logits[n_prompt + j - 1] for j in range(len(wanted))], wanted


def nll(hf, tokenizer, prompt, answer):
    """The mean over the answer's tokens of -ln p."""
    rows, wanted = answer_logits(hf, tokenizer, prompt, answer)
    total = 0.0
    for row, token in zip(rows, wanted, strict=True):
        total -= float(row[token] - torch.logsumexp(row, 0))
    return total / len(wanted)


def choices(hf, tokenizer, prompt, answer):
    rows, wanted = answer_logits(hf, tokenizer, prompt, answer)
    return [int(row.argmax()) for row in rows], wanted


def token_accuracy(hf, tokenizer, prompt, answer):
    chosen, wanted = choices(hf, tokenizer, prompt, answer)
    return sum(one == other for one, other in zip(chosen, wanted, strict=True)) / len(wanted)


def mean(values):
    return sum(values) / len(values)


def over_cases(cases, prompts_of, measure):
    """100 times the mean over cases of the mean over the case's prompts; cases without prompts are left out. None for none."""
    each = [mean([measure(case, prompt) for prompt in prompts_of(case)]) for case in cases if prompts_of(case)]
    return 100 * mean(each) if each else None


def scores(hf, tokenizer, cases):
    """Every score of one state of the model."""

    def new_wins(case, prompt):
        return float(nll(hf, tokenizer, prompt, case["new"]) < nll(hf, tokenizer, prompt, case["true"]))

    def true_wins(case, prompt):
        return float(nll(hf, tokenizer, prompt, case["true"]) < nll(hf, tokenizer, prompt, case["new"]))

    def lead(case, prompt):
        return math.exp(-nll(hf, tokenizer, prompt, case["new"])) - math.exp(-nll(hf, tokenizer, prompt, case["true"]))

    def whole(case, prompt):
        return float(token_accuracy(hf, tokenizer, prompt, case["new"]) == 1)

    def accuracy(case, prompt):
        return token_accuracy(hf, tokenizer, prompt, case["new"])

    def prompt_of(case):
        return [case["prompt"]]

    def paraphrases_of(case):
        return case["paraphrases"]

    def neighbours_of(case):
        return case["neighbours"]

    found = {
        "efficacy_score": over_cases(cases, prompt_of, new_wins),
        "efficacy_magnitude": over_cases(cases, prompt_of, lead),
        "paraphrase_score": over_cases(cases, paraphrases_of, new_wins),
        "paraphrase_magnitude": over_cases(cases, paraphrases_of, lead),
        "neighbourhood_score": over_cases(cases, neighbours_of, true_wins),
        "neighbourhood_magnitude": over_cases(cases, neighbours_of, lambda case, prompt: -lead(case, prompt)),
        "prompt_argmax": over_cases(cases, prompt_of, whole),
        "paraphrase_argmax": over_cases(cases, paraphrases_of, whole),
        "rewrite_acc": over_cases(cases, prompt_of, accuracy),
        "rephrase_acc": over_cases(cases, paraphrases_of, accuracy),
        "portability_acc": over_cases(
            cases, lambda case: case["portability"], lambda case, pair: token_accuracy(hf, tokenizer, *pair)
        ),
        "neighbourhood_acc": over_cases(cases, untouched, lambda case, pair: token_accuracy(hf, tokenizer, *pair)),
    }
    parts = [found["efficacy_score"], found["paraphrase_score"], found["neighbourhood_score"]]
    if None not in parts:
        found["score"] = 0.0 if min(parts) == 0 else 3 / sum(1 / part for part in parts)
    return {name: value for name, value in found.items() if value is not None}


def untouched(case):
    """(prompt, answer) of what an edit should leave."""
    return [(prompt, case["true"]) for prompt in case["neighbours"]] + list(case["locality"])


def last_log_probs(hf, tokenizer, prompt):
    return logits_of(hf, ids_of(tokenizer, prompt))[-1].log_softmax(-1)


def divergence(before, after, tokenizer, prompt):
    """KL(before || after) at the prompt's last position, in nats."""
    p, q = last_log_probs(before, tokenizer, prompt), last_log_probs(after, tokenizer, prompt)
    return sum(math.exp(a) * (a - b) for a, b in zip(p.tolist(), q.tolist(), strict=True))


def changes(before, after, tokenizer, cases):
    """The scores of the change itself."""

    def kept(case, prompt):
        tops = [int(last_log_probs(hf, tokenizer, prompt).argmax()) for hf in (before, after)]
        return float(tops[0] == tops[1])

    def same(case, pair):
        old, new = choices(before, tokenizer, *pair)[0], choices(after, tokenizer, *pair)[0]
        return sum(one == other for one, other in zip(old, new, strict=True)) / len(old)

    def kl(case, prompt):
        return divergence(before, after, tokenizer, prompt) / 100  # over_cases is in per cent

    def neighbours_of(case):
        return case["neighbours"]

    found = {
        "neighbours_kept": over_cases(cases, neighbours_of, kept),
        "neighbour_kl": over_cases(cases, neighbours_of, kl),
        "locality_acc": over_cases(cases, untouched, same),
    }
    return {name: value for name, value in found.items() if value is not None}


def loss_of_windows(hf, windows):
    """Windows of token ids of one text, each with its first scored token: the sum of -ln p and the number of tokens scored."""
    total, count = 0.0, 0
    for ids, first in windows:
        logits = logits_of(hf, list(ids))
        for place in range(first, len(ids)):
            total -= float(logits[place - 1].log_softmax(-1)[ids[place]])
            count += 1
    return total, count


def perplexity(hf, texts):
    """exp of the mean loss per token over texts, each a list of windows."""
    sums = [loss_of_windows(hf, windows) for windows in texts]
    return math.exp(sum(total for total, _ in sums) / sum(count for _, count in sums))


def drift(lefts, rights, base):
    """|dW| / |W| with the whole matrices."""
    change = sum(left.double() @ right.double() for left, right in zip(lefts, rights, strict=True))
    return float(change.square().sum().sqrt() / base.double().square().sum().sqrt())

"""Causal tracing as Meng et al. 2022 do it: one full forward for every cell, plain torch hooks on the Hugging Face model.

Nothing of interp is used; where a family keeps its embedding, blocks, attention and MLP is spelt out again. States are the tensors that
the modules return, whatever the model multiplies them by afterwards: clean ones are put in the place of corrupted ones.
"""

import math
from contextlib import contextmanager

import torch

_GPT = {"embed": "transformer.wte", "blocks": "transformer.h", "attn": "attn", "mlp": "mlp"}
_NEOX = {"embed": "gpt_neox.embed_in", "blocks": "gpt_neox.layers", "attn": "attention", "mlp": "mlp"}
_LLAMA = {"embed": "model.embed_tokens", "blocks": "model.layers", "attn": "self_attn", "mlp": "mlp"}
# What a norm after the module leaves is what is added to the stream.
_POST_NORM = {**_LLAMA, "attn": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"}
_FALCON = {"embed": "transformer.word_embeddings", "blocks": "transformer.h", "attn": "self_attention", "mlp": "mlp"}
LAYOUTS = {
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gpt_bigcode_heads": _GPT,
    "gptj": _GPT,
    "codegen": _GPT,
    "gpt_neo": {**_GPT, "attn": "attn.attention"},
    "gpt_neox": _NEOX,
    "gpt_neox_seq": _NEOX,
    "gemma2": _POST_NORM,
    "gemma3_text": _POST_NORM,
    "olmo2": _POST_NORM,
    "olmo3": _POST_NORM,
    "glm4": {**_LLAMA, "attn": "post_self_attn_layernorm", "mlp": "post_mlp_layernorm"},
    "opt": {"embed": "model.decoder.embed_tokens", "blocks": "model.decoder.layers", "attn": "self_attn", "mlp": "fc2"},
    # These modules add the residual themselves: their last map is what attention or MLP writes.
    "bloom": {**_FALCON, "attn": "self_attention.dense", "mlp": "mlp.dense_4h_to_h"},
    "mpt": {"embed": "transformer.wte", "blocks": "transformer.blocks", "attn": "attn", "mlp": "ffn.down_proj"},
    "falcon": _FALCON,
    "falcon_new": _FALCON,
    "falcon_rw": _FALCON,
}


class Trace:
    """The clean and corrupted runs of one prompt.

    ``ids`` are the prompt and all of the answer but its last token. The subject is corrupted either by ``noise`` [sample subject d_model],
    added to its embeddings, or by ``replaced``, a list of rows of other ids.
    """

    def __init__(self, hf, family, ids, answer, against, subject, noise=None, replaced=None):
        self.hf, self.layout = hf, LAYOUTS.get(family, _LLAMA)
        self.answer, self.against, self.subject, self.noise = answer, against, subject, noise
        self.n_layers = len(hf.get_submodule(self.layout["blocks"]))
        self.ids = [ids for _ in range(len(noise))] if replaced is None else replaced
        clean_logits, self.clean_states = self._recorded([ids], corrupt=False)
        corrupted_logits, self.corrupted_states = self._recorded(self.ids, corrupt=True)
        self.clean = self._score(clean_logits[0])
        self.corrupted = [self._score(row) for row in corrupted_logits]
        self.corrupted_last = corrupted_logits[:, -len(answer)]

    def cell(self, kind, layer, position, width):
        """[(probability, logit difference)] of each corrupted sample with the states of one cell put back to their clean value."""
        values = {}
        if kind in ("mlp", "attn"):
            for near in range(max(0, layer - width // 2), min(self.n_layers, layer - (-width // 2))):
                values[self._path(near, kind)] = self.clean_states[self._path(near, kind)]
        else:
            values[self._path(layer, "")] = self.clean_states[self._path(layer, "")]
        if kind.endswith("severed"):
            for later in range(layer + 1, self.n_layers):
                path = self._path(later, kind.split("-")[1])
                values[path] = self.corrupted_states[path]
        handles = [
            self.hf.get_submodule(path).register_forward_hook(self._putting(value, position))
            for path, value in values.items()
        ]
        try:
            return [self._score(row) for row in self._forward(self.ids, corrupt=True)]
        finally:
            for handle in handles:
                handle.remove()

    def _path(self, layer, part):
        block = f"{self.layout['blocks']}.{layer}"
        return f"{block}.{self.layout[part]}" if part else block

    def _score(self, logits):
        first = len(logits) - len(self.answer)
        probability = 1.0
        for i, token in enumerate(self.answer):
            row = logits[first + i].double().tolist()
            top = max(row)
            probability *= math.exp(row[token] - top) / math.fsum(math.exp(x - top) for x in row)
        return probability, float(logits[first, self.answer[0]] - logits[first, self.against])

    def _forward(self, ids, corrupt):
        with torch.no_grad(), self._noisy(corrupt and self.noise is not None):
            return self.hf(input_ids=torch.tensor(ids), use_cache=False).logits

    @contextmanager
    def _noisy(self, on):
        def add(module, args, output):
            output = output.clone()
            for i, position in enumerate(self.subject):
                output[:, position] += self.noise[:, i]
            return output

        handle = self.hf.get_submodule(self.layout["embed"]).register_forward_hook(add) if on else None
        try:
            yield
        finally:
            if handle:
                handle.remove()

    def _recorded(self, ids, corrupt):
        """The logits, and what every block, attention and MLP returned: [row pos d_model]."""
        states, handles = {}, []

        def recording(path):
            def hook(module, args, output):
                states[path] = _rows(output, len(ids)).clone()  # some models overwrite it afterwards

            return hook

        for layer in range(self.n_layers):
            for part in ("", "attn", "mlp"):
                path = self._path(layer, part)
                handles.append(self.hf.get_submodule(path).register_forward_hook(recording(path)))
        try:
            return self._forward(ids, corrupt), states
        finally:
            for handle in handles:
                handle.remove()

    def _putting(self, value, position):
        def hook(module, args, output):
            tensor = output[0] if isinstance(output, tuple) else output
            changed = tensor.clone()
            _rows(changed, len(self.ids))[:, position] = value[:, position]
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook


def _rows(output, n_rows):
    """[row pos d_model]: some modules work on flattened tokens."""
    tensor = output[0] if isinstance(output, tuple) else output
    return tensor.view(n_rows, -1, tensor.shape[-1]) if tensor.dim() == 2 else tensor

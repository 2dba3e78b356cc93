"""The words that the documentation uses and the report does not; the glossary page has the report's own beside them.

Written as the report's: ``[[term]]`` or ``[[words|term]]`` leads to another entry.
"""

WORDS = {
    "activation store": "The activations of a corpus at chosen [[sites|site]], in files: a row a token.",
    "analogy": (
        "A question to the rows of an embedding matrix: b is to a as c is to which row near a - b + c? (Mikolov et al., 2013.)"
    ),
    "atlas": "Where each component of a Hugging Face model lives and how the model adds its parts up.",
    "capture": "Keeping the value of a [[site]] during a run.",
    "causal tracing": (
        "[[Patching]] of one prompt whose subject is corrupted by noise: which states, [[restored]], bring the answer back "
        "(Meng et al., 2022)."
    ),
    "copying score": (
        "Whether a head's [[OV circuit]] raises the [[logit]] of the token that it reads: the sum of the eigenvalues of W_E W_OV W_U "
        "over the sum of their moduli, 1 to -1 (Elhage et al., 2021). The direct scores count the tokens for which it does."
    ),
    "duplicate-token head": "A head that attends to earlier occurrences of the current token (Wang et al., 2022).",
    "head profile": (
        "What a head attends to over a set of prompts: the share of its weight on each kind of token, and how spread it is."
    ),
    "in-context-learning score": (
        "The [[loss]] late in a text less the loss early in it, in nats a token: the more negative, the more the model learns from the "
        "text (Olsson et al., 2022)."
    ),
    "intervention": "A change to a forward pass, described as data: patch, ablate, steer, scale, replace a pattern.",
    "key/value head": (
        "The keys and values that one head reads, or several under [[grouped-query attention]]: head h of H reads key/value head "
        "h // (H / G) of G."
    ),
    "logit difference": "The [[logit]] of one token less that of another; the usual metric of a [[patching]] experiment.",
    "parallel block": (
        "A block whose attention and [[MLP]] read the same stream, so that there is no state between them."
    ),
    "position": "The place of a token in the prompt, from 0; negative counts from the end.",
    "previous-token head": "A head that attends to the token just before the current one (Olsson et al., 2022).",
    "resample ablation": "[[Ablation]] by the unit's output on another prompt, drawn at random.",
    "resid_pre, resid_mid, resid_post": (
        "The [[residual stream]] before a block, between its attention and its MLP, and after it."
    ),
    "resume": "Running only the layers and positions that a change can reach, from what an earlier run kept.",
    "sampling": "[[Decoding]] that draws the next token at random, after [[temperature]], [[top-k]] and [[top-p]].",
    "site": "A named place in the forward pass; named as TransformerLens names its hooks, such as blocks.5.hook_resid_post.",
    "steering": (
        "Adding a vector to the [[residual stream]] while the model runs, such as the difference of two prompts' streams "
        "(Turner et al., 2023)."
    ),
    "target": "The token whose probability and [[rank]] are followed.",
    "value-weighted pattern": (
        "Attention weights times the norms of what they move: p_ij ‖v_j‖, or p_ij ‖v_j W_O‖ for what the head writes at i from j "
        "(Kobayashi et al., 2020)."
    ),
}

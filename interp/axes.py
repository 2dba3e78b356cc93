"""The axis names that tensor annotations may use, each with its meaning.

A shape annotation such as ``Float[Tensor, "batch pos d_model"]`` uses names from this table only (a test reads every annotation),
so that one word means one thing in the whole project.
"""

AXES: dict[str, str] = {
    "batch": "prompts that run together",
    "pos": "token positions of a prompt",
    "query_pos": "positions that attend",
    "key_pos": "positions that are attended to",
    "layer": "transformer blocks, first to last",
    "component": "things that write to the residual stream: embedding, attention and MLP of each block, biases",
    "head": "attention heads of a block",
    "kv_head": "key/value heads of a block; fewer than heads under grouped-query attention",
    "d_model": "width of the residual stream",
    "d_head": "width of one attention head",
    "d_mlp": "width of the MLP's hidden layer",
    "d_vocab": "tokens of the vocabulary",
    "expert": "experts of a mixture-of-experts layer",
    "k": "the best few of a ranking, best first",
    "row": "rows of a flattened set of positions or layers",
    "step": "steps of generation or of optimisation",
    "sample": "random draws",
}

"""The axis names that tensor annotations may use, each with its meaning.

A shape annotation such as ``Float[Tensor, "batch pos d_model"]`` uses names from this table only (a test reads every annotation),
so that one word means one thing in the whole project.
"""

AXES: dict[str, str] = {
    "batch": "prompts that run together",
    "pos": "token positions of a prompt",
    "query_pos": "positions that attend",
    "key_pos": "positions that are attended to",
    "pair": "a query and a key it may see (not after it), query by query: the lower triangle of a pattern, row after row",
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
    "draw": "a text as it is, then what was drawn from it",
    "measure": "quantities measured of each head",
    "direction": "singular directions of a head's circuit, strongest first",
    "pole": "the two ends of a direction: positive, negative",
    "offset": "distances from the last occurrence of a token: 0 is that occurrence, 1 the token after it",
    "period": "lengths of a repeated block",
    "distance": "how many positions a key lies before its query",
    "kind": "what a causal trace restores",
    "metric": "what is read off the logits",
    "reader": "heads that read what earlier heads wrote, in order of layer and head",
    "writer": "heads that write to the residual stream, in order of layer and head",
}

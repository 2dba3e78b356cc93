"""The tables of attention patterns: by head, by head and query, by query and key."""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pandas import DataFrame

    from interp.analyzers.attention_patterns import AttentionPatternsResult


def heads_frame(result: "AttentionPatternsResult") -> "DataFrame":
    """See ``AttentionPatternsResult.heads_frame``."""
    import pandas as pd

    means, pieces, last = result.means(), result.tokens.pieces, len(result.tokens) - 1
    lines = []
    for row, column, named in _heads(result):
        key = int(result.top_keys[row, column, last, 0])
        line = named | {name: float(values[row, column]) for name, values in _columns(means).items()}
        line |= {"last_query_top_position": key, "last_query_top_token": pieces[key] if key >= 0 else ""}
        lines.append(line | {"last_query_top_weight": float(result.top_weights[row, column, last, 0])})
    return pd.DataFrame(lines)


def query_frame(result: "AttentionPatternsResult") -> "DataFrame":
    """See ``AttentionPatternsResult.to_frame``."""
    import pandas as pd

    n_pos, pieces = len(result.tokens), result.tokens.pieces
    names = ("entropy_nats", "distance_tokens", "first", "previous", "own", "mass")
    statistics = _columns({name: getattr(result, name) for name in names})
    frames = []
    for row, column, named in _heads(result):
        keys = result.top_keys[row, column, :, 0].tolist()
        columns = {name: [value] * n_pos for name, value in named.items()}
        columns |= {"position": list(range(n_pos)), "token": list(pieces)}
        columns |= {name: values[row, column].tolist() for name, values in statistics.items()}
        columns |= {"top_position": keys, "top_token": [pieces[key] if key >= 0 else "" for key in keys]}
        columns["top_weight"] = result.top_weights[row, column, :, 0].tolist()
        if result.top_written_keys is not None and result.top_written_norms is not None:
            columns["top_written_position"] = result.top_written_keys[row, column, :, 0].tolist()
            columns["top_written_norm"] = result.top_written_norms[row, column, :, 0].tolist()
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def pairs_frame(result: "AttentionPatternsResult", layer: int, head: int) -> "DataFrame":
    """See ``AttentionPatternsResult.pairs_frame``."""
    import pandas as pd

    n_pos, pieces = len(result.tokens), result.tokens.pieces
    queries, keys = torch.tril_indices(n_pos, n_pos)
    columns = {
        "layer": [layer] * len(keys),
        "head": [head] * len(keys),
        "position": queries.tolist(),
        "token": [pieces[query] for query in queries.tolist()],
        "key_position": keys.tolist(),
        "key_token": [pieces[key] for key in keys.tolist()],
        "weight": result.pattern(layer, head)[queries, keys].tolist(),
    }
    if result.value_norms is not None:
        columns["weighted_value_norm"] = result.pattern(layer, head, "value")[queries, keys].tolist()
        columns["weighted_output_norm"] = result.pattern(layer, head, "output")[queries, keys].tolist()
    if result.scores is not None:
        columns["score"] = result.head_scores(layer, head)[queries, keys].tolist()
    return pd.DataFrame(columns)


def _heads(result: "AttentionPatternsResult") -> "list[tuple[int, int, dict[str, object]]]":
    """Row and column of each head, and the columns that say which it is."""
    return [
        (
            row,
            column,
            {
                "layer": layer,
                "head": head,
                "kv_head": kv_head,
                "layer_kind": result.layer_kinds[row],
                "window_tokens": result.windows[row],
            },
        )
        for row, layer in enumerate(result.layers)
        for column, (head, kv_head) in enumerate(zip(result.heads, result.kv_heads, strict=True))
    ]


def _columns(statistics: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Statistics under the names of the tables, which say what they are a part of."""
    names = {"first": "first_token_mass", "previous": "previous_token_mass", "own": "own_token_mass", "mass": "row_sum"}
    return {names.get(name, name): values for name, values in statistics.items()}

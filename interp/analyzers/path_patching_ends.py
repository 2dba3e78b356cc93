"""Where paths begin and end: senders and receivers as they may be given, read and checked."""

from collections.abc import Iterable, Sequence

from interp.analyzers.path_patching_result import INPUTS, Receiver
from interp.errors import UsageError, unknown
from interp.heads import Head, HeadLike, heads_of

LOGITS = "logits"
ReceiverLike = str | Receiver | tuple[HeadLike, str]
"""``"logits"``, ``"L9H6.q"``, or a head with the name of one of its inputs: ``(Head(9, 6), "q")``."""


def read_receivers(
    spec: "ReceiverLike | Iterable[ReceiverLike]", n_layers: int, n_heads: int, n_kv_heads: int
) -> tuple[Receiver, ...]:
    """The receivers that ``spec`` names, each once; none for the logits.

    Raises UsageError for a head that is misspelt or out of range, another input than q, k or v, and a head of layer 0.
    """
    if isinstance(spec, str) and spec == LOGITS:
        return ()
    if isinstance(spec, str):
        items: list[ReceiverLike] = list(spec.split(","))
    elif isinstance(spec, Receiver) or (isinstance(spec, tuple) and len(spec) == 2 and spec[1] in INPUTS):
        items = [spec]  # pyright: ignore[reportAssignmentType]
    else:
        items = list(spec)  # pyright: ignore[reportAssignmentType]
    if not items:
        raise UsageError("no receiver given; give 'logits', or inputs of heads such as 'L9H6.q'")
    found = [_receiver(item, n_layers, n_heads, n_heads // n_kv_heads) for item in items]
    return tuple(dict.fromkeys(found))


def _receiver(item: ReceiverLike, n_layers: int, n_heads: int, share: int) -> Receiver:
    if isinstance(item, Receiver):
        item = (item.head, item.input)
    if isinstance(item, str):
        head_text, _, name = item.strip().rpartition(".")
        if not head_text:
            raise UsageError(f"{item!r} names no receiver; write 'logits', or a head with its input, such as 'L9H6.q'")
        item = (head_text, name)
    (head,) = heads_of([item[0]], n_layers, n_heads)
    if item[1] not in INPUTS:
        raise unknown("input of a head", item[1], INPUTS)
    if head.layer == 0:
        raise UsageError(
            f"{head} is in the first layer, so no head lies before it; valid: heads of layers 1 to {n_layers - 1}"
        )
    group = range(head.head // share * share, (head.head // share + 1) * share) if item[1] != "q" else ()
    shared = tuple(Head(head.layer, other) for other in group if other != head.head)
    return Receiver(head=head, input=item[1], shared_with=shared)


def read_senders(
    spec: "str | Head | Iterable[HeadLike] | None", receivers: Sequence[Receiver], n_layers: int, n_heads: int
) -> tuple[Head, ...]:
    """The senders in order of layer and head; None for all heads before the last receiver.

    Raises UsageError for a head that no receiver lies behind.
    """
    before = max((receiver.head.layer for receiver in receivers), default=n_layers)
    senders = heads_of(spec, n_layers, n_heads)
    if spec is None:
        return tuple(head for head in senders if head.layer < before)
    late = next((head for head in senders if head.layer >= before), None)
    if late is not None:
        raise UsageError(
            f"the sender {late} does not lie before {', '.join(map(str, receivers))}; valid: L0H0 to L{before - 1}H{n_heads - 1}"
        )
    return tuple(sorted(senders))

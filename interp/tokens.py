"""Text to token ids and back, with the character span and a readable text for each token.

Tokens are the model's interface: everything an analyzer shows is labelled by them, so this is the one place that makes the labels.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from interp.errors import UsageError, out_of_range
from interp.prompts import Conversation, PromptLike

GLYPHS = {"\n": "⏎", "\r": "␍", "\t": "⇥", "\u00a0": "⍽", "\x7f": "␡"}
"""Characters that show nothing, or break a line, and what is shown for them."""
_CUT_BYTE = re.compile(r"\\x[89a-f][0-9a-f]")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A tokenised prompt.

    ``pieces[i]`` is the text of token i alone; bytes that are not complete UTF-8 stand as ``\\xNN``. ``spans[i]`` is its place in
    ``text`` as (start, end) characters, or None for a token that stands for none of the text, such as a begin-of-text token.
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    spans: tuple[tuple[int, int] | None, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> tuple[str, ...]:
        """The pieces with every character visible."""
        return tuple(visible(piece) for piece in self.pieces)

    @property
    def byte_counts(self) -> tuple[int, ...]:
        """The UTF-8 bytes of each piece. A byte that stands as ``\\xNN``, because its character is cut, counts as the one that it is."""
        slices = ("" if span is None else self.text[span[0] : span[1]] for span in self.spans)
        return tuple(
            len((piece if piece == own else _CUT_BYTE.sub("?", piece)).encode(errors="replace"))
            for piece, own in zip(self.pieces, slices, strict=True)
        )

    def position(self, index: int) -> int:
        """``index`` as a position from 0; negative counts from the end. Raises UsageError outside the prompt."""
        if not -len(self) <= index < len(self):
            raise out_of_range("position", index, len(self))
        return index % len(self)

    def positions_of(self, substring: str) -> tuple[int, ...]:
        """The positions of the tokens that cover the one occurrence of ``substring`` (its last token is the last of them).

        Found by character offsets, not by tokenising the substring alone, which can give other tokens.
        """
        if not substring:
            raise UsageError("the text to find is empty")
        first = self.text.find(substring)
        if first < 0:
            raise UsageError(f"{substring!r} is not in the prompt {self.text!r}; its tokens are {list(self.pieces)}")
        if self.text.find(substring, first + 1) >= 0:
            raise UsageError(
                f"{substring!r} occurs more than once in {self.text!r}; give a longer piece that occurs once"
            )
        end = first + len(substring)
        return tuple(i for i, span in enumerate(self.spans) if span is not None and span[0] < end and span[1] > first)


def tokenize(tokenizer: Any, prompt: PromptLike) -> Tokens:
    """Token ids of a prompt, as the tokenizer makes them (with the special tokens it adds itself).

    A conversation goes through the tokenizer's chat template; token ids are taken as they are.
    Raises UsageError when the prompt is empty or the tokenizer has no chat template.
    """
    if isinstance(prompt, Conversation):
        return _tokenize_text(tokenizer, _apply_template(tokenizer, prompt), add_special_tokens=False)
    if isinstance(prompt, str):
        if not prompt:
            raise UsageError("the prompt is empty; give at least one character of text")
        return _tokenize_text(tokenizer, prompt, add_special_tokens=True)
    return from_ids(tokenizer, prompt)


def from_ids(tokenizer: Any, ids: Any) -> Tokens:
    """Tokens from ids that are already there: a sequence of integers or a tensor of one dimension."""
    values = ids.tolist() if hasattr(ids, "tolist") else ids
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        raise UsageError(f"a prompt is text, a Conversation or a sequence of token ids, got {type(ids).__name__}")
    values = list(values)
    if not values:
        raise UsageError("the prompt is empty; give at least one token id")
    if not all(isinstance(value, Integral) and not isinstance(value, bool) for value in values):
        raise UsageError("token ids must be a flat sequence of integers (for several prompts pass a list of them)")
    values = [int(value) for value in values]
    pieces = decode_pieces(tokenizer, values)
    spans, start = [], 0
    for piece in pieces:
        spans.append((start, start + len(piece)))
        start += len(piece)
    return Tokens(text="".join(pieces), ids=tuple(values), pieces=pieces, spans=tuple(spans))


def decode_pieces(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """The text of each token alone."""
    if tokenizer is None:
        return tuple(f"<{index}>" for index in ids)
    return tuple(_piece(tokenizer, index) for index in ids)


def vocabulary(tokenizer: Any, ids: Sequence[int]) -> dict[str, str]:
    """The pieces of the distinct ``ids``, keyed by the id as a decimal string, in order of the id."""
    distinct = sorted(set(ids))
    return {str(index): piece for index, piece in zip(distinct, decode_pieces(tokenizer, distinct), strict=True)}


def target_id(tokenizer: Any, target: str | int) -> int:
    """The id of a target that is one token. A longer one is an error that lists its pieces."""
    if isinstance(target, int):
        return target
    if not target:
        raise UsageError("the target is empty; give the text of one token, such as ' Paris'")
    if tokenizer is None:
        raise UsageError("this model has no tokenizer; give the target as a token id")
    ids = tokenizer(target, add_special_tokens=False)["input_ids"]
    if len(ids) == 1:
        return ids[0]
    pieces = list(decode_pieces(tokenizer, ids))
    spaced = tokenizer(" " + target, add_special_tokens=False)["input_ids"]
    hint = (
        f"; ' {target}', with a leading space, is one token" if len(spaced) == 1 and not target.startswith(" ") else ""
    )
    raise UsageError(f"the target {target!r} is {len(ids)} tokens {pieces} (ids {ids}), one is needed{hint}")


def leading_space_hint(tokenizer: Any, target: str | int) -> str | None:
    """A warning when a target such as 'Paris' is one token, but ' Paris', the usual continuation, is one as well."""
    if tokenizer is None or not isinstance(target, str) or target[:1].isspace() or not target[:1].isalnum():
        return None
    spaced = tokenizer(" " + target, add_special_tokens=False)["input_ids"]
    if len(spaced) != 1:
        return None
    return f"the target is {target!r} without a leading space; in running text the token is usually {' ' + target!r}"


def visible(text: str) -> str:
    """``text`` with every character visible: spaces at the edges as ␣, line breaks, control, zero-width and bidi characters as glyphs.

    Only for showing. Combining marks at the start get a dotted circle to stand on.
    """
    if not text:
        return "∅"
    shown = "".join(_glyph(character) for character in text)
    core = shown.strip(" ")
    lead = len(shown) - len(shown.lstrip(" "))
    trail = len(shown) - len(shown.rstrip(" ")) if core else 0
    shown = "␣" * lead + core + "␣" * trail
    return "◌" + shown if unicodedata.combining(shown[0]) else shown


def _glyph(character: str) -> str:
    if character in GLYPHS:
        return GLYPHS[character]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if character != " " and unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Zs", "Cs", "Co", "Cn"):
        return f"⟨U+{code:04X}⟩"
    return character


def _apply_template(tokenizer: Any, conversation: Conversation) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError("this model's tokenizer has no chat template; pass the prompt as plain text")
    messages: list[Mapping[str, str]] = [{"role": role, "content": content} for role, content in conversation.messages]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=conversation.reply)


def _tokenize_text(tokenizer: Any, text: str, *, add_special_tokens: bool) -> Tokens:
    if tokenizer is None:
        raise UsageError("this model has no tokenizer; pass token ids instead of text")
    fast = bool(getattr(tokenizer, "is_fast", False))
    encoded = tokenizer(text, add_special_tokens=add_special_tokens, return_offsets_mapping=fast)
    ids = [int(index) for index in encoded["input_ids"]]
    if not ids:
        raise UsageError(f"the prompt {text!r} gives no tokens")
    offsets = encoded["offset_mapping"] if fast else _offsets_by_prefix(tokenizer, ids)
    spans = tuple((int(start), int(end)) if end > start else None for start, end in offsets)
    return Tokens(text=text, ids=tuple(ids), pieces=decode_pieces(tokenizer, ids), spans=spans)


def _offsets_by_prefix(tokenizer: Any, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Spans from the growing decoded prefix, for tokenizers that report no offsets."""
    ends = [len(tokenizer.decode(ids[: i + 1], skip_special_tokens=True)) for i in range(len(ids))]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _piece(tokenizer: Any, index: int) -> str:
    text = tokenizer.decode([index], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if "\ufffd" not in text:
        token = tokenizer.convert_ids_to_tokens(index)
        # SentencePiece vocabularies mark a leading space that decoding one token alone drops.
        return " " + text if isinstance(token, str) and token.startswith("▁") and not text.startswith(" ") else text
    token = tokenizer.convert_ids_to_tokens(index)
    return _byte_text(token) if isinstance(token, str) else text


def _byte_text(token: str) -> str:
    """A byte-level BPE token as text, with bytes that are no UTF-8 as ``\\xNN``."""
    alphabet = _byte_alphabet()
    if not all(character in alphabet for character in token):
        return token
    return bytes(alphabet[character] for character in token).decode("utf-8", errors="backslashreplace")


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level BPE vocabulary stands for (Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}

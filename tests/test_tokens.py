"""Text to tokens and back: spans, readable pieces, where a word is, targets of one token. Mostly with the real tokenizer."""

import unicodedata
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import UsageError
from interp.prompts import Conversation
from interp.tokens import (
    Tokens,
    decode_pieces,
    from_ids,
    leading_space_hint,
    target_id,
    tokenize,
    visible,
    vocabulary,
)

# The default model's vocabulary has no token for six control characters and for planes 4 to 15: the tokenizer drops them.
KNOWN = st.characters(exclude_categories=("Cs",), exclude_characters="\x04\x06\x13\x14\x16\x1d", max_codepoint=0x3FFFF)
TEXT = st.text(KNOWN, min_size=1, max_size=40)
HOSTILE = "<script>\n\t\u202eevil\u200b\u0000\x1b[31m\u2028 ﷽ 👩‍👩‍👧 a\u0301 \ue000"


@pytest.fixture(scope="session")
def tokenizer(default_model_parts) -> Any:
    """The default model's: byte-level BPE with special tokens and a chat template."""
    return default_model_parts.tokenizer


@pytest.mark.model
def test_spans_and_pieces_of_plain_text(tokenizer) -> None:
    text = "The Eiffel Tower is located in the city of"
    tokens = tokenize(tokenizer, text)
    assert tokens.text == text
    assert "".join(tokens.pieces) == text
    assert [text[start:end] for start, end in tokens.spans] == list(tokens.pieces)
    assert tokenizer.decode(list(tokens.ids)) == text
    assert len(tokens) == len(tokens.ids) == len(tokens.spans)
    assert tokens.labels[1].startswith("␣E")


@pytest.mark.model
@given(TEXT)
def test_any_text_comes_back_from_its_pieces(tokenizer, text: str) -> None:
    tokens = tokenize(tokenizer, text)
    assert tokenizer.decode(list(tokens.ids), clean_up_tokenization_spaces=False) == text
    for piece, span in zip(tokens.pieces, tokens.spans, strict=True):
        assert span is not None
        start, end = span
        assert 0 <= start < end <= len(text)
        if "\\x" not in piece:
            assert text[start:end] == piece
    starts = [span[0] for span in tokens.spans if span]
    assert starts == sorted(starts)
    assert {i for span in tokens.spans if span for i in range(*span)} == set(range(len(text)))
    assert all(len(label) > 0 and "\n" not in label for label in tokens.labels)


@pytest.mark.model
@given(st.lists(st.integers(0, 49151), min_size=1, max_size=8))
def test_any_ids_have_pieces_that_make_the_text(tokenizer, ids: list[int]) -> None:
    tokens = from_ids(tokenizer, ids)
    assert tokens.ids == tuple(ids)
    assert tokens.text == "".join(tokens.pieces)
    assert [tokens.text[start:end] for start, end in tokens.spans] == list(tokens.pieces)
    assert "\ufffd" not in tokens.text or any("\ufffd" in tokenizer.decode([i]) for i in ids)
    assert from_ids(tokenizer, torch.tensor(ids)) == tokens


@pytest.mark.model
def test_an_emoji_cut_into_bytes_shows_its_bytes(tokenizer) -> None:
    text = "ok 🦜🫠"
    tokens = tokenize(tokenizer, text)
    pieces = [piece for piece in tokens.pieces if "\\x" in piece]
    assert pieces
    shown = "".join(pieces)
    raw = bytes(int(part[:2], 16) for part in shown.split("\\x")[1:])
    assert raw.decode("utf-8") in text
    assert "\ufffd" not in "".join(tokens.pieces)
    covering = tokens.positions_of("🦜")
    assert len(covering) > 1
    assert {text[slice(*tokens.spans[i])].strip() for i in covering} == {"🦜"}


@pytest.mark.model
def test_special_tokens_are_shown_by_name(tokenizer) -> None:
    tokens = tokenize(tokenizer, "<|im_start|>user")
    assert tokens.pieces[0] == "<|im_start|>"
    assert decode_pieces(tokenizer, [tokenizer.eos_token_id]) == (tokenizer.eos_token,)
    assert vocabulary(tokenizer, [5, 3, 5]) == {
        "3": decode_pieces(tokenizer, [3])[0],
        "5": decode_pieces(tokenizer, [5])[0],
    }


@pytest.mark.model
def test_a_subject_is_found_by_its_characters(tokenizer) -> None:
    text = "The Eiffel Tower is located in the city of"
    tokens = tokenize(tokenizer, text)
    found = tokens.positions_of("The Eiffel Tower")
    assert found == tuple(range(found[-1] + 1))
    assert "".join(tokens.pieces[i] for i in found) == "The Eiffel Tower"
    assert tokens.pieces[tokens.positions_of("city")[-1]] == " city"
    assert tokens.positions_of("ow") == tokens.positions_of("Tower")  # the token that covers it
    with pytest.raises(UsageError, match=r"'Louvre' is not in the prompt .*; its tokens are \['The', "):
        tokens.positions_of("Louvre")
    with pytest.raises(UsageError, match="'i' occurs more than once in .*; give a longer piece"):
        tokens.positions_of("i")
    with pytest.raises(UsageError, match="the text to find is empty"):
        tokens.positions_of("")


@pytest.mark.model
@given(TEXT, st.data())
def test_the_positions_of_a_piece_cover_it_and_nothing_else(tokenizer, text: str, data: st.DataObject) -> None:
    tokens = tokenize(tokenizer, text)
    start = data.draw(st.integers(0, len(text) - 1))
    piece = text[start : data.draw(st.integers(start + 1, len(text)))]
    if text.find(piece, text.find(piece) + 1) >= 0:
        with pytest.raises(UsageError, match="more than once"):
            tokens.positions_of(piece)
        return
    found = tokens.positions_of(piece)
    end = start + len(piece)
    covered = {c for i in found for c in range(*tokens.spans[i])}
    assert set(range(start, end)) <= covered
    assert all(set(range(*tokens.spans[i])) & set(range(start, end)) for i in found)


@pytest.mark.model
def test_targets_are_one_token(tokenizer) -> None:
    paris = target_id(tokenizer, " Paris")
    assert decode_pieces(tokenizer, [paris]) == (" Paris",)
    assert target_id(tokenizer, paris) == paris
    with pytest.raises(
        UsageError, match=r"the target ' Wolkenkuckucksheim' is \d tokens \[.*\] \(ids \[.*\]\), one is needed"
    ):
        target_id(tokenizer, " Wolkenkuckucksheim")
    with pytest.raises(UsageError, match="the target is empty; give the text of one token, such as ' Paris'"):
        target_id(tokenizer, "")
    with pytest.raises(UsageError, match="give the target as a token id"):
        target_id(None, " Paris")
    split = next(
        word for word in ("Rome", "Berlin", "Madrid", "Tokyo", "Dublin", "Lisbon") if _is_split(tokenizer, word)
    )
    with pytest.raises(UsageError, match=f"' {split}', with a leading space, is one token"):
        target_id(tokenizer, split)
    assert leading_space_hint(tokenizer, "Paris") == (
        "the target is 'Paris' without a leading space; in running text the token is usually ' Paris'"
    )
    for fine in (" Paris", paris, ".", "\n"):
        assert leading_space_hint(tokenizer, fine) is None


def _is_split(tokenizer: Any, word: str) -> bool:
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (word, " " + word)]
    return lengths[0] > 1 and lengths[1] == 1


@pytest.mark.model
def test_a_conversation_goes_through_the_chat_template(tokenizer) -> None:
    talk = Conversation.of("Where is the Louvre?", system="Be brief.")
    tokens = tokenize(tokenizer, talk)
    messages = [{"role": role, "content": content} for role, content in talk.messages]
    theirs = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
    theirs = theirs["input_ids"] if hasattr(theirs, "keys") else theirs
    assert list(tokens.ids) == list(theirs)
    assert tokens.text.endswith("<|im_start|>assistant\n")
    assert tokens.pieces[0] == "<|im_start|>"
    assert tokens.positions_of("Louvre")
    without = tokenize(tokenizer, Conversation(talk.messages, reply=False))
    assert tokens.text.startswith(without.text)
    assert not without.text.endswith("assistant\n")


@pytest.mark.model
def test_hostile_text_is_shown_without_effect(tokenizer) -> None:
    for label in tokenize(tokenizer, HOSTILE).labels:
        for character in label:
            assert unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn"), hex(ord(character))


def test_visible_glyphs() -> None:
    for text, shown in (
        (" Paris", "␣Paris"),
        ("a b", "a b"),
        ("a ", "a␣"),
        ("  ", "␣␣"),
        (" ", "␣"),
        ("", "∅"),
        ("\n", "⏎"),
        ("\t\r", "⇥␍"),
        ("\x00", "␀"),
        ("\x1b", "␛"),
        ("\x7f", "␡"),
        ("\u00a0", "⍽"),
        ("\u200b", "⟨U+200B⟩"),
        ("\u202e", "⟨U+202E⟩"),
        ("\u2028", "⟨U+2028⟩"),
        ("\ufeff", "⟨U+FEFF⟩"),
        ("\u3000", "⟨U+3000⟩"),
        ("\u0301", "◌\u0301"),
        ("e\u0301", "e\u0301"),
        ("<s>", "<s>"),
        ("日本", "日本"),
    ):
        assert visible(text) == shown, repr(text)


@given(st.text(max_size=30))
def test_visible_text_is_one_line_and_shows_something(text: str) -> None:
    shown = visible(text)
    assert shown
    assert shown == shown.strip()
    assert len(shown.splitlines()) == 1
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn") for c in shown)


def test_ids_without_a_tokenizer() -> None:
    tokens = from_ids(None, [5, 17])
    assert tokens.pieces == ("<5>", "<17>")
    assert tokens.text == "<5><17>"
    assert tokens.spans == ((0, 3), (3, 7))
    assert from_ids(None, torch.tensor([5, 17])) == tokens
    assert from_ids(None, torch.tensor([5, 17]).numpy()) == tokens
    with pytest.raises(UsageError, match="no tokenizer; pass token ids"):
        tokenize(None, "text")


def test_positions_from_both_ends() -> None:
    tokens = from_ids(None, [5, 17, 3])
    assert [tokens.position(i) for i in (0, 2, -1, -3)] == [0, 2, 2, 0]
    for bad in (3, -4, 999):
        with pytest.raises(
            UsageError, match=rf"position {bad} is out of range; valid: 0 to 2 \(or -3 to -1 from the end\)"
        ):
            tokens.position(bad)


def test_tokens_that_stand_for_no_text_are_never_found() -> None:
    tokens = Tokens(text="ab", ids=(1, 2, 3), pieces=("<s>", "a", "b"), spans=(None, (0, 1), (1, 2)))
    assert tokens.positions_of("ab") == (1, 2)
    assert tokens.positions_of("a") == (1,)
    assert tokens.labels == ("<s>", "a", "b")


def test_a_begin_token_has_no_span_and_a_slow_tokenizer_gets_spans() -> None:
    class Slow:
        """A tokenizer of single characters that reports no offsets, as sentencepiece ones do."""

        is_fast = False
        chat_template = None

        def __call__(self, text: str, add_special_tokens: bool, return_offsets_mapping: bool) -> dict[str, list[int]]:
            assert not return_offsets_mapping
            return {"input_ids": [0] * add_special_tokens + [ord(character) for character in text]}

        def decode(self, ids: list[int], skip_special_tokens: bool = False, **_: Any) -> str:
            return "".join(chr(i) if i else "" if skip_special_tokens else "<s>" for i in ids)

        def convert_ids_to_tokens(self, index: int) -> str:
            return chr(index) if index else "<s>"

    tokens = tokenize(Slow(), "héy")
    assert tokens.ids[0] == 0
    assert tokens.spans == (None, (0, 1), (1, 2), (2, 3))
    assert tokens.pieces == ("<s>", "h", "é", "y")
    assert tokens.positions_of("éy") == (2, 3)
    with pytest.raises(UsageError, match="no chat template"):
        tokenize(Slow(), Conversation.of("hi"))


def test_a_sentencepiece_vocabulary_keeps_its_leading_spaces() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "▁the": 1, "▁tower": 2, "s": 3}
    backend = Tokenizer(models.Unigram([(word, -float(i)) for word, i in words.items()], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    tokens = tokenize(tokenizer, "the towers")
    assert tokens.ids == (1, 2, 3)
    assert tokens.pieces == (" the", " tower", "s")
    assert tokens.positions_of("towers") == (1, 2)

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from bimo.errors import TokenizerError
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import SPECIAL, train_tokenizer
from tests.tokenizer.wordpiece import wordpiece

OWN = train_tokenizer(["the cat sat on the mat, 分久必合，合久必分。 <|im_start|>user <s> [INST]\n"] * 2, 330)
CONTROL = [*SPECIAL, "<s>", "</s>", "<unk>", "<think>", "[INST]", "[CLS]", "[SEP]", "[MASK]"]
HOSTILE = st.lists(st.sampled_from([*CONTROL, "<|", "|>", "<", " ", "\n", "im_start", "cat"]) | st.text()).map("".join)


def metaspace_bpe() -> Tokenizer:
    """Llama 2's kind: U+2581 for spaces, bytes as a fallback, control tokens among the pieces and even in merges."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [*"▁<>/abctinsukINST[]", "▁c", "▁ca", "▁cat", "<s", "at"]
    merges = [("▁", "c"), ("▁c", "a"), ("▁ca", "t"), ("<", "s"), ("<s", ">"), ("a", "t")]
    vocab = {piece: id for id, piece in enumerate(pieces)}
    library = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    library.add_tokens([AddedToken("<think>", normalized=False), AddedToken("[INST]", normalized=False)])
    bos = ("<s>", vocab["<s>"])
    library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[bos])
    library.enable_truncation(5)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"__type": "AddedToken", "content": "</s>"},
    }
    return Tokenizer(library.to_str().encode(), config)


def unigram() -> Tokenizer:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("▁cat", -1.5)]
    pieces += [(char, -3.0) for char in "<>/|abctinsukmretfdoxINST[]_"]
    library = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0))
    library.normalizer = normalizers.NFKC()
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    return Tokenizer(library.to_str().encode(), {"eos_token": "</s>"})


LOADED = {"metaspace": metaspace_bpe(), "unigram": unigram(), "wordpiece": wordpiece()}


@given(st.binary())
def test_every_byte_string_round_trips(data: bytes):
    assert OWN.decode_bytes(OWN.encode_bytes(data)) == data


@given(HOSTILE)
def test_every_text_round_trips_and_holds_no_control_token(text: str):
    ids = OWN.encode(text)
    assert not set(ids) & set(OWN.special.values())
    assert OWN.decode(ids) == text
    assert OWN.encode_bytes(text.encode()) == ids
    assert [OWN.encode(text), OWN.encode("cat")] == OWN.encode_batch([text, "cat"])


@pytest.mark.parametrize("kind", LOADED)
@given(text=HOSTILE)
def test_text_never_becomes_a_control_token_of_a_loaded_tokenizer(kind: str, text: str):
    tokenizer = LOADED[kind]
    added = {tokenizer._full.token_to_id(name) for name in CONTROL if name in text} - {None}
    unknown = tokenizer._full.token_to_id("<unk>")
    assert not set(tokenizer.encode(text)) & (added - {unknown})


@pytest.mark.parametrize("kind", LOADED)
def test_harmless_text_has_the_ids_of_the_library(kind: str):
    tokenizer = LOADED[kind]
    library = tokenizers.Tokenizer.from_str(tokenizer._definition.decode())
    library.no_truncation()
    library.no_padding()
    for text in ("a cat in a tank", "cat", " cat  cat", "", "ab\ncat"):
        assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids, text


def test_token_bytes_are_what_the_tokens_stand_for():
    assert [OWN.token_bytes(id) for id in OWN.encode("the 分")][:1] == [b"the"]
    assert OWN.token_bytes(0) == b"<|endoftext|>"
    assert OWN.token_bytes(OWN.vocab_size) == OWN.token_bytes(-1) == b""
    tokenizer = LOADED["metaspace"]
    text = "a cat\nat 分"
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(text))) == b" " + text.encode()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decode_shows_or_skips_special_tokens_and_replaces_what_is_not_utf8():
    ids = [OWN.eos_id, *OWN.encode("the cat"), OWN.special["<|im_end|>"]]
    assert OWN.decode(ids) == "the cat"
    assert OWN.decode(ids, skip_special=False) == "<|endoftext|>the cat<|im_end|>"
    assert OWN.decode_bytes(ids) == b"the cat"
    assert OWN.decode(OWN.encode_bytes(b"cat \xe5\x88")) == "cat \ufffd"


def test_a_wordpiece_tokenizer_gives_the_ids_of_transformers(tmp_path: Path):
    tokenizer = LOADED["wordpiece"]
    tokenizer.save(tmp_path)
    loaded, stock = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    before, after = loaded.around
    assert (before, after) == ([loaded.bos_id], [loaded.eos_id]) == ([2], [3])
    for text in ("The CATS in a tank", "unaffable, 你好吗", "", " \t ", "cat" * 99):
        assert [*before, *loaded.encode(text), *after] == stock(text)["input_ids"], text
    assert loaded.decode_bytes(loaded.encode("the cats 你好")) == b" the cats" + " 你 好".encode()
    assert len(loaded.encode("cat " * 20)) == 20


def test_what_stock_tools_put_around_a_text(tmp_path: Path):
    assert OWN.around == ([], []) and LOADED["unigram"].around == ([], []) and LOADED["metaspace"].around == ([1], [])
    silent = Tokenizer(LOADED["metaspace"].definition, {**LOADED["metaspace"].config, "add_bos_token": False})
    assert silent.around == ([], [])
    asked = Tokenizer(OWN.definition, {**OWN.config, "add_bos_token": True})
    assert asked.around == ([OWN.bos_id], [])


def test_a_byte_that_the_vocabulary_lacks_is_an_error():
    with pytest.raises(TokenizerError, match="no token for the byte 0xff"):
        LOADED["unigram"].encode_bytes(b"cat \xff")


def test_lone_surrogates_become_replacement_characters():
    assert OWN.decode(OWN.encode("cat \ud83d mat")) == "cat \ufffd mat"


@pytest.mark.parametrize("model_type", [None, "qwen2", "qwen3", "llama", "mistral", "gpt2"])
def test_transformers_reads_what_is_saved(tmp_path: Path, model_type: str | None):
    OWN.save(tmp_path)
    if model_type:
        config = {"model_type": model_type, "vocab_size": 330, "bos_token_id": 0, "eos_token_id": 0}
        (tmp_path / "config.json").write_text(json.dumps(config))
    stock = AutoTokenizer.from_pretrained(tmp_path)
    assert (stock.bos_token_id, stock.eos_token_id, stock.pad_token_id, len(stock)) == (0, 0, 0, OWN.vocab_size)
    assert set(stock.all_special_tokens) == set(SPECIAL)
    decomposed = "e\u0301" if model_type != "qwen2" else ""  # for Qwen2 transformers always normalises to NFC
    for text in ("The cat's  mat ,\n\n\t 分久必合 é 42 ' s\r\n", " x", "", "don ' t .", decomposed):
        ids = stock(text)["input_ids"]
        assert ids == OWN.encode(text)
        assert stock.decode(ids) == text
    assert stock("<|im_end|>")["input_ids"] == [OWN.special["<|im_end|>"]]


def test_a_saved_tokenizer_loads_as_it_was(tmp_path: Path):
    OWN.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.hash, loaded.eos_id, loaded.chat_template) == (OWN.hash, OWN.eos_id, OWN.chat_template)
    loaded.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_folder_of_transformers_loads(tmp_path: Path):
    LOADED["metaspace"].save(tmp_path)
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "resaved")
    loaded = Tokenizer.load(tmp_path / "resaved")
    assert (loaded.bos_id, loaded.eos_id, loaded.adds_bos) == (1, 2, True)
    assert loaded.encode("a cat in a tank") == LOADED["metaspace"].encode("a cat in a tank")
    assert not OWN.adds_bos and OWN.bos_id == 0


@pytest.mark.parametrize("place", ["config.json", "special_tokens_map.json"])
def test_the_end_of_text_is_found_where_older_folders_say_it(tmp_path: Path, place: str):
    OWN.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(TokenizerError, match="which token ends a text"):
        Tokenizer.load(tmp_path)
    content = {"eos_token_id": [2, 0]} if place == "config.json" else {"eos_token": {"content": "<|im_end|>"}}
    (tmp_path / place).write_text(json.dumps(content))
    assert Tokenizer.load(tmp_path).eos_id == 2


def test_an_end_of_text_outside_the_vocabulary_is_refused():
    with pytest.raises(TokenizerError, match="'<missing>'"):
        Tokenizer(OWN._definition, {"eos_token": "<missing>"})


@pytest.mark.parametrize("length", [0, 1, 100, -2])
def test_a_truncated_definition_is_refused(tmp_path: Path, length: int):
    OWN.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is corrupted"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}'),
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"[]"),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_a_corrupted_file_is_named(tmp_path: Path, name: str, content: bytes):
    OWN.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=name.replace(".", r"\.")):
        Tokenizer.load(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be read"):
        Tokenizer.load(tmp_path / "nothing")


def test_truncation_stored_in_a_definition_is_not_applied():
    assert len(LOADED["metaspace"].encode("cat " * 20)) > 20


def test_token_bytes_of_a_gpt2_style_tokenizer():
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator(["a cat"] * 3, trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=["<e>"]))
    tokenizer = Tokenizer(library.to_str().encode(), {"eos_token": "<e>"})
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode("a cat\x00é"))) == "a cat\x00é".encode()


def test_an_unknown_word_is_still_unknown_when_text_cannot_spell_the_token_for_it():
    library = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "<e>": 1, "cat": 2}, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens(["<unk>", "<e>"])
    tokenizer = Tokenizer(library.to_str().encode(), {"eos_token": "<e>"})
    assert tokenizer.encode("cat dog <e>") == [2, 0, 0]

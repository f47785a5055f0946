"""A small tokenizer of BERT's kind, as the real ones are described."""

from __future__ import annotations

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from bimo.tokenizer.tokenizer import Tokenizer

CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECES = [
    "cat",
    "the",
    "tank",
    "##s",
    "##at",
    "un",
    "##a",
    "##ff",
    "##able",
    "[",
    "]",
    ",",
    "你",
    "好",
    "差",
    "cl",
    "##b",
]
PIECES += ["good", "bad", "very", "film", "is", "a", "in", "mat", "c", "t"]


def wordpiece() -> Tokenizer:
    vocab = {piece: id for id, piece in enumerate([*CONTROL, *PIECES])}
    library = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(prefix="##")
    library.add_special_tokens([AddedToken(name, normalized=False) for name in CONTROL])
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    library.enable_truncation(5)
    library.enable_padding(length=8)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "mask_token": "[MASK]", **names}
    return Tokenizer(library.to_str().encode(), config)

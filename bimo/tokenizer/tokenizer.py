"""A tokenizer in Hugging Face's format in which text is always text: no string encodes to a control token."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import tokenizers

from bimo import files
from bimo.errors import TokenizerError
from bimo.tokenizer import calls, chat, fast
from bimo.tokenizer.parts import Parts

DEFINITION, CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"

# tokenizers reports a bad definition with the base class itself.
_DefinitionError = Exception

# GPT-2's printable stand-ins for the 256 bytes (openai/gpt-2, encoder.py, bytes_to_unicode).
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + n): byte for n, byte in enumerate(_OTHERS)}


class Tokenizer:
    """Text to ids and back, from the content of a ``tokenizer.json``.

    Args:
        definition: the bytes of ``tokenizer.json``.
        config: the content of ``tokenizer_config.json``; its ``eos_token`` is needed.
        chat_template: Jinja source, or None for a tokenizer that cannot render chats.
        where: what the values came from, for error messages.

    Attributes:
        vocab_size: the largest id plus one.
        special: the special tokens and their ids.
        eos_id: the id that ends a text, and that starts every document in bimo's training streams.
        bos_id: the id that begins a text, or None.
        hash: SHA-256 of ``definition``, in hex.

    Raises:
        TokenizerError: the definition is corrupted, or no end-of-text token is known.
    """

    def __init__(
        self,
        definition: bytes,
        config: Mapping[str, Any],
        chat_template: str | None = None,
        *,
        where: str = "The tokenizer",
    ) -> None:
        self._definition, self._config, self.chat_template = definition, dict(config), chat_template
        self._full = _parse(definition, where)
        self._full.no_truncation()
        self._full.no_padding()
        self._added = self._full.get_added_tokens_decoder()
        self.vocab_size = 1 + max(self._full.get_vocab(with_added_tokens=True).values(), default=-1)
        self.special = {token.content: id for id, token in sorted(self._added.items()) if token.special}
        self.hash = hashlib.sha256(definition).hexdigest()
        # BERT's kind calls them by other names: each text stands between [CLS] and [SEP].
        eos_id = self._named("eos_token", "sep_token")
        self.bos_id = self._named("bos_token", "cls_token")
        if eos_id is None:
            raise TokenizerError(
                f"{where} does not say which token ends a text.",
                expected=f"'eos_token' in {CONFIG} to name a token of the vocabulary",
                got=repr(self._config.get("eos_token")),
            )
        self.eos_id = eos_id

    def _named(self, *keys: str) -> int | None:
        """The id of the first of these tokens that ``tokenizer_config.json`` names."""
        name = next((name for key in keys if (name := _token_name(self._config.get(key)))), None)
        return None if name is None else self._full.token_to_id(name)

    @property
    def definition(self) -> bytes:
        """The content of ``tokenizer.json``."""
        return self._definition

    @property
    def config(self) -> dict[str, Any]:
        """The content of ``tokenizer_config.json``, a copy."""
        return dict(self._config)

    @property
    def adds_bos(self) -> bool:
        """Whether stock Hugging Face tools put ``bos_id`` before a text that they encode with this tokenizer."""
        declared = self._config.get("add_bos_token")
        if isinstance(declared, bool):
            return declared and self.bos_id is not None
        return self.bos_id is not None and self._full.encode("", add_special_tokens=True).ids[:1] == [self.bos_id]

    @functools.cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """What stock Hugging Face tools put before and after a text that they encode: [CLS] and [SEP], BOS, nothing."""
        encoding = self._full.encode("a", add_special_tokens=True)
        inside = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
        before, after = encoding.ids[: inside[0]], encoding.ids[inside[-1] + 1 :]
        if self.bos_id is not None and self.adds_bos != (self.bos_id in before):
            before = [self.bos_id] if self.adds_bos else [id for id in before if id != self.bos_id]
        return before, after

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, in which control tokens are ordinary characters; a lone surrogate becomes U+FFFD."""
        return self._plain.encode(without_surrogates(text), add_special_tokens=False).ids

    def encode_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of ``text`` as :meth:`encode` gives them, and the characters that each stands for: first, and end."""
        encoding = self._plain.encode(without_surrogates(text), add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, as :meth:`encode` gives them, on all cores."""
        cleaned = [without_surrogates(text) for text in texts]
        quickly = [self._fast is not None and fast.knows(text) for text in cleaned]
        quick = [text for text, fits in zip(cleaned, quickly, strict=True) if fits]
        slow = [text for text, fits in zip(cleaned, quickly, strict=True) if not fits]
        ids = {
            True: iter(self._fast.encode_batch(quick, os.cpu_count() or 1) if self._fast and quick else ()),
            False: (encoding.ids for encoding in self._plain.encode_batch_fast(slow, add_special_tokens=False)),
        }
        return [next(ids[fits]) for fits in quickly]

    def encode_words(self, text: str) -> list[list[int]]:
        """The ids of ``text`` as :meth:`encode` gives them, in the stretches that no token can reach across."""
        encoding = self._plain.encode(without_surrogates(text), add_special_tokens=False)
        words: dict[int, list[int]] = {}
        for id, word in zip(encoding.ids, encoding.word_ids, strict=True):
            words.setdefault(-1 if word is None else word, []).append(id)
        return list(words.values())

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of ``ids``; bytes that are not UTF-8 become U+FFFD."""
        return self._full.decode(list(ids), skip_special_tokens=skip_special)

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes: UTF-8 stretches as text, every other byte as itself.

        Raises:
            TokenizerError: a byte that is not UTF-8 is not in the vocabulary (never with bimo's own tokenizers).
        """
        ids: list[int] = []
        for stretch in re.split("([\udc80-\udcff])", data.decode("utf-8", "surrogateescape")):
            if "\udc80" <= stretch <= "\udcff":
                byte = stretch.encode("utf-8", "surrogateescape")
                if byte not in self._byte_ids:
                    raise TokenizerError(f"This tokenizer has no token for the byte 0x{byte.hex()}.")
                ids.append(self._byte_ids[byte])
            elif stretch:
                ids += self.encode(stretch)
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ``ids`` without special tokens; the exact reverse of :meth:`encode_bytes` for own tokenizers."""
        special = set(self.special.values())
        return b"".join(self.token_bytes(id) for id in ids if id not in special)

    def token_bytes(self, id: int) -> bytes:
        """The bytes one token stands for, a space included; of an added token its name, of an unused id nothing."""
        return self._pieces[id] if 0 <= id < self.vocab_size else b""

    def encode_chat(
        self,
        messages: Sequence[chat.Message],
        add_generation_prompt: bool = True,
        tools: Sequence[chat.Message] | None = None,
    ) -> list[int]:
        """The ids of a conversation as the chat template renders it; what messages say can never be a control token.

        Training, evaluation, `bimo chat` and the server all render conversations here and nowhere else.

        Args:
            tools: functions that the model may call; a template that knows none shows them, calls and results as text.

        Raises:
            TokenizerError: there is no chat template, or it refuses these messages.
        """
        return self.encode_rendered(self.render_chat(messages, add_generation_prompt, tools))

    def encode_rendered(self, text: str) -> list[int]:
        """The ids of what :meth:`render_chat` gave, as :meth:`encode` has them; faster where its beginning is known."""
        return self._parts.encode(text)

    def render_chat(
        self,
        messages: Sequence[chat.Message],
        add_generation_prompt: bool = True,
        tools: Sequence[chat.Message] | None = None,
    ) -> str:
        """The text that :meth:`encode_chat` encodes, in which control tokens have names that nobody can write."""
        if self.chat_template is None:
            raise TokenizerError(
                "This tokenizer has no chat template: the model was not made for conversations.",
                fix="Use `bimo generate` to continue a text instead.",
            )
        if calls.unknown(self.chat_template, messages, tools):
            messages, tools = calls.shown_without_template(messages, tools or ()), None
        return chat.render(
            self.chat_template,
            messages,
            names=self._secret_names,
            variables={key: name for key, value in self._config.items() if (name := _token_name(value))},
            add_generation_prompt=add_generation_prompt,
            tools=tools,
        )

    def meaning_control(self, text: str) -> str:
        """A text for :meth:`encode` in which the control tokens that ``text`` spells are meant, as lm-eval has it."""
        return chat.with_names(text, self._secret_names)

    def spelling_control(self, text: str) -> str:
        """What :meth:`render_chat` gives, for people and other programs: control tokens as they are spelled."""
        return chat.with_names(text, {secret: name for name, secret in self._secret_names.items()})

    def save(self, folder: Path) -> None:
        """Write the files that ``transformers.AutoTokenizer.from_pretrained(folder)`` loads."""
        files.write_bytes(folder / DEFINITION, self._definition)
        files.write_json(folder / CONFIG, self._config)
        if self.chat_template is not None:
            files.write_text(folder / TEMPLATE, self.chat_template)

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read any Hugging Face folder that holds a ``tokenizer.json``.

        Raises:
            TokenizerError: a file is missing, cannot be read, or is corrupted.
        """
        folder = Path(folder)
        definition = _read(folder / DEFINITION)
        config = {**_read_config(folder / "special_tokens_map.json"), **_read_config(folder / CONFIG)}
        template = config.pop("chat_template", None)
        if isinstance(template, list):  # several templates by name, as older files have them
            named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
            template = named.get("default")
        if (folder / TEMPLATE).is_file():
            template = _decode(_read(folder / TEMPLATE), str(folder / TEMPLATE))
        if "eos_token" not in config:  # GPT-2's own folder says it only in the model's configuration
            eos = _read_config(folder / "config.json").get("eos_token_id")
            eos = eos[0] if isinstance(eos, list) and eos else eos
            if isinstance(eos, int) and eos >= 0:
                config["eos_token"] = _parse(definition, str(folder / DEFINITION)).id_to_token(eos)
        return cls(definition, config, template, where=str(folder / DEFINITION))

    @functools.cached_property
    def _secret_names(self) -> dict[str, str]:
        """For each control token the name, unknown to any text, under which :attr:`_plain` knows it."""
        nonce = secrets.token_hex(16)
        control = (token.content for token in self._added.values() if token.special or not token.content.isspace())
        return {content: f"\ue000{nonce}:{number}\ue001" for number, content in enumerate(control)}

    @functools.cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The same tokenizer with every control token renamed, so that no text can spell one."""
        names = self._secret_names
        definition = json.loads(self._full.to_str())
        definition["post_processor"] = None  # it adds special tokens, under their public names
        for token in definition["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        model = definition["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(piece, piece): id for piece, id in model["vocab"].items()}
        else:  # Unigram: [piece, score] pairs in the order of the ids
            model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
        if "merges" in model:
            model["merges"] = [pair for pair in model["merges"] if names.keys().isdisjoint([*pair, "".join(pair)])]
        if model.get("unk_token") is not None:
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
        return tokenizers.Tokenizer.from_str(json.dumps(definition))

    @functools.cached_property
    def _parts(self) -> Parts:
        alone = any(token.single_word for token in self._added.values())  # then what stands beside it matters
        names = () if alone else self._secret_names.values()
        return Parts(self.encode, {name: cast(int, self._plain.token_to_id(name)) for name in names})

    @functools.cached_property
    def _fast(self) -> fast.Fast | None:
        """The same encoder in tiktoken, where added tokens have no part in text."""
        names, vocabulary = self._secret_names, self._full.get_vocab(with_added_tokens=False)
        if any(token.content not in names for token in self._added.values()):
            return None
        pieces = {piece: self._pieces[id] for piece, id in vocabulary.items() if piece not in names}
        return fast.fast(json.loads(self._definition), pieces)

    @functools.cached_property
    def _pieces(self) -> list[bytes]:
        decoder = json.loads(self._definition).get("decoder") or {}
        piece_bytes = _byte_level_bytes if "ByteLevel" in json.dumps(decoder) else _metaspace_bytes
        if decoder.get("type") == "WordPiece":
            piece_bytes = functools.partial(_wordpiece_bytes, decoder["prefix"])
        pieces = [b""] * self.vocab_size
        for piece, id in self._full.get_vocab(with_added_tokens=True).items():
            pieces[id] = piece.encode("utf-8") if id in self._added else piece_bytes(piece)
        return pieces

    @functools.cached_property
    def _byte_ids(self) -> dict[bytes, int]:
        return {piece: id for id, piece in enumerate(self._pieces) if len(piece) == 1 and id not in self._added}


def _byte_level_bytes(piece: str) -> bytes:
    return bytes(_BYTE_OF[char] for char in piece) if all(char in _BYTE_OF for char in piece) else piece.encode("utf-8")


def _wordpiece_bytes(prefix: str, piece: str) -> bytes:
    """WordPiece marks what goes on inside a word."""
    return (piece.removeprefix(prefix) if piece.startswith(prefix) else f" {piece}").encode("utf-8")


def _metaspace_bytes(piece: str) -> bytes:
    """SentencePiece writes a space as U+2581 and a byte outside the vocabulary as ``<0x0A>``."""
    byte = re.fullmatch("<0x([0-9A-Fa-f]{2})>", piece)
    return bytes.fromhex(byte[1]) if byte else piece.replace("\u2581", " ").encode("utf-8")


def without_surrogates(text: str) -> str:
    """``text`` as UTF-8 can hold it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a JSON escape such as \ud83d without its second half
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text


def _token_name(value: Any) -> str | None:
    """The text of a token in ``tokenizer_config.json``, which holds it bare or inside an object."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _parse(definition: bytes, where: str) -> tokenizers.Tokenizer:
    text = _decode(definition, where)
    try:
        return tokenizers.Tokenizer.from_str(text)
    except _DefinitionError as cause:
        raise _corrupted(where, cause) from None


def _decode(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise _corrupted(where, cause) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise TokenizerError(
            f"{path} cannot be read.", expected="a folder with a Hugging Face tokenizer", got=str(cause)
        ) from None


def _read_config(path: Path) -> dict[str, Any]:
    return files.read_json(path, error=TokenizerError) if path.exists() else {}


def _corrupted(where: str, cause: Exception) -> TokenizerError:
    return TokenizerError(
        f"{where} is corrupted.",
        expected="a tokenizer in Hugging Face's format",
        got=str(cause),
        fix="Copy the folder again from where it came, or train the tokenizer again.",
    )

"""A GGUF file becomes a run whose model and tokenizer are those that the file was made from."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bimo
from bimo.errors import BimoError, ModelError, RunError, UsageError
from bimo.models import gpt2, import_gguf, llama, load_model
from bimo.models.gguf_blocks import KINDS
from bimo.models.gguf_layout import GPT2_NAMES, LLAMA_NAMES, ROTARY
from bimo.models.import_gguf import import_gguf as import_file
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer
from tests.models.gguf_file import Stored, described, floats, gguf_bytes, stored_tensors, tokenizer_metadata, write

TOKENIZER = train_tokenizer(["the king said good night, my lord! 却说曹操引兵而来。\n" * 3, "123 moons"], 300)
V = TOKENIZER.vocab_size + 5  # rows of the table that no token has
LLAMA = llama.Config(
    vocab_size=V,
    hidden_size=24,
    intermediate_size=20,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=4,
    max_position_embeddings=512,
    model_type="llama",
    qk_norm=False,
    rms_norm_eps=1e-5,
    rope_theta=5000.0,
    bos_token_id=0,
    eos_token_id=0,
)
GPT2 = gpt2.Config(vocab_size=V, n_positions=64, n_embd=24, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0)
CASES = {
    "llama": LLAMA,
    "llama-untied": dataclasses.replace(LLAMA, tie_word_embeddings=False),
    "llama-biases": dataclasses.replace(LLAMA, attention_bias=True, mlp_bias=True),
    "llama-linear": dataclasses.replace(LLAMA, rope_scaling={"rope_type": "linear", "factor": 2.5}),
    "llama-wide-heads": dataclasses.replace(LLAMA, head_dim=10),
    "mistral": dataclasses.replace(LLAMA, model_type="mistral", sliding_window=3),
    "qwen2": dataclasses.replace(LLAMA, model_type="qwen2", attention_bias=True),
    "qwen3": dataclasses.replace(LLAMA, model_type="qwen3", qk_norm=True, head_dim=8),
    "gpt2": GPT2,
    "gpt2-untied": dataclasses.replace(GPT2, tie_word_embeddings=False, n_inner=20, layer_norm_epsilon=1e-3),
}
IDS = torch.tensor([[1, 2, 3, 5, 7], [7, 5, 3, 2, 0]])


def make(config: Any = LLAMA) -> Any:
    """A model with weights that differ from those of any fresh one, norms and biases included."""
    model = (llama if isinstance(config, llama.Config) else gpt2).Model(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.5 if parameter.ndim == 1 else 0, 0.1, generator=generator)
    return model.eval()


def parts(config: Any = LLAMA) -> tuple[dict[str, Any], dict[str, Stored]]:
    metadata = (
        described(config)
        | tokenizer_metadata(TOKENIZER)
        | {"general.name": "Tiny `one` | 小", "general.license": "mit"}
    )
    if getattr(config, "rope_scaling", None):
        metadata |= {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.5}
    return metadata, stored_tensors(make(config))


def gguf_file(path: Path, config: Any = LLAMA, **metadata: Any) -> Path:
    known, tensors = parts(config)
    return write(path, gguf_bytes(known | metadata, tensors))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return gguf_file(tmp_path / "tiny.gguf")


@pytest.mark.parametrize("name", CASES)
def test_the_model_is_the_one_in_the_file(tmp_path: Path, name: str) -> None:
    config = CASES[name]
    out = import_file(gguf_file(tmp_path / "a.gguf", config), tmp_path / "run", dtype="float32")
    model = load_model(out)
    assert model.config == config
    assert model.state_dict().keys() == make(config).state_dict().keys()
    assert torch.equal(model(IDS), make(config)(IDS))


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gpt2"])
def test_transformers_loads_the_folder(tmp_path: Path, name: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = import_file(gguf_file(tmp_path / "a.gguf", CASES[name]), tmp_path / "run", dtype="float32")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    with torch.no_grad():
        assert torch.allclose(model(IDS).logits, make(CASES[name])(IDS), atol=1e-5)
    for text in ("the king's 123 moons\n\n  said", "却说曹操，good  night"):
        assert tokenizer(text)["input_ids"] == TOKENIZER.encode(text)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gpt2"])
def test_transformers_reads_the_same_from_the_file(tmp_path: Path, name: str) -> None:
    pytest.importorskip("gguf")
    from transformers import AutoConfig, AutoModelForCausalLM

    out = import_file(gguf_file(tmp_path / "a.gguf", CASES[name]), tmp_path / "run", dtype="float32")
    shape = AutoConfig.from_pretrained(out)  # of itself it takes no width of heads from the file, nor GPT-2's positions
    witness = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf", config=shape, dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(load_model(out)(IDS), witness(IDS).logits, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gpt2"])
def test_names_are_those_of_the_gguf_package(architecture: str) -> None:
    gguf = pytest.importorskip("gguf")
    kind = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    known = gguf.get_tensor_name_map(kind, 4)
    model = make(CASES[architecture])
    names = GPT2_NAMES if architecture == "gpt2" else LLAMA_NAMES
    for name in model.state_dict():
        module = name.rpartition(".")[0]
        number = next((word for word in module.split(".") if word.isdigit()), "")
        general = module.replace(f".{number}.", ".N.") if number else module
        assert known.get_name(module) == names[general].replace("N", number), name


def test_quantised_weights_are_what_they_stand_for(tmp_path: Path) -> None:
    metadata, tensors = parts(dataclasses.replace(LLAMA, intermediate_size=32))
    rng = np.random.default_rng(0)
    scales = rng.uniform(0.1, 1, 24).astype("<f2")
    numbers = rng.integers(-127, 128, (24, 32), dtype=np.int8)
    blocks = b"".join(scale.tobytes() + row.tobytes() for scale, row in zip(scales, numbers, strict=True))
    tensors["blk.1.ffn_down.weight"] = Stored((32, 24), KINDS["Q8_0"].number, blocks)
    out = import_file(write(tmp_path / "a.gguf", gguf_bytes(metadata, tensors)), tmp_path / "run")
    found = load_model(out).state_dict()["model.layers.1.mlp.down_proj.weight"]
    wanted = scales.astype("f4")[:, None] * numbers
    assert found.dtype == torch.bfloat16 and torch.equal(found, torch.from_numpy(wanted).bfloat16())
    lineage = json.loads((out / "lineage.json").read_text())
    assert lineage["source"]["quantisation"] == "F32, Q8_0"


def test_an_output_layer_that_repeats_the_table_is_tied(tmp_path: Path) -> None:
    metadata, tensors = parts()
    tensors["output.weight"] = tensors["token_embd.weight"]
    out = import_file(write(tmp_path / "a.gguf", gguf_bytes(metadata, tensors)), tmp_path / "run", dtype="float32")
    model = load_model(out)
    assert model.config.tie_word_embeddings and torch.equal(model(IDS), make()(IDS))


def test_llama_3_rotary_factors_are_recognised(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = dataclasses.replace(
        LLAMA, rope_theta=500_000.0, head_dim=16, rope_scaling={**scaling, "original_max_position_embeddings": 8192}
    )
    plain = llama.rotary_frequencies(dataclasses.replace(config, rope_scaling=None), torch.device("cpu"))
    factors = plain / llama.rotary_frequencies(config, torch.device("cpu"))
    assert len(set(factors.tolist())) > 1 and factors.max() == 8
    metadata, tensors = described(config) | tokenizer_metadata(TOKENIZER), stored_tensors(make(config))
    content = gguf_bytes(metadata, tensors | {ROTARY: floats(factors.numpy())})
    model = load_model(import_file(write(tmp_path / "a.gguf", content), tmp_path / "run", dtype="float32"))
    assert model.config == config and torch.equal(model(IDS), make(config)(IDS))
    content = gguf_bytes(metadata, tensors | {ROTARY: floats(factors.numpy() * 1.01)})
    with pytest.raises(ModelError, match="rotary positions"):
        import_file(write(tmp_path / "b.gguf", content), tmp_path / "other")


def test_the_folder_is_a_run(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    out = import_file(source, tmp_path / "run", progress=lambda done, total: seen.append((done, total)))
    assert sorted(path.name for path in out.iterdir()) == [
        *("README.md", "chat_template.jinja", "config.json", "generation_config.json", "lineage.json"),
        *("model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    ]
    total = sum(tensor.numel() for tensor in make().state_dict().values())
    assert seen[-1] == (total, total) and sorted(seen) == seen
    lineage = json.loads((out / "lineage.json").read_text())
    facts = lineage["source"]
    assert lineage["kind"] == "imported" and facts["file"] == "tiny.gguf" and facts["licence"] == "mit"
    assert facts["sha256"] == bimo.files.sha256_file(source) and facts["quantisation"] == "F32"
    card = (out / "README.md").read_text()
    assert "`Tiny 'one' / 小`" in card and "license: mit" in card and "bimo chat run" in card
    model = bimo.load(out)
    assert model.conventions.prefix == () and model.conventions.no_chat is None
    assert len(model.chat([{"role": "user", "content": "却说"}], max_new_tokens=3, temperature=0).ids) == 3
    assert not list(tmp_path.glob(".run*"))


def test_a_start_token_is_put_before_prompts(tmp_path: Path) -> None:
    file = gguf_file(tmp_path / "a.gguf", **{"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 1})
    model = bimo.load(import_file(file, tmp_path / "run"))
    assert model.conventions.prefix == (1,)


def test_further_end_tokens_end_a_reply(tmp_path: Path) -> None:
    file = gguf_file(tmp_path / "a.gguf", **{"tokenizer.ggml.eot_token_id": 2})
    model = bimo.load(import_file(file, tmp_path / "run"))
    assert model.conventions.ends == {0, 2}


OPTIONAL = [
    *("llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count"),
    *("llama.rope.freq_base", "llama.vocab_size"),
]
# Without these the file is another model, whose tensors are missing.
WITHOUT = {"general.architecture": "architecture", "llama.attention.head_count_kv": "attn_k.*instead of"}
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"general.architecture": "mamba"}, "got 'mamba'"),
    "part": ({"split.count": 3}, "llama-gguf-split"),
    "experts": ({"llama.expert_count": 8}, "expert_count"),
    "not causal": ({"llama.attention.causal": False}, "attention.causal"),
    "no token": ({"tokenizer.ggml.eot_token_id": V}, "eot_token_id"),
    "yarn": ({"llama.rope.scaling.type": "yarn"}, "yarn"),
    "partly rotated": ({"llama.rope.dimension_count": 2}, "rope.dimension_count"),
    "other values": ({"llama.attention.value_length": 8}, "value_length"),
    "huge layers": ({"llama.block_count": (1 << 32) - 1}, "block_count"),
    "many layers": ({"llama.block_count": 1 << 20}, "block_count"),
    "another layer": ({"llama.block_count": 4}, r"no blk\.3\."),
    "fewer layers": ({"llama.block_count": 2}, r"blk\.2\..*, which this architecture does not have"),
    "huge heads": ({"llama.attention.head_count": 1 << 31}, "head_count"),
    "heads that overflow": (
        {
            "llama.attention.head_count": 1 << 27,
            "llama.attention.key_length": 1 << 27,
            "llama.attention.value_length": 1 << 27,
        }
        | {"llama.rope.dimension_count": 1 << 27},
        "head_count",
    ),
    "other heads": ({"llama.attention.head_count_kv": 3}, "attn_k"),
    "heads that are a text": ({"llama.attention.head_count": "6"}, "head_count"),
    "heads that differ by layer": (
        {"llama.attention.head_count_kv": np.array([2, 1, 2], "<i4")},
        "same for all layers",
    ),
    "no width": ({"llama.embedding_length": 0}, "embedding_length"),
    "another width": ({"llama.embedding_length": 30}, "token_embd"),
    "eps": ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "epsilon"),
    "theta": ({"llama.rope.freq_base": float("inf")}, "freq_base"),
    "tokenizer": ({"tokenizer.ggml.model": "rwkv"}, "got 'rwkv'"),
    "pre": ({"tokenizer.ggml.pre": "qwen22"}, "Did you mean 'qwen2'"),
    "tokens": ({"tokenizer.ggml.tokens": ["a"] * (V + 1)}, "tokens"),
    "merges": ({"tokenizer.ggml.merges": ["Ġ nothing"]}, "merges"),
    "end": ({"tokenizer.ggml.eos_token_id": V}, "eos_token_id"),
    "types": ({"tokenizer.ggml.token_type": np.array([1, 2], "<i4")}, "token_type"),
}


ODD: list[Any] = [
    *(["x"], [], "", "\x1b[2J", True, 0.5, float("nan"), (1 << 32) - 1),
    *(np.array([1, 2], "<i4"), np.array([], "<f4"), np.array([np.nan], "<f4"), np.array([True])),
    *(b"\5\0\0\0\xff\xff\xff\xff", b"\x0a\0\0\0" + b"\xff" * 8),  # -1 and 2**64 - 1
]


@pytest.mark.parametrize("key", [*parts()[0], "split.count", "llama.rope.scaling.type", "tokenizer.ggml.eot_token_id"])
def test_values_of_any_type_are_used_or_refused(tmp_path: Path, key: str) -> None:
    for value in ODD:
        file = gguf_file(tmp_path / "a.gguf", **{key: value})
        try:
            out = import_file(file, tmp_path / "run", force=True)
        except BimoError:
            continue
        bimo.load(out)
        assert all("\x1b" not in path.read_text() for path in (out / "README.md", out / "lineage.json"))


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, name: str) -> None:
    changes, words = CHANGES[name]
    with pytest.raises(BimoError, match=words):
        import_file(gguf_file(tmp_path / "a.gguf", **changes), tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf"]


@pytest.mark.parametrize("key", [key for key in described(LLAMA) if key not in OPTIONAL])
def test_a_missing_value_is_named(tmp_path: Path, key: str) -> None:
    metadata, tensors = parts()
    del metadata[key]
    with pytest.raises(ModelError, match=WITHOUT.get(key, key)):
        import_file(write(tmp_path / "a.gguf", gguf_bytes(metadata, tensors)), tmp_path / "run")


def test_what_may_be_left_out_is_taken_from_the_rest(tmp_path: Path) -> None:
    metadata, tensors = parts(dataclasses.replace(LLAMA, rope_theta=10_000.0))
    for key in OPTIONAL:
        del metadata[key]
    content = gguf_bytes(metadata, tensors)
    model = load_model(import_file(write(tmp_path / "a.gguf", content), tmp_path / "run"))
    assert model.config == dataclasses.replace(LLAMA, rope_theta=10_000.0)


def test_a_kind_that_is_not_read_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    metadata, tensors = parts(dataclasses.replace(LLAMA, intermediate_size=256))
    kind = KINDS["IQ3_S"]
    tensors["blk.2.ffn_down.weight"] = Stored((256, 24), kind.number, bytes(24 * kind.bytes))
    with pytest.raises(ModelError, match="got IQ3_S"):
        import_file(write(tmp_path / "a.gguf", gguf_bytes(metadata, tensors)), tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf"]


SMALL_METADATA, SMALL_TENSORS = parts(dataclasses.replace(LLAMA, num_hidden_layers=1))
SMALL = gguf_bytes(SMALL_METADATA, SMALL_TENSORS)
HEADER = SMALL.index(SMALL_TENSORS["token_embd.weight"].data[:64])


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, HEADER - 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4))
def test_a_changed_header_is_imported_or_refused(tmp_path_factory: Any, changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(SMALL)
    for at, new in changes:
        content[at : at + len(new)] = new
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        import_file(write(folder / "a.gguf", bytes(content)), folder / "run")
        bimo.load(folder / "run")
    except BimoError:
        assert sorted(path.name for path in folder.iterdir()) in (["a.gguf"], ["a.gguf", "run"])


def test_only_an_imported_model_is_replaced(source: Path, tmp_path: Path) -> None:
    out = import_file(source, tmp_path / "run")
    with pytest.raises(RunError, match="--force"):
        import_file(source, out)
    (out / "mine.txt").write_text("x")
    assert import_file(source, out, force=True) == out and not (out / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    other = tmp_path / "other"
    other.mkdir()
    import_file(source, other)  # an empty folder is as good as none
    for path in (tmp_path, source):
        with pytest.raises(RunError, match="even --force does not replace"):
            import_file(source, path, force=True)
    (out / "lineage.json").write_text('{"kind": "base"}')
    with pytest.raises(RunError, match="did not make"):
        import_file(source, out, force=True)


@pytest.mark.parametrize("cause", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("name", ["write_config", "_packed", "render"])
def test_a_failure_leaves_what_was_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: BaseException, name: str
) -> None:
    out = import_file(source, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*_: Any, **__: Any) -> None:
        raise cause

    monkeypatch.setattr(import_gguf, name, fail)
    for target in (out, tmp_path / "new"):
        with pytest.raises((ModelError, KeyboardInterrupt), match=r"No space|^$"):
            import_file(source, target, force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "tiny.gguf"]


def test_a_full_disk_is_known_before(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 5_000_000))
    with pytest.raises(ModelError, match=r"67 MB free; got 5 MB"):
        import_file(source, tmp_path / "a" / "run")
    assert not (tmp_path / "a").exists()


def test_a_template_that_is_none_is_left_out(tmp_path: Path) -> None:
    file = gguf_file(tmp_path / "a.gguf", **{"tokenizer.chat_template": "{% for %}"})
    out = import_file(file, tmp_path / "run")
    assert not (out / "chat_template.jinja").exists() and Tokenizer.load(out).chat_template is None
    (note,) = json.loads((out / "lineage.json").read_text())["events"]
    assert "chat template is left out" in note and note.split(":")[0] in (out / "README.md").read_text()


def test_a_template_is_never_run_outside_the_sandbox(tmp_path: Path) -> None:
    attack = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.system('touch owned') }}"
    out = import_file(gguf_file(tmp_path / "a.gguf", **{"tokenizer.chat_template": attack}), tmp_path / "run")
    with pytest.raises(BimoError, match="unsafe"):
        bimo.load(out).chat([{"role": "user", "content": "x"}])
    assert not Path("owned").exists()


def test_unknown_precision(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="float32"):
        import_file(source, tmp_path / "run", dtype="float33")


def test_a_file_is_imported_into_the_cache_once(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIMO_CACHE", str(tmp_path / "cache"))
    first = import_gguf.imported(source)
    made = (first / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "other").mkdir()
    assert import_gguf.imported(write(tmp_path / "other" / source.name, source.read_bytes())) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    with pytest.raises(ModelError, match="cannot be read"):
        import_gguf.imported(tmp_path / "none.gguf")

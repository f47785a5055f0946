"""Going on from a model: what is taken over, what may be changed, and what a resumed run has."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import bimo
from bimo.config import from_mapping, read_yaml
from bimo.errors import BimoError, ConfigError, ModelError
from bimo.models import gpt2, llama, load_model, save_model
from bimo.run import Run
from bimo.tokenizer.extend import extend_tokenizer
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer
from bimo.train.build import build_model
from bimo.train.config import TrainConfig
from bimo.train.materials import open_materials
from bimo.train.origin import lineage_id, tokens_a_parameter
from bimo.train.pretrain import train

ENGLISH = ("the cat", "a dog", "my old friend", "the king", "one sailor")
CHINESE = ("诸葛亮大败曹操于赤壁", "关羽思念刘备", "却说曹操引兵追赶", "次日天明，众将皆至", "刘备闻之大喜")


def write_texts(folder: Path, sentences: tuple[str, ...], joiner: str) -> Path:
    folder.mkdir()
    for number in range(24):
        turned = sentences[number % len(sentences) :] + sentences[: number % len(sentences)]
        (folder / f"{number:02}.txt").write_text((joiner.join(turned) + f" {number}\n") * 12, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("en") / "text", ENGLISH, " sees ")


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("zh") / "text", CHINESE, "。")


@pytest.fixture(scope="module")
def settings(tiny: dict[str, Any]) -> dict[str, Any]:
    """The tiny configuration without its shape and tokenizer."""
    return {**{key: value for key, value in tiny.items() if key not in ("model", "tokenizer")}, "steps": 24}


@pytest.fixture(scope="module")
def parent(english: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An English run."""
    return train(english, None, tmp_path_factory.mktemp("runs") / "parent", config=tiny, quiet=True)


@pytest.fixture(scope="module")
def child(parent: Run, chinese: Path, settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The English run, gone on with Chinese text and tokens for it."""
    config = {**settings, "start": str(parent.path), "tokenizer": {"extend": 30}}
    return train(chinese, None, tmp_path_factory.mktemp("runs") / "child", config=config, quiet=True)


def hf_folder(folder: Path, model: Any, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32) -> Path:
    """A Hugging Face folder with fresh weights."""
    model.init_weights(torch.Generator().manual_seed(3))
    save_model(model.to(dtype), folder)
    tokenizer.save(folder)
    return folder


def test_shape_tokenizer_and_weights_come_from_the_folder(
    parent: Run, english: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    run = train(english, None, tmp_path / "run", config={**settings, "start": str(parent.path)}, quiet=True)
    before, after = load_model(parent.path), load_model(run.path)
    assert after.config == before.config
    assert Tokenizer.load(run.path).hash == Tokenizer.load(parent.path).hash
    first, last = run.read_metrics()[0], parent.read_metrics()[-1]
    assert first["bits_per_byte"] < 1.2 * last["bits_per_byte"] < 0.7 * parent.read_metrics()[0]["bits_per_byte"]
    config = read_yaml(run.config)
    assert config["optimizer"]["learning_rate"] == pytest.approx(0.02 / 3, rel=1e-2)
    assert config["model"]["initial"] == "start" and config["model"]["width"] == 24
    reasons = {choice["key"]: choice["reason"] for choice in run.read_lineage()["plan"]["choices"]}
    assert "a third" in reasons["optimizer.learning_rate"] and "weights" in reasons["start"]


def test_the_lineage_names_the_parents(parent: Run, child: Run, english: Path, settings: Any, tmp_path: Path) -> None:
    run = train(english, None, tmp_path / "run", config={**settings, "steps": 3, "start": str(child.path)}, quiet=True)
    told = run.read_lineage()["parent"]
    assert told["folder"] == str(child.path) and told["id"] == lineage_id(child.read_lineage())
    assert told["parent"]["folder"] == str(parent.path) and told["parent"]["id"] == lineage_id(parent.read_lineage())
    assert told["parent"]["parent"] is None
    both = told["tokens_a_parameter"] + told["parent"]["tokens_a_parameter"]
    assert tokens_a_parameter(told) == both > 0
    assert tokens_a_parameter(told | {"parent": {"folder": "smollm2", "parent": None}}) is None
    assert tokens_a_parameter(None) is None
    weights = [told["weights"], told["parent"]["weights"]]
    assert weights == [bimo_sha(run_.path / "model.safetensors") for run_ in (child, parent)]
    assert lineage_id(child.read_lineage()) != lineage_id(parent.read_lineage())


def bimo_sha(path: Path) -> str:
    from bimo.files import sha256_file

    return sha256_file(path)


def test_resuming_is_exact_even_when_the_parent_is_gone(
    parent: Run, child: Run, chinese: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    origin = shutil.copytree(parent.path, tmp_path / "origin")
    config = {**settings, "start": str(origin), "tokenizer": {"extend": 30}}
    run = train(chinese, None, tmp_path / "run", config=config, quiet=True)
    shutil.rmtree(origin)
    assert (run.path / "model.safetensors").read_bytes() == (child.path / "model.safetensors").read_bytes()
    for kept in (1, 0):
        run.lineage.write_text(json.dumps({**run.read_lineage(), "status": "running"}))
        for checkpoint in sorted(run.checkpoints.glob("step-*"))[kept:]:
            shutil.rmtree(checkpoint)
        (run.path / "model.safetensors").unlink()
        train(out=run, resume=True, quiet=True)
        assert (run.path / "model.safetensors").read_bytes() == (child.path / "model.safetensors").read_bytes()


def test_the_configuration_of_a_child_repeats_it(child: Run, tmp_path: Path) -> None:
    again = train(out=tmp_path / "again", config=child.config, quiet=True)
    assert (again.path / "model.safetensors").read_bytes() == (child.path / "model.safetensors").read_bytes()


def test_an_extended_run_loads_in_stock_transformers(parent: Run, child: Run) -> None:
    transformers = pytest.importorskip("transformers")
    ours = bimo.load(child)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(child.path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(child.path)
    text = "诸葛亮大败曹操，the king sees"
    ids = ours.tokenizer.encode(text)
    assert tokenizer(text)["input_ids"] == ids and max(ids) >= Tokenizer.load(parent.path).vocab_size
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits
    assert logits.shape[-1] == ours.tokenizer.vocab_size
    assert torch.allclose(ours.model(torch.tensor([ids])), logits, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_new_rows_are_means_of_their_pieces_and_old_logits_stay(
    family: str, tied: bool, settings: dict[str, Any], chinese: Path, tmp_path: Path
) -> None:
    if family == "gpt2" and not tied:
        pytest.skip("GPT-2 is always tied")
    tokenizer = train_tokenizer(["the king sees the cat. " * 9], 280)
    size = tokenizer.vocab_size
    model: Any
    if family == "gpt2":
        model = gpt2.Model(gpt2.Config(size, n_positions=32, n_embd=12, n_layer=2, n_head=3))
    else:
        model = llama.Model(llama.Config(size, 12, 20, 2, 3, 3, 4, 32, tie_word_embeddings=tied))
    folder = hf_folder(tmp_path / "model", model, tokenizer)
    config = {**settings, "steps": 1, "start": str(folder), "tokenizer": {"extend": 15}}
    run = train(chinese, None, tmp_path / "run", config=config, overrides=["model.context=16"], quiet=True)
    grown, new = load_model(run.checkpoints / "start"), Tokenizer.load(run.path)
    assert new.vocab_size == size + 15 == grown.config.vocab_size
    ids = torch.tensor([tokenizer.encode("the cat")])
    assert torch.allclose(grown(ids)[..., :size], load_model(folder)(ids), atol=1e-6)
    old_tables = [p for p in load_model(folder).parameters() if p.shape[0] == size]
    tables = [p for p in grown.parameters() if p.shape[0] == new.vocab_size]
    assert len(tables) == len(old_tables) == (1 if tied else 2)
    for old, table in zip(old_tables, tables, strict=True):
        for id in range(size, new.vocab_size):
            pieces = tokenizer.encode_bytes(new.token_bytes(id))
            assert len(pieces) > 1 and torch.allclose(table[id], old[pieces].mean(dim=0), atol=1e-6)


def test_a_bfloat16_folder_of_another_family_with_spare_rows_trains_in_float32(
    settings: dict[str, Any], chinese: Path, tmp_path: Path
) -> None:
    tokenizer = train_tokenizer(["the king sees the cat. " * 9], 280)
    shape = llama.Config(320, 12, 20, 2, 3, 1, 4, 32, model_type="qwen2", attention_bias=True, qk_norm=False)
    folder = hf_folder(tmp_path / "model", llama.Model(shape), tokenizer, torch.bfloat16)
    config = {**settings, "steps": 2, "start": str(folder), "tokenizer": {"extend": 15}}
    run = train(chinese, None, tmp_path / "run", config=config, quiet=True)
    model = load_model(run.path)
    assert model.config == dataclasses.replace(shape, eos_token_id=tokenizer.eos_id)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not torch.equal(model.state_dict()["model.norm.weight"], torch.ones(12))


def test_contexts_shrink_and_with_rotary_positions_grow(
    parent: Run, english: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    config = {**settings, "steps": 2, "start": str(parent.path)}
    for context in (9, 40):
        out = tmp_path / str(context)
        run = train(english, None, out, config=config, overrides=[f"model.context={context}"], quiet=True)
        assert load_model(run.path).config.max_position_embeddings == context
    tokenizer = Tokenizer.load(parent.path)
    model = gpt2.Model(gpt2.Config(tokenizer.vocab_size, n_positions=32, n_embd=12, n_layer=1, n_head=3))
    config["start"] = str(hf_folder(tmp_path / "gpt2", model, tokenizer))
    run = train(english, None, tmp_path / "short", config=config, overrides=["model.context=9"], quiet=True)
    assert load_model(run.path).config.max_position_embeddings == 9
    with pytest.raises(ConfigError, match=r"longer than the learned positions.*at most 32; got 33.*rotary"):
        train(english, None, tmp_path / "long", config=config, overrides=["model.context=33"], quiet=True)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["model.width=32"], ConfigError, r"model.width contradicts .*Expected 24; got 32.*Leave model.width out"),
        (["model.family=gpt2"], ConfigError, r"model.family contradicts .*Expected qwen3; got gpt2"),
        (["model.initial=random"], ConfigError, r"model.initial contradicts"),
        (["model.context=0"], ConfigError, "model.context is wrong"),
        (["tokenizer.vocab_size=500"], ConfigError, r"vocab_size contradicts .*extend=N"),
        (["tokenizer.extend=-3"], ConfigError, "tokenizer.extend is wrong"),
        (["start=no/such/folder"], ModelError, "no model at no/such/folder"),
        (["start=null", "tokenizer.extend=5"], ConfigError, r"tokenizer.extend needs a model.*--from"),
        (["start=null", "model.initial=start"], ConfigError, r"model.initial=start needs a model.*--from"),
    ],
)
def test_contradictions_are_named(
    overrides: list[str],
    error: type[BimoError],
    message: str,
    parent: Run,
    english: Path,
    settings: Any,
    tmp_path: Path,
) -> None:
    config = {**settings, "start": str(parent.path)}
    with pytest.raises(error, match=message):
        train(english, None, tmp_path / "run", config=config, overrides=overrides, quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_larger_tokenizer_of_the_same_tokens_is_taken_and_another_refused(
    parent: Run, english: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    larger = extend_tokenizer(Tokenizer.load(parent.path), CHINESE * 3, 20)
    other = train_tokenizer(CHINESE * 3, 330)
    for name, tokenizer in (("larger", larger), ("other", other)):
        (tmp_path / name).mkdir()
        tokenizer.save(tmp_path / name)
    config = {**settings, "steps": 2, "start": str(parent.path)}
    run = train(
        english, None, tmp_path / "run", config=config, overrides=[f"tokenizer.path={tmp_path}/larger"], quiet=True
    )
    assert load_model(run.path).config.vocab_size == larger.vocab_size > load_model(parent.path).config.vocab_size
    with pytest.raises(ConfigError, match=r"does not extend the tokenizer.*token \d+ is .* instead of"):
        train(english, None, tmp_path / "no", config=config, overrides=[f"tokenizer.path={tmp_path}/other"], quiet=True)


def test_held_out_text_that_a_parent_learned_from_is_told(
    parent: Run, english: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    config = {**settings, "steps": 2, "start": str(parent.path)}
    same = train(english, None, tmp_path / "same", config=config, quiet=True)
    other = train(english, None, tmp_path / "other", config={**config, "seed": 1}, quiet=True)
    assert not same.read_lineage()["events"]
    assert any("has seen some of what is held out" in event for event in other.read_lineage()["events"])


def test_a_child_computes_with_the_kernels_that_its_configuration_names(child: Run) -> None:
    config = from_mapping(TrainConfig, read_yaml(child.config), where="child")
    materials = open_materials(child, child.read_lineage()["data"])
    for kernels in (False, True):
        model = build_model(dataclasses.replace(config, kernels=kernels), materials, torch.device("cpu"))
        assert model.fused is kernels

"""The doctor: healthy trainings pass, each fault planted on purpose is named, and nothing moves."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bimo.batches.loader import Batch, PackedBatches
from bimo.batches.shards import encode_documents, write_tokens
from bimo.config import from_mapping
from bimo.errors import TrainingError
from bimo.models import load_model, save_model
from bimo.models.lora import LoraConfig, adapt
from bimo.optim import Optimizer
from bimo.text.document import Document
from bimo.tokenizer.train import train_tokenizer
from bimo.train import doctor, patient
from bimo.train.build import build_model, patient_of
from bimo.train.config import TrainConfig
from bimo.train.loop import divide
from bimo.train.materials import Materials
from bimo.train.patient import Finding, Patient

WORDS = {
    "en": (
        ("The cat", "A dog", "My old friend", "Nobody"),
        (" saw", " feared", " sold"),
        (" the moon", " bread", " you"),
    ),
    "zh": (("诸葛亮", "曹操", "关羽", "那老人"), ("大败", "思念", "追赶"), ("敌军", "故乡", "赤壁")),
}
ENDS = {"en": ". ", "zh": "。"}
CONTEXT, ROWS = 37, 6


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock decides a test."""
    monkeypatch.setattr(patient, "OVERFIT_SECONDS", math.inf)


def texts(language: str, count: int, seed: int) -> list[Document]:
    chance = random.Random(seed)

    def sentence() -> str:
        return "".join(chance.choice(part) for part in WORDS[language]) + str(chance.randrange(1000)) + ENDS[language]

    return [
        Document(f"{seed}-{n}.txt", "".join(sentence() for _ in range(chance.randint(3, 11))), f"{seed}-{n}.txt")
        for n in range(count)
    ]


def shards(folder: Path, train: list[Document], validation: list[Document], tokenizer: Any) -> Materials:
    facts = {"tokenizer_hash": tokenizer.hash, "data_hash": "0", "vocab_size": tokenizer.vocab_size}
    tokens = [
        write_tokens(folder, name, encode_documents(part, tokenizer), eos_id=tokenizer.eos_id, **facts)
        for name, part in (("train", train), ("validation", validation))
    ]
    return Materials(tokenizer, *tokens, {})


@pytest.fixture(scope="module", params=["en", "zh"])
def materials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Materials:
    train = texts(request.param, 42, seed=1)
    tokenizer = train_tokenizer((document.text for document in train), 330)
    folder = tmp_path_factory.mktemp("tokens")
    return shards(folder, train, texts(request.param, 5, seed=2), tokenizer)


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    train = texts("en", 42, seed=1)
    tokenizer = train_tokenizer((document.text for document in train), 330)
    return shards(tmp_path_factory.mktemp("tokens"), train, texts("en", 5, seed=2), tokenizer)


def settings(family: str = "qwen3", **values: Any) -> TrainConfig:
    shape = {"family": family, "width": 24, "layers": 2, "heads": 4, "kv_heads": 4 if family == "gpt2" else 2}
    shape |= {"mlp_width": 40, "context": CONTEXT, "initial": "random", "tie_embeddings": family == "gpt2"}
    shape |= values.pop("model", {})
    given = {"dtype": "float32", "compile": False, "model": shape, "batch": {"size": ROWS, "accumulate": 2}, **values}
    return from_mapping(TrainConfig, given, where="test")


def healthy(materials: Materials, folder: Path, config: TrainConfig | None = None) -> Patient:
    config = config or settings()
    model = build_model(config, materials, torch.device("cpu"))
    batches = PackedBatches(materials.train, batch_size=ROWS, context_length=CONTEXT, seed=3)
    return patient_of(config, materials, model, batches, folder)


def failed(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings if finding.ok is False}


# --- healthy trainings


@pytest.mark.parametrize(
    ("family", "model"),
    [
        ("qwen3", {}),
        ("qwen3", {"initial": "bigram"}),
        ("qwen3", {"tie_embeddings": True}),
        ("llama", {}),
        ("llama", {"tie_embeddings": True}),
        ("gpt2", {}),
    ],
)
def test_a_healthy_training_passes(materials: Materials, tmp_path: Path, family: str, model: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    examined = healthy(materials, tmp_path, settings(family, model=model, dtype="bfloat16"))
    examined.thorough = True
    findings = doctor.examine(examined)
    assert [finding.name for finding in findings] == [proof.name for proof in doctor.PROOFS]
    assert [finding for finding in findings if not finding.ok] == []
    assert all(finding.measured for finding in findings)
    doctor.require(findings)
    assert list(tmp_path.iterdir()) == []


def test_low_rank_on_a_slow_machine(english: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A has no gradient before B has moved, and weights left half way are no measure of precision."""
    monkeypatch.setattr(patient, "OVERFIT_SECONDS", -math.inf)
    adapt((one := healthy(english, tmp_path, settings(dtype="bfloat16"))).model, LoraConfig(rank=3))
    one.frozen = frozenset(name for name, parameter in one.model.named_parameters() if not parameter.requires_grad)
    one.skips = dict.fromkeys(("save and load", "transformers"), "an adapter is saved apart")
    assert failed(doctor.examine(one)) == set() and one.overfitted.steps == patient.OVERFIT_FEWEST


def test_nothing_moves(english: Materials, tmp_path: Path) -> None:
    examined = healthy(english, tmp_path, settings(model={"dropout": 0.3}, dtype="bfloat16"))
    for _ in range(3):
        next(examined.batches)
    examined.model.train()
    before = (
        copy.deepcopy(examined.model.state_dict()),
        examined.batches.state(),
        torch.get_rng_state(),
        random.getstate(),
        repr(np.random.get_state()),
        examined.model.compute_dtype,
    )
    wanted = next(copy.deepcopy(examined.batches))
    doctor.examine(examined)
    assert all(torch.equal(before[0][name], tensor) for name, tensor in examined.model.state_dict().items())
    assert all(parameter.grad is None for parameter in examined.model.parameters()) and examined.model.training
    assert examined.batches.state() == before[1] and torch.equal(torch.get_rng_state(), before[2])
    assert (random.getstate(), repr(np.random.get_state()), examined.model.compute_dtype) == before[3:]
    assert torch.equal(next(examined.batches).input_ids, wanted.input_ids)


def test_batches_of_no_stream_and_parameters_frozen_on_purpose(english: Materials, tmp_path: Path) -> None:
    """As a tuning has them: prompts are masked, a part of the model stays as it is, there are no shards."""
    one = healthy(english, tmp_path)
    one.model.model.layers[0].requires_grad_(False)
    frozen = frozenset(name for name, parameter in one.model.named_parameters() if not parameter.requires_grad)
    masked = with_batches(lambda batch, _: dataclasses.replace(batch, loss_mask=batch.loss_mask & (batch.labels > 40)))
    ends = with_batches(lambda batch, _: dataclasses.replace(batch, loss_mask=batch.loss_mask | (batch.labels == 0)))
    assert english.tokenizer.eos_id == 0
    tuned = dataclasses.replace(ends(masked(one)), train=None, validation=None, frozen=frozen)
    findings = doctor.examine(tuned)
    assert not failed(findings), [finding for finding in findings if finding.ok is False]
    skipped = {finding.name for finding in findings if finding.ok is None} - {"transformers", "precision"}
    assert skipped == {"nothing cut off", "shared text"}
    shifted = with_batches(lambda batch, _: dataclasses.replace(batch, labels=batch.labels.roll(-1, dims=1)))
    assert "labels" in failed(doctor.examine(shifted(tuned)))
    assert "end of text" in failed(doctor.examine(dataclasses.replace(tuned, ends=frozenset({1}))))
    skipping = doctor.examine(dataclasses.replace(tuned, skips={"padding": "not here"}))
    assert next(finding for finding in skipping if finding.name == "padding").measured == "not here"
    assert failed(doctor.examine(dataclasses.replace(tuned, frozen=frozenset()))) == {"gradients"}


# --- faults


class Faulty:
    """Batches with a fault."""

    def __init__(self, batches: Any, fault: Callable[[Batch], Batch]) -> None:
        self._batches, self._fault = batches, fault
        self.rows_per_epoch = batches.rows_per_epoch

    def __next__(self) -> Batch:
        return self._fault(next(self._batches))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def state(self) -> Any:
        return self._batches.state()

    def load_state(self, state: Any) -> None:
        self._batches.load_state(state)


def with_batches(fault: Callable[[Batch, Patient], Batch]) -> Callable[[Patient], Patient]:
    def plant(one: Patient) -> Patient:
        return dataclasses.replace(one, batches=Faulty(one.batches, lambda batch: fault(batch, one)))

    return plant


def shift_labels_again(batch: Batch, one: Patient) -> Batch:
    places = batch.positions[:, None] + torch.arange(CONTEXT) + 2
    ids = torch.from_numpy(one.train.ids[places.numpy() % one.train.count].astype(np.int64))
    return dataclasses.replace(batch, labels=ids)


def labels_are_inputs(batch: Batch, one: Patient) -> Batch:
    return dataclasses.replace(batch, labels=batch.input_ids)


def empty_mask(batch: Batch, one: Patient) -> Batch:
    return dataclasses.replace(batch, loss_mask=torch.zeros_like(batch.loss_mask))


def mask_the_ends(batch: Batch, one: Patient) -> Batch:
    return dataclasses.replace(batch, loss_mask=batch.loss_mask & (batch.labels != one.tokenizer.eos_id))


def count_positions_on(batch: Batch, one: Patient) -> Batch:
    return dataclasses.replace(batch, position_ids=torch.arange(CONTEXT).expand_as(batch.position_ids))


def one_segment(batch: Batch, one: Patient) -> Batch:
    return dataclasses.replace(batch, segment_ids=torch.zeros_like(batch.segment_ids))


class Dropping(PackedBatches):
    """Leaves out the rest of the text that fills no row."""

    def __init__(self, tokens: Any, **options: Any) -> None:
        super().__init__(tokens, **options)
        self.rows_per_epoch = tokens.count // self.context_length


def drop_the_rest(one: Patient) -> Patient:
    assert one.train and one.train.count % CONTEXT
    return dataclasses.replace(one, batches=Dropping(one.train, batch_size=ROWS, context_length=CONTEXT, seed=3))


def loss_with(change: Callable[[Tensor, Batch], Tensor]) -> Callable[[Patient], Patient]:
    """A loss written out, of nats (B, T) in the place of the labels."""

    def loss(model: Any, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        hidden = model.hidden(batch.input_ids, position_ids=batch.position_ids, segment_ids=batch.segment_ids)
        return change(F.linear(hidden.float(), model.output_weight), batch), {}

    return lambda one: dataclasses.replace(one, loss=loss)


def shifted_again(logits: Tensor, batch: Batch) -> Tensor:
    nats = F.cross_entropy(logits[:, :-1].transpose(1, 2), batch.labels[:, 1:], reduction="none")
    return nats[batch.loss_mask[:, 1:]].mean()


def mask_ignored(logits: Tensor, batch: Batch) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())


def rows_counted(logits: Tensor, batch: Batch) -> Tensor:
    nats = F.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none")
    return (nats * batch.loss_mask).sum() / batch.labels.numel()


def with_model(fault: Callable[[Any], object]) -> Callable[[Patient], Patient]:
    def plant(one: Patient) -> Patient:
        fault(one.model)
        return one

    return plant


def with_hidden(hidden: Callable[..., Tensor]) -> Callable[[Patient], Patient]:
    """A model, saved and loaded ones too, of a class whose hidden states are computed another way."""

    def plant(model: Any) -> Any:
        model.__class__ = type("Planted", (model.__class__,), {"hidden": hidden})
        return model

    def planted(one: Patient) -> Patient:
        return dataclasses.replace(one, model=plant(one.model), load=lambda folder: plant(load_model(folder)))

    return planted


def ignoring_segments(self: Any, input_ids: Tensor, **ids: Any) -> Tensor:
    return super(type(self), self).hidden(input_ids, **{**ids, "segment_ids": None})


def seeing_the_next(self: Any, input_ids: Tensor, **ids: Any) -> Tensor:
    hidden = super(type(self), self).hidden(input_ids, **ids)
    return hidden + 0.3 * hidden.roll(-1, dims=1)


def wrong_in_bfloat16(self: Any, input_ids: Tensor, **ids: Any) -> Tensor:
    hidden = super(type(self), self).hidden(input_ids, **ids)
    return hidden if hidden.dtype == torch.float32 else hidden * 1.05


def broken_weight(model: Any) -> None:
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = math.nan


def loud_output(model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight.mul_(20)


class Silent(nn.Module):
    """A layer that gives nothing on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.weight = inner.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.detach())


def dead_layer(model: Any) -> None:
    attention = model.model.layers[0].self_attn
    attention.v_proj = Silent(attention.v_proj)


def frozen_layer(model: Any) -> None:
    model.model.layers[1].requires_grad_(False)


def forget_a_parameter(one: Patient) -> Patient:
    def forgetful(model: Any) -> Optimizer:
        optimizer = Optimizer(model, one.config.optimizer)
        for part in optimizer._parts:
            for group in part.param_groups:
                group["params"] = [p for p in group["params"] if p is not model.model.layers[1].mlp.up_proj.weight]
        return optimizer

    return dataclasses.replace(one, make_optimizer=forgetful)


def mean_of_means(batch: Batch, parts: int) -> list[tuple[Batch, float]]:
    return [(part, 1 / parts) for part, _ in divide(batch, parts)]


def save_without_precision(model: Any, folder: Path) -> None:
    save_model(model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].bfloat16().float()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def save_without_a_tensor(model: Any, folder: Path) -> None:
    save_model(model, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


# what is planted, the proof that must name it, what it must say, the configuration
FAULTS: dict[str, tuple[Callable[[Patient], Patient], str, str, TrainConfig]] = {
    "labels shifted twice": (with_batches(shift_labels_again), "labels", "the id 2 ahead", settings()),
    "labels not shifted": (with_batches(labels_are_inputs), "labels", "the id 0 ahead", settings()),
    "empty mask": (with_batches(empty_mask), "loss mask", "0 of ", settings()),
    "ends masked": (with_batches(mask_the_ends), "end of text", "0 of ", settings()),
    "the rest dropped": (drop_the_rest, "nothing cut off", "are never learned", settings()),
    "positions go on": (with_batches(count_positions_on), "positions", "0 of ", settings()),
    "positions go on, learned ones": (with_batches(count_positions_on), "positions", "0 of ", settings("gpt2")),
    "one segment for all": (with_batches(one_segment), "packing", "labels after", settings()),
    "attention leaks": (with_hidden(ignoring_segments), "packing", "labels after", settings()),
    "attention leaks, gpt2": (with_hidden(ignoring_segments), "packing", "after", settings("gpt2")),
    "the future is seen": (with_hidden(seeing_the_next), "causality", "earlier labels", settings()),
    "loss shifts again": (loss_with(shifted_again), "loss", "on rows of", settings()),
    "loss ignores the mask": (loss_with(mask_ignored), "padding", "other labels", settings()),
    "padding in the denominator": (loss_with(rows_counted), "padding", "a further row", settings()),
    "NaN": (with_model(broken_weight), "weights", "model.layers.1.mlp.up_proj.weight", settings()),
    "loud output": (with_model(loud_output), "first loss", "ln(", settings()),
    "dead layer": (with_model(dead_layer), "gradients", "always zero: model.layers.0.self_attn.v_proj", settings()),
    "frozen layer": (with_model(frozen_layer), "gradients", "frozen (requires_grad=False): model.layers.1", settings()),
    "forgotten": (forget_a_parameter, "optimizer", "still: model.layers.1.mlp.up_proj.weight", settings()),
    "mean of means": (lambda one: dataclasses.replace(one, divide=mean_of_means), "accumulation", "passes", settings()),
    "imprecise": (
        *(with_hidden(wrong_in_bfloat16), "precision", "bfloat16"),
        settings(dtype="bfloat16"),
    ),
    "a save that rounds": (
        lambda one: dataclasses.replace(one, save=save_without_precision),
        "save and load",
        "of",
        settings(),
    ),
    "a save that loses": (
        *(lambda one: dataclasses.replace(one, save=save_without_a_tensor), "save and load", "norm.weight"),
        settings(),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_no_other(english: Materials, tmp_path: Path, fault: str) -> None:
    plant, name, told, config = FAULTS[fault]
    findings = doctor.examine(plant(healthy(english, tmp_path, config)))
    assert failed(findings) == {name}, [(finding.name, finding.measured) for finding in findings if finding.ok is False]
    (found,) = [finding for finding in findings if finding.name == name]
    assert told in found.measured and found.expected and found.fix
    with pytest.raises(TrainingError) as error:
        doctor.require(findings)
    assert all(part in str(error.value) for part in (name, found.measured, found.fix, "--no-doctor"))


def test_what_cannot_learn_does_not_overfit(english: Materials, tmp_path: Path) -> None:
    """Labels that have nothing to do with the inputs' model: the output matrix alone learns, from nothing."""
    one = healthy(english, tmp_path)

    def blind(self: Any, input_ids: Tensor, **ids: Any) -> Tensor:
        return super(type(self), self).hidden(torch.full_like(input_ids, 7), position_ids=ids.get("position_ids"))

    assert "overfits" in failed(doctor.examine(with_hidden(blind)(one)))


def test_validation_text_in_the_training_text_is_named(english: Materials, tmp_path: Path) -> None:
    train, validation = texts("en", 42, seed=1), texts("en", 5, seed=2)
    longest = max(validation, key=lambda document: len(document.text))
    assert len(english.tokenizer.encode(longest.text)) > 64
    copied = shards(tmp_path, [*train, dataclasses.replace(longest, id="copy.txt")], validation, english.tokenizer)
    found = doctor.examine(healthy(copied, tmp_path))
    assert failed(found) == {"shared text"}
    assert any("1 equal documents" in one.measured and longest.id in one.measured for one in found)


def test_a_long_span_of_validation_text_is_named(english: Materials, tmp_path: Path) -> None:
    train, validation = texts("en", 42, seed=1), texts("en", 5, seed=2)
    longest = max(validation, key=lambda document: len(document.text))
    train[7] = dataclasses.replace(train[7], text="Once more: " + longest.text[5:-9] + train[7].text)
    copied = shards(tmp_path, train, validation, english.tokenizer)
    found = doctor.examine(healthy(copied, tmp_path))
    assert failed(found) == {"shared text"}
    assert any(
        "0 equal documents" in one.measured and f"{longest.id} and {train[7].id}" in one.measured for one in found
    )


def test_a_large_text_is_sampled(english: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bimo.train.overlap.MOST_TOKENS", 600)
    monkeypatch.setattr("bimo.train.overlap.BLOCK", 200)
    monkeypatch.setattr(patient, "MOST_BATCHES", 3)
    findings = doctor.examine(healthy(english, tmp_path))
    assert not failed(findings)
    told = {finding.name: finding.measured for finding in findings}
    assert "in a sample" in told["shared text"] and f"the first {3 * ROWS * CONTEXT} of" in told["nothing cut off"]
    dropping = doctor.examine(drop_the_rest(healthy(english, tmp_path)))
    assert failed(dropping) == {"nothing cut off"}


def test_a_proof_that_needs_a_failed_one_waits(english: Materials, tmp_path: Path) -> None:
    findings = {one.name: one for one in doctor.examine(with_model(broken_weight)(healthy(english, tmp_path)))}
    assert findings["loss"].ok is None and findings["loss"].measured == "waits for: weights"
    assert findings["transformers"].measured == "waits for: save and load, causality" and findings["labels"].ok


def test_every_need_is_an_earlier_proof() -> None:
    names = [proof.name for proof in doctor.PROOFS]
    assert len(set(names)) == len(names)
    for number, proof in enumerate(doctor.PROOFS):
        assert set(proof.needs) <= set(names[:number]), proof.name


def test_findings_can_be_recorded(english: Materials, tmp_path: Path) -> None:
    findings = doctor.examine(healthy(english, tmp_path))
    recorded = json.loads(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    assert recorded[0]["name"] == "labels" and recorded[0]["ok"] is True

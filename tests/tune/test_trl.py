"""TRL as the outside witness: loss, figures and one step of AdamW of DPO, ORPO, KTO and GRPO on the same batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from bimo.batches.loader import Batch
from bimo.models import llama, load_model, save_model
from bimo.optim import Optimizer, OptimizerConfig
from bimo.train.loop import Loss, Progress, fit
from bimo.tune import policy
from bimo.tune.examples import example
from bimo.tune.rewarded import Drawn, PolicyObjective, rollout_batch, rollout_loss
from bimo.tune.units import Objective, Unit, reference_of, unit_batch, unit_loss, unit_of, with_reference

trl = pytest.importorskip("trl")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.slow

VOCABULARY = 37
RATE = 0.01


class Models(NamedTuple):
    """The same weights twice, and others of the same shape as the reference, again twice."""

    ours: llama.Model
    theirs: Any
    our_reference: llama.Model
    their_reference: Any


def make_models(folder: Path) -> Models:
    config = llama.Config(
        vocab_size=VOCABULARY, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64, model_type="llama", qk_norm=False,
        attention_bias=False, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    models = []
    for seed in (3, 4):
        model = llama.Model(config)
        model.init_weights(torch.Generator().manual_seed(seed))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2.0)  # sharper than fresh weights: different answers differ in likelihood
        save_model(model, folder / str(seed))
        models.append(load_model(folder / str(seed)))
        models.append(transformers.AutoModelForCausalLM.from_pretrained(folder / str(seed), dtype=torch.float32))
    return Models(*models)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return make_models(tmp_path)


@pytest.fixture
def tokenizer() -> Any:
    import tokenizers

    words = {f"w{number}": number for number in range(VOCABULARY)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w2"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="w0", eos_token="w1", pad_token="w2", unk_token="w2"
    )


def arguments(kind: Any, folder: Path, **more: Any) -> Any:
    common = {"use_cpu": True, "report_to": [], "per_device_train_batch_size": 5, "logging_steps": 1, "bf16": False}
    return kind(output_dir=str(folder), **common, **more)


def ids(*numbers: int) -> list[int]:
    return list(numbers)


PROMPTS = [ids(0, 5, 6), ids(0, 7), ids(0, 8, 9, 10, 11), ids(0, 12), ids(0, 5, 13)]
CHOSEN = [ids(20, 21, 1), ids(22, 23, 24, 25, 1), ids(26, 1), ids(27, 28, 29, 1), ids(30, 31, 1)]
REJECTED = [ids(21, 20, 30, 31, 1), ids(32, 1), ids(33, 34, 35, 1), ids(36, 1), ids(20, 1)]


def pairs(prompts: list[list[int]] = PROMPTS, chosen: list[list[int]] = CHOSEN) -> list[Unit]:
    return [unit_of(example(p, c), example(p, r)) for p, c, r in zip(prompts, chosen, REJECTED, strict=True)]


def one_step(model: llama.Model, batch: Batch, loss: Loss, parts: int) -> Progress:
    config = OptimizerConfig(name="adamw", learning_rate=RATE, adamw_learning_rate=RATE, weight_decay=0.0, clip=1.0)
    progress = Progress(steps=1)
    optimizer = Optimizer(model, config)
    return fit(model, iter([batch]), loss, optimizer, lambda step, steps: 1.0, progress=progress, accumulate=parts)


def their_step(trainer: Any, inputs: dict[str, Tensor]) -> float:
    model = trainer.model
    model.train()
    loss = trainer.compute_loss(model, inputs)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0).step()
    return float(loss.detach())


def assert_same_weights(ours: llama.Model, theirs: Any, before: dict[str, Tensor]) -> None:
    others = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert not torch.equal(parameter, before[name]), f"{name} did not move"
        # AdamW's first step is the sign of the gradient: where that is next to nothing, rounding decides.
        off = (parameter - others[name]).abs()
        assert off.mean() < 1e-3 * RATE and (off > 0.02 * RATE).float().mean() < 0.01, name


def weights(model: llama.Model) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def figures(trainer: Any) -> dict[str, float]:
    return {name: float(values[-1]) for name, values in trainer._metrics["train"].items()}


ROWS, LENGTH = [[0, 3], [1], [2, 4]], 26
SAME = {
    "reward_chosen": "rewards/chosen",
    "reward_rejected": "rewards/rejected",
    "reward_margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "logprob_chosen": "logps/chosen",
    "logprob_rejected": "logps/rejected",
}


def assert_same_figures(ours: Any, theirs: dict[str, float], names: dict[str, str]) -> None:
    assert {name: ours[name] for name in names} == pytest.approx({n: theirs[t] for n, t in names.items()}, abs=2e-5)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("method", "loss_type"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_dpo_and_ipo(models: Models, tokenizer: Any, tmp_path: Path, method: Any, loss_type: str, parts: int) -> None:
    from datasets import Dataset

    data = Dataset.from_list([{"prompt": "w0 w5", "chosen": " w20", "rejected": " w21"}])
    config = arguments(trl.DPOConfig, tmp_path, beta=0.3, loss_type=[loss_type], max_length=None)
    trainer = trl.DPOTrainer(
        models.theirs, models.their_reference, config, train_dataset=data, processing_class=tokenizer
    )
    rows = [
        {"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in zip(PROMPTS, CHOSEN, REJECTED, strict=True)
    ]
    theirs = their_step(trainer, trainer.data_collator(rows))
    units = pairs()
    units = with_reference(units, reference_of(models.our_reference, units, 2, 16))
    batch, before = unit_batch(units, ROWS, LENGTH), weights(models.ours)
    objective = Objective(method, beta=0.3)
    progress = one_step(models.ours, batch, lambda model, part: unit_loss(model, part, objective), parts)
    assert progress.loss == pytest.approx(theirs, abs=1e-5 * max(1, theirs))
    assert_same_figures(progress.metrics, figures(trainer), SAME)
    assert_same_weights(models.ours, models.theirs, before)


@pytest.mark.parametrize("parts", [1, 3])
def test_orpo(models: Models, tokenizer: Any, tmp_path: Path, parts: int) -> None:
    """TRL also learns the prompt, and averages over the tokens of all answers: here neither makes a difference."""
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    prompts, chosen = [[number] for number in (0, 3, 4, 5, 6)], [[*answer, 1, 1, 1][:4] for answer in CHOSEN]
    data = Dataset.from_list([{"prompt": "w5", "chosen": "w20", "rejected": "w21"}])
    trainer = ORPOTrainer(
        models.theirs, arguments(ORPOConfig, tmp_path, beta=0.3), train_dataset=data, processing_class=tokenizer
    )
    inputs: dict[str, Tensor] = {}
    for name, answers in (("chosen", chosen), ("rejected", REJECTED)):
        whole = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        padded = [row + [2] * (max(map(len, whole)) - len(row)) for row in whole]
        inputs[f"{name}_input_ids"] = torch.tensor(padded)
        mask = torch.tensor([[place < len(row) for place in range(len(padded[0]))] for row in whole])
        inputs[f"{name}_attention_mask"] = mask.long()
        labels = torch.tensor(padded).masked_fill(~mask, -100)
        labels[:, 0] = -100
        inputs[f"{name}_labels"] = labels
    theirs = their_step(trainer, inputs)
    recorded = {name: float(values[-1]) for name, values in trainer._stored_metrics["train"].items()}
    units = pairs(prompts, chosen)
    batch, before = unit_batch(units, ROWS, LENGTH), weights(models.ours)
    objective = Objective("orpo", beta=0.3)
    progress = one_step(models.ours, batch, lambda model, part: unit_loss(model, part, objective), parts)
    assert progress.loss == pytest.approx(theirs, abs=1e-5 * max(1, theirs))
    same = {name: SAME[name] for name in ("reward_chosen", "reward_rejected", "reward_margin", "accuracy")}
    assert_same_figures(progress.metrics, recorded, same)
    assert_same_weights(models.ours, models.theirs, before)


def test_kto(models: Models, tokenizer: Any, tmp_path: Path) -> None:
    from datasets import Dataset

    desirable = [True, False, True, True, False]
    data = Dataset.from_list([{"prompt": "w0 w5", "completion": " w20", "label": True} for _ in range(2)])
    config = arguments(
        trl.KTOConfig, tmp_path, beta=0.3, desirable_weight=0.7, undesirable_weight=1.3, max_length=None,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = trl.KTOTrainer(
        models.theirs, models.their_reference, config, train_dataset=data, processing_class=tokenizer
    )
    others = [CHOSEN[-1], *CHOSEN[:-1]]
    rows = [
        {"prompt_ids": p, "completion_ids": c, "KL_completion_ids": o, "label": d}
        for p, c, o, d in zip(PROMPTS, CHOSEN, others, desirable, strict=True)
    ]
    theirs = their_step(trainer, trainer.data_collator(rows))
    units = [
        unit_of(example(p, c), example(p, o), d) for p, c, o, d in zip(PROMPTS, CHOSEN, others, desirable, strict=True)
    ]
    units = with_reference(units, reference_of(models.our_reference, units, 2, 16))
    batch, before = unit_batch(units, ROWS, LENGTH), weights(models.ours)
    objective = Objective("kto", beta=0.3, weights=(0.7, 1.3))
    progress = one_step(models.ours, batch, lambda model, part: unit_loss(model, part, objective), 1)
    assert progress.loss == pytest.approx(theirs, abs=1e-5)
    same = {name: SAME[name] for name in ("reward_chosen", "reward_rejected", "logprob_chosen", "logprob_rejected")}
    assert_same_figures(progress.metrics, figures(trainer), {**same, "kl": "kl"})
    assert_same_weights(models.ours, models.theirs, before)


@pytest.mark.parametrize(("parts", "exact"), [(1, False), (3, True)])
@pytest.mark.parametrize(("average", "loss_type"), [("answers", "grpo"), ("tokens", "bnpo"), ("constant", "dr_grpo")])
def test_grpo(
    models: Models, tokenizer: Any, tmp_path: Path, average: Any, loss_type: str, parts: int, exact: bool
) -> None:
    from datasets import Dataset

    data = Dataset.from_list([{"prompt": "w0 w5"}])
    config = arguments(
        trl.GRPOConfig, tmp_path, beta=0.2, loss_type=loss_type, epsilon=0.1, epsilon_high=0.3, num_generations=5,
        max_completion_length=9, use_bias_correction_kl=exact,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        models.theirs, lambda completions, **_: [0.0] * len(completions), config, train_dataset=data,
        processing_class=tokenizer,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    sizes = torch.tensor([len(answer) for answer in CHOSEN])
    mask = (torch.arange(5) < sizes[:, None]).long()
    old, reference = (torch.randn(5, 5, generator=generator) * 0.3 - 4.5 for _ in range(2))
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.0, 2.0]])
    advantages = policy.group_advantages(rewards)[0]
    longest = max(map(len, PROMPTS))
    inputs = {
        "prompt_ids": torch.tensor([[2] * (longest - len(p)) + p for p in PROMPTS]),
        "prompt_mask": torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in PROMPTS]),
        "completion_ids": torch.tensor([answer + [2] * (5 - len(answer)) for answer in CHOSEN]),
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
    }
    trainer.current_gradient_accumulation_steps = 1
    theirs = their_step(trainer, inputs)
    shares = policy.token_weights(sizes, average, 9)
    drawn = [
        Drawn(
            example(PROMPTS[place], CHOSEN[place]), float(advantages[place]), float(shares[place]),
            old[place, : sizes[place]].numpy(), reference[place, : sizes[place]].numpy(),
        )
        for place in range(5)
    ]  # fmt: skip
    batch, before = rollout_batch(drawn, ROWS, LENGTH, [0.7, 0.0, 3.4, 1.0, 0.0]), weights(models.ours)
    objective = PolicyObjective(clip_low=0.1, clip_high=0.3, kl=0.2, exact_kl=exact)
    progress = one_step(models.ours, batch, lambda model, part: rollout_loss(model, part, objective), parts)
    assert progress.loss == pytest.approx(theirs, abs=2e-5)
    assert_same_figures(progress.metrics, figures(trainer), {"kl": "kl", "clipped": "clip_ratio/region_mean"})
    assert progress.metrics["clipped"] > 0
    assert_same_weights(models.ours, models.theirs, before)


def test_advantages_are_trl_s() -> None:
    """The formula that TRL's trainer has inside its rollout, written out."""
    rewards = torch.tensor([[1.0, 0.0, 0.25], [2.0, 2.0, 2.0], [0.0, 1.0, 1.0]])
    mean, spread = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    assert torch.allclose(policy.group_advantages(rewards), (rewards - mean) / (spread + 1e-4))
    assert torch.allclose(policy.group_advantages(rewards, "batch"), (rewards - mean) / (rewards.std() + 1e-4))
    assert torch.allclose(policy.group_advantages(rewards, "none"), rewards - mean)

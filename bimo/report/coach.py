"""The overfitting coach: what the curves of a training say, in a sentence, and the one thing to do about it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bimo.report.classifier_card import unit_of_bits
from bimo.report.facts import at, bits_of, entries, number, text, validation_bits_of
from bimo.report.words import Said

Verdict = Literal[
    "short", "learning", "healthy", "undertrained", "memorising", "overfitted", "flat", "noisy", "diverged"
]

FEWEST_VALIDATIONS, FEWEST_STEPS = 4, 20  # below, a curve says nothing
WIDER, WIDE = 0.03, 0.08  # growth of the gap, as a share of validation, from which it is clear, and wide
TURNED = 0.003  # share by which validation must lie above its lowest value to have turned: less is noise
AFTER_THE_TURN = 2  # validations that must say so
STILL_FALLING = 0.02  # share of validation that the second half must have brought for more training to pay
NEW_TEXT = 4.0  # readings up to which a repeated text teaches almost as a new one (Muennighoff et al. 2023, §5)
LOST = 1.15  # times its lowest value at which the training curve counts as diverged
SPIKE, SPIKES = 6.0, 0.01  # in standard deviations of the steps before; the share of such steps that is too many
SPIKE_SHARE = 0.1  # by which a spike must lie above the steps before it


@dataclass(frozen=True)
class Advice:
    """What the coach says, in English and Chinese.

    Attributes:
        verdict: which case it is.
        headline: one sentence.
        gap: how far training and validation lie apart, in words.
        action: the one thing to do.
        evidence: the numbers behind it, a sentence each.
        turned: the step of the lowest validation, where validation has risen since.
    """

    verdict: Verdict
    headline: Said
    gap: Said
    action: Said
    evidence: tuple[Said, ...]
    turned: int | None = None

    @property
    def sentence(self) -> Said:
        """Headline and action."""
        return Said(f"{self.headline.en} {self.action.en}", f"{self.headline.zh}{self.action.zh}")


@dataclass(frozen=True)
class Course:
    """The curves, reduced to what the coach looks at.

    Attributes:
        last: the newest step.
        validations: (step, bits), in order.
        gaps: validation minus training, smoothed, at each validation; None where training is not known.
        repeats: times that the text was read by each validation; None where its length is not known.
        running: whether the training goes on.
        spikes: steps whose loss leapt.
        steps: steps with a loss.
        diverged: whether the loss is not a number or has risen far above where it was.
        unit: what the bits are of: a byte, or where classes are learned a label.
    """

    last: int
    validations: tuple[tuple[int, float], ...]
    gaps: tuple[float | None, ...]
    repeats: tuple[float | None, ...]
    running: bool
    spikes: tuple[int, ...]
    steps: int
    diverged: bool
    unit: Literal["byte", "label"] = "byte"

    @property
    def best(self) -> tuple[int, float]:
        """Step and value of the lowest validation."""
        return min(self.validations, key=lambda one: one[1])

    @property
    def turned(self) -> bool:
        """Whether validation has risen since its lowest value, by more than noise."""
        step, lowest = self.best
        after = [value for at_step, value in self.validations if at_step > step]
        return len(after) >= AFTER_THE_TURN and statistics.mean(after[-AFTER_THE_TURN:]) > (1 + TURNED) * lowest

    @property
    def growth(self) -> float | None:
        """How much wider the gap is than while the text was new, as a share of validation.

        Training bits are measured with dropout, while the weights move, and on other text than validation, so the
        gap is not zero for a model that has memorised nothing. It was not zero during the first reading either, when
        nothing could be memorised: that gap is the offset, and only what has been added since is overfitting.
        """
        known = [(gap, read) for gap, read in zip(self.gaps, self.repeats, strict=True) if gap is not None]
        if len(known) < 2:
            return None
        first = [gap for gap, read in known if read is not None and read <= 1][-5:] or [known[0][0]]
        now = [gap for gap, _ in known][-2:]
        return (statistics.mean(now) - statistics.median(first)) / max(1e-9, self.validations[-1][1])

    @property
    def second_half(self) -> float | None:
        """By what share validation fell from the middle of the training to its lowest value."""
        middle = [value for step, value in self.validations if step <= self.last / 2]
        return 1 - self.best[1] / middle[-1] if middle and middle[-1] > 0 else None


def advise(
    records: Sequence[Mapping[str, Any]], lineage: Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> Advice:
    """What the records of ``metrics.jsonl`` and the values of ``lineage.json`` say of a training.

    Args:
        config: of ``bimo.yaml``, for advice that names a value; without it, what the plan chose is known.

    Lines without a usable number are passed over. Nothing here is certain: it is what an experienced reader of such
    curves would say first.
    """
    course = read_course(records, lineage)
    evidence = _evidence(course)
    gap, shape = _gap(course), _shape(lineage, config)
    if course.diverged:
        return Advice("diverged", *_diverged(records, lineage), evidence)
    if len(course.validations) < FEWEST_VALIDATIONS or course.steps < FEWEST_STEPS:
        return _short(course, evidence)
    if len(course.spikes) > max(2, SPIKES * course.steps):
        headline = Said(
            f"The loss leapt at {len(course.spikes)} steps, last at step {course.spikes[-1]:,}.",
            f"损失有 {len(course.spikes)} 步突然跳高，最近一次在第 {course.spikes[-1]:,} 步。",
        )
        return Advice("noisy", headline, gap, _lower_rate(records), evidence)
    wide = course.growth or 0.0
    if course.turned and (wide > WIDER or _often_read(course)):
        step, _ = course.best
        return Advice("overfitted", _turned(course), gap, _against_overfitting(course, shape), evidence, step)
    if course.turned or _stopped_early(lineage):
        return _flat(course, shape, gap, evidence)
    if wide > WIDE:
        headline = Said(
            "Validation still falls, but the training text is learnt much faster than new text.",
            "验证值仍在下降，但模型学训练文本比学新文本快得多。",
        )
        return Advice("memorising", headline, gap, _against_overfitting(course, shape), evidence)
    if course.running:
        headline = Said("Healthy so far: training and validation fall together.", "目前正常：训练与验证同步下降。")
        action = Said("Let it run.", "继续训练即可。")
        return Advice("learning", headline, gap, action, evidence)
    return _finished_well(course, gap, evidence)


def read_course(records: Sequence[Mapping[str, Any]], lineage: Mapping[str, Any]) -> Course:
    """Reduce records and lineage to a :class:`Course`."""
    rows = [(round(step), record) for record in records if (step := number(record.get("step"))) is not None]
    bits = [(step, value) for step, record in rows if (value := bits_of(record)) is not None]
    validations, gaps, repeats = [], [], []
    tokens_in_text = _tokens_in_text(lineage)
    since, began = 0, 0  # rows of training bits since the last validation
    for step, record in rows:
        value = validation_bits_of(record)
        if value is None:
            continue
        while since < len(bits) and bits[since][0] <= step:
            since += 1
        recent = [one for _, one in bits[max(began, since - max(5, (since - began) // 2)) : since]]
        tokens = number(record.get("tokens"))
        validations.append((step, value))
        gaps.append(value - statistics.mean(recent) if recent else None)
        repeats.append(tokens / tokens_in_text if tokens is not None and tokens_in_text else None)
        began = since
    return Course(
        last=rows[-1][0] if rows else 0,
        validations=tuple(validations),
        gaps=tuple(gaps),
        repeats=tuple(repeats),
        running=text(lineage.get("status")) not in ("finished", "interrupted"),
        spikes=tuple(spikes(bits)),
        steps=len(bits),
        diverged=_lost(rows, bits, lineage),
        unit=unit_of_bits(text(lineage.get("kind"))),
    )


def spikes(bits: Sequence[tuple[int, float]], window: int = 20) -> list[int]:
    """The steps whose loss leapt far above those before them, the steep beginning left out; a leap counts once."""
    found: list[int] = []
    begin = max(window, len(bits) // 20)
    for place in range(begin, len(bits)):
        before = sorted(value for _, value in bits[place - window : place])
        middle, low, high = before[window // 2], before[window // 4], before[3 * window // 4]
        deviation = (high - low) / 1.35  # of a normal distribution with these quartiles
        step, value = bits[place]
        leapt = value > middle + SPIKE * deviation and value > (1 + SPIKE_SHARE) * middle
        if leapt and (not found or step - found[-1] > window):
            found.append(step)
    return found


def _lost(rows: Sequence[tuple[int, Any]], bits: Sequence[tuple[int, float]], lineage: Mapping[str, Any]) -> bool:
    events = lineage.get("events")
    if isinstance(events, list) and any("diverged" in text(event) for event in events):
        return True
    if rows and any(
        not math.isfinite(record[key]) for _, record in rows[-3:] for key in ("loss",) if _is_float(record, key)
    ):
        return True
    if len(bits) < FEWEST_STEPS:
        return False
    size = max(5, len(bits) // 20)
    means = [statistics.mean(value for _, value in bits[at : at + size]) for at in range(0, len(bits) - size + 1, size)]
    return means[-1] > LOST * min(means) and len(means) > 2


def _is_float(record: Mapping[str, Any], key: str) -> bool:
    return isinstance(record.get(key), float)


def _tokens_in_text(lineage: Mapping[str, Any]) -> float | None:
    nbytes, length = number(at(lineage, "data.train.bytes")), number(at(lineage, "tokenizer.bytes_per_token"))
    return nbytes / length if nbytes and length else None


def _often_read(course: Course) -> bool:
    return (course.repeats[-1] or 0.0) > NEW_TEXT


def _stopped_early(lineage: Mapping[str, Any]) -> bool:
    events = lineage.get("events")
    return isinstance(events, list) and any("stopped early" in text(event) for event in events)


def _times(repeats: float) -> str:
    return f"{repeats:.0f}" if repeats >= 10 else f"{repeats:.1f}"


def _turned(course: Course) -> Said:
    step, _ = course.best
    repeats = course.repeats[-1]
    en, zh = f"Validation turned at step {step:,}", f"验证值自第 {step:,} 步起回升"
    if repeats is not None and repeats > 1:
        return Said(f"{en}: the text is read {_times(repeats)} times.", f"{zh}：文本已读 {_times(repeats)} 遍。")
    return Said(f"{en}, though the text is still new.", f"{zh}，而文本尚未读完一遍。")


def _shape(lineage: Mapping[str, Any], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Width and dropout of the model: what the plan chose, and what ``bimo.yaml`` says."""
    chosen = {text(one.get("key")): one.get("value") for one in entries(at(lineage, "plan.choices"))}
    known = {}
    for name in ("width", "dropout"):
        said = number(at(config or {}, f"model.{name}"))
        known[name] = said if said is not None else number(chosen.get(f"model.{name}"))
    return known


def _against_overfitting(course: Course, shape: Mapping[str, Any]) -> Said:
    """More dropout first; with that, a smaller model; else the end that validation asked for."""
    dropout, width = shape["dropout"], shape["width"]
    if not _often_read(course):
        if course.turned:
            step, _ = course.best
            return Said(
                f"Stopping there would do as well: --set steps={step}.", f"到那里停止效果相同：--set steps={step}。"
            )
        return Said("Add more text if you have it.", "如有更多文本，请加入训练。")
    if dropout is not None and dropout < 0.2:
        more = 0.1 if dropout < 0.1 else 0.2
        return Said(f"Try more dropout: --set model.dropout={more}.", f"可增大随机失活：--set model.dropout={more}。")
    if width is not None and width >= 128:
        half = round(width / 2)
        return Said(
            f"A model half as wide would probably do as well: --set model.width={half}.",
            f"宽度减半的模型大概效果相当：--set model.width={half}。",
        )
    return Said("More text would help most.", "增加文本最有帮助。")


def _lower_rate(records: Sequence[Mapping[str, Any]], factor: float = 0.5) -> Said:
    for record in reversed(records):
        rate, multiplier = number(record.get("learning_rate")), number(record.get("learning_rate_multiplier"))
        if rate and multiplier:
            lower = f"{factor * rate / multiplier:.2g}"
            return Said(
                f"Try a lower learning rate: --set optimizer.learning_rate={lower}.",
                f"可降低学习率：--set optimizer.learning_rate={lower}。",
            )
    return Said(
        "Try half the learning rate: --set optimizer.learning_rate=…", "可将学习率减半：--set optimizer.learning_rate=…"
    )


def _diverged(records: Sequence[Mapping[str, Any]], lineage: Mapping[str, Any]) -> tuple[Said, Said, Said]:
    last = next((round(step) for one in reversed(records) if (step := number(one.get("step"))) is not None), 0)
    headline = Said(
        f"Training diverged: by step {last:,} the loss had left where it was.",
        f"训练发散：到第 {last:,} 步，损失已远离原处。",
    )
    gap = Said("There is no gap to speak of: the model has lost what it learnt.", "谈不上差距：模型已丢失所学。")
    return headline, gap, _lower_rate(records, 0.3)


def _short(course: Course, evidence: tuple[Said, ...]) -> Advice:
    if course.running:
        headline = Said("Too early to say.", "现在下结论还太早。")
        action = Said(f"Wait for {FEWEST_VALIDATIONS} validations.", f"请等到 {FEWEST_VALIDATIONS} 次验证之后。")
    else:
        headline = Said("The training is too short to say how it went.", "训练太短，无法判断好坏。")
        action = Said("Give it a longer --budget.", "请加长 --budget。")
    return Advice("short", headline, Said("Not known yet.", "尚不清楚。"), action, evidence)


def _flat(course: Course, shape: Mapping[str, Any], gap: Said, evidence: tuple[Said, ...]) -> Advice:
    step, _ = course.best
    headline = Said(
        f"Validation has not improved since step {step:,}, and the gap is small: the model is full, not overfitted.",
        f"自第 {step:,} 步起验证值不再改善，而差距很小：模型已学满，并未过拟合。",
    )
    width = shape["width"]
    if width is None:
        action = Said("Try a larger model.", "可换用更大的模型。")
    else:
        wider = round(width * 1.5 / 64) * 64 or round(width * 1.5)
        action = Said(f"Try a wider model: --set model.width={wider}.", f"可加宽模型：--set model.width={wider}。")
    return Advice("flat", headline, gap, action, evidence, step if course.turned else None)


def _finished_well(course: Course, gap: Said, evidence: tuple[Said, ...]) -> Advice:
    fell, repeats = course.second_half, course.repeats[-1]
    if fell is not None and fell > STILL_FALLING and (repeats or 0.0) <= NEW_TEXT:
        read, read_zh = _little_read(repeats)
        headline = Said(f"Validation was still falling at the end{read}.", f"结束时验证值仍在下降{read_zh}。")
        return Advice(
            "undertrained", headline, gap, Said("A longer budget would still pay.", "加长预算仍有收益。"), evidence
        )
    headline = Said("Healthy: training and validation fell together.", "正常：训练与验证同步下降。")
    if (repeats or 0.0) > NEW_TEXT:
        action = Said("To go lower, add more text.", "要更进一步，请增加文本。")
    else:
        action = Said("To go lower, train a larger model for longer.", "要更进一步，请用更大的模型训练更久。")
    return Advice("healthy", headline, gap, action, evidence)


def _little_read(repeats: float | None) -> tuple[str, str]:
    if repeats is None:
        return "", ""
    if repeats < 0.95:
        return f", and only {repeats:.0%} of the text was read", f"，文本也只读了 {repeats:.0%}"
    return f", and the text was read only {_times(repeats)} times", f"，文本也只读了 {_times(repeats)} 遍"


def _gap(course: Course) -> Said:
    """How far apart training and validation are, and since when."""
    growth = course.growth
    gap = next((one for one in reversed(course.gaps) if one is not None), None)
    if growth is None or gap is None:
        return Said("Not known yet.", "尚不清楚。")
    value = course.validations[-1][1]
    added = f"{abs(growth * value):.3f}"
    if growth <= 0.01:
        return Said(
            "No overfitting: training and validation lie no further apart than when the text was new.",
            "没有过拟合：训练与验证的差距不比文本初读时大。",
        )
    en, zh = ("small", "小") if growth <= WIDER else ("clear", "明显") if growth <= WIDE else ("wide", "大")
    unit, unit_zh = course.unit, "标签" if course.unit == "label" else "字节"
    return Said(
        f"A {en} gap: validation has fallen behind by {added} bits per {unit} ({growth:.0%}) since the text was new.",
        f"差距{zh}：与文本初读时相比，验证落后了 {added} 比特每{unit_zh}（{growth:.0%}）。",
    )


def _evidence(course: Course) -> tuple[Said, ...]:
    found = []
    if course.validations:
        step, lowest = course.best
        found.append(
            Said(f"lowest validation: {lowest:.3f} at step {step:,}", f"最低验证值：{lowest:.3f}，在第 {step:,} 步")
        )
        newest, value = course.validations[-1]
        if newest != step:
            found.append(
                Said(
                    f"newest validation: {value:.3f} at step {newest:,}", f"最新验证值：{value:.3f}，在第 {newest:,} 步"
                )
            )
        if (repeats := course.repeats[-1]) is not None:
            found.append(Said(f"text read {_times(repeats)} times", f"文本已读 {_times(repeats)} 遍"))
    if course.second_half is not None and not course.running:
        share = f"{abs(course.second_half):.1%}"
        way, way_zh = ("fell", "下降") if course.second_half >= 0 else ("rose", "上升")
        found.append(Said(f"second half: validation {way} by {share}", f"后一半训练：验证值{way_zh} {share}"))
    if course.spikes:
        count = len(course.spikes)
        found.append(Said(f"loss spikes: {count}", f"损失尖峰：{count} 次"))
    return tuple(found)

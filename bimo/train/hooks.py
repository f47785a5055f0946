"""What happens between steps: validation and early stopping, metrics, the deadline, Ctrl-C, checkpoints."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bimo.run import Run
from bimo.train.average import Average
from bimo.train.display import Display, TrainingBar
from bimo.train.loop import Hook, Progress
from bimo.train.record import Pace

SLACK, TRIFLE = 1.03, 0.3  # times what is left, and seconds, that may be missing before the schedule is shortened
SETTLED = 0.3  # of the steps, before which validation may get worse without meaning anything
FEWEST_TIMED = 10  # steps before the deadline is believed to be in danger
LAST_LOOKS = 4  # at the clock, where there was one before: nothing makes up for what the last steps take too long
OVERDUE = 1.5  # times the planned time from one look at the clock to the next, after which one comes early
BESIDE = 0.5  # of what follows the loop that it takes longer beside other programs
EARLY = 0.15  # of the steps; a schedule is lengthened when more are done: the pace is known, nothing warms up again
WORTH_LENGTHENING = 1.02  # times the steps: less is not worth it
FIGURES = 3  # of a loss that are shown while it is learned
INTERRUPTED = "interrupted"


@dataclass
class Best:
    """Validations so far; part of every checkpoint.

    Attributes:
        bits_per_byte: the lowest.
        step: when it was.
        since: validations after it.
    """

    bits_per_byte: float | None = None
    step: int = 0
    since: int = 0


class Validate:
    """Measures the validation text; keeps the best weights, stops when they no longer improve.

    Args:
        measure: the validation bits per byte of the model as it is.
        keep: saves the weights, called at each new best.
        patience: validations without a new best after which training stops; 0 = never.
        average: of the last weights; once there is one, it is measured too, and the better of the two counts.
    """

    def __init__(
        self,
        measure: Callable[[], float],
        keep: Callable[[], None],
        *,
        every: int,
        patience: int,
        best: Best,
        average: Average | None = None,
    ) -> None:
        self._measure, self._keep, self._every, self._patience = measure, keep, every, patience
        self.best, self._average = best, average
        self.last: tuple[int, float] | None = None  # step and bits per byte of the newest validation

    def __call__(self, progress: Progress) -> None:
        if progress.step % self._every and progress.step != progress.steps:
            return
        value, improved = self._measure(), False
        if self._average and self._average.count:
            with self._average.applied():
                averaged = self._measure()
                if averaged < value:
                    value, improved = averaged, self._improved(progress.step, averaged)
        improved |= self._improved(progress.step, value)  # unless that was the average, which is kept already
        self.last = (progress.step, value)
        if improved:
            return
        self.best.since += 1
        if self._patience and self.best.since >= self._patience and progress.step >= progress.steps * SETTLED:
            progress.stop = f"validation has not improved since step {self.best.step}"

    def _improved(self, step: int, value: float) -> bool:
        """Whether this is the best validation so far; then the weights are kept as they are."""
        if self.best.bits_per_byte is not None and value >= self.best.bits_per_byte:
            return False
        self.best.bits_per_byte, self.best.step, self.best.since = value, step, 0
        self._keep()
        return True


class Report:
    """Writes ``metrics.jsonl`` and moves the training bar.

    Args:
        bits_per_nat: turns the loss into bits per byte of the training text; None for a loss of another kind.
        peak_share: share of the machine's matmul peak that one token a second takes.
        read: tokens that are read for each that is learned.
        rates: peak learning rates, by the name that their present values get in the record.
        unit: what the bits are shown for: bytes of text, or labels.

    Attributes:
        record: the newest line.
    """

    def __init__(
        self,
        run: Run,
        bar: TrainingBar,
        validate: Validate,
        *,
        bits_per_nat: float | None,
        peak_share: float,
        read: float = 1.0,
        rates: Mapping[str, float] | None = None,
        unit: str = "byte",
    ) -> None:
        self._run, self._bar, self._validate = run, bar, validate
        self._bits_per_nat, self._rates, self._unit = bits_per_nat, rates or {}, unit
        self._pace = Pace(peak_share, read)
        self._smooth = math.nan
        self.record: dict[str, Any] = {}

    def __call__(self, progress: Progress) -> None:
        value = progress.loss * (self._bits_per_nat or 1.0)
        self._smooth = value if math.isnan(self._smooth) else 0.95 * self._smooth + 0.05 * value
        in_bits = self._bits_per_nat is not None
        record = self.record = {
            "step": progress.step,
            "steps": progress.steps,
            "loss": round(progress.loss, 6),
            **({f"bits_per_{self._unit}": round(value, 6)} if in_bits else {}),
            **{name: round(one, 6) for name, one in progress.metrics.items()},
            "gradient_norm": round(progress.gradient_norm, 6),
            "learning_rate_multiplier": round(progress.multiplier, 6),
            **{name: float(f"{peak * progress.multiplier:.4g}") for name, peak in self._rates.items()},
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 3),
            **self._pace.after(progress),
        }
        if self._validate.last and self._validate.last[0] == progress.step:
            measured = f"validation_bits_per_{self._unit}" if in_bits else "validation_loss"
            record[measured] = round(self._validate.last[1], 6)
        self._run.append_metrics(record)
        pace = ""
        if not math.isnan(self._pace.tokens_per_second):
            pace = f"  {self._pace.tokens_per_second:,.0f} tokens/s  {self._pace.utilisation:.0%} of peak"
        held_out = f"  validation {self._validate.last[1]:.3f}" if self._validate.last else ""
        told = f"{self._smooth:.3f} bits/{self._unit}" if in_bits else _told(progress.metrics)
        facts = f"loss {progress.loss:.3f}  {told}{held_out}{pace}"
        self._bar.show(progress.step, progress.steps, facts)


def _told(metrics: Mapping[str, float]) -> str:
    """The first figures of a loss, in a line."""
    return "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in [*metrics.items()][:FIGURES])


class Deadline:
    """Keeps the promise of a wall-clock budget: when the machine is slower than planned, the cool-down comes earlier.

    Where it is faster, the time is used: of a rate that falls already, what is left at most doubles, so that it rises
    but little. Another schedule takes effect together with a checkpoint that holds it, so that a resumed run has it
    too.

    Args:
        end: of the loop, ``time.monotonic()``, if what follows takes the time planned for it.
        every: steps from one look at the clock to the next.
        most: steps, more would teach next to nothing; None where their number was not the plan's choice.
        seconds_a_step: planned, pauses included; where steps take much longer, ``fit_threads`` is called early.
        closing: seconds planned for what follows the loop.
        fit_threads: gives way to other programs, and says which share of the threads computes from now on.
    """

    def __init__(
        self,
        end: float,
        *tell: Callable[[str], None],
        every: int,
        most: int | None = None,
        seconds_a_step: float = math.inf,
        closing: float = 0.0,
        fit_threads: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._end, self._tell, self._every, self._most = end, tell, every, most
        self._last_every = max(1, every // LAST_LOOKS)
        self._patience, self._closing, self._fit_threads = OVERDUE * every * seconds_a_step, closing, fit_threads
        self._mark: tuple[int, float] | None = None
        self._looked, self._share = 0.0, 1.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._mark is None:
            if progress.step % self._every:
                return
            # After the first validation, which is slower than those that follow.
            self._mark, self._looked = (progress.step, now), now
        since, begin = self._mark
        taken = progress.step - since
        near_the_end = progress.steps - progress.step < self._every
        due = taken > 0 and taken % (self._last_every if near_the_end else self._every) == 0
        if progress.step >= progress.steps or not (due or now - self._looked > self._patience):
            return
        self._looked, before, self._share = now, self._share, self._fit_threads()
        if self._share != before:
            self._mark = None  # the first steps are slower again
        elif due and taken >= FEWEST_TIMED:
            self._correct(progress, now, (now - begin) / taken)

    def _correct(self, progress: Progress, now: float, seconds_a_step: float) -> None:
        left, steps = self._end - now - (BESIDE * self._closing if self._share < 1 else 0.0), progress.steps
        affordable = progress.step + max(1, int(left / seconds_a_step))
        if (steps - progress.step) * seconds_a_step > max(SLACK * left, left + TRIFLE):
            self._change(progress, affordable, "slower", "shortened")
        elif (longer := self._longer(progress.step, steps, affordable)) > steps:
            self._change(progress, longer, "faster", "lengthened")

    def _longer(self, step: int, steps: int, affordable: int) -> int:
        """The steps of a longer schedule, when ``affordable`` would use up the time; or as many as now."""
        longer = min(affordable, self._most or 0, int(step / EARLY), 2 * steps - step)
        return longer if longer >= WORTH_LENGTHENING * steps else steps

    def _change(self, progress: Progress, steps: int, pace: str, done: str) -> None:
        for tell in self._tell:
            tell(
                f"step {progress.step}: the machine is {pace} than planned; "
                f"training is {done} from {progress.steps} to {steps} steps"
            )
        progress.steps, progress.checkpoint = steps, True


@contextlib.contextmanager
def stopping_on_signals(display: Display) -> Iterator[Hook]:
    """A hook that ends training after the step in which Ctrl-C or SIGTERM came; a second one ends it at once."""
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        display.note("stopping after this step; once more to stop at once")

    def hook(progress: Progress) -> None:
        if received and not progress.stop:
            progress.stop = INTERRUPTED

    if threading.current_thread() is not threading.main_thread():
        yield hook
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield hook
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Checkpointing:
    """Saves every so many steps, when another hook asks for it, and when training stops."""

    def __init__(self, save: Callable[[Progress], None], *, every: int) -> None:
        self._save, self._every = save, every

    def __call__(self, progress: Progress) -> None:
        if progress.checkpoint or progress.stop or progress.step % self._every == 0 or progress.step == progress.steps:
            self._save(progress)


def progress_state(progress: Progress, best: Best) -> dict[str, Any]:
    """What a checkpoint keeps of the two."""
    kept = {name: getattr(progress, name) for name in ("step", "steps", "tokens", "seconds")}
    kept["stop"] = "" if progress.stop == INTERRUPTED else progress.stop
    return {"progress": kept, "best": asdict(best)}

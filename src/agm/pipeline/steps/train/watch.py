"""What training looks at between two batches: signals that ask it to stop, the clock, and whether numbers are finite.

Looking at a GPU's numbers makes the host wait for it, and asking the other processes of a run costs a message; so both
happen once in a while, and for all of them at the same batch. A checkpoint is only written behind such a look: what it
holds is good.
"""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import Tensor

from agm import distributed

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""What a cluster sends at the time limit and for pre-emption, Ctrl-C, and the two that a person may choose."""
SAVE_EVERY_SECONDS = 300.0
LOOK_EVERY_BATCHES = 25


def named(number: int) -> str:
    """SIGTERM, and so on."""
    return signal.Signals(number).name


class Signals:
    """Whether one of `SIGNALS` has come; the first is noted, and what was under way goes on to its end.

    Attributes:
        received: its number, or 0.
    """

    def __init__(self) -> None:
        self.received = 0

    @contextmanager
    def listening(self) -> Iterator["Signals"]:
        """Note signals instead of ending, for a while."""
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)  # who presses Ctrl-C twice does not want to wait


class Watch:
    """Notes every step; looks, all processes together.

    Attributes:
        signals: those of this process.
        stop: the signal for which all are to stop, or 0; set by `look`.
        save: whether a checkpoint is due; set by `look`.
        bad: of the steps since the last look, the first whose loss or gradient is not finite; None for none.
    """

    def __init__(self, device: torch.device, signals: Signals | None = None) -> None:
        self.signals = signals or Signals()
        self.every = 1 if device.type == "cpu" and not distributed.initialized() else LOOK_EVERY_BATCHES
        self.noted: list[tuple[int, Tensor]] = []
        self.stop, self.save, self.bad = 0, False, None
        self.saved_at = time.monotonic()

    def note(self, number: int, loss: Tensor, norm: Tensor) -> None:
        """Take in the loss and the norm of the gradients of batch `number`."""
        self.noted.append((number, torch.stack([loss.detach().double(), norm.double()])))

    def due(self, done: int) -> bool:
        """Whether to look behind so many batches of an epoch: the same answer in every process."""
        return done % self.every == 0

    def look(self) -> None:
        """Bring `stop`, `save` and `bad` up to date."""
        bad = self._first_bad()
        late = time.monotonic() - self.saved_at > SAVE_EVERY_SECONDS
        flags = distributed.any_process([late, *(self.signals.received == number for number in SIGNALS)])
        self.save, self.bad = flags[0], bad
        self.stop = next((number for number, raised in zip(SIGNALS, flags[1:], strict=True) if raised), 0)
        if self.save:
            self.saved_at = time.monotonic()

    def _first_bad(self) -> tuple[int, str] | None:
        """The first step that is not finite, and what of it: the same in every process, as sums carry NaN along."""
        noted, self.noted = self.noted, []
        if not noted:
            return None
        values = distributed.summed(torch.stack([value for _, value in noted])).cpu()
        for (number, _), (loss, norm) in zip(noted, values.tolist(), strict=True):
            for name, value in (("loss", loss), ("gradient", norm)):
                if not math.isfinite(value):
                    return number, f"the {name} is {value}"
        return None

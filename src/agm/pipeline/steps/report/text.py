"""Numbers and lists as a reader sees them."""

from collections.abc import Sequence

from agm.metrics.intervals import Difference, Interval

NOTHING = "–"


def number(value: float, digits: int = 3) -> str:
    """A fixed number of decimals with a true minus sign; a value that rounds to zero has no sign."""
    text = f"{value:.{digits}f}".replace("-", "−")
    is_zero = not text.strip("−0.")
    return text.removeprefix("−") if is_zero else text


def signed(value: float) -> str:
    """A difference: always with its sign."""
    text = number(value)
    return text if text.startswith("−") else f"+{text}"


def interval(mean: Interval) -> str:
    """'0.953 ± 0.012'; the bare mean where there is no interval."""
    if mean.half is None:
        return number(mean.mean)
    return f"{number(mean.mean)} ± {number(mean.half)}"


def of_seeds(n: int, seeds: int) -> str:
    """' (2 of 3)' behind a number over fewer seeds than the study has; nothing behind any other."""
    return "" if n == seeds else f" ({n} of {seeds})"


def over_seeds(n: int, seeds: int) -> str:
    """The same in words: ' (over 2 of 3 seeds)'."""
    return "" if n == seeds else f" (over {n} of {count(seeds, 'seed')})"


def p_value(p: float | None) -> str:
    """A p-value, never as zero."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_clause(difference: Difference) -> str:
    """The test's result inside a sentence, with its number of pairs."""
    if difference.n == 1:
        return "one seed"
    if difference.p is None:
        return f"the same with each of {difference.n} seeds, so no p-value"
    relation = p_value(difference.p)
    # A very small p-value has a relation of its own: "p < 0.001".
    if not relation.startswith("<"):
        relation = f"= {relation}"
    return f"paired {unbroken(f'p {relation}')}, {unbroken(f'n = {difference.n}')}"


def unbroken(text: str) -> str:
    """The text with no-break spaces, so that it stays on one line."""
    return text.replace(" ", "\u00a0")


def effect(difference: Difference, confidence: float) -> str:
    """'+0.110, 95 % interval +0.060 to +0.160, paired p = 0.012, n = 3'."""
    parts = [signed(difference.mean)]
    if difference.low is not None and difference.high is not None:
        parts.append(f"{percent(confidence)} interval {signed(difference.low)} to {signed(difference.high)}")
    parts.append(p_clause(difference))
    return ", ".join(parts)


def percent(share: float) -> str:
    """'95 %'."""
    return unbroken(f"{share * 100:g} %")


def compact(value: float) -> str:
    """Three significant digits over any range."""
    return f"{value:#.3g}".removesuffix(".").replace("-", "−")


def joined(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    if not names:
        return NOTHING
    *first, last = names
    if not first:
        return last
    return f"{', '.join(first)} and {last}"


def count(amount: int, thing: str) -> str:
    """'1 seed', '3 seeds', '2,000 clips'."""
    return f"{amount:,} {thing}" if amount == 1 else f"{amount:,} {thing}s"


def sentence(text: str) -> str:
    """The text with a capital letter at its start."""
    return text[:1].upper() + text[1:]

"""Numbers and lists as a reader sees them."""

from collections.abc import Sequence

from agm.metrics.intervals import Difference, Interval

NOTHING = "–"


def number(value: float, digits: int = 3) -> str:
    """A fixed number of decimals with a true minus sign; a value that rounds to zero has no sign."""
    text = f"{value:.{digits}f}".replace("-", "−")
    return text.removeprefix("−") if not text.strip("−0.") else text


def signed(value: float) -> str:
    """A difference: always with its sign."""
    text = number(value)
    return text if text.startswith("−") else f"+{text}"


def interval(found: Interval) -> str:
    """'0.953 ± 0.012'; the bare mean where there is no interval."""
    return number(found.mean) if found.half is None else f"{number(found.mean)} ± {number(found.half)}"


def of_all(n: int, seeds: int) -> str:
    """' (2 of 3)' behind a number over fewer seeds than the study has; nothing behind any other."""
    return "" if n == seeds else f" ({n} of {seeds})"


def over(n: int, seeds: int) -> str:
    """The same in words: ' (over 2 of 3 seeds)'."""
    return "" if n == seeds else f" (over {n} of {count(seeds, 'seed')})"


def p_value(p: float | None) -> str:
    """A p-value, never as zero."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_clause(found: Difference) -> str:
    """The test's result inside a sentence, with its number of pairs."""
    if found.n == 1:
        return "one seed"
    if found.p is None:
        return f"the same with each of {found.n} seeds, so no p-value"
    relation = p_value(found.p) if found.p < 0.001 else f"= {p_value(found.p)}"
    return f"paired {kept(f'p {relation}')}, {kept(f'n = {found.n}')}"


def kept(text: str) -> str:
    """The text on one line."""
    return text.replace(" ", "\u00a0")


def evidence(found: Difference, confidence: float) -> str:
    """'+0.110, 95 % interval +0.060 to +0.160, paired p = 0.012, n = 3'."""
    parts = [signed(found.mean)]
    if found.low is not None and found.high is not None:
        parts.append(f"{percent(confidence)} interval {signed(found.low)} to {signed(found.high)}")
    return ", ".join([*parts, p_clause(found)])


def percent(share: float) -> str:
    """'95 %'."""
    return kept(f"{share * 100:g} %")


def compact(value: float) -> str:
    """Three significant digits over any range."""
    return f"{value:#.3g}".removesuffix(".").replace("-", "−")


def several(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else NOTHING


def count(amount: int, thing: str) -> str:
    """'1 seed', '3 seeds', '2,000 clips'."""
    return f"{amount:,} {thing}" if amount == 1 else f"{amount:,} {thing}s"


def sentence(text: str) -> str:
    """With a capital letter at its start."""
    return text[:1].upper() + text[1:]

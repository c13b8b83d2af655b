"""Numbers, formatted for readers."""

from __future__ import annotations

import math


def score(bits_per_byte: float | None, margin: float | None = None) -> str:
    """Format bits per byte with its margin, to two digits of the margin, else to four places; empty if None.

    >>> score(1.94342, 0.0213), score(1.94342), score(None)
    ('1.943 ± 0.021', '1.9434', '')
    """
    if bits_per_byte is None:
        return ""
    if not margin:
        return f"{bits_per_byte:.4f}"
    places = min(max(1 - math.floor(math.log10(margin)), 2), 4)
    return f"{bits_per_byte:.{places}f} ± {margin:.{places}f}"


def duration(seconds: float) -> str:
    """Format seconds as minutes and seconds, or hours, minutes and seconds.

    >>> duration(59.7), duration(3725)
    ('1:00', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(number: float) -> str:
    """Format bytes in the largest decimal unit that leaves a digit before the point.

    >>> size(999), size(999_960), size(1_234_000_000)
    ('999 bytes', '1.0 MB', '1.2 GB')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if round(number, 1) < 1000:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def optional(value: float | None, form: str) -> str:
    """Format `value` by `form`; empty if None."""
    return "" if value is None else format(value, form)


def forecast(value: float, low: float, high: float) -> str:
    """Format the value with its bounds, or only the upper bound if the lower one is not above zero.

    >>> forecast(1.93, 1.88, 1.99), forecast(0.01, 0.0, 0.25)
    ('1.930 [1.880, 1.990]', 'below 0.250')
    """
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if low > 0 else f"below {high:.3f}"

"""When the dates of a place were: as stated, or as the names of their files tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from geoseg.errors import InputError

_DAY = r"(?:0[1-9]|[12]\d|3[01])"
_MONTH = r"(?:0[1-9]|1[0-2])"
_STATED = re.compile(rf"(\d{{4}})(?:-({_MONTH})(?:-({_DAY}))?)?")
_COMPACT = re.compile(rf"((?:19|20)\d\d)({_MONTH})({_DAY})")
_IN_NAMES = (
    re.compile(rf"(?<!\d)((?:19|20)\d\d)[-_]?({_MONTH})[-_]?({_DAY})(?!\d)"),
    re.compile(r"(?<!\d)((?:19|20)\d\d)(?!\d)"),
)


def times_of(paths: Sequence[str], stated: Sequence[str] | None = None) -> tuple[str, ...] | None:
    """A time for each date, as text that sorts by time; None where nothing tells.

    Args:
        paths: of the dates, in their order.
        stated: years, months (2020-06), days (2020-06-01 or 20200601), or numbers.

    Raises:
        InputError: the dates are not in the order of time, or the stated times are no times or of another number.
    """
    if stated is None:
        found = [_told_by(path) for path in paths]
        if any(time is None for time in found) or len({*found}) < len(found):
            return None
        times, whence = [time or "" for time in found], ", as their names tell"
    else:
        if len(stated) != len(paths):
            raise InputError(f"There are {len(paths)} dates and {len(stated)} times; give one for each.")
        times, whence = [_parsed(text) for text in stated], ""
    for (one, first), (other, second) in pairwise(zip(times, paths, strict=True)):
        if not _key(one) < _key(other):
            raise InputError(
                f"The dates are in the wrong order{whence}: {Path(first).name} is of {one} and {Path(second).name}, "
                f"given after it, of {other}. Give the earliest first, or state other --times."
            )
    return tuple(times)


def _told_by(path: str) -> str | None:
    """The one day in a file's name, or else the one year."""
    for pattern in _IN_NAMES:
        found = {"-".join(match.groups()) for match in pattern.finditer(Path(path).stem)}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _parsed(text: str) -> str:
    text = text.strip()
    if match := _COMPACT.fullmatch(text):
        return "-".join(match.groups())
    if _STATED.fullmatch(text) or re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    raise InputError(f"A time is a year, a month (2020-06), a day (2020-06-01) or a number, not {text!r}.")


def _key(time: str) -> tuple[float, ...]:
    if match := _STATED.fullmatch(time):
        return tuple(float(part or 0) for part in match.groups())
    return (float(time),)

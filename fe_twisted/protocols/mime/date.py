"""Date: fields (RFC 5322 section 3.3) and what passes for them."""

from __future__ import annotations

import datetime
import email.utils
import re

# fmt: off
_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}
# fmt: on
_USUAL = re.compile(r"\s*(?:[A-Za-z]{3},)?\s*(\d{1,2})\s+([A-Za-z]{3})\s+(\d{4})\s+(\d{1,2}):(\d\d)(?::(\d\d))?\s+([+-])(\d\d)(\d\d)(?!\d)")
_UTC = datetime.UTC
_MAX_LENGTH = 200  # octets; nothing longer is a date


def parse(value: str) -> datetime.datetime | None:
    """An aware time that can be converted to UTC, or None.

    A zone that is unknown, missing or beyond 24 hours counts as UTC; a leap second as the second before it.
    """
    if len(value) > _MAX_LENGTH:
        return None
    usual = _USUAL.match(value)
    try:
        if usual:
            day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = usual.groups()
            offset = (int(zone_hours) * 60 + int(zone_minutes)) * 60
            numbers = (int(year), _MONTHS.get(month.lower(), 0), int(day), int(hour), int(minute), int(second or 0))
            return _aware(numbers, -offset if sign == "-" else offset)
        other = email.utils.parsedate_tz(value)
        return _aware(other[:6], other[9] or 0) if other else None
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _aware(numbers: tuple[int, ...], offset: int) -> datetime.datetime:
    """:raises ValueError, OverflowError: no such time, or none that has a UTC equivalent in the years 1 to 9999."""
    year, month, day, hour, minute, second = numbers
    zone = datetime.timezone(datetime.timedelta(seconds=offset)) if offset and abs(offset) < 86400 else _UTC
    when = datetime.datetime(year, month, day, hour, minute, min(second, 59), tzinfo=zone)
    when.astimezone(_UTC)
    return when

"""Regular expressions that mean the same in every Python that is supported."""

from __future__ import annotations

import re
from pathlib import Path

import fe_twisted

SOURCES = sorted(Path(fe_twisted.__file__).parent.rglob("*.py"))


def test_no_group_is_possessive() -> None:
    """What a possessive group had matched in part was not given back before Python 3.11.5 (CPython issue 106052).

    So «[fwd: hello» was read as «fwd: hello».
    An atomic group, ``(?>(?:…)*)``, means the same and was always right.
    """
    found = [
        f"{path.name}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"\)[*+?]\+", line)
    ]
    assert not found

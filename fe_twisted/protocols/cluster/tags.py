"""CBOR without tags.

The library makes regular expressions, MIME messages and numbers of any size out of tagged values.  Nothing on the link is tagged, so every
tag is refused before anything is made of it.
"""

from __future__ import annotations

from typing import Any


def refuse(*_: Any) -> Any:
    """In the place of whatever the library would make of a tag.

    :raises ValueError: always.
    """
    raise ValueError("tags are not allowed")


#: Every tag that cbor2 knows of itself; those that it does not know go to its ``tag_hook``.
REFUSED: dict[int, Any] = dict.fromkeys(
    (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799), refuse
)

"""Link secrets as text, and the file that they are kept in.

A token is ``felink1_`` and 58 characters of base32 (RFC 4648 section 6, small letters): 32 random octets, and four octets of a SHA-256
over everything before them, so that a slip of the pen is noticed and not taken for another secret.

The file has one token a line, the newest first: that one is used for calling, all are accepted from those who call.  Empty lines and lines
that start with ``#`` are passed over.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Sequence
from pathlib import Path

from fe_twisted.base.errors import BadSettings
from fe_twisted.storage.vault.secret import read_secret, replace_secret

#: What this version writes; another number is another form.
PREFIX = "felink1_"

#: Octets of the secret, and of the checksum behind it.
SECRET, CHECK = 32, 4

#: Secrets in one file at most: more is a mistake.
MOST = 8

_CHARACTERS = -(-(SECRET + CHECK) * 8 // 5)
_SHAPE = re.compile(rf"felink([0-9]+)_([a-z2-7]{{{_CHARACTERS}}})")


def new_token() -> str:
    """A new secret as text."""
    return format_token(os.urandom(SECRET))


def format_token(secret: bytes) -> str:
    """A secret as text.

    :raises ValueError: not 32 octets.
    """
    if len(secret) != SECRET:
        raise ValueError(f"a link secret has {SECRET} octets")
    return PREFIX + base64.b32encode(secret + _check(secret)).decode("ascii").rstrip("=").lower()


def parse_token(text: str) -> bytes:
    """The secret of a token; capitals and space around it do not matter.

    :raises BadSettings: not a token, one with a slip in it, or one of a later version.  The text is not repeated.
    """
    found = _SHAPE.fullmatch(text.strip().lower())
    if found is None:
        raise BadSettings(f"this is not a link token: it begins with {PREFIX} and has {len(PREFIX) + _CHARACTERS} characters")
    if found[1] != "1":
        raise BadSettings("this link token is of another version of the program; update the older one")
    try:
        octets = base64.b32decode(found[2].upper() + "=" * (-_CHARACTERS % 8))
    except binascii.Error as error:
        raise BadSettings("this is not a link token") from error
    secret = octets[:SECRET]
    # The last character has bits to spare, so the text is compared too.
    if not hmac.compare_digest(octets[SECRET:], _check(secret)) or not hmac.compare_digest(format_token(secret), PREFIX + found[2]):
        raise BadSettings("there is a slip in this link token: its checksum does not fit; copy it again")
    return secret


def read_tokens(path: str | Path, *, credentials: str | Path | None = None) -> list[bytes]:
    """The secrets of a file, the one for calling first.

    :param credentials: see :func:`fe_twisted.storage.vault.secret.read_secret`.
    :raises BadSettings: as :func:`~fe_twisted.storage.vault.secret.read_secret`; also if a line is no token, or there is none, or too many.
    """
    try:
        lines = read_secret(path, credentials=credentials).decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise BadSettings(f"{path} is not a file of link tokens") from error
    found: list[bytes] = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                found.append(parse_token(line))
            except BadSettings as error:
                raise BadSettings(f"{path}, line {number}: {error}") from error
    if not found:
        raise BadSettings(f"there is no link token in {path}")
    if len(found) > MOST:
        raise BadSettings(f"there are more than {MOST} link tokens in {path}; keep the newest: forwardemail link token --forget-old")
    return found


def write_tokens(path: str | Path, secrets: Sequence[bytes]) -> None:
    """Put secrets into a file, in their order, in the place of what it had; mode 0600, durable when it returns.

    :raises BadSettings: the folder is not writable.
    """
    replace_secret(path, "".join(f"{format_token(secret)}\n" for secret in secrets).encode("ascii"))


def _check(secret: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode("ascii") + secret).digest()[:CHECK]

"""A client's side of SCRAM, from RFC 5802 alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

Ask = Callable[[bytes], list[str]]


class ScramClient:
    """Computes the messages of one exchange."""

    def __init__(self, user: str, password: str, *, gs2: str = "n,,", channel: bytes = b"") -> None:
        self._password = password
        self._gs2 = gs2
        self._channel = channel
        self._bare = f"n={user},r=clientnonce"
        self.expected = b""

    def first(self) -> bytes:
        return base64.b64encode((self._gs2 + self._bare).encode())

    def final(self, challenge: str) -> bytes:
        """The answer to the server's first message (base64, without ``+``)."""
        said = base64.b64decode(challenge).decode()
        fields = dict(field.split("=", 1) for field in said.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", self._password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
        without = f"c={base64.b64encode(self._gs2.encode() + self._channel).decode()},r={fields['r']}"
        message = f"{self._bare},{said},{without}".encode()
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        self.expected = b"v=" + base64.b64encode(hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256"))
        return base64.b64encode(f"{without},p={base64.b64encode(proof).decode()}".encode())

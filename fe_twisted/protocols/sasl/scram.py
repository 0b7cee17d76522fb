"""The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677, RFC 9266), as functions of octets.

An exchange is: :func:`client_first`, then :meth:`Exchange.challenge`, then :meth:`Exchange.answer`; the caller finds the verifier of the
user between the first two and checks the proof after the third, with :func:`client_key` and :func:`server_signature`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass

from fe_twisted.base.errors import BadSyntax

SHA256, SHA256_PLUS = "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"
#: The one channel binding that is offered (RFC 9266).
TLS_EXPORTER = "tls-exporter"

_MAX_NAME, _MAX_NONCE = 255, 256
_FIRST = re.compile(
    r"(?P<gs2>(?P<flag>n|y|p=(?P<binding>[A-Za-z0-9.-]+)),(?:a=(?P<authzid>[^,]+))?,)"
    r"(?P<bare>n=(?P<name>[^,]+),r=(?P<nonce>[!-+\--~]+)(?:,[^m].*)?)"
)
_FINAL = re.compile(
    r"(?P<without>c=(?P<channel>[A-Za-z0-9+/]+={0,2}),r=(?P<nonce>[!-+\--~]+)(?:,[^p=][^,]*)*),p=(?P<proof>[A-Za-z0-9+/]+={0,2})"
)
_ESCAPE = re.compile("=(2C|3D)?")


@dataclass(frozen=True, slots=True)
class ClientFirst:
    """The client's first message.

    :param gs2: the header, as sent: part of the channel binding.
    :param flag: ``n`` the client knows no channel binding, ``y`` it does and believes that the server does not, ``p`` it binds.
    :param binding: the name of the channel binding, or an empty string.
    :param authzid: whom to act as, or an empty string.
    """

    gs2: str
    flag: str
    binding: str
    authzid: str
    name: str
    nonce: str
    bare: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The client's second message, after everything in it but the proof was found right.

    :param message: AuthMessage (RFC 5802 section 3).
    :param proof: 32 octets.
    """

    message: bytes
    proof: bytes


def client_first(octets: bytes) -> ClientFirst:
    """:raises BadSyntax: not a first message, or one with an extension that must be understood (``m=``)."""
    text = _text(octets)
    found = _FIRST.fullmatch(text)
    if found is None:
        raise BadSyntax("SCRAM: not a first message")
    name, authzid = _unescaped(found["name"]), _unescaped(found["authzid"] or "")
    if max(len(name), len(authzid)) > _MAX_NAME or len(found["nonce"]) > _MAX_NONCE:
        raise BadSyntax("SCRAM: user name or nonce too long")
    return ClientFirst(found["gs2"], found["flag"][0], found["binding"] or "", authzid, name, found["nonce"], found["bare"])


class Exchange:
    """What was said so far.

    :param first: the client's first message.
    :param nonce: the server's part of the nonce, printable and without comma, at least 18 random octets.
    :param salt, iterations: of the user's verifier.
    """

    def __init__(self, first: ClientFirst, nonce: str, salt: bytes, iterations: int) -> None:
        self._first = first
        self._nonce = first.nonce + nonce
        self._challenge = f"r={self._nonce},s={base64.b64encode(salt).decode()},i={iterations}"

    def challenge(self) -> bytes:
        """The server's first message."""
        return self._challenge.encode()

    def answer(self, octets: bytes, channel: bytes) -> Answer | None:
        """Read the client's second message; None when its nonce or channel binding is not ours, which counts as a wrong password.

        :param channel: the octets of the channel binding, empty without one.
        :raises BadSyntax: not a second message.
        """
        text = _text(octets)
        found = _FINAL.fullmatch(text)
        if found is None:
            raise BadSyntax("SCRAM: not a second message")
        proof, bound = _base64(found["proof"]), _base64(found["channel"])
        right_nonce = hmac.compare_digest(found["nonce"].encode(), self._nonce.encode())
        right_channel = hmac.compare_digest(bound, self._first.gs2.encode() + channel)
        if not right_nonce or not right_channel or len(proof) != 32:
            return None
        return Answer(f"{self._first.bare},{self._challenge},{found['without']}".encode(), proof)


def client_key(answer: Answer, stored_key: bytes) -> bytes | None:
    """ClientKey, if the proof is one for this StoredKey."""
    signature = hmac.digest(stored_key, answer.message, "sha256")
    key = bytes(left ^ right for left, right in zip(answer.proof, signature, strict=True))
    return key if hmac.compare_digest(hashlib.sha256(key).digest(), stored_key) else None


def server_signature(answer: Answer, server_key: bytes) -> bytes:
    """The server's last message, which proves that it knows the user."""
    return b"v=" + base64.b64encode(hmac.digest(server_key, answer.message, "sha256"))


def _text(octets: bytes) -> str:
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise BadSyntax("SCRAM: not UTF-8") from None
    if "\0" in text:
        raise BadSyntax("SCRAM: NUL")
    return text


def _unescaped(name: str) -> str:
    """``=2C`` and ``=3D`` undone (RFC 5802 section 5.1).

    :raises BadSyntax: another ``=``.
    """

    def character(found: re.Match[str]) -> str:
        if found[1] is None:
            raise BadSyntax("SCRAM: '=' in a user name is written '=3D'")
        return "," if found[1] == "2C" else "="

    return _ESCAPE.sub(character, name)


def _base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise BadSyntax("SCRAM: not base64") from None

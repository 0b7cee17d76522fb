"""``value; name=value`` fields: Content-Type and Content-Disposition (RFC 2045 section 5.1, RFC 2183, RFC 2231)."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from fe_twisted.protocols.mime import charset, words

#: Names as written with values unquoted; RFC 2231 pieces (``name*0*``) are still separate.
Parameters = list[tuple[bytes, bytes]]

_TOKEN = rb"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]++"
_TYPE = re.compile(rb"\s*+(" + _TOKEN + rb")\s*+/\s*+(" + _TOKEN + rb")\s*+(?![^;(\s])")
_WORD = re.compile(rb"[\s\"]*+(" + _TOKEN + rb")")
_PARAMETER = re.compile(rb";\s*+([^\s=;\"]++)\s*+=\s*+(?:\"((?>(?:[^\"\\]++|\\.)*))\"?|([^;]*+))", re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
#: One piece of a value in several: its name, its number, and whether it is percent-encoded (RFC 2231 section 4.1).
_PIECE = re.compile(rb"(.+)\*(0|[1-9][0-9]{0,3})(\*?)", re.DOTALL)
_MAX_PARAMETERS = 1000


def media_type(value: bytes) -> tuple[bytes, bytes, Parameters] | None:
    """Type, subtype and parameters of an unfolded Content-Type, or None when it is not ``type/subtype`` (RFC 2045 section 5.2)."""
    found = _TYPE.match(value)
    return (found[1], found[2], _parameters(value, found.end())) if found else None


def disposition(value: bytes) -> tuple[bytes, Parameters] | None:
    """The kind and the parameters of an unfolded Content-Disposition, or None when there is no kind."""
    found = _WORD.match(value)
    return (found[1], _parameters(value, found.end())) if found else None


def token(value: bytes) -> bytes:
    """The first token of the value, such as an encoding's name, or empty."""
    found = _WORD.match(value)
    return found[1] if found else b""


def _parameters(value: bytes, position: int) -> Parameters:
    pairs: Parameters = []
    if b";" not in value:
        return pairs
    for name, quoted, plain in _PARAMETER.findall(value, position)[:_MAX_PARAMETERS]:
        if quoted:
            pairs.append((name, _ESCAPE.sub(rb"\1", quoted) if b"\\" in quoted else quoted))
        else:
            pairs.append((name, _without_comment(plain.strip())))
    return pairs


def _without_comment(value: bytes) -> bytes:
    """``us-ascii (Plain text)`` is ``us-ascii`` (RFC 2045 section 5.1); ``a (1).txt`` is somebody's file name."""
    start = value.rfind(b"(")
    if start > 0 and value.find(b")", start) == len(value) - 1 and value[start - 1 : start].isspace():
        return value[:start].rstrip()
    return value


def get(pairs: Parameters, name: bytes) -> bytes:
    """The value of a parameter that is written plainly, or empty; the first one counts."""
    for key, value in pairs:
        if key.lower() == name:
            return value
    return b""


def joined(pairs: Parameters) -> Parameters:
    """The same with pieces put together, as BODYSTRUCTURE has them (RFC 2231 section 6): ``name*0``, ``name*1`` are ``name``.

    Where a piece is percent-encoded the whole is ``name*``, still encoded.  Pieces that are not all there stay as they are.
    """
    found: dict[bytes, dict[int, tuple[bool, bytes]]] = {}
    for key, value in pairs:
        if piece := _PIECE.fullmatch(key):
            found.setdefault(piece[1].lower(), {}).setdefault(int(piece[2]), (bool(piece[3]), value))
    if not found:
        return pairs
    complete = {name for name, pieces in found.items() if set(pieces) == set(range(len(pieces)))}
    whole: Parameters = []
    for key, value in pairs:
        piece = _PIECE.fullmatch(key)
        name = piece[1].lower() if piece else b""
        if piece is None or name not in complete:
            whole.append((key, value))
        elif pieces := found.pop(name, None):  # all of them where the first one stands
            coded = any(part_coded for part_coded, _ in pieces.values())
            texts = [text if part_coded or not coded else text.replace(b"%", b"%25") for _, (part_coded, text) in sorted(pieces.items())]
            whole.append((piece[1] + (b"*" if coded else b""), b"".join(texts)))
    return whole


def decoded(pairs: Parameters, name: bytes) -> str:
    """A parameter's text: RFC 2231 pieces joined and decoded, else the plain value with encoded words decoded; or empty."""
    pieces: list[tuple[int, bool, bytes]] = []
    plain: bytes | None = None
    prefix = name + b"*"
    for key, value in pairs:
        key = key.lower()
        if key == name:
            plain = value if plain is None else plain
        elif key.startswith(prefix):
            number = key[len(prefix) :].partition(b"*")[0]
            if key == prefix:
                pieces.append((0, True, value))
            elif number.isdigit() and len(number) < 6:
                pieces.append((int(number), key.endswith(b"*"), value))
    if not pieces:
        return words.decode(plain) if plain else ""
    pieces.sort(key=lambda piece: piece[0])
    name_of_charset = ""
    if pieces[0][1] and pieces[0][2].count(b"'") >= 2:
        declared, _, first = pieces[0][2].split(b"'", 2)
        name_of_charset = declared.decode("latin-1")
        pieces[0] = (pieces[0][0], True, first)
    raw = b"".join(unquote_to_bytes(value) if coded else value for _, coded, value in pieces)
    return charset.decode(raw, name_of_charset)

"""The arguments of MAIL and RCPT: a path in angle brackets and ESMTP parameters (RFC 5321 section 4.1.2, RFC 1870, 6152, 6531).

Read strictly (an address without brackets is a syntax error), except for spaces after the colon, which many clients send.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fe_twisted.base.addresses import POSTMASTER, Address, parse_address
from fe_twisted.base.errors import BadAddress, BadSyntax, MessageTooLarge, SmtpStatus, Theirs

# An unquoted > ends the path; a quoted string may hold one.
_PATH = re.compile(r'<((?>(?:"(?>(?:[^"\\]|\\.)*)"|[^"<> ])*))>(?: +(.*))?')
#: RFC 5321 section 4.1.2: source routes are accepted and ignored.
_ROUTE = re.compile(r"@[^,:@]+(?>(?:,@[^,:@]+)*):")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u0080-\U0010ffff]+))?")


class BadParameter(BadSyntax):
    """A parameter that is given twice or has a value it cannot have."""

    default = "bad parameter"
    smtp = SmtpStatus(501, "5.5.4")


class UnknownParameter(Theirs):
    """A parameter that EHLO did not offer (RFC 5321 section 4.1.1.11)."""

    default = "parameter not recognized or not implemented"
    smtp = SmtpStatus(555, "5.5.4")


class BadSender(BadAddress):
    """The reverse-path is no address."""

    default = "bad sender address syntax"
    smtp = SmtpStatus(553, "5.1.7")


class NotAscii(BadAddress):
    """An address that is not ASCII without SMTPUTF8 (RFC 6531 section 3.5)."""

    default = "an internationalized address needs SMTPUTF8"
    smtp = SmtpStatus(553, "5.6.7")


@dataclass(frozen=True, slots=True)
class Sender:
    """What MAIL said.

    :param address: the reverse-path, or None for ``<>``.
    :param size: what the client says the message has, in octets, or None.
    :param eight_bit: BODY=8BITMIME.
    :param smtputf8: addresses and header may be UTF-8.
    """

    address: Address | None
    size: int | None = None
    eight_bit: bool = False
    smtputf8: bool = False


def parse_mail(argument: bytes, max_size: int) -> Sender:
    """Read the argument of MAIL.

    :param max_size: in octets.
    :raises BadSyntax: not ``FROM:<path>``.
    :raises BadParameter, UnknownParameter, BadSender, NotAscii:
    :raises MessageTooLarge: the client announces more than ``max_size`` (RFC 1870 section 6.1).
    """
    path, parameters = _split(argument, "FROM")
    size: int | None = None
    eight_bit = smtputf8 = False
    for name, value in parameters.items():
        match name:
            case "SIZE":
                if value is None or not re.fullmatch(r"[0-9]{1,20}", value):
                    raise BadParameter("SIZE needs a number of octets")
                size = int(value)
            case "BODY":
                if value is None or value.upper() not in ("7BIT", "8BITMIME"):
                    raise BadParameter("BODY may be 7BIT or 8BITMIME")
                eight_bit = value.upper() == "8BITMIME"
            case "SMTPUTF8":
                if value is not None:
                    raise BadParameter("SMTPUTF8 takes no value")
                smtputf8 = True
            case _:
                raise UnknownParameter
    if size is not None and size > max_size:
        raise MessageTooLarge
    if not path:
        return Sender(None, size, eight_bit, smtputf8)
    try:
        address = _address(path, smtputf8)
    except NotAscii:
        raise
    except BadAddress as error:
        raise BadSender(error.public, reason=error.reason) from error
    return Sender(address, size, eight_bit, smtputf8)


def parse_rcpt(argument: bytes, smtputf8: bool) -> Address:
    """Read the argument of RCPT; ``<Postmaster>`` without a domain is :data:`~fe_twisted.base.addresses.POSTMASTER`.

    :param smtputf8: whether MAIL said SMTPUTF8.
    :raises BadSyntax: not ``TO:<path>``.
    :raises BadAddress, UnknownParameter, NotAscii:
    """
    path, parameters = _split(argument, "TO")
    if parameters:
        raise UnknownParameter
    if path.lower() == "postmaster":
        return POSTMASTER
    return _address(path, smtputf8)


def _split(argument: bytes, keyword: str) -> tuple[str, dict[str, str | None]]:
    """The text between the angle brackets, and the parameters by upper-case name."""
    try:
        text = argument.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSyntax("address is not UTF-8") from error
    head, colon, rest = text.partition(":")
    match = _PATH.fullmatch(rest.strip(" "))
    if not colon or head.upper() != keyword or match is None:
        raise BadSyntax(f"syntax: {keyword}:<address>")
    parameters: dict[str, str | None] = {}
    for word in (match[2] or "").split():
        parameter = _PARAMETER.fullmatch(word)
        if parameter is None:
            raise BadParameter
        name = parameter[1].upper()
        if name in parameters:
            raise BadParameter(f"{name} is given twice")
        parameters[name] = parameter[2]
    return match[1], parameters


def _address(path: str, smtputf8: bool) -> Address:
    if not smtputf8 and not path.isascii():
        raise NotAscii
    return parse_address(_ROUTE.sub("", path, count=1) if path.startswith("@") else path)

"""Mail addresses: what RFC 5321 section 4.1.2 and RFC 6531 allow, in one normal form.

An :class:`Address` keeps the local part by its meaning (quotes and backslashes removed) and the domain as a lower-case
A-label (RFC 5890), so that two spellings of one address compare equal once both are normalised.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import idna

from fe_twisted.base.errors import BadAddress

#: Octets (RFC 5321 section 4.5.3.1.1, section 4.5.3.1.2, and section 4.5.3.1.3 less the angle brackets).
MAX_LOCAL = 64
MAX_DOMAIN = 255
MAX_ADDRESS = 254

_ATEXT = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\U0010ffff]"
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*)"')
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
#: Controls, surrogates and line separators: nothing that may sit in a line of a protocol or of a log.
_FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Address:
    """``local@domain``.

    :param local: the meaning of the local part, without quotes and backslashes.
    :param domain: lower-case A-label, or an address literal with its brackets; empty only in :data:`POSTMASTER`.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        """The address as RFC 5321 writes it, quoted only when it has to be."""
        local = self.local
        if not _DOT_STRING.fullmatch(local):
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.domain}" if self.domain else local

    @property
    def tag(self) -> str:
        """What follows the first ``+`` of the local part, or an empty string."""
        head, _, tail = self.local.partition("+")
        return tail if head else ""

    @property
    def international(self) -> bool:
        """True when the local part is not ASCII, so that sending to it needs SMTPUTF8 (RFC 6531)."""
        return not self.local.isascii()

    def normalise(self) -> Address:
        """The same mailbox in the one spelling that the directory keeps: local part lower case, NFC."""
        local = unicodedata.normalize("NFC", unicodedata.normalize("NFC", self.local).lower())
        return Address(local, self.domain)

    def base_address(self) -> Address:
        """Without plus-addressing: ``hello+tag@…`` is ``hello@…``.  A local part that starts with ``+`` stays as it is."""
        head = self.local.partition("+")[0]
        return Address(head, self.domain) if head else self


#: RFC 5321 section 4.5.1: ``RCPT TO:<Postmaster>`` is valid without a domain.
POSTMASTER = Address("postmaster", "")


def parse_address(text: str) -> Address:
    """Read one address, without angle brackets and without source route.

    :raises BadAddress: not an address, or longer than the limits.
    """
    if len(text) > MAX_ADDRESS:
        raise BadAddress("address too long")
    printable = text.isascii() and text.isprintable()  # almost always, and many times faster to see
    if not printable and any(unicodedata.category(char) in _FORBIDDEN for char in text):
        raise BadAddress
    quoted = _QUOTED.match(text)
    if quoted:
        local, rest = re.sub(r"\\(.)", r"\1", quoted[1]), text[quoted.end() :]
    else:
        local, at, tail = text.partition("@")
        rest = at + tail
        if not _DOT_STRING.fullmatch(local):
            raise BadAddress
    if not rest.startswith("@"):
        raise BadAddress("an address needs a local part, an @ and a domain")
    if len(local.encode()) > MAX_LOCAL:
        raise BadAddress("local part too long")
    address = Address(local, normalise_domain(rest[1:]))
    if len(str(address).encode()) > MAX_ADDRESS:
        raise BadAddress("address too long")
    return address


def normalise_domain(text: str) -> str:
    """A domain in U-label or A-label form, any case, as lower-case A-labels; an address literal with canonical inside.

    :raises BadAddress: not a domain name that RFC 5321 allows.
    """
    if text.startswith("["):
        return _literal(text)
    # IDNA work is worse than linear in the input, so the length is looked at first.
    if not text or len(text) > MAX_DOMAIN:
        raise BadAddress("bad domain name")
    if text.isascii():
        name = text.lower()
    else:
        try:
            name = idna.encode(text, uts46=True, std3_rules=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError) as error:
            raise BadAddress("bad domain name", reason=str(error)) from error
    if len(name) > MAX_DOMAIN - 2 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        # 253 characters are 255 octets in the DNS (RFC 1035 section 2.3.4), so no longer name can exist.
        raise BadAddress("bad domain name")
    return name


def _literal(text: str) -> str:
    """``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 section 4.1.3)."""
    inside = text[1:-1]
    # A zone («%eth0») is meaningful on one machine only and not in the grammar.
    if not text.endswith("]") or "%" in inside:
        raise BadAddress("bad address literal")
    try:
        if inside[:5].lower() == "ipv6:":
            return f"[IPv6:{IPv6Address(inside[5:])}]"
        return f"[{IPv4Address(inside)}]"
    except AddressValueError as error:
        raise BadAddress("bad address literal") from error

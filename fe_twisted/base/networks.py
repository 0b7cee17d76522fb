"""Client addresses as limits count them."""

from __future__ import annotations

from ipaddress import ip_address


def network_of(address: str) -> str:
    """The unit that limits count by: an IPv4 address, or the /64 that an IPv6 customer usually has as a whole.

    :raises ValueError: not an IP address.
    """
    ip = ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped:
        return str(mapped)
    if ip.version == 4:
        return str(ip)
    return str(ip_address(int(ip) >> 64 << 64)) + "/64"


def is_loopback(address: str) -> bool:
    """True for 127.0.0.0/8 and ::1, where a password in the clear reaches nobody else.

    :raises ValueError: not an IP address.
    """
    ip = ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)

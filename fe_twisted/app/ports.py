"""Listening sockets, made before the process gives its privileges up."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

#: Connections that wait to be accepted; Linux allows up to net.core.somaxconn.
BACKLOG = 1024

#: IPv6 addresses that stand for «also IPv6, if this machine has it».
_OPTIONAL = frozenset({"::", "::1"})


def bind_all(interface: str, port: int, count: int) -> list[socket.socket]:
    """Sockets that listen on one address together: the kernel gives each a share of the connections (SO_REUSEPORT, see socket(7)).

    :param count: one for each process that accepts.
    :returns: an empty list where :func:`bind` gives None.
    :raises OSError: as :func:`bind`.
    """
    alone = bind(interface, port)  # also says that nobody else has it, who would share it silently
    if alone is None or count == 1:
        return [alone] if alone is not None else []
    alone.close()
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            each = bind(interface, port, shared=True)
            if each is not None:
                made.append(each)
    except OSError:
        for each in made:
            each.close()
        raise
    return made


def bind(interface: str, port: int, *, shared: bool = False) -> socket.socket | None:
    """A socket that listens on one address, non-blocking.

    An IPv6 socket takes IPv6 only, so that ``0.0.0.0`` and ``::`` can stand side by side and an IPv4 client's address looks like one.

    :param shared: other processes of ours listen there too.
    :returns: None for ``::`` and ``::1`` on a machine without IPv6.
    :raises OSError: it cannot be had; in use, not allowed, not an address of this machine.
    """
    family = socket.AF_INET6 if ip_address(interface).version == 6 else socket.AF_INET
    try:
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if interface in _OPTIONAL and error.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((interface, port))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        if interface in _OPTIONAL and error.errno == errno.EADDRNOTAVAIL:
            return None
        raise
    made.setblocking(False)
    return made

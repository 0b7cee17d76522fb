"""Listening sockets."""

from __future__ import annotations

import errno
import socket

import pytest

from fe_twisted.app.ports import bind


def test_a_port_is_had_once() -> None:
    made = bind("127.0.0.1", 0)
    assert made is not None
    with made:
        assert not made.getblocking()
        with pytest.raises(OSError) as refused:
            bind("127.0.0.1", made.getsockname()[1])
    assert refused.value.errno == errno.EADDRINUSE


def test_ipv4_and_ipv6_stand_side_by_side() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    four = bind("127.0.0.1", 0)
    assert four is not None
    with four:
        six = bind("::1", four.getsockname()[1])
        if six is not None:
            assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
            six.close()


def test_an_address_that_is_not_ours_is_an_error() -> None:
    with pytest.raises(OSError) as refused:
        bind("192.0.2.1", 0)
    assert refused.value.errno == errno.EADDRNOTAVAIL


def test_ipv6_that_the_machine_does_not_have_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_family(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", no_family)
    assert bind("::1", 0) is None
    with pytest.raises(OSError, match="not supported"):
        bind("2001:db8::1", 0)

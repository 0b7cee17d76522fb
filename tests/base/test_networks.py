"""Networks: one unit for an IPv4 address, one for an IPv6 customer."""

from __future__ import annotations

import pytest

from fe_twisted.base.networks import is_loopback, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "0.0.0.0")))


def test_not_an_address() -> None:
    with pytest.raises(ValueError):
        network_of("mail.example.com")

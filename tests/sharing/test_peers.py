"""Whose share a call counts against."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from ift_serve.sharing.peers import Peers


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:10.0.0.1:5000", "ipv4:10.0.0.1"),
        ("ipv6:%5B2001:db8::7%5D:5000", "ipv6:2001:db8::/64"),
        ("ipv6:[2001:db8::8]:5001", "ipv6:2001:db8::/64"),
        ("ipv6:[2001:db8:0:1::8]:5001", "ipv6:2001:db8:0:1::/64"),
        ("ipv6:[fe80::1%25eth0]:9", "ipv6:fe80::/64"),
        ("ipv6:[::ffff:10.0.0.1]:5000", "ipv4:10.0.0.1"),
        ("unix:/tmp/socket", "unix:/tmp/socket"),
        ("unix:", "unix:"),
    ],
)
def test_a_host_is_one_caller_whatever_its_port_or_address_of_a_network(peer: str, expected: str) -> None:
    assert Peers().caller(peer) == expected


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("ipv4:10.0.0.1:5", "203.0.113.7", "ipv4:203.0.113.7"),
        ("ipv4:10.0.0.1:5", "2001:db8::7", "ipv6:2001:db8::/64"),
        ("ipv4:10.0.0.1:5", "8.8.8.8, 203.0.113.7", "ipv4:203.0.113.7"),  # what the caller wrote comes first
        ("ipv4:10.0.0.1:5", "203.0.113.7, 10.0.0.2", "ipv4:203.0.113.7"),  # two proxies, one behind the other
        ("ipv4:10.0.0.1:5", "203.0.113.7, nonsense", "ipv4:10.0.0.1"),
        ("ipv4:10.0.0.1:5", "", "ipv4:10.0.0.1"),
        ("ipv4:10.0.0.1:5", "9" * 10_000, "ipv4:10.0.0.1"),
        ("ipv6:[::ffff:10.0.0.1]:5", "203.0.113.7", "ipv4:203.0.113.7"),
        ("ipv4:198.51.100.1:5", "203.0.113.7", "ipv4:198.51.100.1"),  # no proxy of ours: nothing of it is believed
        ("unix:/tmp/socket", "203.0.113.7", "unix:/tmp/socket"),
    ],
)
def test_a_trusted_proxy_is_believed_and_nobody_else(peer: str, forwarded: str, expected: str) -> None:
    peers = Peers([ip_network("10.0.0.0/24")])
    assert peers.caller(peer, [("user-agent", "x"), ("x-forwarded-for", forwarded)]) == expected
    assert Peers().caller(peer, [("x-forwarded-for", forwarded)]) == Peers().caller(peer)

"""Whose share a call counts against."""

from __future__ import annotations

import pytest

from ift_serve.server.call_guard import host


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
    assert host(peer) == expected

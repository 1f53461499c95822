"""Peers: whose share a call or a connection counts against."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_FORWARDED = "x-forwarded-for"
_MOST_HOPS = 32


class Peers:
    """Names callers by their addresses: without ports, and of IPv6 the /64, since who has one address has 2^64.

    proxies: networks of proxies that the operator trusts. What they say of their callers in ``x-forwarded-for`` is
    believed, and they are many callers at one address.
    """

    def __init__(self, proxies: Iterable[Network] = ()) -> None:
        self._proxies = tuple(proxies)

    def caller(self, peer: str, metadata: Sequence[tuple[str, str | bytes]] = ()) -> str:
        """Of gRPC's peer: `ipv4:10.0.0.1:5000` -> `ipv4:10.0.0.1`, `ipv6:[2001:db8::7]:5` -> `ipv6:2001:db8::/64`.

        Behind a trusted proxy it is the last address forwarded that is no trusted proxy itself: those before it are
        whatever the caller has written.
        """
        kind, _, rest = unquote(peer).partition(":")
        if kind not in ("ipv4", "ipv6"):
            return peer
        address = parse_address(rest.rpartition(":")[0])
        if address is None:
            return f"{kind}:{rest.rpartition(':')[0]}"
        return named(self.behind(address, [str(value) for key, value in metadata if key == _FORWARDED]))

    def is_proxy(self, address: Address) -> bool:
        """Whether the operator trusts it."""
        return any(address.version == network.version and address in network for network in self._proxies)

    def behind(self, address: Address, forwarded: Iterable[str]) -> Address:
        """Whose address it is: the peer's own, or of a trusted proxy what its headers ``x-forwarded-for`` say."""
        nearest = address
        if not self.is_proxy(address):
            return nearest
        hops = [hop for value in forwarded for hop in value.split(",")]
        for hop in reversed(hops[-_MOST_HOPS:]):
            found = parse_address(hop.strip())
            if found is None:
                break
            nearest = found
            if not self.is_proxy(found):
                break
        return nearest


def named(address: Address) -> str:
    """What the callers at an address are counted as."""
    if isinstance(address, ipaddress.IPv6Address):
        return f"ipv6:{ipaddress.ip_network((address, 64), strict=False)}"
    return f"ipv4:{address}"


def parse_address(text: str) -> Address | None:
    """The address in a text, an IPv4 one also where it is written as IPv6; None if it is none."""
    try:
        found = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found

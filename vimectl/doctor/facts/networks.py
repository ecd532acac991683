"""Read the addresses of the machine's network interfaces and of its NPUs. Runs no command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Interface, ip_interface

from vimectl.util.host import Host

# fib_trie: an address, then on the next line its prefix and kind.
_LOCAL = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)\n\s+/32 host LOCAL")
# route: Iface Destination Gateway Flags RefCnt Use Metric Mask, addresses as little-endian hexadecimal.
_ROUTE = re.compile(r"^(\S+)\t([0-9A-F]{8})\t[0-9A-F]{8}(?:\t\d+){4}\t([0-9A-F]{8})\t", re.MULTILINE)
# if_inet6: address, interface number, prefix length, scope, flags, name. Scope 00 is global.
_INET6 = re.compile(r"^([0-9a-f]{32}) [0-9a-f]+ ([0-9a-f]+) 00 [0-9a-f]+ +(\S+)$", re.MULTILINE)
_HCCN = "/etc/hccn.conf"
_LOOPBACK = "lo"


def read_interfaces(host: Host) -> dict[str, list[str]]:
    """Return the addresses of each network interface except lo, with their prefix lengths (``10.0.0.1/24``).

    The prefix of an IPv4 address is that of the narrowest route of its network; without one it is 32, as in
    many pods. Link-local IPv6 addresses are left out: each machine makes its own.
    """
    found: dict[str, list[str]] = {name: [] for name in host.names("/sys/class/net") if name != _LOOPBACK}
    for name, address in (*_ipv4(host), *_ipv6(host)):
        if name != _LOOPBACK:
            found.setdefault(name, []).append(address)
    return found


def read_gateway(host: Host) -> str:
    """Return the gateway of the default IPv4 route; empty without one."""
    found = host.search("/proc/net/route", r"^\S+\t00000000\t([0-9A-F]{8})\t")
    return str(IPv4Address(_number(found[1]))) if found and int(found[1], 16) else ""


def read_hccn_addresses(host: Host) -> dict[int, str]:
    """Return the address of each NPU in /etc/hccn.conf with its prefix length; empty without that file."""
    text = host.read(_HCCN) or ""
    addresses = dict(re.findall(r"^\s*address_(\d+)\s*=\s*(\S+)", text, re.MULTILINE))
    masks = dict(re.findall(r"^\s*netmask_(\d+)\s*=\s*(\S+)", text, re.MULTILINE))
    found = {}
    for number, address in addresses.items():
        try:
            found[int(number)] = str(ip_interface(f"{address}/{masks[number]}"))
        except (KeyError, ValueError):  # no mask, or not an address: as it is
            found[int(number)] = address
    return dict(sorted(found.items()))


def _ipv4(host: Host) -> Iterator[tuple[str, str]]:
    routes = [
        (name, IPv4Network((_number(destination), str(IPv4Address(_number(mask))))))
        for name, destination, mask in _ROUTE.findall(host.read("/proc/net/route") or "")
    ]
    routes.sort(key=lambda route: route[1].prefixlen, reverse=True)
    # The main and the local table both list an address.
    for text in dict.fromkeys(_LOCAL.findall(host.read("/proc/net/fib_trie") or "")):
        address = IPv4Address(text)
        if address.is_loopback:
            continue
        name, network = next((route for route in routes if address in route[1]), ("?", None))
        prefix = network.prefixlen if network and network.prefixlen else 32
        yield name, f"{address}/{prefix}"


def _ipv6(host: Host) -> Iterator[tuple[str, str]]:
    for digits, prefix, name in _INET6.findall(host.read("/proc/net/if_inet6") or ""):
        yield name, str(IPv6Interface((int(digits, 16), int(prefix, 16))))


def _number(digits: str) -> int:
    return int.from_bytes(bytes.fromhex(digits), "little")

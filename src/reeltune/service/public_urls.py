"""Downloads from public addresses only: never from this machine or its network, whatever a host name leads to."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import httpx

from reeltune.errors import FetchError, Unreachable
from reeltune.net.urls import refuse_offline, shown

_SECONDS = 30.0  # without a byte
_MOST_SECONDS = 120.0  # for a whole file, so that a server that sends little at a time holds no thread for long
_PORTS = {"http": 80, "https": 443}
_HINT = "Use the URL of a file on a public server."
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all other IPv6 addresses are local, or lead to IPv4 through a gateway
_TUNNELS = ipaddress.IPv6Network("2002::/16")  # 6to4, which leads to any IPv4 address


def download_public(url: str, max_bytes: int) -> Iterator[bytes]:
    """The content at a public URL, in pieces. Redirects are not followed.

    The address of the host is looked up once, checked, and used for the connection, so that a second look-up can't lead
    elsewhere. Raises FetchError for an address that isn't public and for more than `max_bytes`, Unreachable, Offline.
    """
    refuse_offline(f"{shown(url)} can't be downloaded: reeltune is offline.")
    pinned, host = _pinned(url)
    headers = {"Host": host, "Accept-Encoding": "identity"}  # a compressed answer may be much larger than it seems
    name = {"sni_hostname": urlsplit(url).hostname}  # of the certificate, as the URL has an address
    received, end = 0, time.monotonic() + _MOST_SECONDS
    try:
        with (
            httpx.Client(timeout=_SECONDS, follow_redirects=False, trust_env=False) as client,
            client.stream("GET", pinned, headers=headers, extensions=name) as response,
        ):
            if response.status_code != 200:
                raise FetchError(f"{shown(url)} was answered with status {response.status_code}.", hint=_HINT)
            for piece in response.iter_raw():
                received += len(piece)
                if received > max_bytes:
                    raise FetchError(f"{shown(url)} has more than {max_bytes:,} bytes.", hint=_HINT)
                if time.monotonic() > end:
                    raise Unreachable(f"{shown(url)} is sent too slowly.", hint=_HINT)
                yield piece
    except (httpx.InvalidURL, UnicodeError) as error:
        raise FetchError(f"{shown(url)!r} is not a valid URL.", hint=_HINT) from error
    except httpx.HTTPError as error:
        message = f"{shown(url)} can't be reached: {type(error).__name__}."
        raise Unreachable(message, hint=_HINT) from error


def _pinned(url: str) -> tuple[str, str]:
    """The URL with an address in place of its host name, and the value of the Host header. Raises FetchError."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme.lower()]
        host = parts.hostname or ""
    except (ValueError, KeyError) as error:
        raise FetchError(f"{shown(url)!r} is not a valid URL.", hint=_HINT) from error
    if parts.username or parts.password or not host:
        raise FetchError(f"{shown(url)} has no host, or a name and a password.", hint=_HINT)
    address = _public_address(url, host, port)
    netloc = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    written = f"[{host}]" if ":" in host else host
    header = written if port == _PORTS[parts.scheme.lower()] else f"{written}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path, parts.query, "")), header


def _public_address(url: str, host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:  # ValueError: a name with NUL, or that can't be encoded
        raise Unreachable(f"{shown(url)} can't be reached: the host is unknown.", hint=_HINT) from error
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(_is_public(address) for address in addresses):
        raise FetchError(f"{shown(url)} leads to a private address.", hint=_HINT)
    return addresses[0]


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(str(address.ipv4_mapped))
        return address in _UNICAST and address not in _TUNNELS and address.is_global
    return address.is_global and not address.is_multicast

"""Decides how to reach other hosts: valid hosts and ports, proxies, and trusted certificates.

The variables for proxies and certificates are those that most programs read. The HTTP library reads
them too, but fails with an error of its own on forms of them that are common elsewhere.
"""

from __future__ import annotations

import os
import re
import ssl
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies_environment

import idna

LAST_PORT = 65_535
# What the checks below demand, for error messages.
USABLE = f"a valid host and a port from 1 to {LAST_PORT}"

_NAME = re.compile(r"[\w.-]+", re.ASCII)
_NUMERIC = re.compile(r".*:.*|\d+(?:\.\d+){3}", re.ASCII)
_PORT = re.compile(r"0{0,4}[1-9][0-9]{0,4}")
_PUNYCODE = "xn--"
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEMES = ("http", "https")
_PORTS = {"http": 80, "https": 443}


def is_host(text: str) -> bool:
    """Return whether a host is an IP address, or a name that can be looked up."""
    try:
        if _NUMERIC.fullmatch(text):
            ip_address(text)
            return True
        # Spelled as the system looks it up; the HTTP library decodes that again.
        name = text.encode("idna").decode()
        if name.startswith(_PUNYCODE):
            idna.decode(name)
    except ValueError:
        return False
    return _NAME.fullmatch(name) is not None


def is_port(text: str) -> bool:
    """Return whether this is the number of a port to connect to."""
    return _PORT.fullmatch(text) is not None and int(text) <= LAST_PORT


def is_address(url: str) -> bool:
    """Return whether host and port of an HTTP address can be used as they are written."""
    try:
        parts = urlsplit(url)
        is_possible = parts.port is None or is_port(str(parts.port))
    except ValueError:
        return False
    # The parser silently removes a line end from an address.
    is_plain = parts.scheme in _SCHEMES and not CONTROL.search(url)
    return is_plain and is_possible and is_host(parts.hostname or "")


def proxy_for(url: str) -> str | None:
    """Return the proxy for an address, or None if it is reached directly.

    Raises `ValueError` if the variable for it holds no address of an HTTP proxy.
    """
    target, proxies = urlsplit(url), getproxies_environment()
    names = [name for name in (target.scheme, "all") if proxies.get(name)]
    if not names or _is_direct(target, proxies.get("no", "")):
        return None
    proxy = proxies[names[0]].strip()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not is_address(proxy):
        message = (
            f"{names[0].upper()}_PROXY is not the address of an HTTP proxy, such as "
            f"http://proxy.example:3128: correct it, or list {target.hostname} in NO_PROXY"
        )
        raise ValueError(message)
    return proxy


def is_openable(path: str | Path) -> bool:
    """Return whether a path is a regular file; opening a FIFO or a device may never return.

    A missing file counts too: opening it returns at once, with an error.
    """
    try:
        return Path(path).is_file() or not Path(path).exists() or Path(path).samefile(os.devnull)
    except OSError:
        return True


def require_trust() -> None:
    """Raise `ValueError` unless trusted certificates can be read and session keys written."""
    keys, certificates = os.environ.get("SSLKEYLOGFILE"), os.environ.get("SSL_CERT_FILE")
    folder = os.environ.get("SSL_CERT_DIR")
    for name, path in (("SSLKEYLOGFILE", keys), ("SSL_CERT_FILE", certificates)):
        if path and not is_openable(path):
            raise ValueError(f"{name} is {path!r}, which is not a file; unset it, or name one")
    if keys:
        try:
            with Path(keys).open("ab"):
                pass
        except OSError as error:
            message = f"SSLKEYLOGFILE is {keys!r}, which cannot be written: {error.strerror}"
            raise ValueError(f"{message}; unset it, or name a file") from None
    if certificates:
        try:
            ssl.create_default_context(cafile=certificates)
        except OSError:
            message = f"SSL_CERT_FILE is {certificates!r}, which has no readable certificates"
            raise ValueError(f"{message}; unset it, or name a file in PEM") from None
    elif folder and not Path(folder).is_dir():
        message = f"SSL_CERT_DIR is {folder!r}, which is not a directory; unset it, or name one"
        raise ValueError(message)


def _is_direct(target: SplitResult, listed: str) -> bool:
    port = target.port or _PORTS.get(target.scheme)
    return any(_names(entry, target.hostname or "", port) for entry in re.split(r"[,\s]+", listed))


def _names(entry: str, host: str, port: int | None) -> bool:
    """Return whether an entry of NO_PROXY names a host, by its name, domain, address or network.

    An IPv6 address may be in brackets; a port may follow any name.
    """
    name, its_port = entry.lower().rpartition("://")[2], ""
    if name.startswith("["):
        name, _, its_port = name[1:].partition("]")
        its_port = its_port.removeprefix(":")
    elif name.count(":") == 1:
        name, _, its_port = name.partition(":")
    if its_port and its_port != str(port):
        return False
    try:
        return ip_address(host) in ip_network(name, strict=False)
    except ValueError:
        domain = name.removeprefix("*").removeprefix(".")
        return name == "*" or (bool(domain) and (host == domain or host.endswith(f".{domain}")))

"""What the environment says about the way to others: proxies, and whose certificates to trust.

These names are not ours, and most programs heed them. The HTTP library does too, but ends with an
error of its own at forms of them that are common elsewhere.
"""

from __future__ import annotations

import os
import re
import ssl
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies_environment

_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+", re.ASCII)
_SCHEMES = ("http", "https")
_PORTS = {"http": 80, "https": 443}


class VariableError(ValueError):
    """A variable of the environment cannot be heeded; the message names it and says what to do."""


def proxy_for(url: str) -> str | None:
    """Return the proxy by which an address is reached, None if directly."""
    target, proxies = urlsplit(url), getproxies_environment()
    names = [name for name in (target.scheme, "all") if proxies.get(name)]
    if not names or _is_direct(target, proxies.get("no", "")):
        return None
    proxy = proxies[names[0]].strip()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not _is_proxy(proxy):
        message = (
            f"{names[0].upper()}_PROXY is no address of an HTTP proxy, such as "
            f"http://proxy.example:3128: correct it, or name {target.hostname} in NO_PROXY"
        )
        raise VariableError(message)
    return proxy


def require_trust() -> None:
    """Return if the certificates to trust can be read, and session keys be written."""
    keys, certificates = os.environ.get("SSLKEYLOGFILE"), os.environ.get("SSL_CERT_FILE")
    folder = os.environ.get("SSL_CERT_DIR")
    if keys:
        try:
            with Path(keys).open("ab"):
                pass
        except OSError as error:
            message = f"SSLKEYLOGFILE is {keys!r}, which cannot be written: {error.strerror}"
            raise VariableError(f"{message}; unset it, or name a file") from None
    if certificates:
        try:
            ssl.create_default_context(cafile=certificates)
        except OSError:
            message = f"SSL_CERT_FILE is {certificates!r}, which has no certificates to be read"
            raise VariableError(f"{message}; unset it, or name a file in PEM") from None
    elif folder and not Path(folder).is_dir():
        message = f"SSL_CERT_DIR is {folder!r}, which is no directory; unset it, or name one"
        raise VariableError(message)


def _is_proxy(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        is_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return parts.scheme in _SCHEMES and is_port and bool(_HOST.fullmatch(parts.hostname or ""))


def _is_direct(target: SplitResult, listed: str) -> bool:
    port = target.port or _PORTS.get(target.scheme)
    return any(_names(entry, target.hostname or "", port) for entry in re.split(r"[,\s]+", listed))


def _names(entry: str, host: str, port: int | None) -> bool:
    """Return whether an entry of NO_PROXY names a host: by its name or domain, address or network.

    An IPv6 address may stand in brackets, a port after any name.
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

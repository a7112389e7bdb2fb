"""Which proxy an address is reached by, and whose certificates are trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from listener.network import proxy_for, require_trust

PROXY = "http://proxy.example:3128"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
FILES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Begin without any of the variables."""
    for name in (*VARIABLES, *FILES, "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "value", "proxy"),
    [
        ("HTTPS_PROXY", PROXY, PROXY),
        ("https_proxy", "proxy.example:3128", PROXY),
        (
            "HTTPS_PROXY",
            "http://user:word@proxy.example:3128",
            "http://user:word@proxy.example:3128",
        ),
        ("ALL_PROXY", PROXY, PROXY),
        ("ALL_PROXY", "http://[fd00::1]:3128", "http://[fd00::1]:3128"),
        ("HTTP_PROXY", PROXY, None),
        ("HTTPS_PROXY", "", None),
    ],
)
def test_proxy_is_that_of_the_scheme_or_of_all(
    env: pytest.MonkeyPatch, name: str, value: str, proxy: str | None
) -> None:
    env.setenv(name, value)
    assert proxy_for("https://lml.example") == proxy


@pytest.mark.parametrize(
    ("listed", "url", "direct"),
    [
        ("[::1]", "http://[::1]:8000", True),
        ("::1", "http://[::1]:8000", True),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("[::1]:8001", "http://[::1]:8000", False),
        ("fd00::/8", "http://[fd12::7]:8000", True),
        ("[fd00::/8]", "http://[fd12::7]:8000", True),
        ("fd00::/8", "http://[2001:db8::7]", False),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.7/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://lml.example", False),
        ("fd00::/8", "http://10.1.2.3", False),
        ("lml.example", "https://lml.example", True),
        ("LML.example", "https://lml.EXAMPLE", True),
        ("example", "https://lml.example", True),
        (".example", "https://lml.example", True),
        ("*.example", "https://lml.example", True),
        ("ml.example", "https://lml.example", False),
        ("lml.example:443", "https://lml.example", True),
        ("lml.example:8443", "https://lml.example", False),
        ("https://lml.example", "https://lml.example", True),
        ("localhost, [::1] fd00::/8,lml.example", "https://lml.example", True),
        ("[,,]:x, [::1, /8, *x*", "https://lml.example", False),
        ("*", "https://lml.example", True),
        ("", "https://lml.example", False),
    ],
)
def test_no_proxy_is_honoured_in_every_usual_form(
    env: pytest.MonkeyPatch, listed: str, url: str, direct: bool
) -> None:
    env.setenv("ALL_PROXY", PROXY)
    env.setenv("NO_PROXY", listed)
    assert proxy_for(url) == (None if direct else PROXY)


@pytest.mark.parametrize(
    "value",
    [
        "socks5://user:word@127.0.0.1:1080",
        "http://proxy.example:99999",
        "http://proxy.example:port",
        "http://proxy.example:0",
        "http://:3128",
        "http://",
        "http://two words:3128",
        "http://[::1:3128",
        "http://proxy.exa\nmple:3128",
        "http://proxy.example:31\r28",
        "http://proxy..example:3128",
        "http://999.1.1.1:3128",
        "http://xn--e28h.invalid",
    ],
)
def test_proxy_that_cannot_be_used_is_named_without_its_password(
    env: pytest.MonkeyPatch, value: str
) -> None:
    env.setenv("ALL_PROXY", value)
    with pytest.raises(ValueError, match=r"^ALL_PROXY is .* lml\.example in NO_PROXY$") as caught:
        proxy_for("https://lml.example")
    assert "word" not in str(caught.value)
    env.setenv("NO_PROXY", "lml.example")
    assert proxy_for("https://lml.example") is None


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_missing_is_named(env: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    require_trust()
    env.setenv(name, str(tmp_path / "missing" / "file"))
    with pytest.raises(ValueError, match=f"^{name} is '.*/missing/file', which "):
        require_trust()


def test_file_without_certificates_is_named(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    env.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    with pytest.raises(ValueError, match=r"^SSL_CERT_FILE"):
        require_trust()


def test_writable_tls_key_log_is_accepted(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    env.setenv("SSL_CERT_DIR", str(tmp_path))
    require_trust()

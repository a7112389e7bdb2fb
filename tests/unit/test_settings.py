"""The environment, read once and checked at start."""

from __future__ import annotations

from datetime import time, timedelta
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from listener.settings import (
    DatabaseSettings,
    Settings,
    SettingsError,
    is_loopback,
    load_settings,
    origins,
    split_address,
)
from listener.settings.bounds import bounds_of, demand_of, kind_of, masked, unit_of

DSN = "postgresql://wxyc:hunter2@db/wxyc"
KEY = "token-sesame"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("DATABASE_URL", DSN)
    monkeypatch.setenv("LIBRARY_METADATA_URL", "https://lml.example/api/v1")
    return monkeypatch


def refusal() -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(Settings)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return str(caught.value).splitlines()


def test_two_urls_are_enough_to_start(env: pytest.MonkeyPatch) -> None:
    settings = load_settings(Settings)
    assert settings.database_url.get_secret_value() == DSN
    assert str(settings.library_metadata_url) == "https://lml.example/api/v1"
    assert (settings.wxyc_schema_name, settings.batch_size) == ("wxyc_schema", 500)
    assert settings.lml_api_key is None


def test_missing_settings_are_named() -> None:
    assert refusal() == [
        "DATABASE_URL is not set: URL of the backend's PostgreSQL",
        "LIBRARY_METADATA_URL is not set: LML's base URL, with or without /api/v1",
    ]


ODD_PASSWORD = "p@/%:#? x'\"%00"


@pytest.mark.parametrize(
    ("host", "port", "seen"),
    [
        ("db.example", "5433", {"host": "db.example", "port": "5433"}),
        ("db.example", "", {"host": "db.example"}),
        ("db.example", None, {"host": "db.example"}),
        ("fe80::1%eth0", "5432", {"host": "fe80::1%eth0", "port": "5432"}),
        ("/var/run/postgresql", None, {"host": "/var/run/postgresql"}),
    ],
)
def test_parts_replace_a_missing_address(
    monkeypatch: pytest.MonkeyPatch, host: str, port: str | None, seen: dict[str, str]
) -> None:
    parts = {"DB_HOST": host, "DB_NAME": "wx/yc", "DB_USERNAME": "u@x"}
    for name, value in (parts | {"DB_PASSWORD": ODD_PASSWORD, "DATABASE_URL": ""}).items():
        monkeypatch.setenv(name, value)
    if port is not None:
        monkeypatch.setenv("DB_PORT", port)
    address = load_settings(DatabaseSettings).database_url
    assert conninfo_to_dict(address.get_secret_value()) == {
        "dbname": "wx/yc",
        "user": "u@x",
        "password": ODD_PASSWORD,
        **seen,
    }
    assert masked("database_url", address) is not None
    assert "********" in str(masked("database_url", address))
    assert ODD_PASSWORD not in str(masked("database_url", address))
    assert origins(DatabaseSettings)["database_url"] == "DB_*"


def test_address_overrides_its_parts(env: pytest.MonkeyPatch) -> None:
    env.setenv("DB_HOST", "elsewhere")
    assert load_settings(Settings).database_url.get_secret_value() == DSN
    assert origins(Settings)["database_url"] == "environment"


def test_missing_and_wrong_parts_of_an_address_are_named_without_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DB_HOST", "db.example")
    monkeypatch.setenv("DB_PORT", "99999")
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    with pytest.raises(SettingsError) as caught:
        load_settings(DatabaseSettings)
    assert sorted(str(caught.value).splitlines()) == [
        "DATABASE_URL: set it, or set DB_NAME and DB_USERNAME as well",
        "DB_PORT is '99999': must be a whole number, 1 to 65535",
    ]


def test_installing_needs_only_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", DSN)
    monkeypatch.setenv("WXYC_SCHEMA_NAME", "station")
    assert load_settings(DatabaseSettings).wxyc_schema_name == "station"


@pytest.mark.parametrize("name", ["100%", "50%s", "a$$b", "a/*b", "a*/b", "a\nb", "a\x7fb"])
def test_schema_name_with_a_meaning_in_sql_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", DSN)
    monkeypatch.setenv("WXYC_SCHEMA_NAME", name)
    demand = "must not contain %, $$, /*, */ or control characters"
    with pytest.raises(SettingsError) as caught:
        load_settings(DatabaseSettings)
    assert str(caught.value) == f"WXYC_SCHEMA_NAME is {name!r}: {demand}"


@pytest.mark.parametrize(
    "name", ["a$b", 'Odd "schema" 1', "Ünï", "a'b", "a--b", "{backend}", "a\\b"]
)
def test_schema_may_have_any_other_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DATABASE_URL", DSN)
    monkeypatch.setenv("WXYC_SCHEMA_NAME", name)
    assert load_settings(DatabaseSettings).wxyc_schema_name == name


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("7", timedelta(seconds=7)),
        ("2.5", timedelta(seconds=2.5)),
        ("250ms", timedelta(milliseconds=250)),
        ("1.5s", timedelta(seconds=1.5)),
        (" 2m ", timedelta(minutes=2)),
        ("1h", timedelta(hours=1)),
        ("1d", timedelta(days=1)),
    ],
)
def test_durations_are_seconds_or_carry_their_unit(
    env: pytest.MonkeyPatch, text: str, duration: timedelta
) -> None:
    env.setenv("POLL_INTERVAL", text)
    assert load_settings(Settings).poll_interval == duration


@pytest.mark.parametrize(
    "text", ["", "x", "5x", "-1s", "1e3", "1 s", "s", "1h30m", "inf", "nan", "1S", "P1D", "00:05"]
)
def test_invalid_duration_is_refused(env: pytest.MonkeyPatch, text: str) -> None:
    env.setenv("POLL_INTERVAL", text)
    (line,) = refusal()
    assert line.startswith("POLL_INTERVAL")
    assert "250ms, 30s, 15m, 1h, 7d" in line


@pytest.mark.parametrize(
    ("text", "at"),
    [("00:00", time(0)), ("23:59", time(23, 59)), (" 09:30 ", time(9, 30)), ("", None)],
)
def test_time_of_day_is_hours_and_minutes_or_nothing(
    env: pytest.MonkeyPatch, text: str, at: time | None
) -> None:
    env.setenv("ROTATION_WARM_AT", text)
    assert load_settings(Settings).rotation_warm_at == at


@pytest.mark.parametrize("text", ["9:00", "24:00", "12:60", "noon", "09:00:00", "0900", "1d"])
def test_invalid_time_of_day_is_refused(env: pytest.MonkeyPatch, text: str) -> None:
    env.setenv("ROTATION_WARM_AT", text)
    assert refusal() == [
        f"ROTATION_WARM_AT is {text!r}: must be a time of day like 09:00, or empty"
    ]


@pytest.mark.parametrize("text", ["99ms", "2d", "0"])
def test_duration_outside_its_bounds_is_refused(env: pytest.MonkeyPatch, text: str) -> None:
    env.setenv("POLL_INTERVAL", text)
    (line,) = refusal()
    assert line.startswith("POLL_INTERVAL")


def test_endless_duration_is_refused(env: pytest.MonkeyPatch) -> None:
    env.setenv("POLL_INTERVAL", "99999999999d")
    refusal()


def test_all_errors_are_reported_at_once(env: pytest.MonkeyPatch) -> None:
    wrong = {
        "DATABASE_URL": "mysql://wxyc@db/wxyc",
        "LIBRARY_METADATA_URL": "lml.example",
        "BATCH_SIZE": "1001",
        "LML_MAX_CONCURRENT": "many",
        "LINGER": "soon",
        "LOG_LEVEL": "LOUD",
    }
    for name, value in wrong.items():
        env.setenv(name, value)
    lines = refusal()
    assert {line.split()[0].rstrip(":") for line in lines} == wrong.keys()
    assert len(lines) == len(wrong)
    for name in wrong.keys() - {"DATABASE_URL"}:
        (line,) = (line for line in lines if line.startswith(name))
        assert wrong[name] in line


@pytest.mark.parametrize("url", ["", "db/wxyc", "mysql://u:hunter2@db/x", "hunter2", "http://db"])
def test_database_url_of_another_kind_is_refused_without_showing_it(
    env: pytest.MonkeyPatch, url: str
) -> None:
    env.setenv("DATABASE_URL", url)
    assert refusal() == ["DATABASE_URL: must start with postgresql://"]


@pytest.mark.parametrize("url", ["", "lml.example", "ftp://lml.example", "http://"])
def test_invalid_lml_url_is_refused(env: pytest.MonkeyPatch, url: str) -> None:
    env.setenv("LIBRARY_METADATA_URL", url)
    (line,) = refusal()
    assert line.startswith("LIBRARY_METADATA_URL")


@pytest.mark.parametrize(
    "url", ["http://geheim@lml", "http://:geheim@lml", "http://u:geheim@lml/x"]
)
def test_lml_url_with_credentials_is_refused_without_showing_them(
    env: pytest.MonkeyPatch, url: str
) -> None:
    env.setenv("LIBRARY_METADATA_URL", url)
    assert refusal() == [
        "LIBRARY_METADATA_URL: must not contain user:password@: use LML_API_KEY",
    ]


@pytest.mark.parametrize(
    ("url", "shown"),
    [("http://lml?key=geheim", ""), ("http://lml/?", ""), ("http://lml/#x", " is 'http://lml/#x'")],
)
def test_lml_url_to_which_no_path_can_be_appended_is_refused(
    env: pytest.MonkeyPatch, url: str, shown: str
) -> None:
    env.setenv("LIBRARY_METADATA_URL", url)
    demand = "must not contain a query or a fragment: paths are appended to it"
    assert refusal() == [f"LIBRARY_METADATA_URL{shown}: {demand}"]


def test_secrets_are_in_no_message_and_no_representation(env: pytest.MonkeyPatch) -> None:
    env.setenv("LML_API_KEY", KEY)
    settings = load_settings(Settings)
    assert settings.lml_api_key is not None
    assert settings.lml_api_key.get_secret_value() == KEY
    env.setenv("BATCH_SIZE", "0")
    env.setenv("DATABASE_URL", DSN.removeprefix("postgresql://"))
    shown = "\n".join([repr(settings), str(settings), *refusal()])
    assert KEY not in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(("name", "value"), [("BATCH_SIZE", "0"), ("LML_MAX_CONCURRENT", "129")])
def test_limit_above_lmls_own_is_refused(env: pytest.MonkeyPatch, name: str, value: str) -> None:
    env.setenv(name, value)
    (line,) = refusal()
    assert line.startswith(f"{name} is '{value}'")


def test_log_level_may_be_in_lower_case(env: pytest.MonkeyPatch) -> None:
    env.setenv("LOG_LEVEL", "debug")
    assert load_settings(Settings).log_level == "DEBUG"


def test_settings_file_is_read_and_the_environment_overrides_it(
    env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("BATCH_SIZE=20\nLINGER=30ms\nSOMETHING_ELSE=1\n")
    env.setenv("BATCH_SIZE", "10")
    settings = load_settings(Settings)
    assert settings.batch_size == 10
    assert settings.linger == timedelta(milliseconds=30)


def test_settings_file_in_another_encoding_is_refused(
    env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_bytes(b"LML_API_KEY=geh\xe9im\n")
    del env
    assert refusal() == ["the file .env is not UTF-8; save it as UTF-8"]


def test_settings_cannot_change_later(env: pytest.MonkeyPatch) -> None:
    settings = load_settings(Settings)
    with pytest.raises(ValueError, match="frozen"):
        settings.batch_size = 3  # type: ignore[misc]


@pytest.mark.parametrize("password", ["ge@heim", "ge%heim", "ge@he%im", "%", "ge/heim"])
def test_password_that_libpq_would_misread_is_refused_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:{password}@db.example/backend")
    with pytest.raises(
        SettingsError, match="DATABASE_URL: has an unescaped @, / or % in its"
    ) as caught:
        load_settings(DatabaseSettings)
    assert "heim" not in str(caught.value)


@pytest.mark.parametrize(
    "hosts",
    [
        "db:99999",
        "db:0",
        "db:-1",
        "a:1,b:65536",
        "[::1]:99999",
        "u:geheim",
        "u:p@db:geheim",
        "db:\uff15\uff14\uff13\uff12",
    ],
)
def test_invalid_port_is_refused_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://{hosts}/backend")
    with pytest.raises(SettingsError) as caught:
        load_settings(DatabaseSettings)
    said = "DATABASE_URL: has an invalid port: use a number from 1 to 65535"
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "hosts",
    ["", "db", "db:", "db:65535", "u:1@db:1", "[::1]", "u@[::1]:1", "a:1,b,c:3", "%2Ftmp:1"],
)
def test_port_may_be_left_out(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://{hosts}/backend")
    load_settings(DatabaseSettings)


UNUSABLE_HOSTS = ["a..b", ".", "a" * 64 + ".example", "a!b", "999.1.1.1"]
UNUSABLE_PORTS = ["99999", "-1", "\uff18\uff10", "9" * 5_000]
UNUSABLE = [f"{host}:80" for host in UNUSABLE_HOSTS] + [f"db:{port}" for port in UNUSABLE_PORTS]


@pytest.mark.parametrize("host", UNUSABLE_HOSTS)
@pytest.mark.parametrize("around", ["u:p@{}/q", "u:p@db,{}:5432/q", "u:p@/q?host={}"])
def test_invalid_host_of_the_database_is_refused(
    env: pytest.MonkeyPatch, host: str, around: str
) -> None:
    env.setenv("DATABASE_URL", f"postgresql://{around.format(host)}")
    assert refusal() == ["DATABASE_URL: has an invalid host name"]


@pytest.mark.parametrize("host", UNUSABLE_HOSTS)
def test_host_that_libpq_takes_from_elsewhere_is_checked_where_it_counts(
    env: pytest.MonkeyPatch, host: str
) -> None:
    env.setenv("PGHOST", host)
    load_settings(Settings)
    env.setenv("DATABASE_URL", "postgresql:///wxyc")
    assert refusal() == ["DATABASE_URL: has no host, and PGHOST is not a valid host name"]
    env.setenv("PGHOST", "/var/run/postgresql")
    load_settings(Settings)


@pytest.mark.parametrize("host", UNUSABLE_HOSTS)
def test_invalid_host_among_the_parts_is_named(env: pytest.MonkeyPatch, host: str) -> None:
    env.delenv("DATABASE_URL")
    for name, value in {"DB_HOST": host, "DB_NAME": "q", "DB_USERNAME": "u"}.items():
        env.setenv(name, value)
    assert refusal() == ["DATABASE_URL: DB_HOST is not a valid host name"]


@pytest.mark.parametrize("place", [*UNUSABLE, "[::1", "[geheim]:1"])
@pytest.mark.parametrize(
    ("name", "around"),
    [
        ("LIBRARY_METADATA_URL", "http://{}/api/v1"),
        ("GATE_COMPARE_URL", "http://{}/{{base}}...{{head}}"),
        ("SENTRY_DSN", "https://key@{}/1"),
        ("HTTP_BIND", "{}"),
    ],
)
def test_host_and_port_that_cannot_be_used_are_refused_by_name(
    env: pytest.MonkeyPatch, place: str, name: str, around: str
) -> None:
    env.setenv("HTTP_TOKEN", "sesame")
    env.setenv("GATE_COMMIT_SHA", "0123456")
    env.setenv("GATE_COMPARE_URL", "http://code.example/{base}...{head}")
    env.setenv(name, around.format(place))
    (line,) = refusal()
    assert line.startswith(name)
    assert "must be" in line or "needs an address" in line


@pytest.mark.parametrize("name", ["LIBRARY_METADATA_URL", "GATE_COMPARE_URL", "SENTRY_DSN"])
def test_port_0_is_rejected_as_a_target(env: pytest.MonkeyPatch, name: str) -> None:
    env.setenv("GATE_COMMIT_SHA", "0123456")
    env.setenv("GATE_COMPARE_URL", "http://code.example/{base}...{head}")
    path = "{base}...{head}" if name == "GATE_COMPARE_URL" else "1"
    env.setenv(name, f"https://{'key@' if name == 'SENTRY_DSN' else ''}host.example:0/{path}")
    (line,) = refusal()
    assert line.startswith(name)
    assert "a port from 1 to 65535" in line


@pytest.mark.parametrize("host", ["\U0001f600.invalid", "xn--e28h.invalid"])
def test_name_that_the_http_library_cannot_spell_is_refused(
    env: pytest.MonkeyPatch, host: str
) -> None:
    env.setenv("LIBRARY_METADATA_URL", f"http://{host}")
    (line,) = refusal()
    assert line.startswith(f"LIBRARY_METADATA_URL is 'http://{host}': must be an address")


@pytest.mark.parametrize("host", ["bücher.example", "lml_1", "lml.example.", "[::1]", "127.1"])
def test_any_other_host_name_of_lml_is_accepted(env: pytest.MonkeyPatch, host: str) -> None:
    env.setenv("LIBRARY_METADATA_URL", f"http://{host}:8000")
    assert load_settings(Settings).library_metadata_url.port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://u:geh%ffeim@db/q"),
        ("DATABASE_URL", "postgresql://u:geh\udcffeim@db/q"),
        ("DB_PASSWORD", "geh\udcffeim"),
    ],
)
def test_password_that_is_not_utf8_is_refused_with_advice_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    parts = {"DB_HOST": "db", "DB_NAME": "q", "DB_USERNAME": "u"}
    for each, given in (parts | {name: value}).items():
        monkeypatch.setenv(each, given)
    with pytest.raises(SettingsError) as caught:
        load_settings(DatabaseSettings)
    said = str(caught.value)
    assert name in said
    assert "UTF-8" in said
    assert not any(part in said for part in ("geh", "eim", "codec", "0x", "udcff"))


def test_escaped_password_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "DATABASE_URL", "postgresql://u:ge%40he%25im@db.example/backend?application_name=b%20c"
    )
    load_settings(DatabaseSettings)


@pytest.mark.parametrize(
    ("address", "host", "port", "local"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("127.1.2.3:1", "127.1.2.3", 1, True),
        ("localhost:0", "localhost", 0, True),
        ("LocalHost:0", "LocalHost", 0, True),
        ("[::1]:65535", "::1", 65_535, True),
        ("[::]:80", "::", 80, False),
        ("0.0.0.0:80", "0.0.0.0", 80, False),  # noqa: S104 - what is refused
        ("10.0.0.1:80", "10.0.0.1", 80, False),
        ("localhost.example:80", "localhost.example", 80, False),
    ],
)
def test_address_is_split_and_recognised_as_local_or_not(
    address: str, host: str, port: int, *, local: bool
) -> None:
    assert split_address(address) == (host, port)
    assert is_loopback(host) == local


@pytest.mark.parametrize(
    "address", ["8080", "localhost", ":8080", "::1:80", "a:b", "host:70000", "http://a:80"]
)
def test_invalid_address_is_refused(env: pytest.MonkeyPatch, address: str) -> None:
    env.setenv("HTTP_BIND", address)
    assert refusal() == [
        f"HTTP_BIND is {address!r}: must be like 127.0.0.1:8080, [::1]:8080 or localhost:8080"
    ]


@pytest.mark.parametrize("token", [None, "", "  "])
def test_address_reachable_from_other_hosts_needs_a_token(
    env: pytest.MonkeyPatch, token: str | None
) -> None:
    env.setenv("HTTP_BIND", "0.0.0.0:8080")
    if token is not None:
        env.setenv("HTTP_TOKEN", token)
    (message,) = refusal()
    assert message.startswith("HTTP_BIND is '0.0.0.0:8080': other hosts can reach that address; ")
    assert message.endswith("set HTTP_TOKEN, or HTTP_ALLOW_ANONYMOUS=1 to allow access without one")
    env.setenv("HTTP_TOKEN", "sesame")
    assert load_settings(Settings).http_token is not None
    env.delenv("HTTP_TOKEN")
    env.setenv("HTTP_ALLOW_ANONYMOUS", "1")
    assert load_settings(Settings).http_token is None


def test_nothing_is_served_without_an_address(env: pytest.MonkeyPatch) -> None:
    env.setenv("HTTP_BIND", " ")
    assert load_settings(Settings).http_bind == ""


_TOKENS = ("HTTP_TOKEN", "LML_API_KEY", "GITHUB_TOKEN")


@pytest.mark.parametrize("name", _TOKENS)
@pytest.mark.parametrize(
    "token", ["open sesame", "s\u00e9same", "sesame\u20ac", "sesame\x7f", "a\nb"]
)
def test_token_unfit_for_a_header_is_refused_without_showing_it(
    env: pytest.MonkeyPatch, name: str, token: str
) -> None:
    env.setenv(name, token)
    assert refusal() == [f"{name}: must be printable ASCII without spaces"]


@pytest.mark.parametrize("name", _TOKENS)
@pytest.mark.parametrize(("given", "token"), [(" sesame\r\n", "sesame"), (" \n", None)])
def test_blanks_around_a_token_are_ignored(
    env: pytest.MonkeyPatch, name: str, given: str, token: str | None
) -> None:
    env.setenv(name, given)
    secret = getattr(load_settings(Settings), name.lower())
    assert (secret and secret.get_secret_value()) == token


_WRONG = {
    "whole number": "many",
    "number": "many",
    "true or false": "perhaps",
    "duration": "soon",
    "one of": "something else",
    "address": "nowhere",
    "time of day": "24:00",
}


@pytest.mark.parametrize(
    "name", [name for name, field in Settings.model_fields.items() if kind_of(field) in _WRONG]
)
def test_wrong_value_is_reported_with_its_name_and_the_allowed_values(
    env: pytest.MonkeyPatch, name: str
) -> None:
    field = Settings.model_fields[name]
    wrong = _WRONG[kind_of(field)]
    env.setenv(name.upper(), wrong)
    lines = [line for line in refusal() if line.startswith(name.upper())]
    shown = wrong.upper() if name == "log_level" else wrong
    assert lines == [f"{name.upper()} is {shown!r}: {demand_of(field)}"]
    assert bounds_of(field) in lines[0]


def test_timeout_outlasts_the_cold_batches_of_two_other_clients() -> None:
    behind_a_page = timedelta(seconds=75)
    assert Settings.model_fields["lml_timeout"].default > 2 * behind_a_page


def test_every_setting_has_a_description() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        number = kind_of(field) in {"whole number", "number"}
        assert bool(unit_of(field)) == number, f'{name}: Annotated[int, Unit("rows")] has a unit'
        assert not number or bounds_of(field), f"{name} needs its bounds: ge and le"


def test_nonexistent_share_is_reported_with_all_other_errors(env: pytest.MonkeyPatch) -> None:
    env.setenv("PARTITION_INDEX", "2")
    env.setenv("PARTITION_COUNT", "2")
    env.setenv("BATCH_SIZE", "0")
    assert refusal() == [
        "BATCH_SIZE is '0': must be a whole number, 1 to 1000",
        "PARTITION_COUNT is '2': must be greater than PARTITION_INDEX, which is 2",
    ]


def test_origin_of_each_setting_is_known(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BATCH_SIZE=20\nLINGER=30ms\n")
    env.setenv("BATCH_SIZE", "10")
    assert origins(Settings) == {
        "database_url": "environment",
        "library_metadata_url": "environment",
        "batch_size": "environment",
        "linger": ".env",
    }


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        (DSN, "postgresql://wxyc:********@db/wxyc"),
        (
            "postgresql://db/x?password=geheim&sslmode=require",
            "postgresql://db/x?password=********&sslmode=require",
        ),
        ("postgresql://db/x?sslpassword=geheim", "postgresql://db/x?sslpassword=********"),
        ("postgresql://wxyc@db/wxyc", "postgresql://wxyc@db/wxyc"),
    ],
)
def test_address_of_the_database_is_shown_without_its_password(url: str, seen: str) -> None:
    assert masked("database_url", SecretStr(url)) == seen


def test_other_secrets_are_not_shown_at_all() -> None:
    assert masked("lml_api_key", SecretStr(KEY)) == "********"
    assert masked("lml_api_key", None) is None
    assert masked("library_metadata_url", "https://geheim@lml") == "https://********@lml"


@pytest.mark.parametrize("around", ["{}\n", "  {}\r\n", '"{}"', "'{}'", '" {} "\n'])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", DSN),
        ("LML_API_KEY", KEY),
        ("LIBRARY_METADATA_URL", "https://lml.example/"),
        ("SENTRY_DSN", "https://key@sentry.example/1"),
        ("BATCH_SIZE", "7"),
        ("WXYC_SCHEMA_NAME", "station"),
        ("LINGER", "1s"),
        ("LOG_LEVEL", "DEBUG"),
        ("DRY_RUN", "true"),
        ("HTTP_BIND", "[::1]:8080"),
        ("GATE_COMMIT_SHA", "0123abc"),
        ("ROTATION_WARM_AT", "09:30"),
    ],
)
def test_blanks_line_ends_and_quotes_around_a_value_are_ignored(
    env: pytest.MonkeyPatch, name: str, value: str, around: str
) -> None:
    env.setenv("GATE_COMPARE_URL", "https://host.example/{base}...{head}")
    env.setenv(name, value)
    plain = load_settings(Settings)
    env.setenv(name, around.format(value))
    assert load_settings(Settings) == plain

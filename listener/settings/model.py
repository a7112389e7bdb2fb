"""All settings: their defaults, bounds and meanings."""

from __future__ import annotations

from datetime import time, timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from listener.domain.due import AskAgain
from listener.domain.question import IncludeTracks
from listener.domain.refreshing import LML_REFRESH_BATCH_CAP
from listener.network import proxy_for, require_trust
from listener.settings.bounds import Unit
from listener.settings.database import DatabaseSettings
from listener.settings.values import (
    LOWER,
    MORE_THAN_INDEX,
    TAKEN_BY_LML,
    UPPER,
    BaseUrl,
    Bind,
    Commit,
    CompareUrl,
    Duration,
    SentryDsn,
    SentryEnvironment,
    TimeOfDay,
    Token,
)


class StatusSettings(DatabaseSettings):
    """The settings that decide when a row is due, and whether the pipeline is healthy."""

    stale_threshold_days: Annotated[float, Unit("days")] = Field(
        7, gt=0, le=3650, description="Days until LML is asked again about a row with an identity."
    )
    unresolved_retry_days: Annotated[float, Unit("days")] = Field(
        7, gt=0, le=3650, description="Days until LML is asked again about a row without one."
    )
    include_null_canonical: bool = Field(
        default=True,
        description="Whether searches include rows without canonical_entity_id; "
        "set to false for a staged rollout.",
    )
    rotation_min_coverage: Annotated[float, Unit("of 1")] = Field(
        0.99,
        ge=0,
        le=1,
        description="Share of the rotation rows with a Discogs release that must have an identity "
        "before the whole rotation is refreshed; 0.99 is 99 %.",
    )
    ready_max_lag: Duration = Field(
        timedelta(minutes=5),
        ge=timedelta(seconds=1),
        le=timedelta(days=30),
        description="How long a library change may wait, while LML answers, before /readyz "
        "reports the daemon as not ready.",
    )

    @property
    def ask_again(self) -> AskAgain:
        """When LML is asked again about a row."""
        return AskAgain(
            resolved=timedelta(days=self.stale_threshold_days),
            unresolved=timedelta(days=self.unresolved_retry_days),
        )


class Settings(StatusSettings):
    """All settings. A duration is a number of seconds, or like `250ms`, `30s`, `7d`."""

    library_metadata_url: BaseUrl = Field(description="LML's base URL, with or without /api/v1.")
    lml_api_key: Token = Field(None, description="LML's bearer token.")
    batch_size: Annotated[int, Unit("rows")] = Field(
        500, ge=1, le=1000, description="Most rows to ask about in one call."
    )
    va_batch_size: Annotated[int, Unit("rows")] = Field(
        100,
        ge=1,
        le=200,
        description="Most compilations to ask about in one call. Reading a reply about 200 of "
        "them, with tracks, may take 110 MB.",
    )
    include_tracks: Annotated[IncludeTracks, LOWER] = Field(
        IncludeTracks.COMPILATIONS,
        description="Which releases to request tracks for.",
    )
    lml_max_concurrent: Annotated[int, Unit("calls")] = Field(
        2,
        ge=1,
        le=128,
        description="Most bulk calls in flight. Searches leave one free for changes. A process of "
        "LML has five permits, one for each row it works on, and one batch takes all five: set two "
        "calls for each process of LML behind its address, and no more.",
    )
    lml_share: Annotated[float, Unit("of 1")] = Field(
        1,
        ge=0.01,
        le=1,
        description="Share of all refresh calls to LML and Discogs that this installation may use; "
        "ten installations with one LML set 0.1 each. It scales BACKFILL_LML_RPS, the budget of "
        "30 Discogs calls a minute, and how many cold identities may be in flight.",
    )
    lml_timeout: Duration = Field(
        timedelta(minutes=3),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=10),
        description="Timeout of one bulk call. A single row may wait 75 s behind another client's "
        "batch of cold identities; after a timeout, it queues at the back again.",
    )
    lml_attempts: Annotated[int, Unit("tries")] = Field(
        3, ge=1, le=10, description="Attempts of one call before LML counts as unavailable."
    )
    lml_max_reply_bytes: Annotated[int, Unit("bytes")] = Field(
        16 * 2**20,
        ge=2**16,
        le=2**30,
        description="Largest reply accepted from LML, once unpacked. A hundred compilations with "
        "their tracks take 1 MB.",
    )
    backfill_lml_batch_timeout_ms: Annotated[int, Unit("milliseconds")] = Field(
        360_000, ge=1_000, le=3_600_000, description="Timeout of one refresh call."
    )
    backfill_lml_batch_size: Annotated[int, Unit("identities"), TAKEN_BY_LML] = Field(
        LML_REFRESH_BATCH_CAP,
        ge=1,
        le=LML_REFRESH_BATCH_CAP,
        description="Accepted because the old job has it, but unused: a refresh call holds as many "
        "identities as the budget allows, up to 50. A higher value is rejected at start.",
    )
    backfill_lml_rps: Annotated[int, Unit("calls a minute")] = Field(
        30,
        ge=1,
        le=600,
        description="Most refresh calls per MINUTE, despite the name, across all daemons and "
        "commands. A separate budget limits their calls to Discogs.",
    )
    backfill_lml_max_concurrent: Annotated[int, Unit("calls")] = Field(
        2,
        ge=1,
        le=4,
        description="Most refresh calls in flight across all daemons and commands. At 1, a change "
        "waits for the daily walk's call to end. At most four identities that may be cold are in "
        "flight, because LML works on five rows and identities at a time across all its clients.",
    )
    linger: Duration = Field(
        timedelta(milliseconds=100),
        ge=timedelta(0),
        le=timedelta(seconds=10),
        description="How long a batch of more than a few changes may wait to fill.",
    )
    reask_after: Duration = Field(
        timedelta(seconds=2),
        ge=timedelta(0),
        le=timedelta(minutes=5),
        description="How long to wait after a question about a row before the next one.",
    )
    poll_interval: Duration = Field(
        timedelta(seconds=5),
        ge=timedelta(milliseconds=100),
        le=timedelta(days=1),
        description="How often to read the outbox if no wake-up arrives.",
    )
    max_attempts: Annotated[int, Unit("failures")] = Field(
        8,
        ge=1,
        le=100,
        description="Consecutive failures after which a row is parked, if they span four hours or "
        "more in which other rows were answered.",
    )
    withdraw_on_change: bool = Field(
        default=True,
        description="Whether a renamed row loses its identity if LML finds none for the new name.",
    )
    partition_index: Annotated[int, Unit("share")] = Field(
        0, ge=0, le=999, description="Share of the library that commands search, from 0."
    )
    partition_count: Annotated[int, Unit("shares"), MORE_THAN_INDEX] = Field(
        1,
        validate_default=True,
        ge=1,
        le=1000,
        description="Number of shares into which the library is split.",
    )
    dry_run: bool = Field(
        default=False, description="Whether sweep and backfill ask LML but write nothing."
    )
    sweep_interval: Duration = Field(
        timedelta(minutes=15),
        ge=timedelta(seconds=1),
        le=timedelta(days=7),
        description="How often the daemon searches for rows that are due by time, "
        "or that gained credits.",
    )
    audit_interval: Duration = Field(
        timedelta(days=1),
        ge=timedelta(seconds=1),
        le=timedelta(days=30),
        description="How often the daemon checks every row for missed changes.",
    )
    rotation_warm_at: TimeOfDay = Field(
        time(10, 41),
        description="UTC time at which the daemon starts refreshing the whole rotation once a day; "
        "the start may be up to five minutes later. Avoid minutes in which another job that uses "
        "LML starts. Empty: no daily refresh, only changes are warmed.",
    )
    shutdown_timeout: Duration = Field(
        timedelta(seconds=10),
        ge=timedelta(0),
        le=timedelta(minutes=10),
        description="How long to wait for calls in flight when stopping. "
        "The process exits at most a second later.",
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], UPPER] = Field(
        "INFO", description="Lowest level to log."
    )
    gate_commit_sha: Commit = Field(None, description="Commit that the deployed LML must include.")
    gate_compare_url: CompareUrl = Field(
        None,
        validate_default=True,
        description="URL at which the code host compares commits, containing {base} and {head}. "
        "Required with GATE_COMMIT_SHA.",
    )
    github_token: Token = Field(None, description="Token for the code host, if it requires one.")
    local_dev: bool = Field(
        default=False, description="Whether the gate accepts an LML that reports no commit."
    )

    http_token: Token = Field(
        None,
        description="Bearer token or password that clients must send; "
        "/livez and /readyz do not require it.",
    )
    http_allow_anonymous: bool = Field(
        default=False,
        description="Whether HTTP_BIND may be reachable from other hosts without HTTP_TOKEN.",
    )
    http_bind: Bind = Field(
        "127.0.0.1:8080",
        description="HOST:PORT at which the daemon serves its page, metrics and health checks. "
        "Port 0: any free port. Empty: serve nothing.",
    )

    sentry_dsn: SentryDsn = Field(
        None, description="DSN for reporting runs and errors to Sentry; unset: report nothing."
    )
    sentry_traces_sample_rate: Annotated[float, Unit("of 1")] = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of windows and sweeps sent to Sentry. Commands, walks, audits and "
        "errors are always sent.",
    )
    sentry_environment: SentryEnvironment = Field(
        "production", description="Environment name shown in Sentry."
    )

    @model_validator(mode="after")
    def _reaches_others(self) -> Self:
        for url in filter(None, (self.library_metadata_url, self.gate_compare_url)):
            proxy_for(str(url))
        require_trust()
        return self

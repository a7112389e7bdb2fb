"""What all commands have in common: errors in words, exit codes, Ctrl-C, examples."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import click

from listener.adapters.http.sockets import BindError
from listener.adapters.log import drain_logs
from listener.adapters.postgres.finding import SlowSearchError
from listener.adapters.postgres.installation import InstallationError
from listener.domain.faults import StoreUnavailableError, first_of
from listener.domain.gate import GateError
from listener.engine.reconciler import RunHaltedError
from listener.settings import SettingsError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SOME_FAILED = 1
NOT_WANTED = 1
COULD_NOT_RUN = 2
BROKE = 70

_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2

_OUR_CODE = Path(__file__).parents[1]
# What a person can do something about; the message says what.
_TOLD = (
    SettingsError,
    BindError,
    InstallationError,
    GateError,
    RunHaltedError,
    SlowSearchError,
    StoreUnavailableError,
)

# How a write fails; only that to standard output is left to be told here.
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}

P = ParamSpec("P")
T = TypeVar("T")


class Commands(click.Group):
    """A group whose commands all end in words and with an exit code, however they end."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - click's own
    ) -> click.Context:
        _take_standard_streams()
        return told(super().make_context)(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        return told(super().invoke)(ctx)


class _Heedless(io.FileIO):
    """Standard error: where it takes no words, there is nobody left to say so to."""

    def write(self, words: ReadableBuffer, /) -> int:
        with suppress(OSError):
            return super().write(words)
        return memoryview(words).nbytes


def _take_standard_streams() -> None:
    # A socket would take the number of one that was closed before the start, and with it our words.
    # Who writes to the replacement fails; who does not may run.
    while (descriptor := os.open(os.devnull, os.O_RDONLY)) <= _STANDARD_ERROR:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = os.fdopen(_STANDARD_OUTPUT, "w", closefd=False)
    if sys.stderr is sys.__stderr__:
        words = io.BufferedWriter(_Heedless(_STANDARD_ERROR, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(words, errors="backslashreplace", line_buffering=True)


def told(command: Callable[P, T]) -> Callable[P, T]:
    """Turn whatever ends a command into words on standard error and an exit code.

    With the option --debug they follow the traceback.
    """

    @wraps(command)
    def telling(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return command(*arguments, **options)
        except KeyboardInterrupt:
            raise SystemExit(128 + signal.SIGINT) from None
        except click.Abort as error:
            if isinstance(error.__context__, KeyboardInterrupt):
                raise SystemExit(128 + signal.SIGINT) from None
            _tell("nothing was done; answer y to the question, or say --yes")
            raise SystemExit(NOT_WANTED) from None
        except (click.ClickException, click.exceptions.Exit):
            raise
        except _TOLD as error:
            _trace()
            _tell(*str(error).splitlines())
            raise SystemExit(COULD_NOT_RUN) from None
        except OSError as error:
            _end_output(error)
        except Exception as error:  # noqa: BLE001 - the last resort: no traceback by default
            _break(error)

    return telling


def examples(*lines: tuple[str, str]) -> str:
    """Return what --help ends with: command lines, each with what it is for."""
    width = max(len(line) for line, _ in lines)
    shown = [f"  {line:<{width}}  {purpose}" for line, purpose in lines]
    return "\n".join(["\b", "Examples:", *shown])


def _tell(*lines: str) -> None:
    drain_logs()
    for line in lines:
        click.echo(f"listener: {line}", err=True)


def _break(error: Exception) -> NoReturn:
    _trace()
    _tell(_broken(error), "this is an error in the program; --debug tells all of it")
    raise SystemExit(BROKE) from None


def _end_output(error: OSError) -> NoReturn:
    if isinstance(error, BrokenPipeError):
        _mute()
        raise SystemExit(128 + signal.SIGPIPE) from None
    if error.errno not in _UNWRITABLE or error.filename is not None:
        _break(error)
    _trace()
    _mute()
    _tell(f"cannot write to standard output: {error.strerror}")
    raise SystemExit(COULD_NOT_RUN) from None


def _mute() -> None:
    # What could not be written is tried again when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _trace() -> None:
    context = click.get_current_context(silent=True)
    if context is not None and context.find_root().params.get("debug"):
        click.echo(traceback.format_exc(), err=True, nl=False)


def _broken(error: Exception) -> str:
    """Name the type and the places: the message of an unknown error may quote a row or a secret."""
    cause = first_of(error)
    return f"{type(cause).__name__} at {' < '.join(_places(cause)) or 'an unknown place'}"


def _places(error: BaseException) -> Iterator[str]:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_OUR_CODE) and path != Path(__file__):
            yield f"{path.relative_to(_OUR_CODE.parent)}:{frame.lineno}"

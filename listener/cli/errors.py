"""What all commands share: error messages, exit codes, Ctrl-C, numbers and examples."""

from __future__ import annotations

import atexit
import errno
import gc
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import wraps
from importlib import import_module
from math import isnan
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import click

from listener.cli.help import HelpContext, fitted
from listener.domain.faults import FixableError, first_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SOME_FAILED = 1
NOT_WANTED = 1
COULD_NOT_RUN = 2
BROKE = 70

_STANDARD_INPUT, _STANDARD_OUTPUT, _STANDARD_ERROR = 0, 1, 2

_OUR_CODE = Path(__file__).parents[1]
# How a write fails. Of these, only writes to standard output reach this module.
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}

P = ParamSpec("P")
T = TypeVar("T")


class Commands(click.Group):
    """Commands that always end with a message and an exit code, each imported on demand.

    `places` names the module and the function of each, as in `("listener.cli.run", "run")`.
    """

    context_class = HelpContext

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 - click's own
        places: Mapping[str, tuple[str, str]] = MappingProxyType({}),
        **attributes: Any,  # noqa: ANN401 - click's own
    ) -> None:
        super().__init__(*arguments, **attributes)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._places})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._places:
            return super().get_command(ctx, cmd_name)
        module, name = self._places[cmd_name]
        command: click.Command = getattr(_imported(module), name)
        command.context_class = HelpContext
        return command

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - click's own
    ) -> click.Context:
        _take_standard_streams()
        return reporting(super().make_context)(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        return reporting(super().invoke)(ctx)


def _imported(name: str) -> ModuleType:
    # Modules live as long as the process: searching them for garbage takes a tenth of the time to
    # start, and as long again at the end.
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.freeze)


class Number(click.IntRange):
    """A whole number, named plainly in `--help` and in errors."""

    name = "number"


class Decimal(click.FloatRange):
    """A number with a fraction, named as plainly; rejects `nan`."""

    name = "number"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's own
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class RowId(click.IntRange):
    """The id of a row of the library or of its history."""

    name = "id"

    def __init__(self) -> None:
        super().__init__(1, 2**31 - 1)

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's own
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is not a row id (a whole number)", param, ctx)


class _Heedless(io.FileIO):
    """Standard error that ignores failing writes: there is nowhere left to report them."""

    def write(self, text: ReadableBuffer, /) -> int:
        with suppress(OSError):
            return super().write(text)
        return memoryview(text).nbytes


def _take_standard_streams() -> None:
    # If a standard stream was closed before the start, a socket could get its number and receive
    # our output. Writing to the replacement fails, but only in commands that write; a prompt
    # reads end of file.
    while (descriptor := os.open(os.devnull, os.O_RDONLY)) <= _STANDARD_ERROR:
        pass
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = os.fdopen(_STANDARD_INPUT, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(_STANDARD_OUTPUT, "w", closefd=False)
    if sys.stderr is sys.__stderr__:
        raw = io.BufferedWriter(_Heedless(_STANDARD_ERROR, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, errors="backslashreplace", line_buffering=True)


def reporting(command: Callable[P, T]) -> Callable[P, T]:
    """Report any exception of a command on standard error and turn it into an exit code.

    With --debug, a traceback precedes the message.
    """

    @wraps(command)
    def reported(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return command(*arguments, **options)
        except KeyboardInterrupt:
            raise SystemExit(128 + signal.SIGINT) from None
        except click.Abort as error:
            if isinstance(error.__context__, KeyboardInterrupt):
                raise SystemExit(128 + signal.SIGINT) from None
            _report("nothing was done; answer y, or use --yes to skip the question")
            raise SystemExit(NOT_WANTED) from None
        except click.UsageError as error:
            raise click.UsageError(fitted(error.format_message(), "Error: "), error.ctx) from None
        except (click.ClickException, click.exceptions.Exit):
            raise
        except FixableError as error:
            _trace()
            _report(*str(error).splitlines())
            raise SystemExit(COULD_NOT_RUN) from None
        except OSError as error:
            _end_output(error)
        except Exception as error:  # noqa: BLE001 - the last resort: no traceback by default
            _break(error)

    return reported


def examples(*lines: tuple[str, str]) -> str:
    """Return the examples at the end of --help: command lines, each with its purpose."""
    width = max(len(line) for line, _ in lines)
    shown = [f"  {line:<{width}}  {purpose}" for line, purpose in lines]
    return "\n".join(["\b", "Examples:", *shown])


def complain(message: str) -> None:
    """Print a message on standard error."""
    click.echo(f"listener: {fitted(message, 'listener: ')}", err=True)


def _report(*lines: str) -> None:
    # Not at the top: it imports the logging library, which most commands do not need.
    from listener.adapters.log import drain_logs  # noqa: PLC0415

    drain_logs()
    for line in lines:
        complain(line)


def _break(error: Exception) -> NoReturn:
    _trace()
    _report(_broken(error), "this is a bug in listener; run with --debug for the traceback")
    raise SystemExit(BROKE) from None


def _end_output(error: OSError) -> NoReturn:
    if isinstance(error, BrokenPipeError):
        _mute()
        raise SystemExit(128 + signal.SIGPIPE) from None
    if error.errno not in _UNWRITABLE or error.filename is not None:
        _break(error)
    _trace()
    _mute()
    _report(f"cannot write to standard output: {error.strerror}")
    raise SystemExit(COULD_NOT_RUN) from None


def _mute() -> None:
    # Python flushes the unwritten rest when it exits, and would fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _trace() -> None:
    context = click.get_current_context(silent=True)
    if context is not None and context.find_root().params.get("debug"):
        click.echo(traceback.format_exc(), err=True, nl=False)


def _broken(error: Exception) -> str:
    """Return type and places only: the message of an unknown error may quote rows or secrets."""
    cause = first_of(error)
    return f"{type(cause).__name__} at {' < '.join(_places(cause)) or 'an unknown place'}"


def _places(error: BaseException) -> Iterator[str]:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_OUR_CODE) and path != Path(__file__):
            yield f"{path.relative_to(_OUR_CODE.parent)}:{frame.lineno}"

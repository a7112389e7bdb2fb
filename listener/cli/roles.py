"""The command `roles`."""

from __future__ import annotations

import click

from listener.adapters.postgres.installation import require_installed
from listener.adapters.postgres.rights import Grants, apply_grants, plan_grants
from listener.adapters.postgres.sessions import Connection
from listener.cli.errors import complain, examples
from listener.cli.session import change
from listener.settings import DatabaseSettings, load_settings


@click.command(
    name="roles",
    epilog=examples(
        ("listener roles --role listener_daemon", "print the SQL"),
        ("listener roles --role listener_daemon --apply", "run it; safe to repeat"),
    ),
)
@click.option("--role", required=True, help="The daemon's role. It is created if missing.")
@click.option("--apply", "applying", is_flag=True, help="Run the statements in one transaction.")
def roles_command(*, role: str, applying: bool) -> None:
    """Print the SQL that grants a role what the daemon needs.

    Run it after every `listener migrate`, with the DATABASE_URL of the role that migrates. To find
    what the backend's own triggers need, it tries each kind of write as the daemon's role, without
    rows, in a transaction that it rolls back.

    It revokes every other right in schema listener, and therefore rejects the role that migrates.
    Creating a role takes CREATEROLE; the new role has no password.
    """
    if not role:
        message = "--role is empty; give the role that the daemon connects as"
        raise click.UsageError(message)

    async def grant(connection: Connection, backend: str) -> Grants:
        await require_installed(connection, backend)
        make = apply_grants if applying else plan_grants
        return await make(connection, backend, role)

    grants = change(load_settings(DatabaseSettings), grant)
    for statement in grants.statements:
        click.echo(f"{statement};")
    if grants.untried is not None:
        complain(
            f"could not test what {role} needs for the backend's triggers: "
            f"{grants.untried}; run `listener doctor` as {role}"
        )

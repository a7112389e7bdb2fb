"""The command `roles`."""

from __future__ import annotations

import click

from listener.adapters.postgres.installation import installing, require_installed
from listener.adapters.postgres.rights import apply_grants, plan_grants
from listener.cli.errors import examples
from listener.settings import DatabaseSettings, load_settings


@click.command(
    name="roles",
    epilog=examples(
        ("listener roles --role listener_daemon", "what would be granted, as SQL"),
        ("listener roles --role listener_daemon --apply", "grant it; safe to run twice"),
    ),
)
@click.option("--role", required=True, help="The daemon's role; it is made if there is none.")
@click.option("--apply", "applying", is_flag=True, help="Run the statements, all or none.")
def roles_command(*, role: str, applying: bool) -> None:
    """Print the SQL that lets a role do just what the daemon does.

    To be run as the role that migrates, with DATABASE_URL, after every `listener migrate`. What the
    backend's own triggers need when the daemon writes is found by trying each kind of write with no
    rows, as that role, in a transaction that is rolled back. What
    the role may do in schema listener beyond that is taken from it, so the role that migrates is
    refused. A new role has no password, and to make it needs CREATEROLE.
    """
    if not role:
        message = "--role is empty; name the role that the daemon connects as"
        raise click.UsageError(message)
    settings = load_settings(DatabaseSettings)
    backend = settings.wxyc_schema_name
    with installing(settings.database_url.get_secret_value()) as connection:
        require_installed(connection, backend)
        make = apply_grants if applying else plan_grants
        grants = make(connection, backend, role)
    for statement in grants.statements:
        click.echo(f"{statement};")
    if grants.untried is not None:
        click.echo(
            f"listener: what {role} needs for triggers of the backend could not be tried: "
            f"{grants.untried}; run `listener doctor` as {role}",
            err=True,
        )

"""The command `roles`."""

from __future__ import annotations

import click

from listener.adapters.postgres.installation import installing, require_installed
from listener.adapters.postgres.rights import apply_grants, grants
from listener.cli.manners import examples
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

    To be run as the role that migrates, with DATABASE_URL, after every `listener migrate`. What
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
        make = apply_grants if applying else grants
        statements = make(connection, backend, role)
    for statement in statements:
        click.echo(f"{statement};")

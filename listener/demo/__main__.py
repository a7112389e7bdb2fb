"""Creates a backend to experiment with in an empty database: tables, triggers and releases."""

from __future__ import annotations

import click
import psycopg

from listener.demo.catalogue import fill, releases
from listener.demo.postgres import create_backend, has_backend


@click.command()
@click.argument("database_url")
@click.option("--schema", default="wxyc_schema", show_default=True, help="The backend's schema.")
@click.option(
    "--releases",
    "count",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Number of invented releases to add.",
)
def main(database_url: str, schema: str, count: int) -> None:
    """Create a backend in the database at DATABASE_URL, unless it has one."""
    try:
        if has_backend(database_url, schema):
            click.echo(f"{schema} exists already")
            return
        create_backend(database_url, schema, with_triggers=True)
        click.echo(f"created {schema} with {fill(database_url, schema, releases(count))} releases")
    except psycopg.Error as error:
        raise click.ClickException(f"cannot create the backend: {error}") from None


if __name__ == "__main__":
    main()

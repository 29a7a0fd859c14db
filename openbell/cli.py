"""The command line: runs Openbell, and speaks to a running one.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 Openbell does not answer.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Hosts Python trading strategies.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FAILED, UNREACHABLE = 1, 3
GRACE_S = 45

Name = Annotated[str, typer.Argument(help="A strategy's name or id.", metavar="STRATEGY")]
Json = Annotated[bool, typer.Option("--json", help="Print the API's answer as it is.")]
Url = Annotated[
    str,
    typer.Option("--url", envvar="OPENBELL_URL", help="Where Openbell answers."),
]
HERE = "http://127.0.0.1:8000"


def main() -> None:
    app()


# ---- running Openbell


@app.command()
def up(
    port: Annotated[int | None, typer.Option(help="The front door's port.")] = None,
    home: Annotated[
        Path | None, typer.Option(help="Holds data/, strategies/ and log/.", show_default="here")
    ] = None,
    nats_url: Annotated[
        str | None, typer.Option(help="Use this NATS server instead of an embedded one.")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(help="Use this database instead of SQLite in the home.")
    ] = None,
) -> None:
    """Run all of Openbell on this machine, until Ctrl-C."""
    from openbell import console, local

    console.configure(quiet=sys.stderr.isatty())
    settings = _settings(port, home, nats_url, database_url)

    def listening(url: str) -> None:
        print(f"Openbell is up: {url}\nIts home is {settings.home.resolve()}. Ctrl-C stops it.")
        sys.stdout.flush()

    def stopping() -> None:
        print("Stopping strategies, then Openbell ...", flush=True)

    _run(lambda: local.up(settings, listening=listening, stopping=stopping))


@app.command()
def run(
    services: Annotated[
        list[str],
        typer.Argument(help="api, scheduler, runner, calendar, status", metavar="SERVICE"),
    ],
    port: Annotated[int | None, typer.Option(help="The port, for api and status.")] = None,
    home: Annotated[Path | None, typer.Option(help="Holds data/, strategies/ and log/.")] = None,
    nats_url: Annotated[str | None, typer.Option(help="Where NATS is.")] = None,
    database_url: Annotated[str | None, typer.Option(help="Where the database is.")] = None,
) -> None:
    """Run one service, or several, against a NATS server that runs already."""
    import asyncio

    from openbell import console
    from openbell.local import loop_factory
    from openbell.run import SERVICES
    from openbell.run import run as run_services

    unknown = sorted(set(services) - set(SERVICES))
    if unknown:
        raise typer.BadParameter(f"there is no service {unknown[0]!r}")
    console.configure()
    settings = _settings(port, home, nats_url, database_url)
    names = ", ".join(services)

    def listening(url: str) -> None:
        print(f"{names} up{f': {url}' if url else ''}", flush=True)

    async def serve() -> None:
        await run_services(services, settings, listening=listening)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        _run(lambda: runner.run(serve()))


@app.command()
def migrate(
    home: Annotated[Path | None, typer.Option(help="Holds data/.")] = None,
    database_url: Annotated[str | None, typer.Option(help="Where the database is.")] = None,
) -> None:
    """Bring the database to this release's schema."""
    import asyncio

    from openbell.db.migrate import HEAD, upgrade

    settings = _settings(None, home, None, database_url)
    settings.data.mkdir(parents=True, exist_ok=True)
    _run(lambda: asyncio.run(upgrade(settings.database_url)))
    print(f"the database is at migration {HEAD}")


def _settings(
    port: int | None, home: Path | None, nats_url: str | None, database_url: str | None
) -> Any:
    from openbell.settings import Settings

    settings = Settings()
    http = settings.http.model_copy(update={"port": port} if port is not None else {})
    nats = settings.nats.model_copy(update={"url": nats_url} if nats_url else {})
    database = settings.database.model_copy(update={"url": database_url} if database_url else {})
    return settings.model_copy(
        update={
            "home": (home or settings.home).resolve(),
            "http": http,
            "nats": nats,
            "database": database,
        }
    )


def _run(work: Callable[[], None]) -> None:
    from openbell.contracts.errors import OpenbellError
    from openbell.local import HomeInUse, NatsDidNotStart

    try:
        work()
    except OpenbellError as error:
        _fail(error.detail)
    except (HomeInUse, NatsDidNotStart, OSError) as error:
        _fail(str(error))


def _fail(message: str, code: int = FAILED) -> None:
    print(f"openbell: {message}", file=sys.stderr)
    raise typer.Exit(code)

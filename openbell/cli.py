"""The command line: runs Openbell, and speaks to a running one.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 Openbell does not answer.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from openbell import (
    cli_accounts,
    cli_calendar,
    cli_environments,
    cli_import,
    cli_limits,
    cli_logs,
    cli_owner,
    cli_runners,
    cli_schedules,
    client,
    credentials,
    show,
    terminal,
)
from openbell.cli_options import (
    FAILED,
    HERE,
    UNREACHABLE,
    Json,
    Limits,
    Name,
    Secrets,
    Url,
    Uses,
    Values,
    confirm,
    pairs,
    secrets,
)

app = typer.Typer(
    help="Hosts Python trading strategies.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

START_S, STOP_S, STOP_ALL_S = 20, 60, 900


def main() -> None:
    try:
        app()
    except client.Unreachable as error:
        _end(str(error), UNREACHABLE)
    except (client.Refused, credentials.BadCredentials) as error:
        _end(str(error), FAILED)


def _end(message: str, code: int) -> NoReturn:
    print(f"openbell: {terminal.shown(message, sys.stderr)}", file=sys.stderr)
    sys.exit(code)


# ---- running Openbell


@app.command()
def up(
    port: Annotated[
        int | None, typer.Option(help="The front door's port.", min=0, max=65535)
    ] = None,
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
        _tell_setup_link(settings.data, settings.http.public_url or url)
        sys.stdout.flush()

    def stopping() -> None:
        print("Stopping: strategies clean up first (15 s unless you said more) ...", flush=True)

    _run(lambda: local.up(settings, listening=listening, stopping=stopping))


@app.command()
def run(
    services: Annotated[
        list[str],
        typer.Argument(help="api, scheduler, runner, calendar, status", metavar="SERVICE"),
    ],
    port: Annotated[
        int | None, typer.Option(help="The port, for api and status.", min=0, max=65535)
    ] = None,
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
        if "api" in services:
            _tell_setup_link(settings.data, settings.http.public_url or url)
            sys.stdout.flush()

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
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    _run(lambda: asyncio.run(upgrade(settings.database_url)))
    print(f"the database is at migration {HEAD}")


@app.command()
def nats_config(
    runner: Annotated[list[str], typer.Option(help="A runner's id; give one for each host.")],
    out: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("nats"),
) -> None:
    """Write what a nats-server of your own needs: its configuration, and a login a service."""
    from openbell import nats_config

    try:
        files = nats_config.write(out, runner)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        _end(str(error), FAILED)
    print("\n".join(str(file) for file in files))


def _tell_setup_link(data: Path, url: str) -> None:
    """Until somebody has claimed the first account."""
    with contextlib.suppress(OSError):
        token = (data / "setup-token").read_text().strip()
        print(f"First start: make your account at {url}/join#{token}")


def _settings(
    port: int | None, home: Path | None, nats_url: str | None, database_url: str | None
) -> Any:
    from pydantic import ValidationError

    from openbell.settings import Settings, variable

    try:
        settings = Settings()
    except OSError as error:  # of a file that should hold one
        _end(str(error), FAILED)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        _end("\n".join(f"{variable(one['loc'])}: {one['msg']}" for one in wrong), FAILED)
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
        _end(error.detail, FAILED)
    except (HomeInUse, NatsDidNotStart, OSError) as error:
        _end(str(error), FAILED)


# ---- speaking to a running Openbell


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="A .py file.", exists=True, dir_okay=False)],
    name: Annotated[str | None, typer.Option(help="By default, the file's.")] = None,
    exchange: Annotated[str | None, typer.Option(help="Its exchange, like NSE.")] = None,
    set_: Values = None,
    secret: Secrets = None,
    use: Uses = None,
    limits: Limits = None,
    requirements: Annotated[
        Path | None,
        typer.Option(
            help="A requirements.txt: its packages, instead of the default ones.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(help="Its Python, like 3.12; by default, the newest that will do."),
    ] = None,
    restart: Annotated[
        str | None, typer.Option(help="never, on-failure (the default) or always.")
    ] = None,
    stop_grace_s: Annotated[
        float | None,
        typer.Option("--stop-grace", help="Seconds to clean up in, before it is killed: 15."),
    ] = None,
    start_it: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Upload a strategy."""
    form = {
        "parameters": json.dumps(pairs(set_)),
        "secrets": json.dumps(secrets(secret)),
        "uses": json.dumps(pairs(use)),
    }
    with client.connect(url) as openbell:
        if name:
            form["name"] = name
        if exchange:
            form["exchange"] = exchange
        if limits:
            form["limits"] = limits
        if requirements:
            form["requirements"] = requirements.read_text("utf-8-sig")
        if python:
            form["python"] = python
        if restart:
            form["restart"] = restart
        if stop_grace_s is not None:
            form["stop_grace_s"] = str(stop_grace_s)
        outcome = openbell.upload(file, form)
        if start_it:
            outcome = openbell.act("start", outcome["strategy"]["id"], wait=START_S)
    show.outcome(outcome, as_json=as_json)


@app.command()
def ls(
    everybody: Annotated[bool, typer.Option("--everybody", help="All there are; admins.")] = False,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """List your strategies, and those that are shared with you."""
    with client.connect(url) as openbell:
        strategies = openbell.strategies(everybody=everybody)
    if as_json:
        show.raw(strategies)
    else:
        show.table(strategies)


@app.command()
def start(name: Name, as_json: Json = False, url: Url = HERE) -> None:
    """Start a strategy now, whatever its schedule says."""
    _act("start", name, START_S, url, as_json)


@app.command()
def stop(name: Name, as_json: Json = False, url: Url = HERE) -> None:
    """Stop a strategy, and keep it stopped. Answers when all of it is gone."""
    _act("stop", name, STOP_S, url, as_json)


@app.command("stop-all")
def stop_all(
    everybody: Annotated[
        bool, typer.Option("--everybody", help="Those of all users; for admins.")
    ] = False,
    no_hold: Annotated[
        bool, typer.Option("--no-hold", help="Leave alone what would only start later.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Stop all your strategies, and keep them stopped. Answers when all of them are gone."""
    confirm(
        f"Stop {'the strategies of everybody' if everybody else 'all your strategies'}?", yes=yes
    )
    path = "/admin/stop-all" if everybody else "/python/stop-all"
    params = {"hold": not no_hold, "wait": STOP_ALL_S}
    with client.connect(url) as openbell:
        answer = openbell.request("POST", path, params=params, timeout=STOP_ALL_S + STOP_S)
    show.stopped(answer, as_json=as_json)
    if not answer["all_gone"]:
        raise typer.Exit(FAILED)


@app.command()
def restart(name: Name, as_json: Json = False, url: Url = HERE) -> None:
    """Stop a strategy and start it again."""
    _act("restart", name, STOP_S, url, as_json)


@app.command()
def resume(name: Name, as_json: Json = False, url: Url = HERE) -> None:
    """Let the schedule decide again, after you stopped or started by hand."""
    _act("resume", name, 0, url, as_json)


@app.command()
def events(as_json: Json = False, url: Url = HERE) -> None:
    """Print what happens, as it happens, until Ctrl-C."""
    with client.connect(url) as openbell:
        for kind, data in openbell.events():
            show.event(kind, data, as_json=as_json)


@app.command()
def delete(
    name: Name,
    stop_it: Annotated[bool, typer.Option("--stop", help="Stop it first, if it runs.")] = False,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Delete a strategy. Its logs stay."""
    with client.connect(url) as openbell:
        strategy_id = openbell.find(name)["id"]
        path = f"/python/delete/{strategy_id}"
        answer = openbell.request("DELETE", path, params={"stop": stop_it})
    if as_json:
        show.raw(answer)
    else:
        show.say(f"deleted {strategy_id}{': ' + answer['note'] if answer['note'] else ''}")


@app.command()
def doctor(
    smoke: Annotated[bool, typer.Option(help="Run one strategy end to end as well.")] = False,
    home: Annotated[Path | None, typer.Option(help="The home to look at.")] = None,
    as_json: Json = False,
) -> None:
    """Tell what this installation and this host can do."""
    from openbell import doctor as doctors

    checks = doctors.examine((home or Path(os.environ.get("OPENBELL_HOME", ""))).resolve())
    if smoke:
        checks += doctors.smoke()
    show.checks(checks, as_json=as_json)
    if not all(check.ok for check in checks):
        raise typer.Exit(FAILED)


def _act(verb: str, name: str, wait_s: float, url: str, as_json: bool) -> None:
    with client.connect(url) as openbell:
        outcome = openbell.act(verb, openbell.find(name)["id"], wait=wait_s)
    show.outcome(outcome, as_json=as_json)
    status = outcome["strategy"]["status"]
    if verb in {"start", "restart"} and status in {"crashed", "failed", "waiting"}:
        raise typer.Exit(FAILED)
    if verb == "stop" and status == "stopping":
        raise typer.Exit(FAILED)  # it still cleans up, or will not end


app.add_typer(cli_logs.app)
app.add_typer(cli_schedules.app)
app.add_typer(cli_limits.app)
app.add_typer(cli_runners.app)
app.add_typer(cli_environments.app)
app.add_typer(cli_calendar.app, name="calendar")
app.add_typer(cli_import.app)
app.add_typer(cli_owner.app)
app.add_typer(cli_accounts.app)

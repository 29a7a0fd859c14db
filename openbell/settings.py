"""All configuration: addresses, and one nested model a service. Deployments differ by these alone.

Each setting is also an environment variable: `OPENBELL_HTTP__PORT=8001`; or a file that holds it,
for what must be in no environment: `OPENBELL_NATS__PASSWORD_FILE=/run/secrets/nats`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, IPvAnyNetwork, SecretStr, StringConstraints
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

PREFIX, OF_FILE = "OPENBELL_", "_FILE"
RUNNER_ID = r"^[a-z0-9][a-z0-9-]{0,62}$"


def _split(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    return [part.strip() for part in given.split(",") if part.strip()]


BY_COMMAS = (NoDecode, BeforeValidator(_split))
HostName = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")]


class NatsSettings(BaseModel):
    url: str | None = None
    """Where NATS is; none means the embedded server below `home`."""
    user: str | None = None
    """The name to log in with; none means the service's own: `api`, `runner-<id>`, …"""
    password: SecretStr | None = None
    passwords: dict[str, SecretStr] = {}
    """By user, for a process with several services. It goes before `password`."""
    artifacts_max_bytes: int = 1024**3
    """Size of the cache of sources that runners fetch from."""

    def login(self, service_user: str) -> tuple[str | None, str | None]:
        """The user and the password of a service; none for a server that lets everybody in."""
        if service_user in self.passwords:
            return service_user, self.passwords[service_user].get_secret_value()
        if self.password:
            return self.user or service_user, self.password.get_secret_value()
        return None, None


class DatabaseSettings(BaseModel):
    url: str | None = None
    """An SQLAlchemy address; none means SQLite below `home`."""


class HttpSettings(BaseModel):
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    names: Annotated[frozenset[HostName], *BY_COMMAS] = frozenset()
    """Under which it is asked, besides those of this machine: that of a server with TLS before
    it. None means: on a loopback address no other name, else any."""
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], *BY_COMMAS] = ()
    """Whose `X-Forwarded-For` is believed: addresses or networks."""
    private: bool = False
    """Whether nobody but a proxy of Openbell's own reaches `host`: then it may be any address
    before somebody can sign in, and no other names are answered than with a loopback one."""
    public_url: str | None = None
    """Under which address people find it, for links; none means where it listens."""


class ApiSettings(BaseModel):
    max_source_bytes: int = 1024**2
    session_days: float = Field(default=30, gt=0)
    """How long a browser stays signed in."""
    keys: SecretStr | None = None
    """What seals the values of variables: base64url of 32 bytes each, newest first, separated by
    commas; none means those in `data/keys`, made at the first start."""


class SchedulerSettings(BaseModel):
    reconcile_s: float = Field(default=15, gt=0)
    """How often whatever may need something is looked at again, so that nothing hangs on one timer
    or one event. Everything is, every five minutes."""
    lead_s: float = Field(default=30, ge=0, le=60)
    """How long before its instant a scheduled start is granted, so that its runner prepares it."""
    max_failures: int = Field(default=10, ge=1)
    """Failures in a row after which a strategy is given up."""
    first_retry_s: float = Field(default=1, gt=0)
    longest_retry_s: float = Field(default=300, gt=0)
    healthy_after_s: float = Field(default=600, gt=0)
    """A run that lasted this long clears the count of failures."""


class RunnerSettings(BaseModel):
    id: str = Field(default="local", pattern=RUNNER_ID)
    python: Path | None = None
    """The interpreter of strategies that name no packages; none means the default environment,
    built on first use."""
    environment: dict[str, str] = {}
    """Variables for every strategy of this host; a strategy's own parameters win."""
    readable: Annotated[tuple[Path, ...], *BY_COMMAS] = ()
    """What every strategy of this host may read besides the system, its interpreter and its own
    folder: data that many share."""
    fork: bool = True
    """Whether strategies may be forked from an interpreter that has imported what they need: on
    Linux, where cells have namespaces."""
    most_runs: int | None = Field(default=None, ge=1)
    """How many runs may be live at one time; further starts wait. None: as many as its memory
    takes."""
    stop_strategies_on_exit: bool = False
    """Whether strategies end with the runner, or go on and are found again."""
    own_warden: bool = True
    """Whether a warden is started where none answers, and brought to this release. Else that is
    for others to do, and it is waited for."""
    heartbeat_s: float = Field(default=5, gt=0)
    sample_s: float = Field(default=1, ge=0.1, le=10)
    """How often each run is looked at: whether it keeps to its limits, and is alive."""
    metrics_s: float = Field(default=5, ge=1, le=10)
    """How often is told what runs and the host use; api believes it for STALE_S of openbell.bus."""


class EnvironmentSettings(BaseModel):
    """How long a runner keeps the environments that it has built."""

    keep_days: float = Field(default=2, ge=1 / 24)
    """One that a start has named since is never removed, whatever the others say."""
    max_age_days: float = Field(default=30, gt=0)
    """One that no start has named for so long is removed."""
    max_bytes: int = Field(default=20 * 1024**3, ge=0)
    """What all of them may take up, as if they shared nothing: the longest unused go first."""


class LogSettings(BaseModel):
    """Of the logs of runs on a runner's host."""

    cap_bytes: int = Field(default=50 * 1024**2, ge=64 * 1024)
    """How much of a run's log stays as it was written; what is older is archived."""
    archive_bytes: int = Field(default=200 * 1024**2, ge=0)
    """What the archives and the logs of ended runs of one strategy may take up."""
    max_age_days: float = Field(default=30, gt=0)
    """How long they are kept at the most."""
    disk_reserve_bytes: int = Field(default=256 * 1024**2, ge=0)
    """When less is free on the disk, archives are dropped, then the old lines of live logs."""


class StatusSettings(BaseModel):
    queue_size: int = Field(default=512, ge=1)
    """Events that may wait for one slow client before it is told to start afresh."""
    heartbeat_s: float = Field(default=15, gt=0)


class FileSettingsSource(EnvSettingsSource):
    """Settings of which the environment names the files that hold them. Raises OSError."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {
            name.removesuffix(OF_FILE).lower(): Path(file).read_text("utf-8").strip()
            for name, file in os.environ.items()
            if name.startswith(PREFIX) and name.endswith(OF_FILE)
        }


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__")

    home: Path = Path()
    alive: Path | None = None
    """A file that is touched each second, as long as all is served and NATS answers."""
    nats: NatsSettings = NatsSettings()
    database: DatabaseSettings = DatabaseSettings()
    http: HttpSettings = HttpSettings()
    api: ApiSettings = ApiSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    runner: RunnerSettings = RunnerSettings()
    environments: EnvironmentSettings = EnvironmentSettings()
    log: LogSettings = LogSettings()
    status: StatusSettings = StatusSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - there are none
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, FileSettingsSource(settings_cls)

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def strategies(self) -> Path:
        """The runner's checked-out sources, one folder a strategy."""
        return self.home / "strategies"

    @property
    def logs(self) -> Path:
        """Run logs, one folder a strategy, one file a run."""
        return self.home / "log" / "strategies"

    @property
    def database_url(self) -> str:
        return self.database.url or f"sqlite+aiosqlite:///{self.data / 'openbell.db'}"


def variable(place: tuple[int | str, ...]) -> str:
    """The environment variable that sets what lies here."""
    return "OPENBELL_" + "__".join(str(name).upper() for name in place)

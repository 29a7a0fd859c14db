"""Domain errors. Each is a problem (RFC 9457) with a stable code, over the bus and over HTTP alike.

An error's docstring is its title.
"""

from typing import Any, ClassVar, Self

from openbell.contracts.base import Message, snake_case


class Problem(Message):
    """An error on the wire."""

    code: str
    status: int
    title: str
    detail: str
    errors: list[dict[str, Any]] | None = None


class OpenbellError(Exception):
    """Something went wrong inside Openbell."""

    status: ClassVar[int] = 500

    def __init__(
        self,
        detail: str = "",
        *,
        errors: list[dict[str, Any]] | None = None,
        received: Problem | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self._received = received

    @classmethod
    def code(cls) -> str:
        return snake_case(cls.__name__.removesuffix("Error"))

    def problem(self) -> Problem:
        """What it is on the wire; one that a newer neighbour sent is passed on as it came."""
        return self._received or Problem(
            code=self.code(),
            status=self.status,
            title=(type(self).__doc__ or "").splitlines()[0].rstrip("."),
            detail=self.detail,
            errors=self.errors,
        )


def raised_from(problem: Problem) -> OpenbellError:
    """The error that a problem on the wire stands for."""
    kinds = {kind.code(): kind for kind in _descendants(OpenbellError)}
    kind = kinds.get(problem.code)
    if kind is None:
        return OpenbellError(problem.detail, errors=problem.errors, received=problem)
    return kind(problem.detail, errors=problem.errors)


def _descendants(kind: type[OpenbellError]) -> list[type[OpenbellError]]:
    return [d for child in kind.__subclasses__() for d in (child, *_descendants(child))]


class UnknownStrategy(OpenbellError):
    """There is no such strategy."""

    status = 404


class UnknownRun(OpenbellError):
    """There is no such run."""

    status = 404


class LogGone(UnknownRun):
    """The log of this run is not there any more."""


class NoSuchPage(OpenbellError):
    """There is nothing at this address."""

    status = 404


class MethodNotAllowed(OpenbellError):
    """This address does not answer that method."""

    status = 405


class UnknownUser(OpenbellError):
    """There is no such user."""

    status = 404


class UnknownCredential(OpenbellError):
    """There is no such session, token or invitation."""

    status = 404


class UnknownSecret(OpenbellError):
    """You have no secret of this name."""

    status = 422


class NotSignedIn(OpenbellError):
    """Sign in first."""

    status = 401


class WrongPassword(OpenbellError):
    """Nobody was signed in."""

    status = 401


class NotAllowed(OpenbellError):
    """This account or token may not do this."""

    status = 403


class ForgedRequest(OpenbellError):
    """The request does not prove that it comes from Openbell's own page."""

    status = 403


class TooManyTries(OpenbellError):
    """Too many tries; wait."""

    status = 429

    def __init__(self, detail: str = "", *, retry_after_s: float = 1, **kept: Any) -> None:
        super().__init__(detail, **kept)
        self.retry_after_s = retry_after_s


class TooManyStreams(OpenbellError):
    """This user has too many event streams open; close some."""

    status = 429


class LastAdmin(OpenbellError):
    """The account of the machine itself remains an admin."""

    status = 409


class UserNameTaken(OpenbellError):
    """Another account has this name."""

    status = 409


class StrategyIsRunning(OpenbellError):
    """The strategy is running."""

    status = 409


class NameTaken(OpenbellError):
    """Another strategy of yours has this name."""

    status = 409


class InvalidRequest(OpenbellError):
    """The request is not valid."""

    status = 422

    @classmethod
    def of(cls, field: str, message: str) -> Self:
        """About one field."""
        return cls(f"{field}: {message}", errors=[{"field": field, "message": message}])


class InvalidSource(OpenbellError):
    """The file is not a Python script that can be compiled."""

    status = 422


class EnvironmentRefused(OpenbellError):
    """No environment can be made of these requirements."""

    status = 422


class UnknownPython(OpenbellError):
    """No runner has a Python that will do."""

    status = 422


class TooLarge(OpenbellError):
    """The request is larger than this host accepts."""

    status = 413


class ForeignOrigin(OpenbellError):
    """The request came from another site."""

    status = 403


class UnknownExchange(OpenbellError):
    """There is no calendar for this exchange."""

    status = 422


class UnknownOverride(OpenbellError):
    """Nobody has said anything of this day."""

    status = 404


class RequestRefused(OpenbellError):
    """The request cannot be understood."""

    status = 400


class ServiceUnavailable(OpenbellError):
    """A part of Openbell that this needs does not answer."""

    status = 503


class LogWithheld(OpenbellError):
    """It cannot be told what must be hidden in this log."""

    status = 503


class NoAnswer(ServiceUnavailable):
    """It was asked for, and no answer came: it may be done all the same."""


class SecretInUse(OpenbellError):
    """Strategies use this secret."""

    status = 409


class SealBroken(OpenbellError):
    """A sealed value cannot be opened."""

    status = 500


class RunnerRefused(OpenbellError):
    """The runner would not do this."""

    status = 409

"""Credentials from files that something else renews: where they are looked for, what is taken.

Tokens are found as the WLCG's tools find them (WLCG Bearer Token Discovery, DOI
10.5281/zenodo.3937438), proxies as Globus' and ARC's do. docs/explanation/credentials.md tells
which files are refused, and why.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar

import trio
from pydantic import SecretBytes, SecretStr

from arcbackend.credentials import (
    B64TOKEN,
    BearerToken,
    CredentialKind,
    CredentialRequirements,
    CredentialSet,
    X509Proxy,
)
from arcbackend.errors import ConfigurationError

__all__ = ["FileCredentials"]

_TMP = Path("/tmp")  # noqa: S108 - where the tools look, too
_TOKEN_BYTES = 64 * 1024
_PROXY_BYTES = 2**20
_PATIENCE = 10.0
"""For how long a file is tried to be read, in seconds."""
_SETTLED = 0.1
"""What was written less than so many seconds ago may be half of what is being written."""
_FINISHED = 2.0
"""What makes no sense is looked at again until it is so many seconds old."""
# C's isspace, which the WLCG's document names.
_BLANKS = " \f\n\r\t\v"
# base64url of `{"`, with which the header of a JWT begins.
_JWT = re.compile(r"eyJ[\w-]*(?:\.|\Z)")

_Credential = TypeVar("_Credential", bound=BearerToken | X509Proxy)
_Signature: TypeAlias = tuple[int, ...]


class FileCredentials:
    """A provider that reads files, anew when they have changed.

    Only the kinds that are asked for are looked for. A file may be replaced by renaming another one
    over it, or be rewritten in place; one that is half written is waited for.

    Args:
        token_file: the file of the bearer token; None: found by the environment (``BEARER_TOKEN``,
            ``BEARER_TOKEN_FILE``, ``$XDG_RUNTIME_DIR/bt_u<uid>``, ``/tmp/bt_u<uid>``, in that
            order).
        proxy_file: the file of the X.509 proxy, with its key and its chain; None: found by the
            environment (``X509_USER_PROXY``, ``/tmp/x509up_u<uid>``).
        environ: the environment; None: the process's own, as it is at each time.
    """

    def __init__(
        self,
        token_file: Path | str | None = None,
        proxy_file: Path | str | None = None,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._token_file = token_file
        self._proxy_file = proxy_file
        self._environ: Mapping[str, str] = os.environ if environ is None else environ
        self._tokens = _Reader(_token)
        self._proxies = _Reader(_proxy)

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        """Return what is there now, of the kinds that are asked for.

        Raises:
            ConfigurationError: there is nothing, or it cannot be used. The message names the file
                and says what to do; it quotes nothing of the file.
        """
        kinds = requirements.kinds
        return CredentialSet(
            token=await self._find_token() if CredentialKind.TOKEN in kinds else None,
            proxy=await self._find_proxy() if CredentialKind.PROXY in kinds else None,
        )

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to close."""

    async def _find_token(self) -> BearerToken:
        if self._token_file is None and "BEARER_TOKEN" in self._environ:
            told = _token(self._environ["BEARER_TOKEN"].encode(errors="surrogateescape"))
            if isinstance(told, str):
                raise ConfigurationError(f"BEARER_TOKEN: {told}")
            if told is not None:
                return told
        looked = []
        for place in self._token_places():
            found = await self._tokens.read(place)
            if isinstance(found, BearerToken):
                return found
            looked.append(f"{place} {found.value}")
        raise ConfigurationError(
            f"no bearer token: {', '.join(looked)}. Put one there, or say where it is: "
            "BEARER_TOKEN_FILE, or token_file"
        )

    def _token_places(self) -> Iterator[_Place]:
        name = f"bt_u{os.geteuid()}"
        if self._token_file is not None:
            yield _named(self._token_file, "token_file", _TOKEN_BYTES)
            return
        if path := self._environ.get("BEARER_TOKEN_FILE"):
            yield _named(path, "BEARER_TOKEN_FILE", _TOKEN_BYTES)
        folder = self._environ.get("XDG_RUNTIME_DIR", "")
        if os.path.isabs(folder):  # else it is none (XDG Base Directory Specification)
            yield _Place(Path(folder, name), _TOKEN_BYTES)
        yield _Place(_TMP / name, _TOKEN_BYTES, in_tmp=True)

    async def _find_proxy(self) -> X509Proxy:
        if self._proxy_file is not None:
            place = _named(self._proxy_file, "proxy_file", _PROXY_BYTES, private=True)
        elif path := self._environ.get("X509_USER_PROXY"):
            place = _named(path, "X509_USER_PROXY", _PROXY_BYTES, private=True)
        else:
            path = f"x509up_u{os.geteuid()}"
            place = _Place(_TMP / path, _PROXY_BYTES, in_tmp=True, private=True)
        found = await self._proxies.read(place)
        if isinstance(found, X509Proxy):
            return found
        raise ConfigurationError(
            f"no X.509 proxy: {place} {found.value}. Make one there (arcproxy, voms-proxy-init), "
            "or say where it is: X509_USER_PROXY, or proxy_file"
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a credential may be.

    Attributes:
        path: the file.
        limit: bytes that it may have.
        named_by: the setting that names it; None: it is where such files are by convention.
        in_tmp: whether others can put files and links there.
        private: whether nobody else may be able to read it.
    """

    path: Path
    limit: int
    named_by: str | None = None
    in_tmp: bool = False
    private: bool = False

    def __str__(self) -> str:
        return str(self.path) if self.named_by is None else f"{self.path} ({self.named_by})"

    def fault(self, why: str) -> ConfigurationError:
        """What to raise of the file."""
        return ConfigurationError(f"{self}: {why}")


class _Nothing(StrEnum):
    """Why there is no credential."""

    ABSENT = "is not there"
    EMPTY = "is empty"
    UNFINISHED = "is being written"


class _Reader(Generic[_Credential]):
    """Reads credentials of one kind, and remembers the last while its file is the same.

    Args:
        parse: from a file's content, the credential, or what is wrong with it; None: it is empty.
    """

    def __init__(self, parse: Callable[[bytes], _Credential | str | None]) -> None:
        self._parse = parse
        self._held: tuple[Path, _Signature, _Credential] | None = None

    async def read(self, place: _Place) -> _Credential | _Nothing:
        """Return what a place holds when it is whole.

        Raises:
            ConfigurationError: it is there, but cannot be used; or it is named, but not there.
        """
        with trio.move_on_after(_PATIENCE):
            while True:
                found = await trio.to_thread.run_sync(self._look, place, abandon_on_cancel=True)
                if found is not _Nothing.UNFINISHED:
                    return found
                await trio.sleep(_SETTLED / 2)
        raise place.fault(
            f"it could not be read within {_PATIENCE:g} s: it is being written all the time, or "
            "its file system does not answer"
        )

    def _look(self, place: _Place) -> _Credential | _Nothing:
        descriptor = _open(place)
        if descriptor is None:
            return _Nothing.ABSENT
        try:
            before = os.fstat(descriptor)
            _check(before, place)
            if self._held is not None and self._held[:2] == (place.path, _signature(before)):
                return self._held[2]
            parsed = self._parse(_content(descriptor, place.limit))
            after = os.fstat(descriptor)
        except OSError as error:
            raise place.fault(f"it cannot be read: {error.strerror or error}") from None
        finally:
            os.close(descriptor)
        age = _age(after)
        if _signature(before) != _signature(after) or age < _SETTLED:
            return _Nothing.UNFINISHED
        if parsed is None or isinstance(parsed, str):
            if age < _FINISHED:
                return _Nothing.UNFINISHED
            if parsed is not None:
                raise place.fault(parsed)
            return _Nothing.EMPTY
        self._held = (place.path, _signature(after), parsed)
        return parsed


def _named(path: Path | str, named_by: str, limit: int, *, private: bool = False) -> _Place:
    if _JWT.match(str(path)) or "-----BEGIN" in str(path):
        # Not quoted, as a path would be.
        raise ConfigurationError(f"{named_by}: names a file, but seems to hold a credential itself")
    return _Place(Path(path), limit, named_by, private=private)


def _open(place: _Place) -> int | None:
    """Open a file; None if it is not there."""
    # A FIFO must not hold us up, and a link in /tmp may be anybody's.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(place.path, flags | (os.O_NOFOLLOW if place.in_tmp else 0))
    except (FileNotFoundError, NotADirectoryError):
        if place.named_by is not None:
            raise place.fault(f"it {_Nothing.ABSENT.value}") from None
        return None
    except ValueError:
        raise place.fault("no file can have this name") from None
    except OSError as error:
        if place.in_tmp and error.errno == errno.ELOOP:
            raise place.fault("it is a symbolic link, which is not followed in /tmp") from None
        raise place.fault(f"it cannot be opened: {error.strerror or error}") from None


def _check(found: os.stat_result, place: _Place) -> None:
    """Refuse what is no file of ours, or one that others can write, or read if it holds a key."""
    user, mode = os.geteuid(), stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode):
        raise place.fault("it is not a regular file")
    if (place.in_tmp or place.private) and found.st_uid != user:
        raise place.fault(f"it belongs to user {found.st_uid}; this process runs as user {user}")
    if place.private and mode & 0o077:
        raise place.fault(
            f"it holds a private key, but others can use it: its mode is {mode:04o} (chmod 600)"
        )
    if mode & stat.S_IWOTH:
        raise place.fault(f"everybody can write it: its mode is {mode:04o} (chmod 600)")
    if found.st_size > place.limit:
        raise place.fault(f"it is longer than {place.limit} bytes, which no such credential is")


def _content(descriptor: int, limit: int) -> bytes:
    """All of a file, but no more than the limit and a byte, should it grow meanwhile."""
    content = b""
    while len(content) <= limit and (piece := os.read(descriptor, limit + 1 - len(content))):
        content += piece
    return content


def _signature(found: os.stat_result) -> _Signature:
    """What changes with a file's content."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _age(found: os.stat_result) -> float:
    """How long ago a file was written, in seconds, as far as two clocks agree."""
    return abs(time.time() - found.st_mtime)


def _token(content: bytes) -> BearerToken | str | None:
    text = content.decode("latin-1").strip(_BLANKS)
    if not text:
        return None
    if B64TOKEN.fullmatch(text) is None:
        return "it does not hold a bearer token (RFC 6750, section 2.1), or not only one"
    if _JWT.match(text) and not _is_whole(text):
        return "it holds a JWT that is cut short"
    return BearerToken(value=SecretStr(text))


def _is_whole(jwt: str) -> bool:
    """Tell whether a JWT (RFC 7519, signed or encrypted) has all its parts, as far as one sees."""
    *parts, last = jwt.split(".")
    return len(parts) in (2, 4) and len(last) % 4 != 1 and last != ""


def _proxy(content: bytes) -> X509Proxy | str:
    from arcbackend.x509 import Proxy  # noqa: PLC0415 - takes 0.04 s

    try:
        expiry = Proxy.from_pem(content).expiry
    except ConfigurationError as error:
        return error.message
    return X509Proxy(pem=SecretBytes(content), expires_at=expiry)

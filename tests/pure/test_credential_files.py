"""Credentials from files: where they are looked for, what is refused, and what is read anew."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trustme

from arcbackend import (
    AuthenticationError,
    ConfigurationError,
    CredentialKind,
    CredentialProvider,
    CredentialRequirements,
    CredentialSet,
    FileCredentials,
)
from arcbackend import credential_files as module
from arcbackend.wallet import Wallet

UID = os.geteuid()
OLD = 1000.0
"""Seconds: nobody has been writing that file for long."""
Put = Callable[..., Path]


def asking(*kinds: CredentialKind) -> CredentialRequirements:
    return CredentialRequirements(
        resource="https://ce.example.org:443",
        kinds=frozenset(kinds),
        scopes=frozenset({"compute.read"}),
    )


TOKEN, PROXY = asking(CredentialKind.TOKEN), asking(CredentialKind.PROXY)
BOTH = asking(*CredentialKind)


def jwt(name: str, expires: int = 4102444800) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256'})}.{part({'sub': name, 'exp': expires})}.{'s' * 86}"


def value(found: CredentialSet) -> str:
    assert found.token is not None
    return found.token.value.get_secret_value()


async def refused(provider: FileCredentials, asked: CredentialRequirements = TOKEN) -> str:
    with pytest.raises(ConfigurationError) as caught:
        await provider.get(asked)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.fixture(autouse=True)
def tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /tmp."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(module, "_TMP", folder)
    return folder


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def write(
        name: str | Path, content: str | bytes, *, mode: int = 0o600, age: float = OLD
    ) -> Path:
        """Write a file in place, as if so many seconds ago."""
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        then = time.time() - age
        os.utime(path, (then, then))
        return path

    return write


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def pem(authority: trustme.CA) -> bytes:
    ends = datetime(2100, 1, 1, tzinfo=UTC)
    issued = authority.issue_cert("a@example.org", not_after=ends)
    return issued.private_key_and_cert_chain_pem.bytes()


# where they are looked for


async def test_the_order_of_the_discovery(tmp: Path, put: Put, tmp_path: Path) -> None:
    """WLCG Bearer Token Discovery: the first of four that holds one."""
    environ = {
        "BEARER_TOKEN": jwt("value"),
        "BEARER_TOKEN_FILE": str(put("named", jwt("named"))),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    put(f"run/bt_u{UID}", jwt("run"))
    put(tmp / f"bt_u{UID}", jwt("tmp"))
    provider = FileCredentials(environ=environ)
    for variable, expected in [
        ("BEARER_TOKEN", "value"),
        ("BEARER_TOKEN_FILE", "named"),
        ("XDG_RUNTIME_DIR", "run"),
        ("", "tmp"),
    ]:
        assert value(await provider.get(TOKEN)) == jwt(expected)
        environ.pop(variable, None)
    (tmp / f"bt_u{UID}").unlink()
    assert f"{tmp}/bt_u{UID} is not there" in await refused(provider)


@pytest.mark.parametrize("nothing", ["", " \f\n\r\t\v"])
async def test_what_is_empty_is_passed_over(
    tmp: Path, put: Put, tmp_path: Path, nothing: str
) -> None:
    environ = {
        "BEARER_TOKEN": nothing,
        "BEARER_TOKEN_FILE": str(put("named", nothing)),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    put(f"run/bt_u{UID}", nothing)
    put(tmp / f"bt_u{UID}", jwt("tmp"))
    provider = FileCredentials(environ=environ)
    assert value(await provider.get(TOKEN)) == jwt("tmp")
    put(tmp / f"bt_u{UID}", nothing)
    text = await refused(provider)
    for place in (f"{tmp_path}/named (BEARER_TOKEN_FILE)", f"{tmp_path}/run/bt_u{UID}", str(tmp)):
        assert place in text


@pytest.mark.parametrize("folder", ["", "run", "./run"])
async def test_a_runtime_directory_that_is_none_is_passed_over(
    tmp: Path, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    put(f"run/bt_u{UID}", jwt("run"))
    put(f"bt_u{UID}", jwt("here"))
    put(tmp / f"bt_u{UID}", jwt("tmp"))
    provider = FileCredentials(environ={"XDG_RUNTIME_DIR": folder, "BEARER_TOKEN_FILE": ""})
    assert value(await provider.get(TOKEN)) == jwt("tmp")


async def test_an_invalid_token_ends_the_discovery(tmp: Path, put: Put) -> None:
    put(tmp / f"bt_u{UID}", jwt("tmp"))
    named = put("named", "two words")
    text = await refused(FileCredentials(environ={"BEARER_TOKEN_FILE": str(named)}))
    assert str(named) in text
    assert "RFC 6750" in text
    assert "words" not in text
    text = await refused(FileCredentials(environ={"BEARER_TOKEN": "hunter2 hunter2"}))
    assert text.startswith("BEARER_TOKEN: ")
    assert "hunter2" not in text


async def test_a_named_file_that_is_missing_ends_it_too(
    tmp: Path, put: Put, tmp_path: Path
) -> None:
    """Else whatever lies in /tmp would act in the name of the one that was meant."""
    put(tmp / f"bt_u{UID}", jwt("tmp"))
    missing = tmp_path / "missing" / "token"
    text = await refused(FileCredentials(environ={"BEARER_TOKEN_FILE": str(missing)}))
    assert text == f"{missing} (BEARER_TOKEN_FILE): it is not there"


async def test_what_is_named_in_code_is_stronger_than_the_environment(
    tmp: Path, put: Put, pem: bytes
) -> None:
    environ = {"BEARER_TOKEN": jwt("value"), "X509_USER_PROXY": "/does/not/exist"}
    put(tmp / f"bt_u{UID}", jwt("tmp"))
    token, proxy = put("token", f"\t{jwt('named')}\r\n"), put("proxy", pem)
    async with FileCredentials(token, str(proxy), environ=environ) as provider:
        assert isinstance(provider, CredentialProvider)
        found = await provider.get(BOTH)
    assert value(found) == jwt("named")
    assert found.proxy is not None
    assert found.proxy.pem.get_secret_value() == pem
    put("token", "")
    assert "token_file" in await refused(provider)


async def test_where_proxies_are(tmp: Path, put: Put, pem: bytes) -> None:
    environ: dict[str, str] = {}
    provider = FileCredentials(environ=environ)
    assert f"{tmp}/x509up_u{UID} is not there" in await refused(provider, PROXY)
    put(tmp / f"x509up_u{UID}", pem)
    found = (await provider.get(PROXY)).proxy
    assert found is not None
    assert found.expires_at == datetime(2100, 1, 1, tzinfo=UTC)
    environ["X509_USER_PROXY"] = ""
    assert (await provider.get(PROXY)).proxy is found
    environ["X509_USER_PROXY"] = str(tmp / "other")
    assert f"{tmp}/other (X509_USER_PROXY): it is not there" == await refused(provider, PROXY)


async def test_the_processs_own_environment(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = FileCredentials()
    monkeypatch.delenv("BEARER_TOKEN", raising=False)
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(put("token", jwt("a"))))
    assert value(await provider.get(TOKEN)) == jwt("a")


async def test_only_what_is_asked_for_is_read(put: Put, pem: bytes) -> None:
    token = FileCredentials(put("token", jwt("a")), "/does/not/exist", environ={})
    assert (await token.get(TOKEN)).proxy is None
    proxy = FileCredentials("/does/not/exist", put("proxy", pem), environ={})
    assert (await proxy.get(PROXY)).token is None
    for provider in (token, proxy):
        assert "/does/not/exist" in await refused(provider, BOTH)


async def test_a_credential_in_place_of_its_name_is_not_quoted(pem: bytes) -> None:
    for name, content, asked in [
        ("BEARER_TOKEN_FILE", jwt("a"), TOKEN),
        ("X509_USER_PROXY", pem.decode(), PROXY),
    ]:
        text = await refused(FileCredentials(environ={name: content}), asked)
        assert name in text
        assert len(text) < 100


# what is refused


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o777])
async def test_a_token_that_anybody_could_have_written(put: Put, mode: int) -> None:
    path = put("token", jwt("a"), mode=mode)
    text = await refused(FileCredentials(path, environ={}))
    assert str(path) in text
    assert f"{mode:04o}" in text


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o644, 0o660])
async def test_a_token_that_others_can_read_is_taken(tmp: Path, put: Put, mode: int) -> None:
    path = put(tmp / f"bt_u{UID}", jwt("a"), mode=mode)
    assert value(await FileCredentials(environ={}).get(TOKEN)) == jwt("a")
    assert value(await FileCredentials(path, environ={}).get(TOKEN)) == jwt("a")


@pytest.mark.parametrize("mode", [0o601, 0o604, 0o620, 0o640, 0o644, 0o660])
async def test_a_proxy_that_others_can_use(tmp: Path, put: Put, pem: bytes, mode: int) -> None:
    path = put(tmp / f"x509up_u{UID}", pem, mode=mode)
    for provider in (FileCredentials(environ={}), FileCredentials(proxy_file=path, environ={})):
        text = await refused(provider, PROXY)
        assert str(path) in text
        assert "chmod 600" in text


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
async def test_a_proxy_of_ones_own(put: Put, pem: bytes, mode: int) -> None:
    provider = FileCredentials(proxy_file=put("proxy", pem, mode=mode), environ={})
    assert (await provider.get(PROXY)).proxy is not None


async def test_files_of_another_user(
    tmp: Path, put: Put, pem: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp anybody can lay a token for us; elsewhere who named the file is believed."""
    monkeypatch.setattr(os, "geteuid", lambda: UID + 1)
    token = put(tmp / f"bt_u{UID + 1}", jwt("a"))
    proxy = put("proxy", pem)
    text = await refused(FileCredentials(environ={}))
    assert f"{token}: it belongs to user {UID}" in text
    assert value(await FileCredentials(token, environ={}).get(TOKEN)) == jwt("a")
    text = await refused(FileCredentials(proxy_file=proxy, environ={}), PROXY)
    assert f"it belongs to user {UID}" in text


async def test_links(tmp: Path, put: Put, pem: bytes) -> None:
    token, proxy = put("token", jwt("a")), put("proxy", pem)
    (tmp / f"bt_u{UID}").symlink_to(token)
    (tmp / f"x509up_u{UID}").symlink_to(proxy)
    assert "symbolic link" in await refused(FileCredentials(environ={}))
    assert "symbolic link" in await refused(FileCredentials(environ={}), PROXY)
    named = FileCredentials(tmp / f"bt_u{UID}", tmp / f"x509up_u{UID}", environ={})
    assert value(await named.get(BOTH)) == jwt("a")


@pytest.mark.parametrize("kind", ["fifo", "directory", "device"])
@pytest.mark.parametrize("asked", [TOKEN, PROXY], ids=["token", "proxy"])
async def test_what_is_no_regular_file(
    tmp_path: Path, kind: str, asked: CredentialRequirements
) -> None:
    path = tmp_path / "thing"
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        path.mkdir(mode=0o700)
    else:
        path = Path("/dev/zero")
    with trio.fail_after(5):
        text = await refused(FileCredentials(path, path, environ={}), asked)
    assert str(path) in text
    assert "not a regular file" in text


async def test_a_file_that_may_not_be_opened(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("token", jwt("a"))

    def denied(*_args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    text = await refused(FileCredentials(path, environ={}))
    assert text == f"{path} (token_file): it cannot be opened: Permission denied"


async def test_a_file_that_cannot_be_read(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("token", jwt("a"))

    def broken(*_args: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", broken)
    text = await refused(FileCredentials(path, environ={}))
    assert text == f"{path} (token_file): it cannot be read: Input/output error"


async def test_a_name_that_no_file_has() -> None:
    assert "token_file" in await refused(FileCredentials("a\0b", environ={}))
    assert "token_file" in await refused(FileCredentials("a" * 5000, environ={}))


async def test_huge_files(put: Put, pem: bytes) -> None:
    token = put("token", "a" * 65_537)
    proxy = put("proxy", pem + b"\n" * 2**20)
    provider = FileCredentials(token, proxy, environ={})
    assert "65536 bytes" in await refused(provider)
    assert "1048576 bytes" in await refused(provider, PROXY)
    put("token", "a" * 65_536)
    assert len(value(await provider.get(TOKEN))) == 65_536
    os.truncate(token, 2**40)  # sparse: reading it would not end
    with trio.fail_after(5):
        assert "65536 bytes" in await refused(provider)


@pytest.mark.parametrize(
    "content",
    [
        "two tokens",
        f"{jwt('a')}\n{jwt('b')}",
        "Bearer x",
        '{"access_token": "x"}',
        "x\0",
        "\ufeffx",
        "é",
        "=",
        "\xa0x",
        *(jwt("a")[:-count] for count in (81, 85, 86, 87, 88, 130)),
        jwt("a") + ".x",
    ],
    ids=range(16),
)
async def test_what_is_no_token(put: Put, content: str) -> None:
    path = put("token", content)
    text = await refused(FileCredentials(path, environ={}))
    assert text.startswith(f"{path} (token_file): it ")
    assert content not in text


@pytest.mark.parametrize("content", ["opaque", "a.b", "eyJhbGciOiJkaXIifQ..x.y.zz", "MDAx+/=="])
async def test_tokens_that_are_no_signed_jwt(put: Put, content: str) -> None:
    assert value(await FileCredentials(put("token", content), environ={}).get(TOKEN)) == content


async def test_what_is_no_proxy(put: Put, pem: bytes) -> None:
    certificate = pem[pem.index(b"-----BEGIN CERT") :]
    for content in (b"", b"no proxy", certificate, pem[: len(pem) // 3]):
        path = put("proxy", content)
        text = await refused(FileCredentials(proxy_file=path, environ={}), PROXY)
        assert text.startswith(f"{path} (proxy_file): ")


async def test_no_representation_shows_a_secret(put: Put) -> None:
    provider = FileCredentials(put("token", "hunter2-hunter2"), environ={"BEARER_TOKEN": "x"})
    await provider.get(TOKEN)
    assert "hunter2" not in f"{provider!r} {vars(provider)} {vars(provider._tokens)}"


# what is read anew


async def test_an_unchanged_file_is_not_read_again(
    put: Put, pem: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = FileCredentials(put("token", jwt("a")), put("proxy", pem), environ={})
    first = await provider.get(BOTH)
    monkeypatch.setattr(os, "read", None)
    second = await provider.get(BOTH)
    assert second.token is first.token
    assert second.proxy is first.proxy


@pytest.mark.parametrize("how", ["renamed over it", "rewritten in place", "removed and new"])
async def test_a_file_that_changed_is_read(put: Put, how: str) -> None:
    path = put("token", jwt("a"))
    provider = FileCredentials(path, environ={})
    assert value(await provider.get(TOKEN)) == jwt("a")
    before = path.stat()
    if how == "renamed over it":
        put("new", jwt("b")).replace(path)
    else:
        if how == "removed and new":
            path.unlink()
            assert "is not there" in await refused(provider)
        put("token", jwt("b"))
    # As like the first as can be: of the same length and the same time.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert value(await provider.get(TOKEN)) == jwt("b")


async def test_permissions_are_looked_at_again(put: Put, pem: bytes) -> None:
    path = put("proxy", pem)
    provider = FileCredentials(proxy_file=path, environ={})
    await provider.get(PROXY)
    path.chmod(0o644)
    assert "0644" in await refused(provider, PROXY)
    path.chmod(0o600)
    assert (await provider.get(PROXY)).proxy is not None


async def test_one_that_makes_no_sense_yet_is_waited_for(put: Put, pem: bytes) -> None:
    """The writer has come half way, and goes on while we look at it."""
    token, proxy = put("token", jwt("a")[:-87], age=-1), put("proxy", pem[:-200], age=-1)
    provider = FileCredentials(token, proxy, environ={})
    found: list[CredentialSet] = []

    async def look(asked: CredentialRequirements) -> None:
        found.append(await provider.get(asked))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look, TOKEN)
            nursery.start_soon(look, PROXY)
            await trio.sleep(0.1)
            assert found == []
            put("token", jwt("a"))
            put("proxy", pem)
    assert {each.token is not None for each in found} == {True, False}


async def test_one_that_was_written_just_now_is_looked_at_twice(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An opaque token does not tell that half of it is missing; only time does."""
    path = put("token", "abcdef")
    ages = [0.0, 0.09]

    def age(_found: os.stat_result) -> float:
        if len(ages) == 1:
            put("token", "abcdefghij")
        return ages.pop() if ages else OLD

    monkeypatch.setattr(module, "_age", age)
    provider = FileCredentials(path, environ={})
    assert value(await provider.get(TOKEN)) == "abcdefghij"
    assert ages == []


async def test_one_that_changes_while_it_is_read(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("token", "abcdef")
    provider = FileCredentials(path, environ={})
    read = os.read

    def disturbed(descriptor: int, count: int) -> bytes:
        piece = read(descriptor, count)
        if piece == b"abcdef":
            put("token", "uvwxyz")
        return piece

    monkeypatch.setattr(os, "read", disturbed)
    assert value(await provider.get(TOKEN)) == "uvwxyz"


async def test_one_that_never_rests(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("token", "abcdef")
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    monkeypatch.setattr(module, "_age", lambda _found: 0.0)
    assert "is being written all the time" in await refused(FileCredentials(path, environ={}))


async def test_cancelled(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("token", "abcdef")
    monkeypatch.setattr(module, "_age", lambda _found: 0.0)
    with trio.move_on_after(0.1) as scope:
        await FileCredentials(path, environ={}).get(TOKEN)
    assert scope.cancelled_caught


async def test_a_renewed_file_takes_the_place_of_a_token_that_was_refused(put: Put) -> None:
    """Within one operation, as `Session` asks: what the CE refused is asked for anew."""
    path = put("token", jwt("a", expires=1))
    wallet = Wallet(
        FileCredentials(path, environ={}), TOKEN.resource, TOKEN.kinds, timedelta(seconds=60)
    )
    expired = await wallet.get(TOKEN.scopes)
    assert await wallet.get(TOKEN.scopes, refused=expired) is expired
    put("token", jwt("b"))
    renewed = await wallet.get(TOKEN.scopes, refused=expired)
    assert value(renewed) == jwt("b")
    assert await wallet.get(TOKEN.scopes) is renewed
    put("token", jwt("c"))
    assert await wallet.get(TOKEN.scopes) is renewed  # it is good until it is near its end


async def test_a_file_that_vanished_is_lived_without_while_its_token_is_good(put: Put) -> None:
    path = put("token", jwt("a", expires=int(time.time()) + 600))
    wallet = Wallet(
        FileCredentials(path, environ={}), TOKEN.resource, TOKEN.kinds, timedelta(hours=1)
    )
    held = await wallet.get(TOKEN.scopes)
    path.unlink()
    assert await wallet.get(TOKEN.scopes) is held
    with pytest.raises(AuthenticationError, match="is not there"):
        await wallet.get(TOKEN.scopes, refused=held)

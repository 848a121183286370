"""`Simulator`: one simulated CE, in this process or on a loopback port."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Iterable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import trio

from arcbackend.backend import ARCBackend
from arcbackend.config import ARCConfig
from arcbackend.credentials import BearerToken, CredentialSet, StaticCredentials, X509Proxy
from arcbackend.simulator.api import ARexApp
from arcbackend.simulator.authority import Authority
from arcbackend.simulator.background import background
from arcbackend.simulator.batch import BatchSystem
from arcbackend.simulator.connection import App, Receive, Send
from arcbackend.simulator.control import ROOT, control_app
from arcbackend.simulator.delegations import Delegations
from arcbackend.simulator.faults import Faults, FaultyApp
from arcbackend.simulator.identities import OWN, Identities
from arcbackend.simulator.in_process import ClientTransport, Network
from arcbackend.simulator.jobs import Script
from arcbackend.simulator.server import Server
from arcbackend.simulator.settings import SimulatorSettings
from arcbackend.simulator.targets import operation_of
from arcbackend.simulator.traps import Traps
from arcbackend.simulator.world import TRUSTED, World
from arcbackend.transport import in_this_process
from arcbackend.validation import validated

__all__ = ["Simulator"]

Kind = Literal["token", "proxy"]

_AUDIENCE = "arc"
_LOOPBACK = "127.0.0.1"
_MONTH = 30 * 86_400
_TICK = 0.1  # s


class Simulator:
    """A simulated ARC 7 CE, as an async context manager. Runs under trio.

    ``async with Simulator() as ce`` is one without a socket: any `ARCBackend` of this process with
    its endpoint reaches it, and trio's autojump clock makes an hour of it last no time. (While a
    thread is at work, that clock jumps, too, unless it has an ``autojump_threshold``: the library
    has threads read and write local files.)
    ``async with Simulator.serving() as ce`` is one on a loopback port, with TLS.

    Args:
        settings: what it is like; None: `SimulatorSettings` without any.
        script: what simulated jobs do.
        more: single settings, which come before those in ``settings``.

    Attributes:
        settings: what it is like.
        endpoint: ``https://host:port``, as a configuration has it.
        ca_file: PEM file of the authority that its certificate is of. It is gone at the end.
        world: its jobs, and what can be done to them.
        faults: what goes wrong with it.

    Raises:
        ConfigurationError: a setting is wrong, or there is one of its name in this process.
        OSError: the port cannot be had.
    """

    endpoint: str
    ca_file: Path
    world: World
    faults: Faults

    def __init__(
        self,
        settings: SimulatorSettings | None = None,
        /,
        *,
        script: Script | None = None,
        **more: Any,
    ) -> None:
        given = {} if settings is None else dict(settings)
        self.settings = validated(SimulatorSettings, given | more, "settings")
        self._script = script
        self._where: tuple[str, int] | None = None
        self._running: AbstractAsyncContextManager[None] | None = None
        self._network: Network | None = None
        self._server: Server | None = None

    @classmethod
    def serving(
        cls,
        settings: SimulatorSettings | None = None,
        /,
        *,
        port: int = 0,
        host: str = _LOOPBACK,
        script: Script | None = None,
        **more: Any,
    ) -> Self:
        """The same, on a port, with TLS.

        Args:
            settings: as of the class.
            port: 0: a free one.
            host: the address to listen at. Whoever can reach it may do everything to the simulator
                that its own interface can, unless that is switched off (``control``).
            script: as of the class.
            more: as of the class.
        """
        made = cls(settings, script=script, **more)
        made._where = (host, port)
        return made

    def __repr__(self) -> str:
        return f"<Simulator {getattr(self, 'endpoint', self.settings.name)}>"

    async def __aenter__(self) -> Self:
        assert self._running is None, "it runs already"
        self._running = self._run()
        await self._running.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._running is not None
        running, self._running = self._running, None
        await running.__aexit__(exc_type, exc, traceback)

    # Access to it

    def token(
        self,
        subject: str = "user",
        *,
        scopes: Sequence[str] | None = None,
        lifetime: float = 36_000,
        audience: str | None = None,
        **odd: Any,
    ) -> str:
        """A fresh bearer token.

        Args:
            subject: whose.
            scopes: None: all that there are.
            lifetime: seconds from now on, by the CE's clock; negative: one that has expired.
            audience: None: one that the CE is content with.
            odd: further arguments of `Authority.token`.
        """
        return self._authority.token(
            subject,
            scopes=scopes,
            lifetime=lifetime,
            audience=audience or self._audience(),
            **odd,
        )

    def _audience(self) -> str:
        first = next(iter(self.settings.audiences), _AUDIENCE)
        return self.endpoint if first == OWN else first

    def proxy(self, subject: str = "user", *, lifetime: float = 36_000, **odd: Any) -> bytes:
        """A fresh proxy by RFC 3820: PEM, with its key and chain.

        Args:
            subject: the last part of the user's subject.
            lifetime: seconds from now on, by the time of day; negative: one that has expired.
            odd: further arguments of `Authority.proxy`.
        """
        return self._authority.proxy(subject, lifetime, **odd)

    def subject(self, user: str = "user") -> str:
        """The subject of a user's certificate, which owns what it submits."""
        return self._authority.subject(user)

    def owner(self, subject: str = "user") -> str:
        """Who owns what is submitted with a token of this subject."""
        return f"{self._authority.issuer}/{subject}"

    def credentials(
        self,
        subject: str = "user",
        kinds: Iterable[Kind] | None = None,
        *,
        lifetime: float = 36_000,
    ) -> CredentialSet:
        """Credentials that the CE lets in.

        Args:
            subject: whose.
            kinds: of which kinds; None: all that it lets in.
            lifetime: of each, in seconds.
        """
        wanted = self.settings.auth if kinds is None else tuple(kinds)
        token = self.token(subject, lifetime=lifetime) if "token" in wanted else None
        proxy = self.proxy(subject, lifetime=lifetime) if "proxy" in wanted else None
        return CredentialSet(
            token=None if token is None else BearerToken(value=token),
            proxy=None if proxy is None else X509Proxy(pem=proxy),
        )

    def config(self, **settings: Any) -> ARCConfig:
        """A configuration that reaches it, with further settings of `ARCConfig`."""
        auth = "token" if "token" in self.settings.auth else "proxy"
        ours = {"endpoint": self.endpoint, "ca_file": self.ca_file, "auth": auth}
        return ARCConfig.from_dict({**ours, **settings})

    def backend(self, credentials: CredentialSet | None = None, **settings: Any) -> ARCBackend:
        """A backend for it; without credentials, with fresh ones of ``user``, good for a month."""
        provider = StaticCredentials(credentials or self.credentials(lifetime=_MONTH))
        return ARCBackend(self.config(**settings), provider)

    def transport(self, certificate: bytes | None = None) -> ClientTransport:
        """Connections to one without a socket, for a client of httpx: `httpx.AsyncClient`.

        Args:
            certificate: PEM with its key: what the client shows; None: nothing.
        """
        assert self._network is not None, "it is on a port: use its endpoint"
        return self._network.client_transport(certificate)

    # What can be done to it

    @property
    def batch(self) -> BatchSystem:
        """The batch system behind it."""
        return self.world.batch

    def publish(self) -> None:
        """Run the information provider, which the CE does by itself every now and then."""
        self.world.publish()

    def restart(self, *, keep: bool = True) -> None:
        """Let A-REX start anew: its connections are closed.

        Args:
            keep: whether it still has its jobs and delegations.
        """
        self._start_anew(keep)
        self._drop()

    def _start_anew(self, keep: bool) -> None:
        self.world.restart_service(keep=keep)
        if not keep:
            self._delegations.clear()

    def _drop(self) -> None:
        for end in (self._network, self._server):
            if end is not None:
                end.drop()

    # How it runs

    @asynccontextmanager
    async def _run(self) -> AsyncGenerator[None]:
        settings = self.settings
        traps = Traps(settings.arc_version, settings.lrms, settings.without_traps)
        prefix = "arcbackend-simulator-"
        with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
            async with background() as nursery, AsyncExitStack() as stack:
                self.world = world = World(
                    settings,
                    traps,
                    Path(folder),
                    trio.current_time,
                    script=self._script,
                    start_soon=nursery.start_soon,
                )
                self._authority = Authority(settings.name, settings.arc_version, world.now)
                self._delegations = Delegations(traps, settings.seed)
                self.faults = Faults(settings.faults, settings.seed, trio.current_time)
                self.ca_file = Path(folder) / "ca.pem"
                self.ca_file.write_bytes(self._authority.ca_pem)
                trusted = Path(folder) / TRUSTED
                trusted.mkdir(0o700)
                (trusted / self._authority.ca_file_name).symlink_to(self.ca_file)
                app = self._app(traps)
                if self._where is None:
                    self._connect(app, traps, nursery, stack)
                else:
                    await self._listen(app, traps, self._where, stack)
                world.endpoint = self.endpoint
                if settings.execution == "local":
                    nursery.start_soon(_keep_going, world)
                yield

    def _app(self, traps: Traps) -> App:
        identities = Identities(self.settings, traps, self._authority, lambda: self.endpoint)
        arex = FaultyApp(
            ARexApp(self.world, identities, self._delegations), self.faults, operation_of
        )
        if not self.settings.control:
            return arex
        control = control_app(
            self.world,
            self.faults,
            self._authority,
            restart=self._start_anew,
            drop=self._drop,
        )

        async def either(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            ours = scope["raw_path"].startswith(ROOT.encode())
            await (control if ours else arex)(scope, receive, send)

        return either

    def _connect(
        self, app: App, traps: Traps, nursery: trio.Nursery, stack: AsyncExitStack
    ) -> None:
        self.endpoint = f"https://{self.settings.name}.simulator.invalid:443"
        network = Network(
            app, nursery, lambda chain: self._authority.alert(chain, traps), self.faults.delay
        )
        self._network = network
        stack.callback(network.close)
        stack.enter_context(in_this_process(self.endpoint, network.connect))

    async def _listen(
        self, app: App, traps: Traps, where: tuple[str, int], stack: AsyncExitStack
    ) -> None:
        host, port = where
        context = self._authority.server_context(traps, () if host == _LOOPBACK else (host,))
        server = await stack.enter_async_context(
            Server.listening(app, context, host=host, port=port, delay=self.faults.delay)
        )
        self._server = server
        self.endpoint = f"https://localhost:{server.port}"


async def _keep_going(world: World) -> None:
    """Let processes start when they should, not when somebody looks."""
    while True:
        world.advance()
        await trio.sleep(_TICK)

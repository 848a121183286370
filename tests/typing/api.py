"""The whole public API in use: type-checked, never run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, assert_never, assert_type

from pydantic import SecretBytes, SecretStr

from arcbackend import (
    EVENT_ADAPTER,
    ARCBackend,
    ARCConfig,
    AuthenticationError,
    Batches,
    BearerToken,
    Cancellable,
    CEBack,
    CEUnreachable,
    ConfigurationError,
    CopyVars,
    CredentialKind,
    CredentialProvider,
    CredentialRequirements,
    CredentialSet,
    Delegation,
    DelegationFailing,
    DelegationRenewed,
    Diagnostics,
    EventsMissed,
    FetchProgress,
    FileCredentials,
    FileRef,
    FileTail,
    HoldPolicy,
    InterCEdeError,
    JobBackend,
    JobCounts,
    JobDetails,
    JobEvent,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    KillPolicy,
    Limits,
    LoadReporter,
    LostPolicy,
    Monitor,
    OpOutcome,
    OutputMember,
    OutputPolicy,
    OutputRetriever,
    OutputSpec,
    Policy,
    Poller,
    PollerEvent,
    PollerSnapshot,
    Polling,
    ProtocolError,
    Purgeable,
    PurgePolicy,
    RefusedMember,
    Resources,
    Retries,
    SeenBy,
    ShareCounts,
    StaticCredentials,
    Submission,
    SubmissionRefused,
    SubmissionSpec,
    Submitter,
    Subscription,
    SupportsLiveDiagnostics,
    Timeouts,
    TransportError,
    X509Proxy,
    merge,
)


class Vault:
    """A consumer's provider: structural, no base class."""

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        assert_type(requirements.resource, str)
        assert_type(requirements.kinds, frozenset[CredentialKind])
        assert_type(requirements.scopes, frozenset[str])
        return CredentialSet(token=BearerToken(value=SecretStr("t")))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def configuration() -> ARCConfig:
    config = ARCConfig(
        endpoint="https://ce.example.org:443",
        queue="short",
        auth="token",
        audience="host",
        ca_file=None,
        ca_dir=Path("/etc/grid-security/certificates"),
        rest_version="1.1",
        concurrency=8,
        live_listing="auto",
        live_listing_budget=5.0,
        freshness_margin=60,
        timeouts=Timeouts(connect=1, read=2, write=3, pool=4, cleanup=5),
        limits=Limits(
            max_total_bytes=1,
            max_files=2,
            max_file_bytes=3,
            transfer_timeout=4.0,
            max_depth=5,
            stall_timeout=6,
            keep_free_bytes=0,
        ),
        retries=Retries(attempts=1, backoff=0.5, backoff_max=30),
        batches=Batches(ids=1, descriptions=2, description_bytes=2**20, instances=3),
        polling=Polling(
            listing=1, documents=2, documents_max=3, backoff_max=4, buffer=5, patience=6
        ),
        delegation=Delegation(renew_before=1, check=2, token=True, token_scopes=("a", "b")),
    )
    assert_type(config.endpoint, str)
    assert_type(config.resource, str)
    assert_type(config.queue, str | None)
    assert_type(config.ca_file, Path | None)
    assert_type(config.limits.max_total_bytes, int)
    assert_type(config.timeouts.read, float)
    assert_type(ARCConfig.from_toml("arc.toml"), ARCConfig)
    assert_type(ARCConfig.from_toml(Path("arc.toml")), ARCConfig)
    assert_type(ARCConfig.from_dict({"endpoint": "https://ce.example.org"}), ARCConfig)
    return config


def credentials() -> CredentialSet:
    token = BearerToken(value=SecretStr("t"), expires_at=datetime.now().astimezone())
    proxy = X509Proxy(pem=SecretBytes(b"p"))
    both = CredentialSet(token=token, proxy=proxy)
    assert_type(both.get(CredentialKind.TOKEN), BearerToken | None)
    assert_type(both.get(CredentialKind.PROXY), X509Proxy | None)
    assert_type(both.expiry(), datetime | None)
    assert_type(token.expiry(), datetime | None)
    for static in (StaticCredentials(both), StaticCredentials(token), StaticCredentials(proxy)):
        accept_provider(static)
    accept_provider(Vault())
    accept_provider(FileCredentials())
    accept_provider(FileCredentials("token", Path("proxy"), environ={"BEARER_TOKEN": "t"}))
    accept_provider(FileCredentials(token_file=None, proxy_file=None, environ=None))
    return both


def accept_provider(provider: CredentialProvider) -> CredentialProvider:
    return provider


def accept_backend(backend: JobBackend) -> tuple[Submitter, Monitor]:
    return backend, backend


def accept_extras(
    cancellable: Cancellable,
    purgeable: Purgeable,
    retriever: OutputRetriever,
    reporter: LoadReporter,
    diagnoser: SupportsLiveDiagnostics,
) -> None: ...


def spec() -> SubmissionSpec:
    return SubmissionSpec(
        executable="run",
        arguments=("a", "b"),
        inputs=(
            FileRef(name="run", source=Path("/home/me/run")),
            FileRef(name="data", source="https://example.org/data"),
        ),
        outputs=OutputSpec(
            members=(
                OutputMember(pattern="plots/"),
                OutputMember(pattern="result", destination="https://example.org/result"),
            ),
            include_unlisted=False,
        ),
        resources=Resources(cpus=2, memory_mb=2000, wall_time_s=3600, queue=None),
        environment={"MODE": "fast"},
        stdout="out",
        stderr=None,
        tag="pilot",
    )


def show(progress: FetchProgress) -> None:
    assert_type(progress.what, Literal["listed", "fetched", "refused", "done", "bytes"])
    assert_type(progress.job, JobID | None)
    assert_type(progress.name, str | None)
    assert_type(progress.reason, str | None)
    assert_type(progress.output, JobOutput | None)
    assert_type(progress.jobs_done, int)
    assert_type(progress.jobs_total, int)
    assert_type(progress.files_done, int)
    assert_type(progress.files_refused, int)
    assert_type(progress.files_known, int)
    assert_type(progress.bytes_done, int)
    assert_type(progress.bytes_known, int | None)


async def verbs() -> None:
    async with ARCBackend(configuration(), StaticCredentials(credentials())) as backend:
        assert_type(backend, ARCBackend)
        accept_backend(backend)
        accept_extras(backend, backend, backend, backend, backend)
        assert_type(backend.config, ARCConfig)
        assert_type(backend.credential_requirements, CredentialRequirements)

        submission = await backend.submit(spec())
        assert_type(submission, Submission)
        await backend.submit(spec(), 100)
        await backend.submit(spec(), count=100)
        copies = [
            CopyVars(environment={"COPY": "1"}, secrets={"token": SecretBytes(b"s")}),
            CopyVars(),
        ]
        await backend.submit(spec(), copies=copies)
        await backend.submit(spec(), copies=tuple(copies))

        assert_type(submission.handles, tuple[JobHandle, ...])
        assert_type(submission.failures, Mapping[int, str])
        handle = submission.handles[0]
        assert_type(handle.id, JobID)
        assert_type(handle.copy_index, int)
        assert_type(handle.stdout, str | None)
        again = JobHandle.model_validate_json(handle.model_dump_json())

        mixed: Sequence[JobID | JobHandle] = [handle, again, handle.id, JobID("abc")]
        statuses = await backend.status(mixed)
        assert_type(statuses, Mapping[JobID, JobStatus])
        # Homogeneous sequences need no cast.
        await backend.status(submission.handles)
        await backend.status([one.id for one in submission.handles])
        await backend.status(list(statuses))
        assert_type(statuses[handle.id].is_final, bool)

        killed = await backend.kill(mixed)
        assert_type(killed, Mapping[JobID, OpOutcome])
        purged = await backend.purge(mixed)
        assert_type(purged, Mapping[JobID, OpOutcome])
        assert_type(purged[handle.id].ok, bool)
        assert_type(purged[handle.id].reason, str | None)

        fetched = await backend.fetch_output(mixed, Path("/data"))
        assert_type(fetched, Mapping[JobID, JobOutput])
        await backend.fetch_output(submission.handles, "outputs")
        await backend.fetch_output(mixed, "outputs", progress=show)
        await backend.fetch_output(mixed, "outputs", progress=None)
        output = fetched[handle.id]
        assert_type(output.directory, Path | None)
        assert_type(output.stdout, Path | None)
        assert_type(output.stderr, Path | None)
        assert_type(output.log, Path | None)
        assert_type(output.files, tuple[Path, ...])
        assert_type(output.refused, tuple[RefusedMember, ...])
        assert_type(output.refused[0].name, str)
        assert_type(output.refused[0].reason, str)
        assert_type(output.size, int)
        assert_type(output.complete, bool)
        assert_type(output.reason, str | None)
        assert_type(backend.destructive, bool)

        tail = await backend.tail(handle)
        assert_type(tail, FileTail)
        await backend.tail(handle.id, "logs/run.log", 100)
        await backend.tail(id=handle, name=None, bytes=2**20)
        assert_type(tail.name, str | None)
        assert_type(tail.data, bytes)
        assert_type(tail.text, str)
        assert_type((tail.offset, tail.size), tuple[int, int | None])
        assert_type(tail.reason, str | None)

        diagnosed = await backend.diagnostics(mixed)
        assert_type(diagnosed, Mapping[JobID, Diagnostics])
        await backend.diagnostics(submission.handles)
        why = diagnosed[handle.id]
        assert_type((why.status, why.arc_state), tuple[JobStatus, str | None])
        assert_type((why.failure_reason, why.reason), tuple[str | None, str | None])
        assert_type((why.exit_code, why.killed_by_request), tuple[int | None, bool | None])
        assert_type((why.record, why.description), tuple[str | None, str | None])
        assert_type((why.log, why.log_size), tuple[str | None, int | None])

        described = await backend.describe(mixed)
        assert_type(described, Mapping[JobID, JobDetails])
        await backend.describe(list(diagnosed))
        details = described[handle.id]
        assert_type((details.arc_state, details.name), tuple[str | None, str | None])
        assert_type((details.exit_code, details.slots), tuple[int | None, int | None])
        assert_type((details.batch_system, details.batch_id), tuple[str | None, str | None])
        assert_type((details.errors, details.messages), tuple[tuple[str, ...], tuple[str, ...]])
        assert_type((details.nodes, details.queue), tuple[tuple[str, ...], str | None])
        assert_type(details.submitted_at, datetime | None)
        assert_type(details.started_at, datetime | None)
        assert_type(details.ended_at, datetime | None)
        assert_type(details.completed_at, datetime | None)
        assert_type((details.wall_time_s, details.cpu_time_s), tuple[float | None, float | None])
        assert_type((details.memory_mb, details.peak_memory_mb), tuple[int | None, int | None])
        assert_type((details.expires_at, details.as_of), tuple[datetime | None, datetime | None])
        assert_type(details.reason, str | None)

        counts = await backend.counts()
        assert_type(counts, JobCounts)
        assert_type((counts.running, counts.waiting), tuple[int | None, int | None])
        assert_type((counts.ce_running, counts.ce_waiting), tuple[int | None, int | None])
        assert_type(counts.queue, str | None)
        assert_type((counts.as_of, counts.seen_at), tuple[datetime | None, datetime | None])
        assert_type(counts.age, float | None)
        assert_type(counts.shares, tuple[ShareCounts, ...])
        assert_type((counts.shares[0].name, counts.shares[0].queue), tuple[str, str])
        assert_type(counts.shares[0].vo, str | None)
        assert_type(counts.shares[0].running, int | None)

        assert_type(await backend.find("pilot-0123"), Sequence[JobHandle])
    await backend.aclose()
    ARCBackend({"endpoint": "https://ce.example.org"}, Vault())


def policy() -> Policy:
    policy = Policy(
        name="ours",
        hold=HoldPolicy(
            action="kill-and-purge",
            grace=60,
            other_after=1800.0,
            report_as=JobStatus.RUNNING,
            max_kills=5,
            cycle=600,
        ),
        kill=KillPolicy(repeat_after=None, attempts=3),
        purge=PurgePolicy(active="kill"),
        output=OutputPolicy(needs="batch"),
        lost=LostPolicy(looks=5, after=120),
        ce={"https://ce.example.org:443": {"hold": {"action": "report"}}},
    )
    assert_type(policy.hold.other_after, float | None)
    assert_type(Policy.load("patient-kill"), Policy)
    assert_type(Policy.load(Path("policy.toml")), Policy)
    assert_type(Policy.load(policy), Policy)
    assert_type(Policy.from_dict({"name": "ours"}), Policy)
    assert_type(Policy.shipped(), tuple[str, ...])
    assert_type(policy.for_ce("https://ce.example.org:443"), Policy)
    return policy


async def poll(backend: ARCBackend, handles: Sequence[JobHandle], stored: bytes) -> None:
    async with (
        backend.poller() as first,
        backend.poller("report"),
        backend.poller(policy=Path("policy.toml")),
        backend.poller(policy=policy()) as poller,
    ):
        assert_type(poller, Poller)
        poller.restore(PollerSnapshot.model_validate_json(stored))
        poller.track(handles)
        poller.track(handle.id for handle in handles)
        poller.untrack([handles[0].id])
        poller.set_policy("patient-kill")
        poller.set_policy(policy())
        assert_type(poller.policy, Policy)
        assert_type(poller.statuses(), dict[JobID, JobStatus])
        assert_type(poller.ignored, Mapping[str, int])
        assert_type(await poller.kill(handles), Mapping[JobID, OpOutcome])
        assert_type(await poller.keep([handles[0].id]), Mapping[JobID, OpOutcome])
        assert_type(await poller.purge(handles), Mapping[JobID, OpOutcome])
        await poller.fetch_output(handles, Path("/data"), progress=show)

        subscription = poller.events()
        assert_type(subscription, Subscription)
        async with merge([first, poller], buffer=100) as both:
            async for event in both:
                hear(event)
        async for event in poller.events(buffer=10):
            hear(event)
        assert_type(await anext(subscription), PollerEvent)
        subscription.close()

        snapshot = poller.snapshot()
        assert_type(snapshot, PollerSnapshot)
        assert_type(snapshot.sequence, int)
        assert_type(snapshot.taken_at, datetime)
        assert_type(snapshot.jobs[0].state, str)
        assert_type(snapshot.jobs[0].since, float)


def hear(event: PollerEvent) -> None:
    assert_type(event.ce, str)
    assert_type(event.sequence, int)
    assert_type(event.seen_at, datetime)
    assert_type(EVENT_ADAPTER.validate_json(event.model_dump_json()), PollerEvent)
    match event:
        case JobEvent():
            assert_type(event.id, JobID)
            assert_type((event.source, event.dest), tuple[str, str])
            assert_type((event.status_before, event.status_after), tuple[JobStatus, JobStatus])
            assert_type(event.arc_state, str | None)
            assert_type(event.seen_by, SeenBy)
            assert_type(event.outcome, OpOutcome | None)
        case CEUnreachable():
            assert_type(event.seen_by, SeenBy)
            assert_type(event.reason, str)
        case CEBack():
            assert_type(event.away_since, datetime)
        case DelegationRenewed():
            assert_type((event.delegation, event.expires_at), tuple[str, datetime])
        case DelegationFailing():
            assert_type((event.reason, event.tries), tuple[str, int])
        case EventsMissed():
            assert_type(event.count, int)
        case _:
            assert_never(event)


async def errors(backend: ARCBackend) -> None:
    try:
        await backend.submit(spec())
    except SubmissionRefused as error:
        assert_type(error.field, str | None)
    except AuthenticationError as error:
        assert_type(error.scope, str | None)
        assert_type(error.missing_scope, bool)
    except TransportError as error:
        assert_type(error.maybe_done, bool)
    except ProtocolError as error:
        assert_type(error.excerpt, bytes)
    except ConfigurationError as error:
        assert_type(error.message, str)
    except InterCEdeError as error:
        assert_type(error.ce, str | None)
        assert_type(error.operation, str | None)
        assert_type(error.jobs, tuple[str, ...])
        assert_type(error.submission, str | None)

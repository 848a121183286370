"""Job descriptions that conversations submit, good and faulty."""

from __future__ import annotations

ADL = "http://www.eu-emi.eu/es/2010/12/adl"
XMLNS = f'xmlns="{ADL}"'


def adl(
    path: str = "/bin/true",
    *arguments: str,
    staging: str = "",
    resources: str = "<IndividualPhysicalMemory>20000000</IndividualPhysicalMemory>",
    queue: str = "@queue@",
    name: str = "likeness",
    application: str = "<Output>out</Output><Error>err</Error>",
    xmlns: str = XMLNS,
) -> str:
    """One ActivityDescription."""
    words = "".join(f"<Argument>{argument}</Argument>" for argument in arguments)
    at = f"<QueueName>{queue}</QueueName>" if queue else ""
    return (
        f"<ActivityDescription {xmlns}><ActivityIdentification><Name>{name}</Name>"
        f"</ActivityIdentification><Application><Executable><Path>{path}</Path>{words}</Executable>"
        f"{application}</Application><Resources>{resources}{at}</Resources>"
        f"<DataStaging>{staging}</DataStaging></ActivityDescription>"
    )


def several(*descriptions: str) -> str:
    return f"<ActivityDescriptions {XMLNS}>{''.join(descriptions)}</ActivityDescriptions>"


def script(code: str, **parts: str) -> str:
    """A job of one line of shell."""
    return adl("/bin/sh", "-c", code, **parts)


def awaited(*names: str) -> str:
    """Inputs that the client uploads."""
    return "".join(f"<InputFile><Name>{name}</Name></InputFile>" for name in names)


def fetched(name: str, source: str) -> str:
    return f"<InputFile><Name>{name}</Name><Source><URI>{source}</URI></Source></InputFile>"


KEEP_ALL = "<OutputFile><Name>/</Name></OutputFile>"

TRUE = adl(staging=KEEP_ALL)
WAITING = adl(staging=awaited("never") + KEEP_ALL)
"""Waits for its input as long as nobody sends it: a job that stands still."""


def xrsl(*relations: str) -> str:
    return "&" + "".join(
        f"({each})" for each in ('executable="/bin/true"', "memory=20", *relations)
    )

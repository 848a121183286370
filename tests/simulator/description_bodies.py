"""Bodies of ``jobs?action=new``, good, odd and broken, for tests of who reads them."""

from __future__ import annotations

from typing import Final

_ADL: Final = "http://www.eu-emi.eu/es/2010/12/adl"
_NORDUGRID: Final = 'xmlns="http://www.nordugrid.org/es/2011/12/nordugrid-adl"'
_TRUE: Final = "<Application><Executable><Path>/bin/true</Path></Executable></Application>"
_RUN: Final = '(executable="/bin/true")'
LIMIT: Final = 5 * 2**20


def _adl(inside: str, namespaces: str = f' xmlns="{_ADL}"') -> bytes:
    return f"<ActivityDescription{namespaces}>{inside}</ActivityDescription>".encode()


def _application(more: str) -> bytes:
    return _adl(_TRUE.replace("</Application>", f"{more}</Application>"))


def _resources(inside: str) -> bytes:
    return _adl(f"{_TRUE}<Resources>{inside}</Resources>")


def _slots(number: str, more: str = "") -> bytes:
    inside = f"<NumberOfSlots>{number}</NumberOfSlots>{more}"
    return _resources(f"<SlotRequirement>{inside}</SlotRequirement>")


def _staging(inside: str) -> bytes:
    return _adl(f"{_TRUE}<DataStaging>{inside}</DataStaging>")


def _target(inside: str) -> bytes:
    return _staging(f"<OutputFile><Name>a</Name><Target>{inside}</Target></OutputFile>")


_TARGET: Final = "<URI>http://localhost/x</URI>"

_WHOLE: Final = {
    "empty": b"",
    "blank": b"  \n ",
    "garbage": b"garbage",
    "byte order mark": b"\xef\xbb\xbf" + _adl(_TRUE),
}

_XML: Final = {
    "cut": b"<ActivityDescription",
    "not closed": _adl("<Application>"),
    "bad UTF-8": _adl(_TRUE).replace(b"true", b"\xfftrue"),
    "two roots": _adl(_TRUE) + _adl(_TRUE),
    "junk behind": _adl(_TRUE) + b"garbage",
    "blank before": b" \n" + _adl(_TRUE) + b"\n ",
    "declaration": b'<?xml version="1.0" encoding="utf-8"?>\n' + _adl(_TRUE),
    "latin-1": b'<?xml version="1.0" encoding="iso-8859-1"?>'
    + _adl(f"<ActivityIdentification><Name>caf\xe9</Name></ActivityIdentification>{_TRUE}")
    .decode()
    .encode("latin-1"),
    "another root": b"<Foo/>",
    "no namespace": _adl(_TRUE, ""),
    "another namespace": _adl(_TRUE, ' xmlns="http://example.org/"'),
    "prefix": f'<x:ActivityDescription xmlns:x="{_ADL}">'.encode()
    + b"<x:Application><x:Executable><x:Path>/bin/true</x:Path></x:Executable></x:Application>"
    + b"</x:ActivityDescription>",
    "too big": _adl(f"{_TRUE}<!--{'x' * LIMIT}-->"),
    "several, none": b"<ActivityDescriptions/>",
    "several, one of them another": b"<ActivityDescriptions><Foo/></ActivityDescriptions>",
    "several": b"<ActivityDescriptions>" + 2 * _adl(_TRUE) + b"</ActivityDescriptions>",
    "several, one namespace": f'<ActivityDescriptions xmlns="{_ADL}">'.encode()
    + 2 * _adl(_TRUE, "")
    + b"</ActivityDescriptions>",
    "several, one bad": b"<ActivityDescriptions>"
    + _adl(_TRUE)
    + _slots("many")
    + _adl(_TRUE)
    + b"</ActivityDescriptions>",
}

_OF_ADL: Final = {
    "empty": _adl(""),
    "no executable": _adl("<Application/>"),
    "slots many": _slots("many"),
    "slots missing": _resources(
        "<SlotRequirement><SlotsPerHost>1</SlotsPerHost></SlotRequirement>"
    ),
    "slots 0": _slots("0"),
    "slots 2": _slots("2"),
    "slots -3": _slots("-3"),
    "slots -1": _slots("-1"),
    "slots 1.5": _slots("1.5"),
    "slots with blanks": _slots(" 2 "),
    "slots with a blank before": _slots(" 2"),
    "slots +2": _slots("+2"),
    "slots 3000000000": _slots("3000000000"),
    "more per host": _slots("2", "<SlotsPerHost>4</SlotsPerHost>"),
    "no divisor": _slots("5", "<SlotsPerHost>2</SlotsPerHost>"),
    "divisor": _slots("4", "<SlotsPerHost>2</SlotsPerHost>"),
    "all on one host": _slots("4", '<SlotsPerHost useNumberOfSlots="true"/>'),
    "wall time soon": _resources("<WallTime>soon</WallTime>"),
    "wall time -1": _resources("<WallTime>-1</WallTime>"),
    "memory 1G": _resources("<IndividualPhysicalMemory>1G</IndividualPhysicalMemory>"),
    "virtual memory 1G": _resources("<IndividualVirtualMemory>1G</IndividualVirtualMemory>"),
    "disk 0": _resources("<DiskSpaceRequirement>0</DiskSpaceRequirement>"),
    "no such queue": _resources("<QueueName>nosuch</QueueName>"),
    "empty queue": _resources("<QueueName></QueueName>"),
    "coprocessor": _resources("<Coprocessor>CUDA</Coprocessor>"),
    "benchmark": _resources("<Benchmark/>"),
    "network": _resources("<NetworkInfo>myrinet</NetworkInfo>"),
    "node access": _resources("<NodeAccess>sideways</NodeAccess>"),
    "optional": _resources(
        "<RuntimeEnvironment optional='perhaps'><Name>X</Name></RuntimeEnvironment>"
    ),
    "runtime environment": _resources("<RuntimeEnvironment><Name>A/B</Name></RuntimeEnvironment>"),
    "runtime environment above": _resources(
        "<RuntimeEnvironment><Name>../B</Name></RuntimeEnvironment>"
    ),
    "pre-executable": _application("<PreExecutable><Path>/bin/true</Path></PreExecutable>"),
    "post-executable": _application("<PostExecutable><Path>/bin/true</Path></PostExecutable>"),
    "output above": _application("<Output>../a</Output>"),
    "output up and down": _application("<Output>a/../b</Output>"),
    "error above": _application("<Error>a/../../b</Error>"),
    "input above": _application("<Input>../a</Input>"),
    "logging": _application("<RemoteLogging><ServiceType>SGAS</ServiceType></RemoteLogging>"),
    "logging to a URL": _application(
        "<RemoteLogging><ServiceType>SGAS</ServiceType><URL>https://localhost/x</URL></RemoteLogging>"
    ),
    "logging, perhaps": _application(
        '<RemoteLogging optional="perhaps"><URL>https://localhost/x</URL></RemoteLogging>'
    ),
    "notification": _application(
        '<Notification optional="true"><Protocol>email</Protocol><Recipient>a@b</Recipient>'
        "<OnState>TERMINAL</OnState></Notification>"
    ),
    "wipe time, perhaps": _application('<WipeTime optional="perhaps">P1D</WipeTime>'),
    "dry run": _application(f"<DryRun {_NORDUGRID}>true</DryRun>"),
    "dry run, perhaps": _application(f"<DryRun {_NORDUGRID}>perhaps</DryRun>"),
    "credential service": _application(f"<CredentialService {_NORDUGRID}></CredentialService>"),
    "parallel": _resources(
        "<ParallelEnvironment><Type>MPI</Type><ProcessesPerSlot>1</ProcessesPerSlot><Option>"
        "<Name>a</Name></Option></ParallelEnvironment>"
    ),
    "parallel, x": _resources(
        "<ParallelEnvironment><ProcessesPerSlot>x</ProcessesPerSlot></ParallelEnvironment>"
    ),
    "parallel, no option": _resources("<ParallelEnvironment><Option/></ParallelEnvironment>"),
    "session access": _resources("<RemoteSessionAccess>perhaps</RemoteSessionAccess>"),
    "CPU time x": _resources("<TotalCPUTime>x</TotalCPUTime>"),
    "exit code": _adl(
        "<Application><Executable><Path>x</Path><FailIfExitCodeNotEqualTo>zero"
        "</FailIfExitCodeNotEqualTo></Executable></Application>"
    ),
    "push maybe": _staging("<ClientDataPush>maybe</ClientDataPush>"),
    "input without name": _staging("<InputFile/>"),
    "input from a path": _staging(
        "<InputFile><Name>a</Name><Source><URI>nourl</URI></Source></InputFile>"
    ),
    "input from nowhere": _staging("<InputFile><Name>a</Name><Source/></InputFile>"),
    "input from no URL": _staging(
        "<InputFile><Name>a</Name><Source><URI>::</URI></Source></InputFile>"
    ),
    "input twice": _staging(2 * "<InputFile><Name>a</Name></InputFile>"),
    "input that leads out": _staging("<InputFile><Name>../a</Name></InputFile>"),
    "output without name": _staging("<OutputFile/>"),
    "output that leads out": _staging("<OutputFile><Name>../a</Name></OutputFile>"),
    "list of outputs": _staging("<OutputFile><Name>@list</Name></OutputFile>"),
    "target a path": _target("<URI>x</URI>"),
    "target nowhere": _target(""),
    "append": _target(f"{_TARGET}<CreationFlag>append</CreationFlag>"),
    "overwrite": _target(f"{_TARGET}<CreationFlag>overwrite</CreationFlag>"),
    "no creation mode": _target(f"{_TARGET}<CreationFlag>sometimes</CreationFlag>"),
    "mandatory perhaps": _target(f"{_TARGET}<Mandatory>perhaps</Mandatory>"),
}

_OF_XRSL: Final = {
    "simple": f"&{_RUN}",
    "or": f"|{_RUN}",
    "no executable": '&(jobname="x")',
    "several": f'+(&{_RUN})(&{_RUN}(jobname="b"))',
    "several, one bad": f'+(&{_RUN})(&{_RUN}(count="many"))',
    "several within": f"&{_RUN}(+(&{_RUN}))",
    "several, one plain": "+(executable=/bin/true)",
    "several, junk behind": f"+(&{_RUN})x",
    "several, not closed": f"+(&{_RUN}",
    "several, bad in the second line": f"+(&{_RUN}(count=x))\n(&(foo=))",
    "junk behind": f"&{_RUN} junk",
    "not closed": '&(executable="/bin/true"',
    "string not closed": '&(executable="/bin/true)',
    "string not closed later": f'&{_RUN}(jobname="x)',
    "nothing": "&",
    "nothing but blanks": " & ",
    "comment": f"&(* hello *){_RUN}",
    "comment not closed": f"&(* hello {_RUN}",
    "no operator": '&(executable "/bin/true")',
    "no operator later": f'&{_RUN}(jobname "x")',
    "twice": f"&{_RUN}{_RUN}",
    "sequence for a text": '&(executable=("a" "b"))',
    "two for a text": '&(executable="a" "b")',
    "count x": f'&{_RUN}(count="x")',
    "count 2": f'&{_RUN}(count="2")',
    "count -3": f'&{_RUN}(count="-3")',
    "memory x": f'&{_RUN}(memory="x")',
    "wall time x": f'&{_RUN}(walltime="x")',
    "times": f'&{_RUN}(walltime="10")(cputime="5 minutes")',
    "variable without value": f'&{_RUN}(environment=("A"))',
    "variable no sequence": f'&{_RUN}(environment="A")',
    "variable in the second line": f'&\n{_RUN}\n (environment="A")',
    "input of one": f'&{_RUN}(inputfiles=("a"))',
    "input without name": f'&{_RUN}(inputfiles=("" ""))',
    "input from no URL": f'&{_RUN}(inputfiles=("a" "::"))',
    "input of a size": f'&{_RUN}(inputfiles=("a" "3"))',
    "input option": f'&{_RUN}(inputfiles=("a" "http://localhost/x" "threads"))',
    "output of one": f'&{_RUN}(outputfiles=("a"))',
    "output without name": f'&{_RUN}(outputfiles=("" ""))',
    "executables": f'&{_RUN}(executables="b")',
    "join alone": f'&{_RUN}(join="yes")',
    "join": f'&{_RUN}(stdout=o)(join="yes")',
    "unheard of": f'&{_RUN}(foo="bar")',
    "unheard of, like a method": f'&{_RUN}(files="bar")(options="x")',
    "no such queue": f'&{_RUN}(queue="nosuch")',
    "not that queue": f'&{_RUN}(queue!="nosuch")',
    "runtime environment": f'&{_RUN}(runtimeenvironment="APPS/X")',
    "newer runtime environment": f'&{_RUN}(runtimeenvironment>="APPS/X-1.0")',
    "no runtime environment": f"&{_RUN}(runtimeenvironment=)",
    "action": f'&{_RUN}(action="request")',
    "another action": f'&{_RUN}(action="cancel")',
    "substitution": '&(rsl_substitution=("A" "/bin/true"))(executable=$(A))',
    "bad substitution": f'&(rsl_substitution=("A"))({_RUN[1:]}',
    "joined": '&(executable="/bin/"#"true")(arguments=$(X)b "c"d e)',
    "nothing to join": '&(executable=#"true")',
    "no value": "&(executable=)",
    "capitals": '&(ExecuTable="/bin/true")(Job_Name="x")',
    "lines": '&\n(executable="/bin/true")\n(count="x")\n',
    "alternatives": f'&{_RUN}(|(queue="a")(queue="main"))',
    "log and streams": f'&{_RUN}(gmlog="log")(stdout="o")(stderr="e")(stdin="i")',
    "exclusive": f'&{_RUN}(exclusiveexecution="perhaps")',
    "per node alone": f'&{_RUN}(countpernode="2")',
    "per node": f'&{_RUN}(count="4")(countpernode="2")',
    "notify nobody": f'&{_RUN}(notify="x")',
    "notify": f'&{_RUN}(notify="be a@b.example")',
    "arguments twice": f'&{_RUN}(arguments="a")(arguments="b")',
    "quotes": "&(executable='/bin/true')(arguments='it''s' ^!a!)",
    "NUL": '&(executable="/bin/\0true")',
    "bad attribute": f'&{_RUN}("a b"="c")',
    "dollar": f"&{_RUN}(arguments=$)",
    "variable without a name": f"&{_RUN}(arguments=$())",
    "variable not closed": f"&{_RUN}(arguments=$(A)",
    "variable of an odd name": f"&{_RUN}(arguments=$('a+b'))",
    "nothing to join behind": f"&{_RUN}(arguments=a#)",
    "sequence joined": f"&{_RUN}(arguments=(a)#b)",
    "joined to a sequence": f"&{_RUN}(arguments=a#(b))",
    "sequence among arguments": f"&{_RUN}(arguments=a (b))",
    "sequence in a sequence": f"&{_RUN}(environment=(a (b)))",
    "odd attribute": f"&{_RUN}('a+b'=c)",
    "text substituted": f"&(rsl_substitution=a){_RUN}",
    "sequence for a variable": f"&(rsl_substitution=((a) b)){_RUN}",
    "sequence for its value": f"&(rsl_substitution=(a (b))){_RUN}",
    "quote not closed later": f"&{_RUN}(jobname='x)",
    "operators": f"&{_RUN}(opsys>=a)(cluster!=b)(disk<3)(cache<=yes)(architecture>x)",
    "delegation": f'&{_RUN}(delegationid="x")',
    "not that delegation": f'&{_RUN}(delegationid!="x")',
    "delegation of an input": f'&{_RUN}(inputfiles=("a" "http://localhost/x" "delegationid=d"))',
    "list of outputs": f'&{_RUN}(outputfiles=("@list" ""))',
    "output to a path": f'&{_RUN}(outputfiles=("a" "x"))',
    "output to a URL": f'&{_RUN}(outputfiles=("a" "http://localhost/x" "overwrite=yes"))',
    "output option": f'&{_RUN}(outputfiles=("a" "http://localhost/x" "overwrite"))',
    "output to no URL": f'&{_RUN}(outputfiles=("a" "http:x"))',
    "per node x": f'&{_RUN}(count="4")(countpernode="x")',
    "notify in odd states": f'&{_RUN}(notify="xyz a@b.example")',
    "notify twice": f'&{_RUN}(notify="a@b.example be")',
    "rerun and priority": f'&{_RUN}(rerun="x")(priority="1000")',
    "output above": f'&{_RUN}(stdout="../x")',
    "several, each bad": f"+(&{_RUN}(count=x))(&{_RUN}(queue!=y))",
    "several, none": "+",
}

BODIES: Final[dict[str, bytes]] = {
    **_WHOLE,
    **{f"XML: {name}": body for name, body in _XML.items()},
    **{f"ADL: {name}": body for name, body in _OF_ADL.items()},
    **{f"xRSL: {name}": text.encode() for name, text in _OF_XRSL.items()},
    "xRSL: bad UTF-8": b'&(executable="/bin/true")(jobname="\xff")',
}
"""What it is → the body."""

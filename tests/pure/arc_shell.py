"""What A-REX's shell scripts make of a job description: a simulation in their own words.

The two functions are quoted verbatim from ARC 7.2.0, src/services/a-rex/lrms: `parse_grami_file` in
lrms_common.sh.in (its last part) and `add_user_env` in submit_common.sh. What stands around them is
what `write_grami` (JobDescriptionHandler.cpp) and `cd_and_run` (submit_common.sh) write, as far as
it touches the executable, the arguments or the environment.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ADL = "{http://www.eu-emi.eu/es/2010/12/adl}"

SUBMIT = r"""
GRAMI_FILE=$1
LRMS_JOB_SCRIPT=$2
arg_file=$GRAMI_FILE
. $arg_file

   # combine arguments to command -  easier to use
   arg_i=0
   joboption_args=
   eval "var_is_set=\${joboption_arg_$arg_i+yes}"
   while [ ! -z "${var_is_set}" ] ; do
      eval "var_value=\${joboption_arg_$arg_i}"
      # Use -- to avoid echo eating arguments it understands
      var_value=`echo -- "$var_value" |cut -f2- -d' '| sed 's/\\\\/\\\\\\\\/g' | sed 's/"/\\\"/g'`
      joboption_args="$joboption_args \"${var_value}\""
      arg_i=$(( $arg_i + 1 ))
      eval "var_is_set=\${joboption_arg_$arg_i+yes}"
   done
   unset arg_file usage arg_i var_is_set var_value

add_user_env () {
   echo "# Setting environment variables as specified by user" >> $LRMS_JOB_SCRIPT
   has_gridglobalid=''
   i=0
   eval "var_is_set=\${joboption_env_$i+yes}"
   while [ ! -z "${var_is_set}" ] ; do
      eval "var_value=\${joboption_env_$i}"
      if [ "$var_value" ] && [ -z "${var_value##GRID_GLOBAL_JOBID=*}" ]; then
          has_gridglobalid=yes
      fi
      var_escaped=`echo "$var_value" | sed "s/'/'\\\\\''/g"`
      echo "export '${var_escaped}'" >> $LRMS_JOB_SCRIPT
      i=$(( $i + 1 ))
      eval "var_is_set=\${joboption_env_$i+yes}"
   done
}

add_user_env
echo "RUNTIME_JOB_DIR=$joboption_directory" >> $LRMS_JOB_SCRIPT
cat >> $LRMS_JOB_SCRIPT <<'EOSCR'
  # Changing to session directory
  HOME=$RUNTIME_JOB_DIR
  export HOME
  if ! cd "$RUNTIME_JOB_DIR"; then
    echo "Failed to switch to '$RUNTIME_JOB_DIR'" 1>&2
    RESULT=1
  fi
  if [ ! -z "$RESULT" ] && [ "$RESULT" != 0 ]; then
    exit $RESULT
  fi
EOSCR
  # Define executable and check it exists on the worker node
  echo "executable='$joboption_arg_0'" >> $LRMS_JOB_SCRIPT
  cat >> $LRMS_JOB_SCRIPT <<'EOSCR'
# Check if executable exists
if [ ! -f "$executable" ];
then
  echo "Path \"$executable\" does not seem to exist" 1>&2
  exit 1
fi
EOSCR
input_redirect="</dev/null"
output_redirect="1>stdout 2>stderr"
    cat >> $LRMS_JOB_SCRIPT <<EOSCR
  $joboption_args $input_redirect $output_redirect
RESULT=\$?

exit \$RESULT
EOSCR
"""

# Reports, from the kernel, what it was started with.
PAYLOAD = """#!/bin/sh
/bin/cat /proc/$$/cmdline > argv
/bin/cat /proc/$$/environ > environ
/bin/cat > stdin
"""


@dataclass(frozen=True)
class Application:
    """Executable, arguments and environment as a description gives them to A-REX."""

    path: str
    arguments: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Received:
    """What the payload was started with; None if it was not started."""

    argv: list[str]
    environment: dict[str, str]
    stdin: bytes


def application(description: bytes) -> Application:
    """Read a description as A-REX's ADLParser does."""
    root = ET.fromstring(description)
    found = root.find(f"{ADL}Application")
    assert found is not None
    executable = found.find(f"{ADL}Executable")
    assert executable is not None
    return Application(
        (executable.findtext(f"{ADL}Path") or "").strip(),
        [argument.text or "" for argument in executable.findall(f"{ADL}Argument")],
        {
            pair.findtext(f"{ADL}Name") or "": pair.findtext(f"{ADL}Value") or ""
            for pair in found.findall(f"{ADL}Environment")
        },
    )


def run(job: Application, session: Path, shell: str, path: str) -> Received | None:
    """Run a job as A-REX and a batch node would, with ``shell`` as the shell of both.

    Args:
        job: what to run.
        session: the session directory; emptied of what an earlier run left.
        shell: path of the shell that runs A-REX's scripts.
        path: PATH on the node; its ``sh`` is the one that the armour finds.
    """
    session.mkdir(exist_ok=True)
    for name in ("argv", "environ", "stdin", "stdout", "stderr"):
        (session / name).unlink(missing_ok=True)
    control = session.parent
    grami, script, submit = control / "grami", control / "script", control / "submit"
    submit.write_text(SUBMIT)
    script.write_text("")
    grami.write_bytes(_grami(job, session).encode())
    node = {"PATH": path}
    subprocess.run([shell, submit, grami, script], env=node, check=True, capture_output=True)
    subprocess.run([shell, script], env=node, check=False, capture_output=True)
    if not (session / "stdin").exists():
        return None
    return Received(
        _strings(session / "argv"),
        dict(pair.split("=", 1) for pair in _strings(session / "environ")),
        (session / "stdin").read_bytes(),
    )


def _grami(job: Application, session: Path) -> str:
    own = job.path if job.path.startswith(("/", "$", "./")) else f"./{job.path}"
    lines = [f"joboption_directory='{session}'"]
    lines += [f"joboption_arg_{n}={_quoted(w)}" for n, w in enumerate((own, *job.arguments))]
    environment = [f"{name}={value}" for name, value in job.environment.items()]
    environment.append("GRID_GLOBAL_JOBID=https://ce.example.org:443/arex/rest/1.0/jobs/abc")
    lines += [f"joboption_env_{n}={_quoted(pair)}" for n, pair in enumerate(environment)]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _strings(file: Path) -> list[str]:
    data = file.read_bytes()
    assert data.endswith(b"\0")
    return data[:-1].decode().split("\0")

"""The command ``arcbackend``: thin, over the library.

`command` is the door; each group of commands has a module, and what several of them need another:
`connection` which CE and as whom, `ids` which jobs, `running` an event loop that Ctrl-C ends, and
`display`, with `bar` and `figures`, how far it has come.
"""

from arcbackend.cli.command import main, parser

__all__ = ["main", "parser"]

"""The life of a job: the machine's definition, the policies that shape it, and what runs it.

Nothing here does I/O beyond reading the two kinds of file, or knows of a clock or an event loop.
"""

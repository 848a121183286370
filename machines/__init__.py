"""The machine and the policies that ship: data files, read by `arcbackend.lifecycle`."""

"""Timings of what the library does, each beside a matrix product of the same machine in the same run."""

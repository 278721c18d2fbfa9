"""Benchmarks: one command and one table each; data and servers stay outside the repository."""

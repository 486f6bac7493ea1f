"""Names bound when this is imported: a test has a worker be the first to do so."""

from os import environ, getenv, getpid
from random import random, shuffle
from time import monotonic, perf_counter, sleep

__all__ = ["environ", "getenv", "getpid", "monotonic", "perf_counter", "random", "shuffle", "sleep"]

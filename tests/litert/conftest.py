"""Tests of what LiteRT's converter makes. It lives elsewhere, and they are collected there alone (``.ci/litert``)."""

from __future__ import annotations

import importlib.util
import os

there = "LAVIT_EDGE_LITERT" in os.environ or importlib.util.find_spec("litert_torch") is not None
collect_ignore_glob = [] if there else ["test_*.py"]

"""A package of somebody else's, with a function that builds a small classifier."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

SOURCE = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.body(x)).mean((2, 3)))

def small(classes=3, pretrained=False, cfg=None):
    torch.manual_seed(0)
    model = Small(classes)
    if cfg:
        model.pretrained_cfg = cfg
    return model

def number():
    return 7

def fails():
    raise RuntimeError("no such net")
"""


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """``package:function`` that can be imported."""
    (tmp_path / "somebody.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield "somebody:small"
    sys.modules.pop("somebody", None)


@pytest.fixture
def module(builder: str) -> nn.Module:
    return importlib.import_module("somebody").small()

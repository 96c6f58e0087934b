"""What every page of ours begins with: one file that needs nothing from elsewhere, and fits a phone and a laptop.

Whatever is wider than the window scrolls inside its ``<div class=box>``, so that the page itself never does.
"""

from __future__ import annotations

import html

STYLE = """
*{box-sizing:border-box}
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:76rem;padding:1rem;overflow-wrap:anywhere}
body{color:#1c2330;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}h3{font-size:1rem}
.box{overflow-x:auto;border:1px solid #dde2ea;border-radius:6px;width:fit-content;max-width:100%;margin:.75rem 0}
table{border-collapse:collapse;font-size:.875rem}
td,th{padding:.4rem .6rem;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;border-bottom:1px solid #dde2ea}
th{background:#f1f3f6;font-weight:600}tr:last-child>*{border-bottom:0}
td.t,th.t{text-align:left}td.name,th.name{white-space:normal;min-width:9rem;text-align:left}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1rem}
figure{margin:0;min-width:0;max-width:32rem}figure svg{width:100%;height:auto;display:block}
figcaption,.note,small{font-size:.875rem;color:#4a5566}
.good,.faster{color:#1a7f4b;font-weight:600}.bad,.slower{color:#b3261e;font-weight:600}.inconclusive{color:#7a5b00;font-weight:600}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,9.5rem),1fr));gap:.75rem}
.card{border:1px solid #dde2ea;border-radius:6px;padding:.6rem;min-width:0;font-size:.875rem}
.card img{width:100%;height:9rem;object-fit:contain;background:#f1f3f6;border-radius:4px;display:block}
.bar{display:grid;grid-template-columns:1fr auto;gap:0 .5rem}
.bar i{grid-column:1/3;height:.3rem;background:#0072b2;border-radius:2px}
code{font-size:.875rem;background:#f1f3f6;padding:.1rem .3rem;border-radius:4px}
"""


def head(title: str, style: str = "") -> str:
    """Everything up to the heading, which is the title; ``style``: rules of this page alone."""
    title = html.escape(title)
    meta = "<meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>"
    return f"<!doctype html><html lang=en>{meta}<title>{title}</title><style>{STYLE}{style}</style><h1>{title}</h1>"


def box(table: str) -> str:
    """A table that scrolls by itself where it is wider than the window."""
    return f"<div class=box>{table}</div>"

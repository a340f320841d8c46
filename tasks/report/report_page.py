"""The frame of a report: one file that fetches nothing, readable in light, dark and print."""

from __future__ import annotations

from collections.abc import Sequence

from epochal.tasks.report.html_text import Html, element

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What the page may load: the pictures that are in it. A script that slipped in would not run."""

_LIGHT = """
--page:#f6f8fa;--card:#ffffff;--ink:#24292f;--soft:#57606a;--line:#d8dee4;--bad:#b42318;
--c0:#3b7dd8;--c1:#e08a1e;--c2:#2fa37c;--c3:#d1373f;--c4:#8a63d2;--c5:#a0692e;--c6:#c2569b;--c7:#68737d;
"""
_DARK = """
--page:#0d1117;--card:#161b22;--ink:#d7dde4;--soft:#8d96a0;--line:#30363d;--bad:#ff8d84;
--c0:#5a9cf5;--c1:#f2a541;--c2:#45c598;--c3:#ff6b70;--c4:#b392f0;--c5:#d0a06a;--c6:#ec8fca;--c7:#9aa5b1;
"""
_COLOURS = "".join(f".c{number}{{--own:var(--c{number})}}" for number in range(8))
STYLE = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
{_COLOURS}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}}
header,main{{max-width:1280px;margin:0 auto;padding:0 24px}}
header{{padding-top:28px}}
h1{{font-size:26px;margin:0 0 12px;overflow-wrap:anywhere}}
h2{{font-size:15px;margin:0 0 10px;overflow-wrap:anywhere}}
dl{{display:flex;flex-wrap:wrap;gap:10px 32px;margin:0 0 14px}}
dl>div{{min-width:0}}
dt{{color:var(--soft);font-size:12px}}
dd{{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}}
main{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(520px,100%),1fr));gap:18px;
padding-top:20px;padding-bottom:40px;align-items:start}}
section{{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 18px;
min-width:0}}
section.wide{{grid-column:1/-1}}
details{{margin-top:4px}}
summary{{cursor:pointer;color:var(--soft)}}
pre{{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;
overflow:auto;font-size:12.5px;line-height:1.45}}
img,svg{{display:block;width:100%;height:auto}}
.note{{color:var(--soft);font-size:13px;margin:10px 0 0}}
.problem{{color:var(--bad);margin:0;overflow-wrap:anywhere}}
.scroll{{overflow-x:auto}}
table{{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}}
th,td{{padding:4px 10px;text-align:right;white-space:nowrap}}
th{{color:var(--soft);font-weight:500;border-bottom:1px solid var(--line)}}
tbody tr:nth-child(even){{background:color-mix(in srgb,var(--line) 25%,transparent)}}
svg text{{fill:var(--soft);font-size:11px}}
svg .x{{text-anchor:middle}}
svg .y{{text-anchor:end}}
.grid{{stroke:var(--line);stroke-width:1}}
.axis{{stroke:var(--soft);stroke-width:1;fill:none}}
.line{{stroke:var(--own);stroke-width:1.8;fill:none;stroke-linejoin:round}}
.band{{fill:var(--own);opacity:.2}}
circle{{fill:var(--own)}}
.legend{{display:flex;flex-wrap:wrap;gap:4px 16px;margin-top:8px;font-size:12.5px;
color:var(--soft)}}
.legend i{{display:inline-block;width:10px;height:10px;border-radius:3px;background:var(--own);
margin-right:6px}}
@media print{{body{{background:none}}section{{break-inside:avoid}}}}
"""


def page(*, title: str, header: Html, sections: Sequence[Html]) -> str:
    """The whole file."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    body = element("body", element("header", header), element("main", *sections))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"

"""A page of `epochal report`, read: tags, texts, tables, scripts; and that it fetches nothing."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

HOSTILE = "<script>alert(1)</script>\"'><img src=https://evil.test/x onerror=alert(2)> $$x$$ {y} @z"
VOID = {"meta", "img", "input"}


class Reader(HTMLParser):
    """Tags, their attributes and the text of a page; its scripts by themselves."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self.scripts, self._open = [], [], [], [], []
        self.tables = {}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self._open.append((tag, dict(attributes)))
        if tag == "table":
            self._rows = self.tables.setdefault(self._open[-2][1]["aria-label"], [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        if self._open and self._open[-1][0] == "script":
            self.scripts.append((self._open[-1][1], data))
        elif not self._open or self._open[-1][0] != "style":
            self.text.append(data)
            if any(tag in {"td", "th"} for tag, _ in self._open):
                self._rows[-1][-1] += data

    @property
    def charts(self):
        return next(json.loads(text) for given, text in self.scripts if given.get("id") == "charts")


def checked(page):
    """The page read, once it is sure that it fetches nothing and runs its own scripts alone."""
    found = Reader(page)
    assert found._open == []
    assert set(found.tags).isdisjoint({"link", "iframe", "object", "a", "form", "base", "source"})
    for name, value in found.attributes:
        assert not name.startswith("on"), name
        if name in {"src", "srcset", "href", "action", "data", "poster"}:
            assert value.startswith("data:image/")
    style = re.search(r"<style>(.*?)</style>", page, flags=re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    policy = next(value for name, value in found.attributes if "default-src 'none'" in value)
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    run = [text for given, text in found.scripts if not given]
    assert {base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in run} <= (
        allowed
    )
    assert len(allowed) == 2
    assert "connect-src" not in policy
    assert policy.count("unsafe-inline") == 1  # of styles
    return found

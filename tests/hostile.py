"""Texts that try to be markup, commands or formulas wherever they are shown."""

from __future__ import annotations

TEXTS = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "a|b`c`[d](javascript:alert(3))\n# head",
    "=HYPERLINK(\"http://x\",\"y\")",
    "{{7*7}}{% raw %}",
    "\x1b[31mred\x1b]0;title\x07\u202eevil\u2066",
    "\" onmouseover=\"alert(4)",
    "'><svg onload=alert(5)>",
    "[bold red]x[/bold red][link=file:///etc/passwd]y[/link]",
    "+1+cmd|' /C calc'!A0",
    "-1+1",
    "- list",
    "1. list",
    "    code",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\uff1d1",
    "line\u2028line\u2029\x85\x9b31m\x7f",
    "<!--<script>",
    "![image](http://x/y.png)**bold**~~gone~~__proto__",
    "\\|\\",
    "&lt;b&gt;&#60;b&#62;",
)  # fmt: skip

"""Sentences and capital words of English text, counted as IFEval's checks count them, without their libraries.

IFEval counts sentences with Punkt (Kiss and Strunk 2006) as trained for NLTK, and words in capitals after NLTK's word
tokenizer. Here are the same decisions with short written lists of abbreviations and sentence openers in place of the
trained ones; benchmarks/judges.py measures how often the counts agree.
"""

from __future__ import annotations

import re

_ABBREVIATIONS_TEXT = """
adm al apr ariz assn aug ave bros c ca calif capt cf cie cmdr co col colo conn corp cos ct d dec dr drs e.h est
fri feb fla g gen gov ill inc jan jr k ky l lt ltd m maj mass messrs mfg mg mich minn mr mrs ms mt n nev nov oct
okla ore p ph ph.d pp prof r rep reps s s.p.a sen sens sep sept sgt sr st tenn tues t u.k u.n u.s u.s.a v va vs
vt vol w wash wed wis yr a.m p.m d.c n.y n.j l.a n.c e.f a.d b.c
"""
_ABBREVIATIONS = frozenset(_ABBREVIATIONS_TEXT.split())
_OPENERS_TEXT = """
the this that these those it its he she they we you i his her their our my your there here what when where why
how who in on at as by for from with after before during while since because although though but and or so yet
however also then thus therefore moreover finally meanwhile instead if a an some many most few all both each
every another such one two not no to is are was were be do does did have has had can could will would should may
might let please
"""
_OPENERS = frozenset(_OPENERS_TEXT.split())
"""Words that are written with a small letter inside a sentence: with a capital they open one."""
_CLOSERS = r"\"')\]}‘’“”«»"
_INSIDE = r"[)\";}\]*:@'({\[!?‘’“”«»]"
_MARK = re.compile(r"[.?!]")
_BLANKS = re.compile(r"\s*")
_END = re.compile(rf"[.?!](?:(?={_INSIDE})|(?=\s+\S))")
_FIRST_TOKEN = re.compile(
    rf"-{{2,}}|\.{{2,}}|(?![(\"`{{\[:;&#*@)}}\]\-,])\S+?(?=\s|$|{_INSIDE}|-{{2,}}|\.{{2,}}|,(?:\s|$))|\S"
)
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*")


def count_sentences(text: str) -> int:
    """How many sentences a text has; what stands after the last end counts as one."""
    count = start = 0
    for chunk in re.finditer(r"\S+", text):
        # Of several possible ends in one run of characters the last one is judged: "What?!".
        marks = _MARK.finditer(text, *chunk.span())
        for end in [end for mark in marks if (end := _END.match(text, mark.start()))][-1:]:
            follows = _BLANKS.match(text, end.end()).end()  # type: ignore[union-attr]  # it matches everywhere
            if not _is_end(text[chunk.start() : end.end()], text[follows : follows + 80]):
                continue
            closing = re.compile(rf"[{_CLOSERS}]+?(?:\s+|(?=--)|$)", re.MULTILINE).match(text, end.end())
            count += bool(text[start : end.end()].strip())
            start = closing.end() if closing else end.end()
    return count + bool(text[start:].strip())


def _is_end(written: str, rest: str) -> bool:
    """Whether the run of characters ``written``, which ends in a mark, ends a sentence before ``rest``."""
    if re.search(r"[?!]", written):
        return True
    word = re.split(_INSIDE + r"|-{2,}|,$", written[:-1])[-1].lower()
    follows = _FIRST_TOKEN.match(rest)
    following = follows.group() if follows else ""
    capital, opens = following[:1].isupper(), following.lower().rstrip(".") in _OPENERS
    if word.endswith("."):  # an ellipsis
        return capital and opens
    is_initial = len(word) == 1 and word.isalpha()
    if not is_initial and (word in _ABBREVIATIONS or word.rsplit("-", 1)[-1] in _ABBREVIATIONS):
        return capital and opens
    if is_initial or _NUMBER.fullmatch(word):
        if following[:1].islower() or following in tuple(";:,.!?"):
            return False
        return not is_initial or (capital and opens)
    return True


_SPLIT = re.compile(r"[«“‘„`»”’]|\"|'{2}|[:,](?!\d)|\.{2,}|[;@#$%&*?!\[\](){}<>\u2012-\u2015]|--")
_CLITIC = re.compile(r"(?<=[^' ])(?=(?:'[SMDsmd]|'LL|'RE|'VE|N'T|'ll|'re|'ve|n't)$)")
_JOINED = re.compile(r"(CAN)(NOT)|(GIM)(ME)|(GON)(NA)|(GOT)(TA)|(LEM)(ME)|(WAN)(NA)|('T)(IS|WAS)")


def count_capital_words(text: str) -> int:
    """How many words are all capitals: "I" and "NASA" are one each, "DON'T" and "CANNOT" two, a hyphenated word one."""
    count = 0
    for word in _SPLIT.sub(" ", text).split():
        joined = _JOINED.fullmatch(word)
        parts = [part for part in joined.groups() if part] if joined else _CLITIC.split(word)
        count += sum(part.isupper() for part in parts)
    return count

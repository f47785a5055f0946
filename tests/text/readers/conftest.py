"""Small real files of every format, made on the spot: paragraphs in, bytes out."""

import csv
import functools
import io
import json
import tarfile
import types
import zipfile
from email.message import EmailMessage

import pytest

from bimo.text.readers import READERS
from bimo.text.readers.record import Options

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/a.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)


def page(paragraphs):
    body = "".join(f"<p>{paragraph}</p>\r\n" for paragraph in paragraphs)
    return f'<html><head><meta charset="utf-8"></head><body>{body}</body></html>'.encode()


def table(paragraphs, dialect):
    file = io.StringIO(newline="")
    writer = csv.writer(file, dialect)
    writer.writerows([["id", "text"], *enumerate(paragraphs)])
    return file.getvalue().encode()


def parquet(paragraphs):
    pyarrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    writer.write_table(pyarrow.table({"text": paragraphs}), file)
    return file.getvalue()


def arrow(paragraphs):
    pyarrow = pytest.importorskip("pyarrow")
    file, rows = io.BytesIO(), pyarrow.table({"text": paragraphs})
    with pyarrow.ipc.new_file(file, rows.schema) as writer:
        writer.write_table(rows)
    return file.getvalue()


def zip_file(paragraphs):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", lines(paragraphs))
    return file.getvalue()


def tar_file(paragraphs):
    file, data = io.BytesIO(), lines(paragraphs)
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def warc_record(kind, address, content_type, body):
    header = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {address}\r\nWARC-Date: 2024-05-06T07:08:09Z\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return header.encode() + body + b"\r\n\r\n"


def http(body, status="200 OK", content_type="text/html; charset=utf-8", encoding=""):
    header = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n"
    return (header + (f"Content-Encoding: {encoding}\r\n" if encoding else "") + "\r\n").encode() + body


def warc(paragraphs):
    answer = warc_record("response", "https://a.example/", "application/http; msgtype=response", http(page(paragraphs)))
    return warc_record("warcinfo", "", "application/warc-fields", b"software: bimo\r\n") + answer


def pdf(pages, trailer=b""):
    """A PDF of pages that are lists of lines, or None for a picture, in a font that maps codes to Unicode."""
    letters = sorted({letter for lines in pages for line in lines or () for letter in line})
    code = {letter: number for number, letter in enumerate(letters, 1)}
    mapping = "".join(f"1 beginbfchar <{n:04X}> <{c.encode('utf-16-be').hex()}> endbfchar\n" for c, n in code.items())
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"",
        stream(f"begincmap 1 begincodespacerange <0000> <FFFF> endcodespacerange\n{mapping}endcmap".encode()),
        b"<</Type/Font/Subtype/CIDFontType2/BaseFont/X/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)"
        b"/Supplement 0>>/DW 1000/FontDescriptor 5 0 R>>",
        b"<</Type/FontDescriptor/FontName/X/Flags 4/FontBBox[0 0 1000 1000]/ItalicAngle 0/Ascent 800/Descent -200"
        b"/CapHeight 700/StemV 80>>",
        b"<</Type/Font/Subtype/Type0/BaseFont/X/Encoding/Identity-H/DescendantFonts[4 0 R]/ToUnicode 3 0 R>>",
        stream(b"\0", b"/Type/XObject/Subtype/Image/Width 1/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8"),
        b"<</CreationDate(D:20240506150809+08'00')>>",
    ]
    kids = []
    for lines in pages:
        shown = "".join(f"<{''.join(f'{code[letter]:04X}' for letter in line)}> Tj T*\n" for line in lines or ())
        picture = "q 500 0 0 700 50 50 cm /I Do Q" if lines is None else f"BT /F 9 Tf 50 750 Td 14 TL\n{shown}ET"
        objects.append(stream(picture.encode()))
        resources = b"/Resources<</Font<</F 6 0 R>>/XObject<</I 7 0 R>>>>"
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 900 800]/Contents %d 0 R%s>>" % (len(objects), resources)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<</Type/Pages/Kids[%s]/Count %d>>" % (b" ".join(kids), len(kids))
    file, offsets = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(b"%010d 00000 n \n" % len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    size = len(objects) + 1
    table = b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, b"".join(offsets))
    end = b"trailer<</Size %d/Root 1 0 R/Info 8 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, len(file))
    return file + table + end


def stream(data, entries=b""):
    return b"<<%s/Length %d>>\nstream\n%s\nendstream" % (entries, len(data), data)


def saved(document):
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def word(paragraphs):
    document = pytest.importorskip("docx").Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    return saved(document)


def slides(paragraphs):
    presentation = pytest.importorskip("pptx").Presentation()
    for paragraph in paragraphs:
        presentation.slides.add_slide(presentation.slide_layouts[5]).shapes.title.text = paragraph
    return saved(presentation)


def workbook(paragraphs):
    book = pytest.importorskip("openpyxl").Workbook()
    for row in [["id", "text"], *enumerate(paragraphs)]:
        book.active.append(row)
    return saved(book)


def epub(chapters, **members):
    """A book of XHTML chapters; ``members`` replace or add files (``_`` stands for ``/``)."""
    items = "".join(
        f'<item id="c{number}" href="c%20{number}.xhtml" media-type="application/xhtml+xml"/>'
        for number in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{number}"/>' for number in range(len(chapters)))
    files = {
        "META-INF/container.xml": CONTAINER,
        "OEBPS/a.opf": '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<metadata><dc:date>1880-01-02</dc:date></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>",
        **{
            f"OEBPS/c {number}.xhtml": f'<?xml version="1.0"?><html><head><title/></head><body>{chapter}</body></html>'
            for number, chapter in enumerate(chapters)
        },
    } | {name.replace("_", "/"): content for name, content in members.items()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as book:
        for name, content in files.items():
            if content is not None:
                book.writestr(name, content)
    return file.getvalue()


def odt(body, manifest="", **namespaces):
    """A text of OpenDocument with this body."""
    names = {"office": "office", "text": "text", "table": "table", "draw": "drawing"} | namespaces
    declared = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{full}:1.0"' for name, full in names.items()
    )
    root = f'<?xml version="1.0"?><office:document-{{0}} {declared}>{{1}}</office:document-{{0}}>'
    written = (
        '<office:meta><d:date xmlns:d="http://purl.org/dc/elements/1.1/">2024-05-06T07:08:09.5</d:date></office:meta>'
    )
    content = f"<office:body><office:text>{body}</office:text></office:body>"
    files = {"content.xml": root.format("content", content), "meta.xml": root.format("meta", written)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as package:
        for name, text in (files | {"META-INF/manifest.xml": f"<manifest>{manifest}</manifest>"}).items():
            package.writestr(name, text)
    return file.getvalue()


def rtf(paragraphs):
    def escaped(text):
        return "".join(one if one.isascii() else f"\\u{ord(one)}?" for one in text)

    return ("{\\rtf1\\ansi " + "".join(f"\\pard {escaped(one)}\\par\n" for one in paragraphs) + "}").encode()


def mail(paragraphs):
    message = EmailMessage()
    message["Subject"], message["Date"] = paragraphs[0], "Mon, 06 May 2024 15:08:09 +0800"
    message.set_content("\r\n".join(paragraphs[1:]))
    return message.as_bytes()


def mailbox(paragraphs):
    return b"".join(b"From a@b.example Mon May  6 07:08:09 2024\n" + mail([text]) + b"\n" for text in paragraphs)


def notebook(paragraphs):
    cells = [{"cell_type": "markdown", "source": [paragraph]} for paragraph in paragraphs]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}).encode()


def lines(paragraphs):
    return "\r\n".join(paragraphs).encode()


def json_lines(paragraphs):
    return b"\n".join(json.dumps(paragraph).encode() for paragraph in paragraphs)


MAKERS = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": lambda paragraphs: json.dumps(paragraphs).encode(),
    ".csv": functools.partial(table, dialect="excel"),
    ".tsv": functools.partial(table, dialect="excel-tab"),
    ".parquet": parquet,
    **dict.fromkeys((".arrow", ".feather"), arrow),
    ".zip": zip_file,
    ".tar": tar_file,
    **dict.fromkeys((".html", ".htm", ".xhtml", ".xht"), page),
    ".warc": warc,
    ".wet": lambda paragraphs: warc_record("conversion", "https://a.example/", "text/plain", lines(paragraphs)),
    ".pdf": lambda paragraphs: pdf([paragraphs]),
    ".docx": word,
    ".pptx": slides,
    ".xlsx": workbook,
    ".epub": lambda paragraphs: epub([f"<p>{paragraph}</p>" for paragraph in paragraphs]),
    ".odt": lambda paragraphs: odt("".join(f"<text:p>{paragraph}</text:p>" for paragraph in paragraphs)),
    ".rtf": rtf,
    ".eml": mail,
    ".mbox": mailbox,
    ".ipynb": notebook,
}


@pytest.fixture(scope="session")
def make_sample():
    """``make_sample(suffix, paragraphs)``: a file of this format; of plain text where none is named here."""

    @functools.cache
    def make(suffix, paragraphs):
        return MAKERS.get(suffix, lines)(list(paragraphs))

    return make


@pytest.fixture(scope="session")
def formats():
    """The makers of files that tests of one format vary."""
    return types.SimpleNamespace(
        epub=epub,
        http=http,
        mail=mail,
        mailbox=mailbox,
        odt=odt,
        page=page,
        pdf=pdf,
        saved=saved,
        warc_record=warc_record,
    )


@pytest.fixture(scope="session")
def read():
    """``read(suffix, bytes)``: a reader's records as a list."""
    return lambda suffix, data, **options: list(READERS[suffix](io.BytesIO(data), Options(**options)))

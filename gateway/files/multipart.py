"""A file upload read from a multipart body piece by piece: fields are kept, the file's bytes are passed on."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors import InvalidRequest
from gateway.kit.plain_text import unstorable_character

MAX_FIELDS = 16
MAX_FIELD_BYTES = 1024


class UploadForm:
    """Feed it the body; `fields` and `filename` are complete once `finish` returned."""

    def __init__(self, content_type: str | None, *, part: str = "file") -> None:
        """`part` is what the form calls the file. It need not have a name: then `filename` is empty."""
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidRequest("Send the file as multipart/form-data with a boundary.", code="invalid_multipart")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self._file_part = part
        self._disposition = b""
        self._header = (b"", b"")
        self._part: tuple[str, bytearray] | None = None
        """Name and value of the field that is being read; None inside the file."""
        self._file_bytes: list[bytes] = []
        self._is_complete = False
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._read_header_name,
                    "on_header_value": self._read_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._read_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed(error) from error

    def feed(self, chunk: bytes) -> list[bytes]:
        """Parse the next piece of the body; answers the file's bytes in it."""
        self._file_bytes = []
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed(error) from error
        return self._file_bytes

    def finish(self) -> str:
        """The file's name, once the body has ended well."""
        if not self._is_complete:
            raise InvalidRequest("The multipart body ends before its last boundary.", code="invalid_multipart")
        if self.filename is None:
            message = f"The form has no file; send one as the part `{self._file_part}`."
            raise InvalidRequest(message, self._file_part, "missing_file")
        return self.filename

    def _begin_part(self) -> None:
        self._disposition = b""
        self._header = (b"", b"")

    def _read_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], self._header[1])

    def _read_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = (b"", b"")

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = _text(options.get(b"name", b""))
        if name == self._file_part:
            if self.filename is not None:
                raise InvalidRequest("The form has two files; upload one at a time.", name, "two_files")
            self.filename = _text(options.get(b"filename", b""))
            self._part = None
        elif name in self.fields or len(self.fields) >= MAX_FIELDS:
            raise InvalidRequest(f"The form field {name[:64]!r} is one too many.", name[:64], "too_many_fields")
        else:
            self._part = (name, bytearray())

    def _read_data(self, data: bytes, start: int, end: int) -> None:
        if self._part is None:
            self._file_bytes.append(data[start:end])
            return
        name, value = self._part
        value += data[start:end]
        if len(value) > MAX_FIELD_BYTES:
            message = f"The form field {name[:64]!r} is longer than {MAX_FIELD_BYTES} bytes."
            raise InvalidRequest(message, name[:64], "field_too_long")

    def _end_part(self) -> None:
        if self._part is not None:
            name, value = self._part
            self.fields[name] = _text(value)

    def _end(self) -> None:
        self._is_complete = True


def _text(value: bytes | bytearray) -> str:
    """The text of a name or value, as UTF-8 that can be stored."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("A name or value of the form is not UTF-8.", code="invalid_multipart") from error
    if (found := unstorable_character(text)) is not None:
        raise InvalidRequest(f"A name or value of the form has the character {found}.", code="invalid_multipart")
    return text


def _malformed(error: FormParserError) -> InvalidRequest:
    return InvalidRequest(f"The multipart body cannot be read: {error}", code="invalid_multipart")

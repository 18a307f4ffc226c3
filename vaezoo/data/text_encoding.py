"""Turn the bytes of a text file into text."""

from pathlib import Path

from vaezoo.errors import ConfigError


def decode(path: Path, content: bytes, encoding: str) -> str:
    """Return the content of a file as text, without a byte order mark.

    Args:
        path: the file, for messages.
        content: its bytes.
        encoding: the encoding, such as ``utf-8`` or ``cp1252``.

    Raises:
        ConfigError: the content is no text in this encoding, or there is no such encoding.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") and encoding == "utf-8":
        raise ConfigError(f"{path} is UTF-16, not UTF-8: use data.encoding=utf-16")
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        raise ConfigError(f"data.encoding={encoding} is unknown: use utf-8, cp1252, utf-16 or latin-1") from error
    except UnicodeDecodeError as error:
        before = content[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        other = "cp1252" if encoding == "utf-8" else "utf-8"
        raise ConfigError(
            f"{path} line {before.count(10) + 1} has the byte 0x{content[error.start]:02x}, which is not {encoding}: "
            f"name the encoding of the file, such as data.encoding={other}"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ConfigError(f"{path} line {line} has a zero byte: give a file of text, or name its data.encoding")
    return text

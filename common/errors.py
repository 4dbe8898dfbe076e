"""The base of every error that Tessera raises on purpose."""


class TesseraError(Exception):
    """Something that a user can mend. The message is one line that names the file or setting and the cure."""

"""The exceptions that graphrec raises on a user's mistake.

Each message is one line that names the file, column or argument, says what was found and what would be right.
The command line prints that line and exits with status 2.
"""


class GraphrecError(Exception):
    """Base of every error that graphrec raises on purpose."""


class DataError(GraphrecError, ValueError):
    """A file, column or value of the user's data cannot be used."""


class SchemaError(DataError):
    """The data does not fit the schema, or the schema contradicts itself."""


class ConfigError(GraphrecError, ValueError):
    """An argument, option or configuration key is wrong."""


class RunError(GraphrecError):
    """A run folder, checkpoint or exported model cannot be read or written."""


class NonFiniteLossError(GraphrecError, FloatingPointError):
    """The training loss became NaN or infinite."""


class MissingExtraError(GraphrecError, ImportError):
    """A feature needs an optional dependency that is not installed."""

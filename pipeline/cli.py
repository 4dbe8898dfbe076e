"""The `tessera` command: words in, exit code out (0 done, 1 failed, 2 usage, 130 and 143 by signal)."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence

from foundation.errors import TesseraError
from pipeline.commands import TESSERA, Command, Group
from pipeline.commands.options import Parser, documentation, parse
from pipeline.interruption import Interruption, check_interrupted, describe, exit_code
from pipeline.version import software_version


def command_of(words: Sequence[str]) -> Command:
    """The command that is asked for, with its arguments; exits where help is asked for, or the words make none."""
    found: type[Command] | Group = TESSERA
    program = "tessera"
    while isinstance(found, Group):
        if not words and found.usual:
            words = [found.usual]
        name = _names(found, program).parse_args(words[:1]).command
        found, program, words = found.members[name], f"{program} {name}", words[1:]
    return parse(found, program, words)


def _names(group: Group, program: str) -> Parser:
    """A parser of the first word; its help lists the commands of the group."""
    parser = Parser(program, group.about)
    commands = parser.add_subparsers(
        title="commands", dest="command", required=not group.usual, metavar="COMMAND"
    )
    for name, member in group.members.items():
        about = member.about if isinstance(member, Group) else documentation(member)[0]
        commands.add_parser(name, help=about.split("\n\n")[0], add_help=False)
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Run one command, or print the version.

    A failure the user can act on is one line on stderr and exit code 1; a signal one line and 128 and its number. Any
    other error is a fault of the program and ends with its traceback.
    """
    from pipeline.write_errors import in_words

    words = list(sys.argv[1:] if args is None else args)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what the terminal cannot print
        sys.stdout.reconfigure(errors="backslashreplace")
    with Interruption() as interruption:
        try:
            try:
                if words == ["--version"]:
                    print(f"tessera {software_version()}")
                else:
                    command_of(words).run()
                check_interrupted()
            finally:
                sys.stdout.flush()
        except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except KeyboardInterrupt:
            _end_by_signal(interruption.received or signal.SIGINT)
        except (TesseraError, OSError) as error:
            if interruption.received is not None:  # a failure that the signal has caused
                _end_by_signal(interruption.received)
            if os.environ.get("TESSERA_TRACEBACK"):
                raise
            message = in_words(error) if isinstance(error, OSError) else str(error)
            print(f"tessera: {message}", file=sys.stderr)
            sys.exit(1)


def _end_by_signal(number: int) -> None:
    # A KeyboardInterrupt that has passed through an `exec` of text, as imports of dataclasses have it, makes Python
    # end by SIGINT whatever became of it; the next `exec` makes it forget.
    exec("")
    print(f"tessera: {describe(number)}", file=sys.stderr)
    sys.exit(exit_code(number))


if __name__ == "__main__":
    main()

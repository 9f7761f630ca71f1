"""What all command lines of the stack share: how they end."""

import os
import signal
import sys
from collections.abc import Callable

from dev.errors import StackError

FAILED, INTERRUPTED = 1, 130


def exit_code(action: Callable[[], int]) -> int:
    """Run `action` and return its exit code; what goes wrong is told in words, and an interruption is no failure."""
    # So that a killed command tidies up as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return action()
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, `head` for instance, has seen enough. Python must not flush into the closed pipe at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (StackError, OSError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return FAILED

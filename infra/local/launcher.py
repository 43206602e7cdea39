"""Becomes another program that dies with its parent: `python launcher.py PARENT_PID COMMAND...` (standard library only).

On Linux, the kernel is told to send SIGKILL on the parent's death before the program is executed, so a kill -9 of the parent
never leaves it behind. On other systems only an orderly stop ends the program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def launch(parent: int, command: list[str]) -> None:
    """Tie this process to `parent` and replace it with `command`; exits 143 if the parent has already ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(143)
    try:
        os.execv(command[0], command)
    except OSError as error:
        raise SystemExit(f"cannot start {command[0]}: {error}") from error


if __name__ == "__main__":
    launch(int(sys.argv[1]), sys.argv[2:])

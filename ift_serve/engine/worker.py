"""``python -m ift_serve.engine.worker ENDPOINT PARENT_PID``: an engine process, started by the server process."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Never returns."""
    # What is imported stays: looking for garbage in it again and again takes a fifth of a start.
    gc.disable()
    import logging
    from functools import partial

    from ift_serve.engine.build import build_core
    from ift_serve.engine.message_loop import worker_main
    from ift_serve.system.logs import configure_logs

    configure_logs("info")
    code = worker_main(partial(build_core, own_process=True), sys.argv[1:])
    logging.shutdown()
    sys.stderr.flush()
    # Everything that matters is closed; tearing down torch and triton only prints what their bindings leak.
    os._exit(code)


if __name__ == "__main__":
    main()

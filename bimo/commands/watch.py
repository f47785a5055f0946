"""``bimo watch``: the live page of a run that trains in another process, or is finished."""

from __future__ import annotations

import sys
import time
from pathlib import Path


def watch(run: Path, /, *, port: int = 0) -> None:
    """Show a run in the browser while it trains, or afterwards.

    The page shows the curves, what the model writes, plan and reality, and what
    the coach thinks. It is served to this machine alone, until Ctrl-C.

        bimo watch runs/shakespeare
        bimo watch runs/shakespeare --port 8080

    Args:
        run: a run directory
        port: where to serve; any free port if not given
    """
    from bimo.errors import UsageError
    from bimo.report.live import Server, open_browser
    from bimo.run import Run

    opened = Run.open(run)
    try:
        server = Server(opened, port)
    except (OSError, OverflowError) as cause:
        raise UsageError(f"Port {port} cannot be used.", got=str(cause), fix="Choose another --port.") from None
    server.start()
    print(f"{server.url}  (Ctrl-C ends it)", flush=True)
    open_browser(server.url)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    finally:
        server.shutdown()
        server.server_close()

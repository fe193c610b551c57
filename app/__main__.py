"""``python -m app``: in this process, or in several behind one port."""

from __future__ import annotations

import json
import signal
import sys


def main() -> int:
    told_to_end = False

    def end(*_: object) -> None:
        nonlocal told_to_end
        told_to_end = True
        sys.exit(0)

    # Until uvicorn looks at them, and when it raises them again at its end. Without a handler,
    # process 1 of a container would not end at all
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        return _start()
    except Exception:  # what pydantic, in Rust, makes of ours
        if told_to_end:
            return 0
        raise


def _start() -> int:
    # Not above: to import them can take seconds, in which the service may be told to end
    from pydantic import ValidationError

    from app import logs
    from app.api.processes import PortError, check_listening, supervise
    from app.memory import use_one_heap
    from app.settings import Settings

    use_one_heap()
    try:
        settings = Settings()
    except ValidationError as error:
        logs.wrong_settings("MAMMOSEQ_", error)
        return 1
    logs.configure(settings.log_format)
    told = settings.model_dump_json()
    logs.at_start(
        settings.log_format, "settings", {"settings": json.loads(told)}, f"settings {told}"
    )
    try:
        check_listening(settings)
    except PortError as error:
        logs.refused(settings.log_format, str(error))
        return 1
    if settings.processes > 1:
        return supervise(settings)
    # Not above: what supervises others needs none of it, and would hold 60 MB of it
    from app.api.server import serve

    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())

"""Between an archive and the service: complete studies in, SR and SC back; all state is the
archive's (``docs/bridge.md``). A client of both sides that imports nothing else of ours."""

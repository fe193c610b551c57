"""Between an archive and the service: complete studies in, SR and SC back; all state is the
archive's (``docs/bridge.md``). A client of both sides, which shares the forms of log and traces
with the service and nothing else."""

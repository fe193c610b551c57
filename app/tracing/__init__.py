"""Traces: what becomes of a request, part by part, told to a collector of OpenTelemetry."""

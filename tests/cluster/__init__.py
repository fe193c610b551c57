"""The manifests, put to a real API server: ``make cluster-check`` (docs/deploy.md)."""

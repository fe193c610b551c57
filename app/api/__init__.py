"""The HTTP edge: routes, schemas, problems. No arithmetic."""

"""What Mammoseq costs, measured side by side in one run. Never a test: machines differ."""

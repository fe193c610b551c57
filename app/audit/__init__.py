"""What was done, by whom and with what result: lines that cannot be changed without being seen."""

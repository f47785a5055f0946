"""The same stages on many machines; nothing here computes."""

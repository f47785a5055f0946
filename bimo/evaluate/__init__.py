"""How good a model is on text that it has not seen, in numbers that can be compared and trusted."""

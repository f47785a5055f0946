"""Text from a model: sampling rules, the decoding loop, and the language model that users load."""

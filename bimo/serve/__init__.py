"""HTTP: an API that OpenAI clients speak, and what guards it."""

"""Text to token ids and back: train, load, save, and render chats."""

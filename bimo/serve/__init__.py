"""An HTTP server that speaks OpenAI's API over any engine; its modules import freely what ``bimo[serve]`` installs."""

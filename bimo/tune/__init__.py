"""From a model to one that does a task: objectives over the one training loop."""

"""What a run's own files say of it, written for people: the model card and the report card."""

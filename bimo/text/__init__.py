"""Files, folders and named corpora become one stream of documents."""

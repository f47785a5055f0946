"""Token ids on disk and the packed batches that training reads from them."""

"""A fixed, generated comparison of ways to fine-tune: what they learn, and what they forget."""

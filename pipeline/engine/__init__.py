"""The numba engine behind the tokenizer door: a parsed tokenizer.json in, an encoder out."""

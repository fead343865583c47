"""The tokenizer kernels written to be read: pieces, merges and lookups over Python lists."""

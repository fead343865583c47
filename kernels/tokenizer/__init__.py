"""Text to token ids in machine code: UTF-8 bytes and tables flow in, ids flow out.

    segments ─► normalize ─► scan (pieces) ─► byte-pair merges, WordPiece or Unigram ─► ids

The tables come from `pipeline.engine`, which reads them out of a tokenizer.json. Kernels here call
kernels of this folder and of the one above it, never the other way round: the cache folder of
`jit.py` counts on it.
"""

"""gristmill: multilingual text in, memory-mapped token files and trained language models out.

The rooms are imported by name (`from gristmill.indexed_dataset import IndexedDataset`); this
file imports nothing, so reading a dataset never loads torch, numba or pyarrow.
"""

__version__ = "0.1.0"

"""Mutated adapter files, recipes and data files: they end in success or in a DCFTError.

python -m tests.fuzz adapters --count 100000
python -m tests.fuzz.coverage adapters corpus/     (with the extra `fuzz`)
"""

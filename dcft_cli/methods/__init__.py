"""What `adapter.method` can name: DCFT, and the methods it is compared with, one file each.

Every method goes by the same protocol, `Method` in method.py.
"""

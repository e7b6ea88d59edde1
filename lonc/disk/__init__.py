"""
Disk access: calls in threads with a time limit, and opening and writing files safely.

This package is independent of the content of files.
"""

"""
The ``lonc`` command.

It queries and controls a running lonc, or reads its files.
"""

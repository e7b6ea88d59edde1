"""
The ``lonc`` command.

It asks a running lonc, or reads the files that one would read; it serves nobody.
"""

"""
Configuration: settings, the host table, certificates, authentication modes, limits of open files.

Files are read, checked and turned into values; every error names file and line.
"""

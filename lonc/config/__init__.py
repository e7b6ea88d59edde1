"""
Configuration: settings, the host table, certificates, authentication modes, limits on open files.

Files are read, checked and parsed; every error names file and line.
"""

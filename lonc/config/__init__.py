"""
What lonc is told: settings, the host table, certificates, ways in, how many files it may open.

Nothing here serves anybody: what is read is handed on, and what looks wrong is said by file and
line.
"""

"""
What lonc is told: settings, the host table and where it comes from, certificates, ways in.

Nothing here serves anybody: what is read is handed on, and what looks wrong is said by file and
line.
"""

"""
Management: the AMP commands, both sides of the management port, and where it listens.

Nothing here serves requests of clients. Importing AMP takes two megabytes, so modules that need it
are imported on demand.
"""

"""
What passes on the wire: lines, keys, frames, the handshake, and what a request is.

Pure: bytes go in and bytes come out. Nothing here knows a reactor, a socket or a file, or imports
anything of lonc outside this package.
"""

"""
The wire protocol: lines, keys, frames, the handshake, and requests.

The modules are pure: bytes in, bytes out. They use no reactor, socket or file, and import nothing
of lonc outside this package.
"""

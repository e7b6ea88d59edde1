Delayed requests can be sealed on the disk, so that a password in one cannot be read there:
`lonc make-delayed-key FILE` makes a key, `loncDelayedKeyFile` names it, and `lonc show-delayed FILE` shows
a sealed request to who holds the key. See `docs/sealing.rst`.

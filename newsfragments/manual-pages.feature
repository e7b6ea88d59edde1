The manual pages `lonc(1)` and `twistd-lonc(1)` are installed with the package.

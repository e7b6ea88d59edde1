The oldest packages that lonc says it works with are tested: attrs 23.2, rich 14.3 and Twisted 25.5 are needed. The source archive
has the whole project. `make` finds Python 3.11 to 3.14, and makes its environment anew where it is of an older one.

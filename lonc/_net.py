from twisted.internet import tcp, unix


class _Port(unix.Port):
    def connectionLost(self, reason):
        tcp.Port.connectionLost(self, reason)  # the file is left to who asked for the port


def network(reactor):
    class N:
        def listenUNIX(self, path, factory, backlog, mode):
            port = _Port(path, factory, backlog, mode, reactor)
            port.startListening()
            return port
        def connectTCP(self, host, port, factory, timeout):
            return reactor.connectTCP(host, port, factory, timeout=timeout)
    return N()

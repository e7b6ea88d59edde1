def network(reactor):
    class N:
        def listenUNIX(self, path, factory, backlog, mode):
            return reactor.listenUNIX(path, factory, backlog=backlog, mode=mode)
        def connectTCP(self, host, port, factory, timeout):
            return reactor.connectTCP(host, port, factory, timeout=timeout)
    return N()

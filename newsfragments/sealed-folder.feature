With a key, sealed requests are stored in a separate folder, `delayed/sealed`; existing sealed requests in `delayed` are moved there. Before going back to an earlier lonc, run `lonc delayed unfold`.

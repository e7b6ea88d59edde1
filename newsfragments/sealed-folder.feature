With a key, sealed requests lie in a folder of their own, `delayed/sealed`; what lies sealed in `delayed` is moved there. Before you go back to an earlier lonc, say `lonc delayed unfold`.

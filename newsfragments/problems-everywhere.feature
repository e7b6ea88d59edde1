The metric `lonc_problems` counts the problems shown by `lonc status`, by kind and level; alert rules and `/readyz` use the same list. A host without a socket is a problem.

In the log of a program that embeds lonc, a line that concerns a host names it, and a normal start or end is not
`critical`. `TwistedClient` leaves no lines of factories there.

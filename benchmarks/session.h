/* The session of one connection to lond: its key, and the enc: frames that are ciphered with it. */
#ifndef SESSION_H
#define SESSION_H

#include <stddef.h>
#include <sys/types.h>

#include "idea.h"

struct session {
    struct idea encipher, decipher;
};

/* Make the key from lond's host id, its caller's, and what lond answered to `ekey`. */
void make_session(struct session *session, const char *lond, const char *caller,
                  const char *buildkey);

/* Decipher the line enc:<length>:<hex>, given without its newline, into `text` and end it with a
 * newline. Returns the text's length, or -1 when the frame or its padding is not as it must be.
 * `text` has room for half of the line's bytes. */
ssize_t open_frame(const struct session *session, const char *frame, size_t length, char *text);

/* Encipher a text into the line enc:<length>:<hex>, newline included; returns the line's length.
 * `text` has room for a block more, for its padding, and `frame` for twice that and 32 bytes. */
size_t seal_frame(const struct session *session, char *text, size_t length, char *frame);

#endif

/* The lond's connections, and what it sends on them: at once, when the socket takes it, or late. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <stddef.h>
#include <sys/epoll.h>

#include "session.h"

enum { LINE_SIZE = 65536 }; /* the longest request, frame included */

/* How far the handshake is. */
enum step { FRESH, CHALLENGED, TRUSTED, READY };

struct connection {
    int fd; /* -1: closed, but answers that are due later still name it */
    int is_listener;
    int host;
    enum step step;
    char challenge[24];
    int has_key;
    struct session session;
    int late;     /* answers that wait for their time */
    char *unsent; /* what the socket did not take yet */
    size_t unsent_at, unsent_end;
    size_t used; /* bytes in `line` */
    char line[];
};

/* Before all others: answers will go out so many microseconds after their requests came in. */
void start_connections(long delay_us);

struct connection *new_connection(int fd, int is_listener, int host);
void hang_up(struct connection *connection);

/* Free a connection that was hung up, or leave that to the last answer that still names it. */
void forget(struct connection *connection);

/* Send something now; what the socket does not take is kept, and send_rest() goes on with it. */
void send_line(struct connection *connection, const char *bytes, size_t length);
void send_rest(struct connection *connection);

/* Send an answer when its time has come. */
void send_answer(struct connection *connection, const char *bytes, size_t length);

/* Wait for events of connections; returns how many there are. Then serve them, and send_due(). */
int wait_for_events(struct epoll_event *events, int most);
void send_due(void);

#endif

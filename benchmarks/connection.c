#include "connection.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common.h"

enum {
    LATE = 1 << 16,   /* answers that can wait for their time at once; a power of two */
    EARLY_NS = 60000, /* how long before an answer is due this program stops sleeping */
};

struct answer {
    struct connection *connection;
    uint64_t due;
    size_t length;
    char *bytes;
};

static int epoll, timer;
static uint64_t delay_ns;
static struct answer late[LATE]; /* a ring: the delay is constant, so the order stays */
static unsigned late_first, late_end;

void start_connections(long delay_us)
{
    delay_ns = (uint64_t)delay_us * 1000;
    epoll = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (epoll < 0 || timer < 0)
        die("epoll, timerfd: %s", strerror(errno));
    watch(epoll, timer, EPOLLIN, NULL);
}

struct connection *new_connection(int fd, int is_listener, int host)
{
    struct connection *made = allocate(sizeof *made + (is_listener ? 0 : LINE_SIZE));

    memset(made, 0, sizeof *made);
    made->fd = fd;
    made->is_listener = is_listener;
    made->host = host;
    watch(epoll, fd, EPOLLIN, made);
    return made;
}

void forget(struct connection *connection)
{
    if (connection->fd < 0 && connection->late == 0) {
        free(connection->unsent);
        free(connection);
    }
}

void hang_up(struct connection *connection)
{
    close(connection->fd);
    connection->fd = -1;
}

/* ---- sending ----------------------------------------------------------------------------- */

/* Send what the socket takes; returns how much that was, or -1 when the peer has gone. */
static ssize_t send_some(int fd, const char *bytes, size_t length)
{
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return sent;
}

void send_line(struct connection *connection, const char *bytes, size_t length)
{
    ssize_t sent = 0;
    size_t waiting = connection->unsent_end - connection->unsent_at;
    char *all;

    if (connection->fd < 0)
        return;
    if (waiting == 0) {
        sent = send_some(connection->fd, bytes, length);
        if (sent < 0) {
            hang_up(connection);
            return;
        }
        if ((size_t)sent == length)
            return;
    }
    all = allocate(waiting + length - (size_t)sent);
    if (waiting > 0)
        memcpy(all, connection->unsent + connection->unsent_at, waiting);
    memcpy(all + waiting, bytes + sent, length - (size_t)sent);
    free(connection->unsent);
    connection->unsent = all;
    connection->unsent_at = 0;
    connection->unsent_end = waiting + length - (size_t)sent;
    rewatch(epoll, connection->fd, EPOLLIN | EPOLLOUT, connection);
}

void send_rest(struct connection *connection)
{
    size_t waiting = connection->unsent_end - connection->unsent_at;
    ssize_t sent =
        send_some(connection->fd, connection->unsent + connection->unsent_at, waiting);

    if (sent < 0) {
        hang_up(connection);
        return;
    }
    connection->unsent_at += (size_t)sent;
    if (connection->unsent_at < connection->unsent_end)
        return;
    free(connection->unsent);
    connection->unsent = NULL;
    connection->unsent_at = connection->unsent_end = 0;
    rewatch(epoll, connection->fd, EPOLLIN, connection);
}

/* ---- answers that are due later ---------------------------------------------------------- */

/* Timers wake a sleeper tens of microseconds late, which would make this lond slower than it says.
 * So the timer goes off early, and from then on the main loop does not sleep. */
static void set_timer(uint64_t due)
{
    uint64_t at = due - EARLY_NS;
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u)}};

    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void send_later(struct connection *connection, const char *bytes, size_t length)
{
    struct answer *answer = &late[late_end % LATE];

    if (late_end - late_first == LATE)
        die("more than %d answers wait for their time", LATE);
    answer->connection = connection;
    answer->due = now_ns() + delay_ns;
    answer->length = length;
    answer->bytes = allocate(length);
    memcpy(answer->bytes, bytes, length);
    connection->late++;
    if (late_first == late_end++)
        set_timer(answer->due);
}

void send_due(void)
{
    uint64_t now = now_ns();
    unsigned before = late_first;

    while (late_first != late_end && late[late_first % LATE].due <= now) {
        struct answer *answer = &late[late_first++ % LATE];

        send_line(answer->connection, answer->bytes, answer->length);
        free(answer->bytes);
        answer->connection->late--;
        forget(answer->connection);
    }
    if (late_first != before && late_first != late_end)
        set_timer(late[late_first % LATE].due);
}

static int is_due_soon(void)
{
    return late_first != late_end && late[late_first % LATE].due <= now_ns() + EARLY_NS;
}

void send_answer(struct connection *connection, const char *bytes, size_t length)
{
    if (delay_ns > 0)
        send_later(connection, bytes, length);
    else
        send_line(connection, bytes, length);
}

int wait_for_events(struct epoll_event *events, int most)
{
    int count = epoll_wait(epoll, events, most, is_due_soon() ? 0 : -1);
    uint64_t expirations;
    int kept = 0;

    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr != NULL)
            events[kept++] = events[i];
        else if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN)
            die("timer: %s", strerror(errno));
    }
    return kept;
}

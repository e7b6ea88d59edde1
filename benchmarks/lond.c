/* lond: a lond that answers at once, for measuring what stands in front of it.
 *
 *   lond -p PORT [-a FIRST_ADDRESS] [-n HOSTS] [-d DELAY_US] [-i CALLER]
 *
 * It listens at PORT of HOSTS addresses, counted from FIRST_ADDRESS; at the i-th it is the host
 * h<i>. When all of them listen it prints "ready". It speaks lond's handshake, as a lond of any
 * age does it that knows neither a shared file nor TLS:
 *
 *   init -> digits, the same digits -> ok, [version -> its revision, sethost:h<i> -> ok,]
 *   ekey -> a key for this connection, made of both names and of random digits
 *
 * A connection that begins with anything but `init` gets no handshake and has no key: so the
 * plain relay works. After that each line is a request:
 *
 *   r<host>.<bytes>.<whatever the client likes>
 *
 * The answer has <bytes> bytes with its newline: the request's own text, filled with 'x' or cut.
 * A request for another host gets "wrong_host", anything else "unknown_cmd". `enc:` requests are
 * deciphered, their padding checked ("bad_frame"), and answered enciphered. With -d each answer
 * goes out DELAY_US microseconds after its request came in.
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"
#include "connection.h"

enum {
    ANSWER_SIZE = 4 << 20, /* the longest answer */
    EVENTS = 256,
};

static const char *caller = "bench";

/* ---- requests ---------------------------------------------------------------------------- */

static int is(const char *text, size_t length, const char *word)
{
    return length == strlen(word) && memcmp(text, word, length) == 0;
}

static int begins(const char *text, size_t length, const char *word)
{
    return length >= strlen(word) && memcmp(text, word, strlen(word)) == 0;
}

/* The digits at *at as a number, *at moved behind them; -1 when there is none or it is huge. */
static long read_count(const char **at)
{
    long count = -1;

    for (; **at >= '0' && **at <= '9'; ++*at) {
        count = (count < 0 ? 0 : count * 10) + (**at - '0');
        if (count > ANSWER_SIZE)
            return -1;
    }
    return count;
}

/* Write the answer to a request's text, which ends in a newline, into `answer`, without one;
 * returns its length. */
static size_t compose(int host, const char *text, size_t length, char *answer)
{
    const char *at = text + 1;
    long wanted_host, size = 0;
    size_t copied;

    wanted_host = text[0] == 'r' ? read_count(&at) : -1;
    if (wanted_host >= 0 && *at++ == '.')
        size = read_count(&at);
    if (size < 1 || *at != '.')
        return (size_t)sprintf(answer, "unknown_cmd");
    if (wanted_host != host)
        return (size_t)sprintf(answer, "wrong_host");
    copied = length < (size_t)size - 1 ? length : (size_t)size - 1;
    memcpy(answer, text, copied);
    memset(answer + copied, 'x', (size_t)size - 1 - copied);
    return (size_t)size - 1;
}

static void take_request(struct connection *connection, const char *line, size_t length)
{
    static char answer[ANSWER_SIZE + IDEA_BLOCK], frame[2 * ANSWER_SIZE + 64], text[LINE_SIZE];
    ssize_t text_length;
    size_t size;

    if (!begins(line, length, "enc:")) {
        size = compose(connection->host, line, length, answer);
        answer[size++] = '\n';
        send_answer(connection, answer, size);
        return;
    }
    text_length =
        connection->has_key ? open_frame(&connection->session, line, length, text) : -1;
    if (text_length < 0) {
        send_answer(connection, "bad_frame\n", strlen("bad_frame\n"));
        return;
    }
    size = compose(connection->host, text, (size_t)text_length, answer);
    size = seal_frame(&connection->session, answer, size, frame);
    send_answer(connection, frame, size);
}

/* ---- the handshake ----------------------------------------------------------------------- */

static void say(struct connection *connection, const char *line)
{
    send_line(connection, line, strlen(line));
}

static uint64_t random_number(void)
{
    uint64_t number;

    if (getrandom(&number, sizeof number, 0) != sizeof number)
        die("getrandom: %s", strerror(errno));
    return number;
}

static void refuse(struct connection *connection)
{
    say(connection, "refused\n");
    if (connection->fd >= 0)
        hang_up(connection);
}

static void challenge(struct connection *connection)
{
    char line[sizeof connection->challenge + 1];

    snprintf(connection->challenge, sizeof connection->challenge, "%" PRIu64,
             random_number() % 1000000000u);
    snprintf(line, sizeof line, "%s\n", connection->challenge);
    say(connection, line);
    connection->step = CHALLENGED;
}

static void give_key(struct connection *connection)
{
    char name[16], buildkey[32], line[sizeof buildkey + 1];

    snprintf(buildkey, sizeof buildkey, "%016" PRIX64 "%06" PRIX64, random_number(),
             random_number() % 0x1000000u);
    snprintf(name, sizeof name, "h%d", connection->host);
    make_session(&connection->session, name, caller, buildkey);
    connection->has_key = 1;
    snprintf(line, sizeof line, "%s\n", buildkey);
    say(connection, line);
    connection->step = READY;
}

static void take_line(struct connection *connection, const char *line, size_t length)
{
    char sethost[32];

    switch (connection->step) {
    case FRESH:
        if (is(line, length, "init") || begins(line, length, "init:")) {
            challenge(connection);
        } else {
            connection->step = READY;
            take_request(connection, line, length);
        }
        break;
    case CHALLENGED:
        if (is(line, length, connection->challenge)) {
            say(connection, "ok\n");
            connection->step = TRUSTED;
        } else {
            refuse(connection);
        }
        break;
    case TRUSTED:
        snprintf(sethost, sizeof sethost, "sethost:h%d", connection->host);
        if (is(line, length, "ekey"))
            give_key(connection);
        else if (is(line, length, "version"))
            say(connection, "$Revision: 1.161 $\n");
        else if (is(line, length, sethost))
            say(connection, "ok\n");
        else
            refuse(connection);
        break;
    case READY:
        take_request(connection, line, length);
        break;
    }
}

/* ---- events ------------------------------------------------------------------------------ */

static void accept_peers(struct connection *listener)
{
    int fd, on = 1;

    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        new_connection(fd, 0, listener->host);
    }
}

static void read_lines(struct connection *connection)
{
    char *at = connection->line, *end, *newline;
    ssize_t got = recv(connection->fd, connection->line + connection->used,
                       LINE_SIZE - connection->used, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) { /* also a line that fills the buffer: nothing was asked for */
        hang_up(connection);
        return;
    }
    connection->used += (size_t)got;
    end = connection->line + connection->used;
    while (connection->fd >= 0 && (newline = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        take_line(connection, at, (size_t)(newline - at));
        at = newline + 1;
    }
    connection->used = (size_t)(end - at);
    if (connection->used > 0 && at != connection->line)
        memmove(connection->line, at, connection->used);
}

static void on_event(struct connection *connection, uint32_t events)
{
    if (connection->is_listener) {
        accept_peers(connection);
        return;
    }
    if (connection->fd >= 0 && (events & EPOLLOUT))
        send_rest(connection);
    if (connection->fd >= 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        read_lines(connection);
    forget(connection);
}

static void listen_at(const struct sockaddr_in *place, int host)
{
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    if (fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)place, sizeof *place) != 0 || listen(fd, 4096) != 0)
        die("cannot listen at port %d for h%d: %s", ntohs(place->sin_port), host, strerror(errno));
    new_connection(fd, 1, host);
}

int main(int argc, char **argv)
{
    const char *first = "127.0.1.1";
    int port = 0, hosts = 1, option;
    long delay_us = 0;
    struct epoll_event events[EVENTS];

    while ((option = getopt(argc, argv, "p:a:n:d:i:")) != -1) {
        switch (option) {
        case 'p': port = (int)number('p', optarg, 1, 65535); break;
        case 'a': first = optarg; break;
        case 'n': hosts = (int)number('n', optarg, 1, 100000); break;
        case 'd': delay_us = number('d', optarg, 0, 60000000); break;
        case 'i': caller = optarg; break;
        default: return 2;
        }
    }
    if (port == 0)
        die("-p PORT is needed");
    if (!idea_works())
        die("this build's IDEA does not give the published vector");
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    start_connections(delay_us);
    for (int i = 0; i < hosts; i++) {
        struct sockaddr_in place = host_address(first, port, i);

        listen_at(&place, i);
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        int count = wait_for_events(events, EVENTS);

        for (int i = 0; i < count; i++)
            on_event(events[i].data.ptr, events[i].events);
        send_due();
    }
}

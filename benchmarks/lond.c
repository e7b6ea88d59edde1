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
#include <sys/timerfd.h>
#include <unistd.h>

#include "common.h"
#include "idea.h"

enum {
    LINE_SIZE = 65536,    /* the longest request, frame included */
    ANSWER_SIZE = 4 << 20, /* the longest answer */
    LATE = 1 << 16,       /* answers that can wait for their time at once; a power of two */
    EVENTS = 256,
    EARLY_NS = 60000,      /* how long before an answer is due this program stops sleeping */
};

enum step { FRESH, CHALLENGED, TRUSTED, READY };

struct connection {
    int fd; /* -1: closed, but answers that are due later still name it */
    int is_listener;
    int host;
    enum step step;
    char challenge[24];
    int has_key;
    struct idea encipher, decipher;
    int late;                    /* answers that wait for their time */
    char *unsent;                /* what the socket did not take yet */
    size_t unsent_at, unsent_end;
    size_t used;                 /* bytes in `line` */
    char line[];
};

struct answer {
    struct connection *connection;
    uint64_t due;
    size_t length;
    char *bytes;
};

static int epoll, timer = -1;
static const char *caller = "bench";
static uint64_t delay_ns;
static struct answer late[LATE]; /* a ring: the delay is constant, so the order stays */
static unsigned late_first, late_end;

/* ---- connections ------------------------------------------------------------------------- */

static struct connection *new_connection(int fd, int is_listener, int host)
{
    struct connection *made = allocate(sizeof *made + (is_listener ? 0 : LINE_SIZE));

    memset(made, 0, sizeof *made);
    made->fd = fd;
    made->is_listener = is_listener;
    made->host = host;
    watch(epoll, fd, EPOLLIN, made);
    return made;
}

/* The connection's memory goes with the last answer that still names it. */
static void forget(struct connection *connection)
{
    if (connection->fd < 0 && connection->late == 0) {
        free(connection->unsent);
        free(connection);
    }
}

static void hang_up(struct connection *connection)
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

static void send_line(struct connection *connection, const char *bytes, size_t length)
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

static void send_rest(struct connection *connection)
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

static void send_due(void)
{
    uint64_t now = now_ns();

    while (late_first != late_end && late[late_first % LATE].due <= now) {
        struct answer *answer = &late[late_first++ % LATE];

        send_line(answer->connection, answer->bytes, answer->length);
        free(answer->bytes);
        answer->connection->late--;
        forget(answer->connection);
    }
    if (late_first != late_end)
        set_timer(late[late_first % LATE].due);
}

static int is_due_soon(void)
{
    return late_first != late_end && late[late_first % LATE].due <= now_ns() + EARLY_NS;
}

static void send_answer(struct connection *connection, const char *bytes, size_t length)
{
    if (delay_ns > 0)
        send_later(connection, bytes, length);
    else
        send_line(connection, bytes, length);
}

static void say(struct connection *connection, const char *line)
{
    send_line(connection, line, strlen(line));
}

/* ---- the session key --------------------------------------------------------------------- */

static uint64_t random_number(void)
{
    uint64_t number;

    if (getrandom(&number, sizeof number, 0) != sizeof number)
        die("getrandom: %s", strerror(errno));
    return number;
}

/* A character of the two names as it goes into the key: upper case, and letters past F are digits. */
static char key_letter(char letter)
{
    if (letter >= 'a' && letter <= 'z')
        letter = (char)(letter - 'a' + 'A');
    if (letter >= 'G' && letter <= 'Z')
        letter = (char)('0' + (letter - 'G') % 10);
    return letter;
}

/* A letter counts 10 to 15 as a hex digit does, and goes on past F as Perl's pack "H" has it. */
static uint8_t hex_value(char digit)
{
    int is_letter = (digit >= 'A' && digit <= 'Z') || (digit >= 'a' && digit <= 'z');

    return (uint8_t)((is_letter ? digit + 9 : digit) & 15);
}

static void make_key(struct connection *connection, const char *buildkey)
{
    char names[256], text[3 * (sizeof names + 64)];
    uint8_t key[IDEA_KEY];

    snprintf(names, sizeof names, "h%d%s", connection->host, caller);
    for (char *letter = names; *letter != '\0'; letter++)
        *letter = key_letter(*letter);
    snprintf(text, sizeof text, "%s%s%s%s%s%s", names, buildkey, names, buildkey, names, buildkey);
    for (int i = 0; i < IDEA_KEY; i++)
        key[i] = (uint8_t)(hex_value(text[2 * i]) << 4 | hex_value(text[2 * i + 1]));
    idea_keys(key, &connection->encipher, &connection->decipher);
    connection->has_key = 1;
}

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

/* Decipher the frame enc:<length>:<hex> into `text` and end it with a newline; returns the
 * text's length, or -1 when the frame is not as it must be. */
static ssize_t open_frame(const struct connection *connection, const char *frame, size_t length,
                          char *text)
{
    const char *hex = frame + strlen("enc:");
    long text_length = read_count(&hex);
    size_t blocks = (size_t)text_length / IDEA_BLOCK + 1;

    if (!connection->has_key || text_length < 0 || *hex++ != ':' ||
        (size_t)(frame + length - hex) != blocks * 2 * IDEA_BLOCK)
        return -1;
    for (size_t block = 0; block < blocks; block++) {
        uint8_t sealed[IDEA_BLOCK];

        for (int i = 0; i < IDEA_BLOCK; i++, hex += 2)
            sealed[i] = (uint8_t)(hex_value(hex[0]) << 4 | hex_value(hex[1]));
        idea_block(&connection->decipher, sealed, (uint8_t *)text + block * IDEA_BLOCK);
    }
    for (size_t i = (size_t)text_length; i < blocks * IDEA_BLOCK; i++)
        if (text[i] != ' ')
            return -1;
    text[text_length] = '\n';
    return text_length;
}

/* Encipher a text into the line enc:<length>:<hex>; returns the line's length. The text's buffer
 * has room for its padding. */
static size_t seal_frame(const struct connection *connection, char *text, size_t length,
                         char *frame)
{
    static const char digits[] = "0123456789abcdef";
    size_t blocks = length / IDEA_BLOCK + 1;
    char *at = frame + sprintf(frame, "enc:%zu:", length);

    memset(text + length, ' ', blocks * IDEA_BLOCK - length);
    for (size_t block = 0; block < blocks; block++) {
        uint8_t sealed[IDEA_BLOCK];

        idea_block(&connection->encipher, (const uint8_t *)text + block * IDEA_BLOCK, sealed);
        for (int i = 0; i < IDEA_BLOCK; i++) {
            *at++ = digits[sealed[i] >> 4];
            *at++ = digits[sealed[i] & 15];
        }
    }
    *at++ = '\n';
    return (size_t)(at - frame);
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
    text_length = open_frame(connection, line, length, text);
    if (text_length < 0) {
        send_answer(connection, "bad_frame\n", strlen("bad_frame\n"));
        return;
    }
    size = compose(connection->host, text, (size_t)text_length, answer);
    size = seal_frame(connection, answer, size, frame);
    send_answer(connection, frame, size);
}

/* ---- the handshake ----------------------------------------------------------------------- */

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
    char buildkey[32], line[sizeof buildkey + 1];

    snprintf(buildkey, sizeof buildkey, "%016" PRIX64 "%06" PRIX64, random_number(),
             random_number() % 0x1000000u);
    make_key(connection, buildkey);
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
    char *at = connection->line, *newline;
    ssize_t got = recv(connection->fd, connection->line + connection->used,
                       LINE_SIZE - connection->used, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) { /* also a line that fills the buffer: nothing was asked for */
        hang_up(connection);
        return;
    }
    connection->used += (size_t)got;
    while (connection->fd >= 0 &&
           (newline = memchr(at, '\n', connection->line + connection->used - at)) != NULL) {
        take_line(connection, at, (size_t)(newline - at));
        at = newline + 1;
    }
    connection->used -= (size_t)(at - connection->line);
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
    struct epoll_event events[EVENTS];

    while ((option = getopt(argc, argv, "p:a:n:d:i:")) != -1) {
        switch (option) {
        case 'p': port = (int)number('p', optarg, 1, 65535); break;
        case 'a': first = optarg; break;
        case 'n': hosts = (int)number('n', optarg, 1, 100000); break;
        case 'd': delay_ns = (uint64_t)number('d', optarg, 0, 60000000) * 1000; break;
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
    epoll = epoll_create1(0);
    for (int i = 0; i < hosts; i++) {
        struct sockaddr_in place = host_address(first, port, i);

        listen_at(&place, i);
    }
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    watch(epoll, timer, EPOLLIN, NULL);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, is_due_soon() ? 0 : -1);

        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr != NULL) {
                on_event(events[i].data.ptr, events[i].events);
            } else {
                uint64_t expirations;

                if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN)
                    die("timer: %s", strerror(errno));
            }
        }
        send_due();
    }
}

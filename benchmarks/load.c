/* load: clients that ask again as soon as they are answered, and check what they get.
 *
 *   load -u FOLDER [-n HOSTS] [-c CLIENTS] [-m p|c] [-s REQUEST_BYTES] [-r REPLY_BYTES] [-e]
 *        [-z SILENT_CLIENTS] [-Z SILENT_REPLY_BYTES] [-w WARM_UP_MS] [-d MEASURED_MS]
 *        [-R RELAY_PID] [-L LOND_PID]
 *
 * Client i talks to host i % HOSTS at the UNIX socket FOLDER/h<host>. With -m p a client keeps its
 * connection; with -m c it makes one for each request, and the latency counts the connecting.
 * A request is "r<host>.<reply bytes>.<client>.<number>." filled up to REQUEST_BYTES, newline
 * included; -e puts "encrypt:" in front of it. The answer must be the request's own text, filled
 * with 'x' or cut to REPLY_BYTES: every byte of every answer is compared.
 *
 * The first SILENT_CLIENTS clients ask once for SILENT_REPLY_BYTES and never read a byte.
 *
 * After the warm-up and the measured time no client asks anew, and what is still open gets ten
 * seconds. Then one line of JSON goes to standard output: times in microseconds, CPU time per
 * answered request in microseconds (all threads of the process), parts of a core's time (the relay
 * at work; the relay waiting for its core; lond and these clients at work), and counts. A full
 * backlog is retried each millisecond and counted apart. What went wrong first is told on standard
 * error, and the exit status is 1 if anything did.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

enum {
    CHUNK = 1 << 20,            /* the most that is read at once */
    LONGEST_US = 10000000,      /* latencies past this count as this */
    DRAIN_MS = 10000,           /* for the answers still open at the end */
    EVENTS = 256,
    FOREVER = 100,              /* ms between looks at the clock when nothing happens */
};

struct client {
    int fd;
    int host;
    int id;
    int silent;
    int must_connect;  /* its connection could not be made or broke: next millisecond again */
    int asking;        /* its request is not answered yet */
    int was_served;    /* it had an answer in the measured time */
    unsigned number;   /* of its next request */
    uint64_t since;    /* when it began to connect (-m c) or to send (-m p) */
    char *request;     /* the whole line */
    size_t sent, got;  /* bytes of the request, bytes of the answer */
};

/* What the options say. */
static const char *folder;
static int hosts = 1, client_count = 50, silent_count, connect_each_time, encrypt;
static size_t request_size = 32, reply_size = 32, silent_reply_size = 1 << 20;

static int epoll;
static struct client *clients;
static char received[CHUNK], filling[CHUNK];
static int must_connect_count, asking_count;
static int measuring, ending;

/* What is counted in the measured time; troubles are counted always. */
static uint32_t *latencies; /* how many answers took so many microseconds */
static uint64_t answers, retries, latency_sum;
static uint64_t con_lost, wrong, broken, refused, unanswered, silent_closed, troubles;

/* ---- troubles ---------------------------------------------------------------------------- */

/* How many bytes of a line to show: not its newline, and not all of a long one. */
static int shown(const char *line, size_t length)
{
    size_t least = length < 60 ? length : 60;
    const char *newline = memchr(line, '\n', least);

    return (int)(newline != NULL ? (size_t)(newline - line) : least);
}

/* Count a trouble, and tell the first one; `got` is the answer, if it is about one. */
static void trouble(const struct client *client, uint64_t *counter, const char *what,
                    const char *got, size_t length)
{
    ++*counter;
    if (troubles++ > 0)
        return;
    fprintf(stderr, "load: client %d of h%d: %s", client->id, client->host, what);
    if (got != NULL)
        fprintf(stderr, " '%.*s', asked '%.*s'", shown(got, length), got,
                shown(client->request, client->sent), client->request);
    fputc('\n', stderr);
}

/* ---- one client -------------------------------------------------------------------------- */

static void write_request(struct client *client)
{
    const char *prefix = encrypt ? "encrypt:" : "";
    size_t size = strlen(prefix) + request_size;
    int head = snprintf(client->request, size, "%sr%d.%zu.%d.%u.", prefix, client->host,
                        client->silent ? silent_reply_size : reply_size, client->id,
                        client->number++);

    if ((size_t)head >= size)
        die("a request of %zu bytes has no room for its number", request_size);
    memset(client->request + head, 'q', size - 1 - (size_t)head);
    client->request[size - 1] = '\n';
}

static size_t line_size(void)
{
    return request_size + (encrypt ? strlen("encrypt:") : 0);
}

/* Compare what has come with what must come next. */
static int is_expected(struct client *client, const char *chunk, size_t length)
{
    const char *text = client->request + line_size() - request_size;
    size_t text_end = request_size < reply_size ? request_size - 1 : reply_size - 1;

    while (length > 0) {
        const char *expected = filling;
        size_t part = 0;

        if (client->got < text_end) {
            expected = text + client->got;
            part = text_end - client->got;
        } else if (client->got < reply_size - 1) {
            part = reply_size - 1 - client->got;
        } else if (client->got == reply_size - 1) {
            expected = "\n";
            part = 1;
        }
        if (part > length)
            part = length;
        if (part == 0 || memcmp(chunk, expected, part) != 0)
            return 0;
        client->got += part;
        chunk += part;
        length -= part;
    }
    return 1;
}

static void disconnect(struct client *client)
{
    close(client->fd);
    client->fd = -1;
}

static void stop_asking(struct client *client)
{
    asking_count -= client->asking;
    client->asking = 0;
}

/* The request has failed and was counted: connect anew a little later. */
static void fail(struct client *client)
{
    stop_asking(client);
    disconnect(client);
    client->must_connect = 1;
    must_connect_count++;
}

static void send_request(struct client *client)
{
    size_t size = line_size();

    while (client->sent < size) {
        ssize_t sent = send(client->fd, client->request + client->sent, size - client->sent,
                            MSG_NOSIGNAL);

        if (sent >= 0) {
            client->sent += (size_t)sent;
        } else if (errno == EAGAIN) {
            rewatch(epoll, client->fd, EPOLLIN | EPOLLOUT, client);
            return;
        } else {
            trouble(client, &broken, "its connection broke while it asked", NULL, 0);
            fail(client);
            return;
        }
    }
}

static void ask(struct client *client)
{
    write_request(client);
    client->sent = client->got = 0;
    if (!client->silent) {
        client->asking = 1;
        asking_count++;
    }
    send_request(client);
}

/* Connect and ask; a full backlog is tried again each millisecond. */
static void connect_and_ask(struct client *client)
{
    struct sockaddr_un place = host_socket(folder, client->host);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    if (fd < 0)
        die("socket: %s", strerror(errno));
    if (!client->must_connect)
        client->since = now_ns();
    if (connect(fd, (const struct sockaddr *)&place, sizeof place) != 0) {
        if (errno == EAGAIN)
            retries++;
        else
            trouble(client, &refused, strerror(errno), NULL, 0);
        close(fd);
        must_connect_count += !client->must_connect;
        client->must_connect = 1;
        return;
    }
    must_connect_count -= client->must_connect;
    client->must_connect = 0;
    client->fd = fd;
    watch(epoll, fd, client->silent ? 0 : EPOLLIN, client);
    ask(client);
}

static void take_answer(struct client *client)
{
    uint64_t now = now_ns();

    stop_asking(client);
    if (measuring) {
        uint64_t latency = (now - client->since) / 1000;

        latencies[latency < LONGEST_US ? latency : LONGEST_US]++;
        latency_sum += latency;
        answers++;
        client->was_served = 1;
    }
    if (connect_each_time)
        disconnect(client);
    if (ending)
        return;
    client->since = now;
    if (connect_each_time)
        connect_and_ask(client);
    else
        ask(client);
}

static void read_answer(struct client *client)
{
    static const char lost[] = "con_lost\n";
    ssize_t got = recv(client->fd, received, CHUNK, 0);
    size_t before = client->got;

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        trouble(client, &broken, "its connection was closed", NULL, 0);
        fail(client);
    } else if (client->asking && is_expected(client, received, (size_t)got)) {
        if (client->got == reply_size)
            take_answer(client);
    } else if (before == 0 && (size_t)got == sizeof lost - 1 &&
               memcmp(received, lost, sizeof lost - 1) == 0) {
        trouble(client, &con_lost, "no answer but", received, (size_t)got - 1);
        fail(client);
    } else {
        trouble(client, &wrong, "a wrong answer:", received, (size_t)got);
        fail(client);
    }
}

static void on_event(struct client *client, uint32_t events)
{
    if (client->fd < 0)
        return;
    if (events & EPOLLOUT) {
        send_request(client);
        if (client->fd >= 0 && client->sent == line_size())
            rewatch(epoll, client->fd, client->silent ? 0 : EPOLLIN, client);
    }
    if (client->fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    if (client->silent) { /* it was given up by who has waited for it to read: so be it */
        silent_closed++;
        disconnect(client);
    } else {
        read_answer(client);
    }
}

/* ---- the run ----------------------------------------------------------------------------- */

/* Serve events until the time comes, or, while `ending`, until no request is open. */
static void run_until(uint64_t end)
{
    struct epoll_event events[EVENTS];

    while (now_ns() < end && !(ending && asking_count == 0)) {
        int count = epoll_wait(epoll, events, EVENTS, must_connect_count > 0 ? 1 : FOREVER);

        for (int i = 0; i < client_count && must_connect_count > 0 && !ending; i++)
            if (clients[i].must_connect)
                connect_and_ask(&clients[i]);
        for (int i = 0; i < count; i++)
            on_event(events[i].data.ptr, events[i].events);
    }
}

static uint64_t percentile(unsigned per_mille)
{
    uint64_t wanted = answers * per_mille / 1000, seen = 0;

    for (uint64_t us = 0; us <= LONGEST_US; us++) {
        seen += latencies[us];
        if (seen > wanted)
            return us;
    }
    return 0;
}

static void make_clients(void)
{
    size_t bytes = line_size();

    clients = allocate((size_t)client_count * sizeof *clients);
    memset(clients, 0, (size_t)client_count * sizeof *clients);
    for (int i = 0; i < client_count; i++) {
        struct client *client = &clients[i];

        client->fd = -1;
        client->id = i;
        client->host = i % hosts;
        client->silent = i < silent_count;
        client->request = allocate(bytes);
        connect_and_ask(client);
    }
}

/* Those who still wait for an answer, or could not even ask, when all the time is over. */
static int count_unanswered(void)
{
    int served = 0;

    for (int i = 0; i < client_count; i++) {
        if (clients[i].asking)
            trouble(&clients[i], &unanswered, "no answer at all", NULL, 0);
        served += clients[i].was_served;
    }
    return served;
}

int main(int argc, char **argv)
{
    uint64_t warm_up_ms = 500, measured_ms = 3000, start, relay_ns, lond_ns, own_ns, relay_waited;
    pid_t relay = 0, lond = 0;
    double seconds, each;
    int option, served;

    while ((option = getopt(argc, argv, "u:n:c:m:s:r:ez:Z:w:d:R:L:")) != -1) {
        switch (option) {
        case 'u': folder = optarg; break;
        case 'n': hosts = (int)number('n', optarg, 1, 100000); break;
        case 'c': client_count = (int)number('c', optarg, 1, 100000); break;
        case 'm': connect_each_time = optarg[0] == 'c'; break;
        case 's': request_size = (size_t)number('s', optarg, 16, 65000); break;
        case 'r': reply_size = (size_t)number('r', optarg, 16, CHUNK); break;
        case 'e': encrypt = 1; break;
        case 'z': silent_count = (int)number('z', optarg, 0, 100000); break;
        case 'Z': silent_reply_size = (size_t)number('Z', optarg, 16, CHUNK); break;
        case 'w': warm_up_ms = (uint64_t)number('w', optarg, 0, 600000); break;
        case 'd': measured_ms = (uint64_t)number('d', optarg, 1, 600000); break;
        case 'R': relay = (pid_t)number('R', optarg, 1, 1 << 30); break;
        case 'L': lond = (pid_t)number('L', optarg, 1, 1 << 30); break;
        default: return 2;
        }
    }
    if (folder == NULL)
        die("-u FOLDER is needed");
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    epoll = epoll_create1(0);
    latencies = calloc(LONGEST_US + 1, sizeof *latencies);
    if (latencies == NULL)
        die("no memory for the latencies");
    memset(filling, 'x', sizeof filling);
    make_clients();

    run_until(now_ns() + warm_up_ms * 1000000u);
    retries = 0;
    measuring = 1;
    start = now_ns();
    relay_ns = cpu_ns(relay);
    lond_ns = cpu_ns(lond);
    own_ns = cpu_ns(getpid());
    relay_waited = waited_ns(relay);
    run_until(start + measured_ms * 1000000u);
    measuring = 0;
    seconds = (double)(now_ns() - start) / 1e9;
    relay_ns = cpu_ns(relay) - relay_ns;
    lond_ns = cpu_ns(lond) - lond_ns;
    own_ns = cpu_ns(getpid()) - own_ns;
    relay_waited = waited_ns(relay) - relay_waited;
    ending = 1;
    run_until(now_ns() + DRAIN_MS * 1000000ull);
    served = count_unanswered();

    each = answers > 0 ? 1.0 / (double)answers : 0.0;
    printf("{\"requests\": %" PRIu64 ", \"rps\": %.1f, \"mean_us\": %.1f, \"p50_us\": %" PRIu64
           ", \"p99_us\": %" PRIu64 ", \"p999_us\": %" PRIu64 ", \"relay_cpu_us\": %.3f"
           ", \"relay_busy\": %.3f, \"relay_waited\": %.3f, \"load_core_busy\": %.3f"
           ", \"served\": %d",
           answers, (double)answers / seconds, (double)latency_sum * each, percentile(500),
           percentile(990), percentile(999), (double)relay_ns * each / 1e3,
           (double)relay_ns / 1e9 / seconds, (double)relay_waited / 1e9 / seconds,
           (double)(lond_ns + own_ns) / 1e9 / seconds, served);
    printf(", \"retries\": %" PRIu64 ", \"con_lost\": %" PRIu64 ", \"wrong\": %" PRIu64
           ", \"broken\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"unanswered\": %" PRIu64
           ", \"silent_closed\": %" PRIu64 "}\n",
           retries, con_lost, wrong, broken, refused, unanswered, silent_closed);
    return troubles > 0 || answers == 0;
}

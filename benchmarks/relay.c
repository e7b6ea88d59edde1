/* relay: the least that a relay from UNIX sockets to TCP can do; what lonc is measured against.
 *
 *   relay -u FOLDER -p PORT [-a FIRST_ADDRESS] [-n HOSTS] [-k CONNECTIONS_PER_HOST]
 *
 * Host i listens at FOLDER/h<i> and has its lond at PORT of the i-th address from FIRST_ADDRESS.
 * A client's line goes to an idle connection of its host, the one used last first; with none idle
 * the client waits its turn, first come first served. One request is in flight per connection.
 *
 * What it leaves out is the difference between a yardstick and a program to use: no handshake, no
 * cipher, no time limit, no second try, lines up to 16 KiB, and it waits when a socket is full.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

enum { LINE_SIZE = 16384, EVENTS = 256 };
enum kind { LISTENER, CLIENT, LOND };

struct connection {
    int fd;
    enum kind kind;
    struct host *host;
    size_t used;             /* bytes in `line` */
    int busy;                /* CLIENT: its request is at lond */
    int queued;              /* CLIENT: it waits for a connection */
    int gone;                /* CLIENT: it hung up */
    struct connection *peer; /* LOND: the client whose request it has */
    struct connection *next; /* in the list of idle ones, the queue, or the list of dead ones */
    char line[];
};

struct host {
    struct connection *idle;
    struct connection *first_waiting, *last_waiting;
};

static int epoll;
static struct connection *dead; /* freed after the events at hand, which may still name them */

static struct connection *new_connection(int fd, enum kind kind, struct host *host)
{
    struct connection *made = allocate(sizeof *made + (kind == LISTENER ? 0 : LINE_SIZE));

    memset(made, 0, sizeof *made);
    made->fd = fd;
    made->kind = kind;
    made->host = host;
    watch(epoll, fd, EPOLLIN, made);
    return made;
}

static void bury(struct connection *client)
{
    client->next = dead;
    dead = client;
}

static void hang_up(struct connection *client)
{
    close(client->fd);
    client->gone = 1;
    if (!client->busy && !client->queued)
        bury(client);
}

static void send_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);

        if (sent >= 0) {
            bytes += sent;
            length -= (size_t)sent;
        } else if (errno == EAGAIN || errno == EINTR) {
            usleep(20);
        } else {
            return; /* the next read finds out */
        }
    }
}

/* Give a client's first whole line to a connection of its host. */
static void start_request(struct connection *lond, struct connection *client)
{
    char *end = (char *)memchr(client->line, '\n', client->used) + 1;
    size_t length = (size_t)(end - client->line);

    lond->peer = client;
    client->busy = 1;
    send_all(lond->fd, client->line, length);
    client->used -= length;
    if (client->used > 0)
        memmove(client->line, end, client->used);
}

/* Start a client's next request, or let it wait, when there is a whole line. */
static void serve(struct connection *client)
{
    struct host *host = client->host;
    struct connection *lond = host->idle;

    if (client->busy || client->queued || client->gone || client->used == 0 ||
        memchr(client->line, '\n', client->used) == NULL)
        return;
    if (lond != NULL) {
        host->idle = lond->next;
        start_request(lond, client);
        return;
    }
    client->queued = 1;
    client->next = NULL;
    if (host->first_waiting != NULL)
        host->last_waiting->next = client;
    else
        host->first_waiting = client;
    host->last_waiting = client;
}

/* The connection is free: to the client that waits longest, or to the idle ones. */
static void reuse(struct connection *lond)
{
    struct host *host = lond->host;

    while (host->first_waiting != NULL) {
        struct connection *client = host->first_waiting;

        host->first_waiting = client->next;
        client->queued = 0;
        if (!client->gone) {
            start_request(lond, client);
            return;
        }
        bury(client);
    }
    lond->next = host->idle;
    host->idle = lond;
}

static void take_reply(struct connection *lond)
{
    struct connection *client = lond->peer;

    if (lond->line[lond->used - 1] != '\n') {
        if (lond->used == LINE_SIZE)
            die("a reply is longer than %d bytes", LINE_SIZE);
        return;
    }
    if (client == NULL)
        die("lond spoke out of turn");
    lond->peer = NULL;
    client->busy = 0;
    if (client->gone)
        bury(client);
    else
        send_all(client->fd, lond->line, lond->used);
    lond->used = 0;
    reuse(lond);
    if (!client->gone)
        serve(client);
}

static void accept_clients(struct connection *listener)
{
    int fd;

    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0)
        new_connection(fd, CLIENT, listener->host);
}

static void on_event(struct connection *connection)
{
    ssize_t got;

    if (connection->gone)
        return;
    if (connection->kind == LISTENER) {
        accept_clients(connection);
        return;
    }
    got = recv(connection->fd, connection->line + connection->used, LINE_SIZE - connection->used,
               MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        if (connection->kind == LOND)
            die("lond closed a connection");
        hang_up(connection);
        return;
    }
    connection->used += (size_t)got;
    if (connection->kind == LOND)
        take_reply(connection);
    else
        serve(connection);
}

static void connect_to_lond(struct host *host, const struct sockaddr_in *place)
{
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct connection *lond;

    if (fd < 0 || connect(fd, (const struct sockaddr *)place, sizeof *place) != 0)
        die("cannot connect to lond: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    lond = new_connection(fd, LOND, host);
    lond->next = host->idle;
    host->idle = lond;
}

static void listen_at(struct host *host, const struct sockaddr_un *place)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    unlink(place->sun_path);
    if (fd < 0 || bind(fd, (const struct sockaddr *)place, sizeof *place) != 0 ||
        listen(fd, 1024) != 0)
        die("cannot listen at %s: %s", place->sun_path, strerror(errno));
    new_connection(fd, LISTENER, host);
}

int main(int argc, char **argv)
{
    const char *folder = NULL, *first = "127.0.1.1";
    int port = 0, hosts = 1, connections = 10, option;
    struct epoll_event events[EVENTS];

    while ((option = getopt(argc, argv, "u:p:a:n:k:")) != -1) {
        switch (option) {
        case 'u': folder = optarg; break;
        case 'p': port = (int)number('p', optarg, 1, 65535); break;
        case 'a': first = optarg; break;
        case 'n': hosts = (int)number('n', optarg, 1, 100000); break;
        case 'k': connections = (int)number('k', optarg, 1, 100000); break;
        default: return 2;
        }
    }
    if (folder == NULL || port == 0)
        die("-u FOLDER and -p PORT are needed");
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    epoll = epoll_create1(0);
    for (int i = 0; i < hosts; i++) {
        struct host *host = allocate(sizeof *host);
        struct sockaddr_in lond = host_address(first, port, i);
        struct sockaddr_un local = host_socket(folder, i);

        memset(host, 0, sizeof *host);
        for (int k = 0; k < connections; k++)
            connect_to_lond(host, &lond);
        listen_at(host, &local);
    }
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < count; i++)
            on_event(events[i].data.ptr);
        while (dead != NULL) {
            struct connection *one = dead;

            dead = one->next;
            free(one);
        }
    }
}

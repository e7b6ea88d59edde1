#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

void die(const char *format, ...)
{
    va_list values;

    fprintf(stderr, "%s: ", program_invocation_short_name);
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    exit(2);
}

void *allocate(size_t size)
{
    void *memory = malloc(size);

    if (memory == NULL)
        die("no memory for %zu bytes", size);
    return memory;
}

long number(char option, const char *text, long least, long most)
{
    char *end;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < least || value > most)
        die("-%c takes a whole number from %ld to %ld, not '%s'", option, least, most, text);
    return value;
}

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("getrlimit: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("setrlimit: %s", strerror(errno));
}

static void control(int epoll, int operation, int fd, uint32_t events, void *what)
{
    struct epoll_event event = {.events = events, .data.ptr = what};

    if (epoll_ctl(epoll, operation, fd, &event) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

void watch(int epoll, int fd, uint32_t events, void *what)
{
    control(epoll, EPOLL_CTL_ADD, fd, events, what);
}

void rewatch(int epoll, int fd, uint32_t events, void *what)
{
    control(epoll, EPOLL_CTL_MOD, fd, events, what);
}

struct sockaddr_in host_address(const char *first, int port, int host)
{
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    if (inet_pton(AF_INET, first, &place.sin_addr) != 1)
        die("'%s' is no IPv4 address", first);
    place.sin_addr.s_addr = htonl(ntohl(place.sin_addr.s_addr) + (uint32_t)host);
    return place;
}

struct sockaddr_un host_socket(const char *folder, int host)
{
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    int length = snprintf(place.sun_path, sizeof place.sun_path, "%s/h%d", folder, host);

    if (length >= (int)sizeof place.sun_path)
        die("'%s' is too long for the path of a UNIX socket", folder);
    return place;
}

uint64_t cpu_ns(pid_t pid)
{
    clockid_t clock;
    struct timespec used;

    if (pid == 0)
        return 0;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0)
        die("there is no process %d", (int)pid);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

uint64_t waited_ns(pid_t pid)
{
    char path[64];
    uint64_t ran, waited = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
    file = fopen(path, "r");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%" SCNu64 " %" SCNu64, &ran, &waited) != 2)
        waited = 0;
    fclose(file);
    return waited;
}

/* What the benchmark's three programs share: clocks, descriptors, addresses, options. */
#ifndef COMMON_H
#define COMMON_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

/* Print one line, "<program>: <message>", and end with status 2. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* malloc that ends the program when there is no memory left. */
void *allocate(size_t size);

/* The value of an option that must be a whole number from `least` to `most`. */
long number(char option, const char *text, long least, long most);

/* Nanoseconds of the monotonic clock. */
uint64_t now_ns(void);

/* The CPU time of a process with all its threads, in nanoseconds; 0 for no process. */
uint64_t cpu_ns(pid_t pid);

/* How many nanoseconds a process could have run and had to wait: others had its core then. */
uint64_t waited_ns(pid_t pid);

/* Let this process open as many files as the hard limit allows. */
void raise_descriptor_limit(void);

/* Add `fd` to an epoll, or change what it is watched for; `what` comes back with its events. */
void watch(int epoll, int fd, uint32_t events, void *what);
void rewatch(int epoll, int fd, uint32_t events, void *what);

/* A host's place on the TCP side: one port, and one loopback address per host, counted from
 * the address `first` (host 0). */
struct sockaddr_in host_address(const char *first, int port, int host);

/* A host's place on the local side: the UNIX socket <folder>/h<host>. */
struct sockaddr_un host_socket(const char *folder, int host);

#endif

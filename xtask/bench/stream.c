/* Bytes by TCP. In: `serve NETNS PORT`, or `send NETNS ADDRESS PORT MEGABYTES`; NETNS `-` is the caller's. Out: the server
 * goes into the background once it listens, and swallows what comes; the sender ends when the server has all. Must never:
 * look at the bytes: the network is what is measured. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char block[1 << 17];

static void check(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "stream: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static void enter(const char *name)
{
	char path[256];
	if (strcmp(name, "-") == 0)
		return;
	snprintf(path, sizeof path, "/run/netns/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	check(fd, path);
	check(setns(fd, CLONE_NEWNET), path);
	close(fd);
}

static void serve(const char *port)
{
	const int on = 1;
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	check(listener, "socket");
	check(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
	check(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
	check(listen(listener, 8), "listen");
	check(daemon(0, 0), "daemon");
	for (;;) {
		int peer = accept(listener, NULL, NULL);
		check(peer, "accept");
		while (recv(peer, block, sizeof block, 0) > 0)
			;
		/* The sender waits for this end. */
		close(peer);
	}
}

static void transfer(const char *to, const char *port, long bytes)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	check(fd, "socket");
	if (inet_pton(AF_INET, to, &address.sin_addr) != 1) {
		errno = EINVAL;
		check(-1, to);
	}
	check(connect(fd, (struct sockaddr *)&address, sizeof address), to);
	while (bytes > 0) {
		ssize_t sent = send(fd, block, bytes < (long)sizeof block ? (size_t)bytes : sizeof block, MSG_NOSIGNAL);
		check(sent, to);
		bytes -= sent;
	}
	check(shutdown(fd, SHUT_WR), to);
	check(recv(fd, block, sizeof block, 0), to);
}

int main(int count, char **words)
{
	if (count == 4 && strcmp(words[1], "serve") == 0) {
		enter(words[2]);
		serve(words[3]);
	} else if (count == 6 && strcmp(words[1], "send") == 0) {
		enter(words[2]);
		transfer(words[3], words[4], atol(words[5]) << 20);
	} else {
		fprintf(stderr, "stream serve NETNS PORT | stream send NETNS ADDRESS PORT MEGABYTES\n");
		return 2;
	}
	return 0;
}

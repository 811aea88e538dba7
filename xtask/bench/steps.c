/*
 * steps FILE COMMAND WORD...: runs the command one instruction at a time, with all that it starts, until that executes
 * another program, and writes to FILE every place that was executed, a hexadecimal number a line, in order.
 * `cargo xtask order` makes functions of them. For programs that are linked to a fixed place below PLACES.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define PLACES 0x1000000

static uint8_t executed[PLACES];

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "steps: %s: %s\n", what, why);
	exit(1);
}

static off_t program_size(pid_t pid)
{
	char link[64];
	struct stat facts;
	snprintf(link, sizeof link, "/proc/%d/exe", pid);
	return stat(link, &facts) < 0 ? -1 : facts.st_size;
}

/* Until the command has ended; what it leaves running goes on by itself. */
static int follow(pid_t main_pid)
{
	off_t own_size = -1;
	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, __WALL);
		if (pid < 0)
			fail("wait", strerror(errno));
		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			if (pid == main_pid)
				return WIFEXITED(status) ? WEXITSTATUS(status) : 127;
			continue;
		}
		int event = status >> 16, signal = WSTOPSIG(status);
		struct user_regs_struct registers;
		if (event == PTRACE_EVENT_EXEC) {
			/* The program may execute itself again, from where it is sealed; it has the same size there. */
			off_t size = program_size(pid);
			own_size = own_size < 0 ? size : own_size;
			if (size != own_size) {
				ptrace(PTRACE_DETACH, pid, 0, 0);
				continue;
			}
		}
		if (ptrace(PTRACE_GETREGS, pid, 0, &registers) == 0 && registers.rip < PLACES)
			executed[registers.rip] = 1;
		if (event || signal == SIGTRAP || signal == SIGSTOP)
			signal = 0;
		ptrace(PTRACE_SINGLESTEP, pid, 0, signal);
	}
}

int main(int count, char **words)
{
	const long options = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
	if (count < 3)
		fail("usage", "steps FILE COMMAND WORD...");
	pid_t pid = fork();
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		/* The tracer sets its options while this waits. */
		raise(SIGSTOP);
		execv(words[2], words + 2);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, NULL, 0) < 0)
		fail(words[2], strerror(errno));
	ptrace(PTRACE_SETOPTIONS, pid, 0, options);
	ptrace(PTRACE_CONT, pid, 0, 0);
	int status = follow(pid);
	FILE *out = fopen(words[1], "w");
	if (!out)
		fail(words[1], strerror(errno));
	for (int place = 0; place < PLACES; place++)
		if (executed[place])
			fprintf(out, "%x\n", place);
	if (fclose(out) != 0)
		fail(words[1], strerror(errno));
	return status;
}

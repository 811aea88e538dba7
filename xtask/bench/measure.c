/* Commands -> how long they take. In: `rounds N`, and on stdin a plan; or `calls PROGRAM WORD...`. Out: a line for each
 * sample. Must never: cost enough to be seen in what it measures: it starts programs by vfork, and reads clocks.
 *
 * A plan: `sample NAME` begins a sample, and each line behind it is a command of it: `time WORDS` is timed, `sealed WORDS`
 * too, its program being executed from a sealed memory file that was made beforehand; `then WORDS` is not timed. Before the
 * program, `<FILE` is its standard input and `NAME=VALUE` a variable of its environment. In each round every sample is taken once, in an order that is shuffled anew, so that none always follows the same other one.
 *     NAME <tab> nanoseconds <tab> peak memory of the largest process of the timed commands, kB
 * The last line, `itself`, has this program's own memory, below which none can be told.
 *
 * `calls` follows a command and what it starts until BusyBox runs, which is the container's program:
 *     runtime|child <tab> number of the system call <tab> how often <tab> nanoseconds within, tracing included
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAMPLES_MAX 64
#define COMMANDS_MAX 8
#define WORDS_MAX 24
#define VARIABLES_MAX 64
#define PLAN_BYTES_MAX 65536
#define CALLS_MAX 512
#define THREADS_MAX 256
/* What a sample leaves the kernel to do afterwards, namespaces to be taken down above all, is to be done before the next. */
#define PAUSE_NS 30000000L

enum kind { TIME, SEALED, THEN };

struct command {
	enum kind kind;
	char *words[WORDS_MAX + 1];
	char *variables[VARIABLES_MAX + 1];
	char *input;
	int sealed_fd;
};

struct sample {
	char *name;
	struct command commands[COMMANDS_MAX];
	int count;
};

static struct sample samples[SAMPLES_MAX];
static int sample_count;
static char plan[PLAN_BYTES_MAX + 1];
/* Commands have no use for the words of others: their stdout is /dev/null. */
static FILE *out;

static void fail(const char *subject, const char *problem)
{
	fprintf(stderr, "measure: %s: %s\n", subject, problem);
	exit(1);
}

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int sealed_copy(const char *path)
{
	const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	struct stat facts;
	int from = open(path, O_RDONLY | O_CLOEXEC);
	int copy = memfd_create("coracle", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (from < 0 || copy < 0 || fstat(from, &facts) < 0)
		fail(path, strerror(errno));
	for (off_t left = facts.st_size; left > 0;) {
		ssize_t sent = sendfile(copy, from, NULL, (size_t)left);
		if (sent <= 0)
			fail(path, "cannot be copied");
		left -= sent;
	}
	if (fcntl(copy, F_ADD_SEALS, seals) < 0)
		fail(path, strerror(errno));
	close(from);
	return copy;
}

static void add_command(enum kind kind, char *text)
{
	if (sample_count == 0)
		fail(text, "no sample before it");
	struct sample *sample = &samples[sample_count - 1];
	if (sample->count == COMMANDS_MAX)
		fail(sample->name, "too many commands");
	struct command *command = &sample->commands[sample->count++];
	int count = 0, variables = 0;
	command->kind = kind;
	while (environ[variables] && variables < VARIABLES_MAX) {
		command->variables[variables] = environ[variables];
		variables++;
	}
	for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
		if (count == WORDS_MAX)
			fail(sample->name, "too many words");
		if (variables == VARIABLES_MAX)
			fail(sample->name, "too many variables, with those of the environment");
		if (count == 0 && *word == '<')
			command->input = word + 1;
		else if (count == 0 && strchr(word, '='))
			command->variables[variables++] = word;
		else
			command->words[count++] = word;
	}
	if (count == 0)
		fail(sample->name, "a command without words");
	if (kind == SEALED)
		command->sealed_fd = sealed_copy(command->words[0]);
}

static void read_plan(void)
{
	size_t length = fread(plan, 1, PLAN_BYTES_MAX, stdin);
	char *rest = plan, *line;
	if (length == PLAN_BYTES_MAX)
		fail("the plan", "too long");
	while ((line = strsep(&rest, "\n"))) {
		if (strncmp(line, "sample ", 7) == 0) {
			if (sample_count == SAMPLES_MAX)
				fail(line, "too many samples");
			samples[sample_count++].name = line + 7;
		} else if (strncmp(line, "time ", 5) == 0) {
			add_command(TIME, line + 5);
		} else if (strncmp(line, "sealed ", 7) == 0) {
			add_command(SEALED, line + 7);
		} else if (strncmp(line, "then ", 5) == 0) {
			add_command(THEN, line + 5);
		} else if (*line) {
			fail(line, "neither sample, time, sealed nor then");
		}
	}
}

/* Runs a command and waits for its end. Returns its peak memory in kB. */
static long run(const struct sample *sample, const struct command *command)
{
	struct rusage usage;
	int status, input = -1;
	if (command->input && (input = open(command->input, O_RDONLY | O_CLOEXEC)) < 0)
		fail(command->input, strerror(errno));
	pid_t pid = vfork();
	if (pid == 0) {
		if (input >= 0)
			dup2(input, 0);
		if (command->kind == SEALED)
			syscall(SYS_execveat, command->sealed_fd, "", command->words, command->variables, AT_EMPTY_PATH);
		else
			execve(command->words[0], command->words, command->variables);
		_exit(127);
	}
	if (input >= 0)
		close(input);
	if (pid < 0 || wait4(pid, &status, 0, &usage) < 0)
		fail(command->words[0], strerror(errno));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "measure: %s: status %#x of:", sample->name, (unsigned)status);
		for (char *const *word = command->words; *word; word++)
			fprintf(stderr, " %s", *word);
		fputc('\n', stderr);
		exit(1);
	}
	return usage.ru_maxrss;
}

static void take(const struct sample *sample)
{
	const struct timespec pause = { 0, PAUSE_NS };
	uint64_t nanoseconds = 0;
	long peak = 0;
	nanosleep(&pause, NULL);
	for (int index = 0; index < sample->count; index++) {
		const struct command *command = &sample->commands[index];
		uint64_t begin = now();
		long memory = run(sample, command);
		if (command->kind == THEN)
			continue;
		nanoseconds += now() - begin;
		peak = memory > peak ? memory : peak;
	}
	fprintf(out, "%s\t%llu\t%ld\n", sample->name, (unsigned long long)nanoseconds, peak);
}

static void take_rounds(int rounds)
{
	int order[SAMPLES_MAX];
	for (int index = 0; index < sample_count; index++)
		order[index] = index;
	/* The same orders in each run: one less thing that differs. */
	srand(1);
	for (int round = 0; round < rounds; round++) {
		for (int index = sample_count - 1; index > 0; index--) {
			int other = rand() % (index + 1), kept = order[index];
			order[index] = order[other];
			order[other] = kept;
		}
		for (int index = 0; index < sample_count; index++)
			take(&samples[order[index]]);
		fflush(out);
	}
}

struct thread {
	pid_t pid;
	/* -1: not within a call. */
	long call;
	uint64_t since;
	int is_child;
};

static struct thread threads[THREADS_MAX];
static int thread_count;
static unsigned long counts[2][CALLS_MAX];
static uint64_t times[2][CALLS_MAX];

static struct thread *thread_of(pid_t pid, pid_t main_pid)
{
	char path[64], line[128];
	pid_t group = pid;
	for (int index = 0; index < thread_count; index++)
		if (threads[index].pid == pid)
			return &threads[index];
	if (thread_count == THREADS_MAX)
		fail("calls", "too many threads");
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *status = fopen(path, "r");
	while (status && fgets(line, sizeof line, status))
		sscanf(line, "Tgid: %d", &group);
	if (status)
		fclose(status);
	struct thread *thread = &threads[thread_count++];
	*thread = (struct thread){ .pid = pid, .call = -1, .is_child = group != main_pid };
	return thread;
}

static int is_busybox(pid_t pid)
{
	static const char name[] = "/busybox", alias[] = "/true";
	char link[64], path[4096];
	snprintf(link, sizeof link, "/proc/%d/exe", pid);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (length < 0)
		return 0;
	path[length] = 0;
	const char *last = strrchr(path, '/');
	return last && (strcmp(last, name) == 0 || strcmp(last, alias) == 0);
}

static void note(struct thread *thread)
{
	struct __ptrace_syscall_info info;
	if (ptrace(PTRACE_GET_SYSCALL_INFO, thread->pid, sizeof info, &info) <= 0)
		return;
	if (info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr < CALLS_MAX) {
		counts[thread->is_child][info.entry.nr]++;
		thread->call = (long)info.entry.nr;
		thread->since = now();
	} else if (info.op == PTRACE_SYSCALL_INFO_EXIT && thread->call >= 0) {
		times[thread->is_child][thread->call] += now() - thread->since;
		thread->call = -1;
	}
}

static int follow(pid_t main_pid)
{
	for (;;) {
		int status, event, signal;
		pid_t pid = waitpid(-1, &status, __WALL);
		if (pid < 0)
			fail("calls", strerror(errno));
		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			if (pid == main_pid)
				return WIFEXITED(status) ? WEXITSTATUS(status) : 127;
			continue;
		}
		struct thread *thread = thread_of(pid, main_pid);
		event = status >> 16;
		signal = WSTOPSIG(status);
		if (event == PTRACE_EVENT_EXEC && pid != main_pid && is_busybox(pid)) {
			ptrace(PTRACE_DETACH, pid, 0, 0);
			continue;
		}
		if (signal == (SIGTRAP | 0x80))
			note(thread);
		if (event || signal == (SIGTRAP | 0x80) || signal == SIGSTOP || signal == SIGTRAP)
			signal = 0;
		ptrace(PTRACE_SYSCALL, pid, 0, signal);
	}
}

static int count_calls(char **words)
{
	const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
			     PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
	static const char *const whose[] = { "runtime", "child" };
	pid_t pid = fork();
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		/* The tracer sets its options while this waits. */
		raise(SIGSTOP);
		execve(words[0], words, environ);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, NULL, 0) < 0)
		fail(words[0], strerror(errno));
	ptrace(PTRACE_SETOPTIONS, pid, 0, options);
	ptrace(PTRACE_SYSCALL, pid, 0, 0);
	int status = follow(pid);
	for (int who = 0; who < 2; who++)
		for (int call = 0; call < CALLS_MAX; call++)
			if (counts[who][call])
				fprintf(out, "%s\t%d\t%lu\t%llu\n", whose[who], call, counts[who][call],
					(unsigned long long)times[who][call]);
	return status;
}

int main(int count, char **words)
{
	int saved = fcntl(1, F_DUPFD_CLOEXEC, 10);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	out = fdopen(saved, "w");
	if (!out || null < 0)
		fail("the streams", strerror(errno));
	if (count == 3 && strcmp(words[1], "rounds") == 0) {
		read_plan();
		dup2(null, 0);
		dup2(null, 1);
		take_rounds(atoi(words[2]));
		struct rusage usage;
		getrusage(RUSAGE_SELF, &usage);
		fprintf(out, "itself\t0\t%ld\n", usage.ru_maxrss);
	} else if (count >= 3 && strcmp(words[1], "calls") == 0) {
		dup2(null, 0);
		dup2(null, 1);
		int status = count_calls(words + 2);
		fflush(out);
		return status;
	} else {
		fail("usage", "measure rounds N < PLAN | measure calls PROGRAM WORD...");
	}
	fflush(out);
	return ferror(out) ? 1 : 0;
}

/* The floor: the least that a container can cost. In: `run ROOTFS`, or `exec PID`. Out: `true` has run in the container of
 * `runc spec` (its namespaces, its seven mounts, its root), or in the namespaces of process PID; its exit status.
 * Must never: do what a runtime is for. No cgroup, no device nodes, no masks, no capabilities, no limits, no state. */

#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAMESPACES (CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWCGROUP)

static void check(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
		_exit(127);
	}
}

static void mount_on(const char *target, const char *type, unsigned long flags, const char *data)
{
	check(mount(type, target, type, flags, data), target);
}

static void become_true(void)
{
	char *const words[] = { "true", NULL };
	char *const environment[] = { "PATH=/bin", NULL };
	execve("/bin/true", words, environment);
	check(-1, "/bin/true");
}

static int wait_for(pid_t pid)
{
	int status;
	check(waitpid(pid, &status, 0), "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 127;
}

static void in_container(const char *rootfs)
{
	const unsigned long quiet = MS_NOSUID | MS_NOEXEC | MS_NODEV;
	check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "/");
	check(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL), rootfs);
	check(chdir(rootfs), rootfs);
	mount_on("proc", "proc", 0, NULL);
	mount_on("dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	check(mkdir("dev/pts", 0755), "dev/pts");
	mount_on("dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
	check(mkdir("dev/shm", 0755), "dev/shm");
	mount_on("dev/shm", "tmpfs", quiet, "mode=1777,size=65536k");
	check(mkdir("dev/mqueue", 0755), "dev/mqueue");
	mount_on("dev/mqueue", "mqueue", quiet, NULL);
	mount_on("sys", "sysfs", quiet | MS_RDONLY, NULL);
	mount_on("sys/fs/cgroup", "cgroup2", quiet | MS_RELATIME | MS_RDONLY, NULL);
	check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(umount2(".", MNT_DETACH), "umount");
	check(chdir("/"), "/");
	check(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), "/");
	become_true();
}

static int run(const char *rootfs)
{
	long pid = syscall(SYS_clone, NAMESPACES | SIGCHLD, NULL, NULL, NULL, 0);
	check(pid, "clone");
	if (pid == 0)
		in_container(rootfs);
	return wait_for((pid_t)pid);
}

static int join(pid_t target)
{
	long pidfd = syscall(SYS_pidfd_open, target, 0);
	check(pidfd, "pidfd_open");
	check(setns((int)pidfd, NAMESPACES), "setns");
	/* A pid namespace is for children only. */
	pid_t pid = fork();
	check(pid, "fork");
	if (pid == 0)
		become_true();
	return wait_for(pid);
}

int main(int count, char **words)
{
	if (count == 3 && strcmp(words[1], "run") == 0)
		return run(words[2]);
	if (count == 3 && strcmp(words[1], "exec") == 0)
		return join(atoi(words[2]));
	fprintf(stderr, "usage: floor run ROOTFS | floor exec PID\n");
	return 127;
}

// Runs a program whose system calls fail now and then, as a seed decides. Linux on x86-64.
//
//     faults SEED RULE... -- PROGRAM ARGUMENT...
//
//     epoll_ctl=ENOMEM,ENOSPC/8        one call in eight fails, with one of these errors, and does nothing
//     membarrier=ENOSYS                every call does
//     madvise=EINVAL/1@2=102           every call whose third argument is 102
//     mmap=ENOMEM/2@3&0x4000=0x4000    one in two of those whose fourth argument has this bit
//     write=short/2                    one in two moves fewer bytes than asked for, if that were more than 16
//     futex=delay/20                   one in twenty begins up to two milliseconds later
//
// The calls are caught by a filter (seccomp) and changed by a tracer (ptrace), which follows threads and processes. So they may be made in whatever way,
// also without the C library. At the end it prints how many calls of each rule it has changed, of how many. An error has to be one that the kernel
// documents for the call: a program may rely on the others not to come. A short read of a TCP stream is none, since it says that the stream is empty.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST 64

struct name {
    const char *name;
    long value;
};

#define CALL(x) {#x, SYS_##x}
static const struct name CALLS[] = {
    CALL(accept4), CALL(clock_nanosleep), CALL(clone), CALL(clone3), CALL(close_range), CALL(connect), CALL(copy_file_range), CALL(dup3),
    CALL(epoll_create1), CALL(epoll_ctl), CALL(epoll_pwait), CALL(epoll_pwait2), CALL(epoll_wait), CALL(eventfd2), CALL(futex), CALL(getrandom),
    CALL(madvise), CALL(membarrier), CALL(mmap), CALL(mprotect), CALL(munmap), CALL(openat), CALL(pidfd_open), CALL(pipe2), CALL(ppoll),
    CALL(process_madvise), CALL(read), CALL(recvfrom), CALL(sched_getaffinity), CALL(sched_setaffinity), CALL(sched_yield), CALL(sendfile),
    CALL(sendmsg), CALL(sendto), CALL(sigaltstack), CALL(socket), CALL(socketpair), CALL(splice), CALL(statx), CALL(tgkill), CALL(vfork),
    CALL(wait4), CALL(waitid), CALL(write), CALL(writev), {NULL, 0},
};

#define ERROR(x) {#x, x}
static const struct name ERRORS[] = {
    ERROR(EACCES), ERROR(EADDRNOTAVAIL), ERROR(EAGAIN), ERROR(ECONNABORTED), ERROR(EINTR), ERROR(EINVAL), ERROR(EMFILE), ERROR(ENFILE),
    ERROR(ENOBUFS), ERROR(ENOMEM), ERROR(ENOSPC), ERROR(ENOSYS), ERROR(EPERM), {NULL, 0},
};

struct rule {
    const char *name;
    long call;
    enum { FAILS, SHORT, DELAYED } kind;
    int errors[8];
    int errors_count;
    unsigned long one_in;
    int argument;
    unsigned long mask, value;
    unsigned long changed, seen;
};

static struct rule rules[MOST];
static int rules_count;
static unsigned long seed;

// Steele, Lea and Flood's SplitMix64.
static unsigned long number(void) {
    unsigned long z = (seed += 0x9E3779B97F4A7C15UL);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9UL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBUL;
    return z ^ (z >> 31);
}

static void refuse(const char *what, const char *text) {
    fprintf(stderr, "faults: %s: %s\n", what, text);
    exit(64);
}

static long find(const struct name *names, const char *name) {
    for (; names->name; names++)
        if (!strcmp(names->name, name)) return names->value;
    refuse("unknown", name);
    return 0;
}

// NAME=WHAT,WHAT/ONE_IN@ARGUMENT&MASK=VALUE, in pieces that are cut off from the end.
static void parse(char *text) {
    if (rules_count == MOST) refuse("too many rules", text);
    struct rule *rule = &rules[rules_count++];
    *rule = (struct rule){.name = text, .one_in = 1, .argument = -1, .mask = ~0UL};
    char *at = strchr(text, '@');
    if (at) {
        *at = 0;
        rule->argument = strtol(at + 1, &at, 0);
        if (*at == '&') rule->mask = strtoul(at + 1, &at, 0);
        if (*at != '=' || rule->argument < 0 || rule->argument > 5) refuse("not @ARGUMENT&MASK=VALUE", at);
        rule->value = strtoul(at + 1, NULL, 0);
    }
    char *slash = strchr(text, '/');
    if (slash) {
        *slash = 0;
        rule->one_in = strtoul(slash + 1, NULL, 0);
        if (!rule->one_in) refuse("one in none", text);
    }
    char *what = strchr(text, '=');
    if (!what) refuse("not a rule", text);
    *what++ = 0;
    rule->call = find(CALLS, text);
    for (char *word = strtok(what, ","); word; word = strtok(NULL, ",")) {
        if (!strcmp(word, "short")) rule->kind = SHORT;
        else if (!strcmp(word, "delay")) rule->kind = DELAYED;
        else if (rule->errors_count < 8) rule->errors[rule->errors_count++] = find(ERRORS, word);
    }
    if (rule->kind == FAILS && !rule->errors_count) refuse("without an error", text);
}

static void install_filter(void) {
    struct sock_filter program[2 * MOST + 2];
    int len = 0;
    program[len++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < rules_count; i++) {
        program[len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rules[i].call, 0, 1);
        program[len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    }
    program[len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {len, program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) {
        perror("faults: filter");
        _exit(65);
    }
}

// A call is about to be made by a thread that is stopped.
static void change(pid_t thread) {
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, thread, 0, &registers)) return;
    unsigned long arguments[6] = {registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9};
    for (int i = 0; i < rules_count; i++) {
        struct rule *rule = &rules[i];
        if (rule->call != (long)registers.orig_rax) continue;
        if (rule->argument >= 0 && (arguments[rule->argument] & rule->mask) != rule->value) continue;
        rule->seen++;
        if (number() % rule->one_in) continue;
        if (rule->kind == SHORT) {
            if (arguments[2] <= 16) continue;
            registers.rdx = 1 + number() % arguments[2];
        } else if (rule->kind == DELAYED) {
            struct timespec pause = {0, number() % 2000000};
            nanosleep(&pause, NULL);
        } else {
            registers.orig_rax = -1;
            registers.rax = -(long)rule->errors[number() % rule->errors_count];
        }
        rule->changed++;
        ptrace(PTRACE_SETREGS, thread, 0, &registers);
        if (rule->kind == FAILS) return;
    }
}

int main(int argc, char **argv) {
    if (argc < 2) refuse("usage", "faults SEED RULE... -- PROGRAM ARGUMENT...");
    seed = strtoul(argv[1], NULL, 0);
    int at = 2;
    for (; at < argc && strcmp(argv[at], "--"); at++) parse(argv[at]);
    if (++at >= argc) refuse("no program", argv[1]);
    pid_t program = fork();
    if (program == 0) {
        raise(SIGSTOP);
        install_filter();
        execvp(argv[at], argv + at);
        perror(argv[at]);
        _exit(127);
    }
    int status;
    waitpid(program, &status, WUNTRACED);
    long follow = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SEIZE, program, 0, follow)) {
        perror("faults: trace");
        return 66;
    }
    kill(program, SIGCONT);
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0) return 67;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (thread == program) break;
            continue;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP) change(thread);
        int stops = signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
        if (event == PTRACE_EVENT_STOP && stops) ptrace(PTRACE_LISTEN, thread, 0, 0);
        else ptrace(PTRACE_CONT, thread, 0, event ? 0 : signal);
    }
    fputs("faults:", stderr);
    for (int i = 0; i < rules_count; i++) fprintf(stderr, " %s %lu of %lu;", rules[i].name, rules[i].changed, rules[i].seen);
    if (WIFSIGNALED(status)) fprintf(stderr, " ended by signal %d", WTERMSIG(status));
    fputc('\n', stderr);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

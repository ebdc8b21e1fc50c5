/* Children of `muster dev` and `muster chaos`: started, read line by line, waited for, ended; they die with their
 * parent. Owns: struct dev_group, struct dev_process, their log files. May call: libev, lib/base. Loop rule: waits run
 * the loop; children that end by themselves are noticed whenever the loop runs. */
#ifndef MUSTER_CLI_DEV_PROCESS_H
#define MUSTER_CLI_DEV_PROCESS_H

#include <ev.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#define DEV_LINE_MAX      4096
#define DEV_ARGS_MAX      96
#define DEV_ADDRESS_BYTES 64
#define DEV_ENV_MAX       6

/* What all children share. */
struct dev_group {
    const char *command; /* "muster dev": what messages begin with */
    struct ev_loop *loop;
    ev_signal on_int, on_term;
    bool stopping; /* asked to end by a signal */
    bool failed;   /* a child ended by itself */
    bool broken;   /* stopping or failed: for those who only want to know whether to go on */
    bool restart;  /* start a daemon that has died again */
    bool ending;   /* children end because they were told to */
    bool drop;     /* we are root: run stores as uid and gid */
    uid_t uid;
    gid_t gid;
};

struct dev_process {
    struct dev_group *group;
    char name[32]; /* "worker-2" */
    char log_path[256];
    char *argv[DEV_ARGS_MAX]; /* owned copies, NULL at the end */
    int argc;
    char *env[DEV_ENV_MAX]; /* owned, "NAME=value": added to the environment */
    int env_count;
    bool unprivileged; /* run as group->uid when root */
    bool daemon;       /* says event=ready; may be restarted */
    int death_signal;  /* when the parent dies */
    pid_t pid;         /* 0: not running */
    bool ready, ended, told;
    int status; /* of waitpid, when ended */
    char listen[DEV_ADDRESS_BYTES], listen_plain[DEV_ADDRESS_BYTES], admin[DEV_ADDRESS_BYTES]; /* once ready */
    FILE *log;
    int output;
    ev_io on_output;
    ev_child on_end;
    char line[DEV_LINE_MAX];
    size_t line_len;
    void (*heard)(void *arg, const char *line); /* NULL: nobody listens to what it says */
    void *heard_arg;
};

/* Watches SIGINT and SIGTERM; finds the user for unprivileged children. Prints one line and returns false when there is
 * none. */
bool dev_group_init(struct dev_group *group, const char *command);
void dev_group_free(struct dev_group *group);

/* Prepares a process that is not started; `name` is formatted with `number` when it is positive. */
void dev_process_init(struct dev_process *p, struct dev_group *group, const char *log_folder, const char *name,
                      int number);
/* Appends one argument; copies. */
void dev_process_arg(struct dev_process *p, const char *text);
/* Appends several; the list ends with NULL. */
void dev_process_args(struct dev_process *p, ...) __attribute__((sentinel));
/* Adds to its environment from the next start on; copies. */
void dev_process_env(struct dev_process *p, const char *text);
void dev_process_env_clear(struct dev_process *p);
/* False with one line printed. */
bool dev_process_start(struct dev_process *p);
/* Starts a daemon that has ended again, on the addresses it had. */
bool dev_process_again(struct dev_process *p);
/* Waits until it says it is ready; false with one line, and the end of its log, when it ends or takes too long. */
bool dev_process_wait_ready(struct dev_process *p, double seconds);
/* Waits until it has ended; false when it ended badly, or on a signal to us. */
bool dev_process_wait_end(struct dev_process *p, double seconds);
/* Repeats `up` every 20 ms until it is true, the process has ended or the time is over. Says nothing. */
bool dev_process_try_up(struct dev_process *p, bool (*up)(void *arg), void *arg, double seconds);
/* The same with one line, and the end of its log, when it does not come up. */
bool dev_process_wait_up(struct dev_process *p, bool (*up)(void *arg), void *arg, double seconds);
/* Sends `number` and waits; kills after `seconds`. It may be started again. */
void dev_process_end(struct dev_process *p, int number, double seconds);
/* dev_process_end, and frees. Harmless for one that never started. */
void dev_process_stop(struct dev_process *p, int number, double seconds);

#endif

/* A private Redis and a private PostgreSQL on unix sockets in a temporary folder, for tests of lib/store.
 * Owns: the folder and the processes. May call: the C library. Loop rule: blocking; for tests only. */
#ifndef MUSTER_TESTS_SERVERS_H
#define MUSTER_TESTS_SERVERS_H

#include <sys/types.h>

struct servers {
    char folder[64];
    char redis_url[128], postgres[160]; /* how to connect */
    pid_t redis, postgres_pid;
};

/* Makes the folder; starts nothing. Each aborts with a line on standard error when it fails. */
void servers_init(struct servers *s);
/* Start, and wait until it answers. */
void servers_start_redis(struct servers *s);
void servers_start_postgres(struct servers *s);
/* Kill (SIGKILL, PostgreSQL with SIGQUIT) and wait for the end. A later start of PostgreSQL has the same data. */
void servers_stop_redis(struct servers *s);
void servers_stop_postgres(struct servers *s);
/* Stops both and removes the folder. */
void servers_free(struct servers *s);

#endif

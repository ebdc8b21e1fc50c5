/* One run of a peer's client: what to do, which jobs were done, how long it took.
 * Owns: struct run, the text of a job, die. May call: lib/base clock. Loop rule: none; a client blocks.
 *
 * A client that meets anything unexpected ends with one line on standard error: a benchmark that goes on after an error
 * measures nothing. */
#ifndef MUSTER_PEERS_RUN_H
#define MUSTER_PEERS_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a job: its number in eight digits and what is to be done. */
#define JOB_BYTES 32

struct run {
    const char *at;   /* "unix:/path", "127.0.0.1:port", or a connection string of PostgreSQL */
    uint32_t jobs;    /* numbered from 0 */
    uint32_t batch;   /* jobs in one request, where the peer has such */
    uint32_t window;  /* jobs on the way at a time */
    const char *kind; /* of queue, where the peer has several */
    uint8_t *done;    /* of each job: how often it was completed, at most 255 */
    int64_t began_us; /* CLOCK_MONOTONIC */
    int64_t began_cpu_us;
};

_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* CPU time of this process, user and system. */
int64_t run_cpu_us(void);
/* Connecting and setting up is over: time counts from here. */
void run_begin(struct run *r);
/* Writes job `number` to `text`, without a final NUL. */
void job_write(char text[JOB_BYTES], uint32_t number);
/* Number of a job. Dies when `text` is none of this run. */
uint32_t job_read(const struct run *r, const void *text, size_t len);
void run_completed(struct run *r, uint32_t job);

/* The clients: each connects, sets up, calls run_begin, and returns when the server has confirmed every job. */
void redis_lists_enqueue(struct run *r);
void redis_lists_process(struct run *r);
void redis_batches_process(struct run *r);
void redis_streams_enqueue(struct run *r);
void redis_streams_process(struct run *r);
void beanstalkd_enqueue(struct run *r);
void beanstalkd_process(struct run *r);
void jetstream_enqueue(struct run *r);
void jetstream_process(struct run *r);
void rabbitmq_enqueue(struct run *r);
void rabbitmq_process(struct run *r);
void skip_locked_enqueue(struct run *r);
void skip_locked_process(struct run *r);

#endif

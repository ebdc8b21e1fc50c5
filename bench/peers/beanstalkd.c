/* beanstalkd's protocol (doc/protocol.txt): put, reserve and delete, pipelined. */
#include <stdio.h>

#include "bench/peers/run.h"
#include "bench/peers/wire.h"

/* Seconds a reserved job may take. */
#define TIME_TO_RUN "600"

void beanstalkd_enqueue(struct run *r)
{
    struct wire w;
    struct slice line;
    uint32_t sent = 0, accepted = 0;
    char job[JOB_BYTES];

    wire_open(&w, r->at);
    run_begin(r);
    while (accepted < r->jobs) {
        for (; sent < r->jobs && sent - accepted < r->window; sent++) {
            job_write(job, sent);
            buf_printf(&w.out, "put 0 0 " TIME_TO_RUN " %d\r\n%.*s\r\n", JOB_BYTES, JOB_BYTES, job);
        }
        wire_turn(&w);
        for (; wire_line(&w, &line); accepted++)
            if (!slice_begins(line, "INSERTED "))
                die("beanstalkd: %.*s", (int)line.len, line.data);
    }
    wire_close(&w);
}

/* "RESERVED id bytes": the job follows on a line of its own. */
static void take(struct run *r, struct wire *w, struct slice line)
{
    char id[24];

    if (sscanf((const char *)line.data, "RESERVED %23[0-9] ", id) != 1)
        die("beanstalkd: %.*s", (int)line.len, line.data);
    struct slice job = wire_wait_line(w);
    run_completed(r, job_read(r, job.data, job.len));
    buf_printf(&w->out, "delete %s\r\n", id);
}

void beanstalkd_process(struct run *r)
{
    struct wire w;
    struct slice line;
    uint32_t asked = 0, completed = 0;

    wire_open(&w, r->at);
    run_begin(r);
    while (completed < r->jobs) {
        for (; asked < r->jobs && asked - completed < r->window; asked++)
            buf_put_str(&w.out, "reserve\r\n");
        wire_turn(&w);
        while (wire_line(&w, &line)) {
            if (slice_begins(line, "DELETED"))
                completed++;
            else
                take(r, &w, line);
        }
    }
    wire_close(&w);
}

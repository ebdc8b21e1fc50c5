#include "bench/peers/run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "lib/base/clock.h"

#define DIGITS 8

void die(const char *fmt, ...)
{
    va_list ap;

    fputs("muster-peers: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

int64_t run_cpu_us(void)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    return (int64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 + used.ru_utime.tv_usec +
           used.ru_stime.tv_usec;
}

void run_begin(struct run *r)
{
    r->began_us = clock_mono_us();
    r->began_cpu_us = run_cpu_us();
}

void job_write(char text[JOB_BYTES], uint32_t number)
{
    static const char rest[JOB_BYTES - DIGITS + 1] = " lock 00000000-0001-8000";

    for (int i = DIGITS - 1; i >= 0; i--, number /= 10)
        text[i] = (char)('0' + number % 10);
    memcpy(text + DIGITS, rest, JOB_BYTES - DIGITS);
}

uint32_t job_read(const struct run *r, const void *text, size_t len)
{
    const char *p = text;
    uint32_t n = 0;

    for (int i = 0; i < DIGITS && len == JOB_BYTES && p[i] >= '0' && p[i] <= '9'; i++)
        n = n * 10 + (uint32_t)(p[i] - '0');
    if (len != JOB_BYTES || n >= r->jobs)
        die("\"%.*s\" is no job of the %u that were enqueued", (int)len, p, r->jobs);
    return n;
}

void run_completed(struct run *r, uint32_t job)
{
    if (r->done[job] < UINT8_MAX)
        r->done[job]++;
}

#include "lib/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* One line, longest; the rest of a longer one is cut so that a line is always one write(2). */
#define LINE_MAX_BYTES   4096
#define QUOTE_SOURCE_MAX 256
/* Every byte may become \xNN, and two quotes, an ellipsis and the NUL. */
#define QUOTE_MAX (QUOTE_SOURCE_MAX * 4 + 8)

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* The process's own name and threshold: set once by log_init before anything runs. */
static const char *log_process = "muster";
static enum log_level log_threshold = LOG_INFO;

void log_init(const char *process, enum log_level level)
{
    log_process = process;
    log_threshold = level;
}

int log_level_parse(const char *name, enum log_level *level)
{
    for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return 0;
        }
    }
    return -1;
}

void log_event(enum log_level level, const char *event, const char *fmt, ...)
{
    if (level < log_threshold)
        return;
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    char line[LINE_MAX_BYTES];
    size_t n = strftime(line, sizeof line, "ts=%Y-%m-%dT%H:%M:%S", &utc);
    int more = snprintf(line + n, sizeof line - n, ".%03ldZ level=%s process=%s event=%s", now.tv_nsec / 1000000,
                        level_names[level], log_process, event);
    n += more > 0 ? (size_t)more : 0;
    if (fmt && *fmt && n < sizeof line - 2) {
        line[n++] = ' ';
        va_list ap;
        va_start(ap, fmt);
        more = vsnprintf(line + n, sizeof line - n, fmt, ap);
        va_end(ap);
        n += more > 0 ? (size_t)more : 0;
    }
    if (n > sizeof line - 1)
        n = sizeof line - 1;
    line[n++] = '\n';
    /* A log that can't be written has nowhere to complain. */
    ssize_t written = write(STDERR_FILENO, line, n);
    (void)written;
}

const char *log_quote(const char *s)
{
    return s ? log_quote_n(s, strlen(s)) : "null";
}

const char *log_quote_n(const void *s, unsigned long n)
{
    static char buffers[4][QUOTE_MAX];
    static unsigned turn;
    static const char hex[] = "0123456789abcdef";
    char *out = buffers[turn++ % 4], *p = out;
    const unsigned char *in = s;
    unsigned long cut = n > QUOTE_SOURCE_MAX ? QUOTE_SOURCE_MAX : n;
    *p++ = '"';
    for (unsigned long i = 0; i < cut; i++) {
        unsigned char c = in[i];
        if (c == '"' || c == '\\') {
            *p++ = '\\';
            *p++ = (char)c;
        } else if (c == '\n' || c == '\r' || c == '\t') {
            *p++ = '\\';
            *p++ = c == '\n' ? 'n' : c == '\r' ? 'r' : 't';
        } else if (c < 0x20 || c >= 0x7f) {
            *p++ = '\\';
            *p++ = 'x';
            *p++ = hex[c >> 4];
            *p++ = hex[c & 15];
        } else {
            *p++ = (char)c;
        }
    }
    if (cut < n)
        p = (char *)memcpy(p, "...", 3) + 3;
    *p++ = '"';
    *p = 0;
    return out;
}

/* Structured log: one logfmt line per event on standard error.
 * Owns: level and process name, set once in main (the one exception to "no mutable globals").
 * May call: the C library. Loop rule: writes are blocking and short. */
#ifndef MUSTER_BASE_LOG_H
#define MUSTER_BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* `process` is borrowed for the life of the process, such as "muster-worker". Lines below `level` are dropped. */
void log_init(const char *process, enum log_level level);
/* Returns 0 and sets *level for "debug", "info", "warn", "error"; -1 for anything else. */
int log_level_parse(const char *name, enum log_level *level);

/* Writes: ts=2026-01-02T03:04:05.678Z level=info process=muster-worker event=<event> <fmt…>
 * `event` is snake_case and stable; `fmt` gives key=value pairs, string values of peers written with %s inside quotes
 * must be escaped by log_quote first. */
void log_event(enum log_level level, const char *event, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_debug(event, ...) log_event(LOG_DEBUG, event, __VA_ARGS__)
#define log_info(event, ...)  log_event(LOG_INFO, event, __VA_ARGS__)
#define log_warn(event, ...)  log_event(LOG_WARN, event, __VA_ARGS__)
#define log_error(event, ...) log_event(LOG_ERROR, event, __VA_ARGS__)

/* Returns `s` quoted and escaped for a logfmt value, cut at 256 bytes, in one of four rotating static buffers. */
const char *log_quote(const char *s);
/* The same for `n` bytes that need not end with NUL. */
const char *log_quote_n(const void *s, unsigned long n);

#endif

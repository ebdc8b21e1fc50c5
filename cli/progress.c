#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/base/clock.h"

#define BAR_MAX 40
/* How far back the shown rate looks. */
#define SMOOTHING_S 3.0

void progress_begin(struct progress *p, uint32_t done)
{
    *p = (struct progress){.terminal = isatty(STDERR_FILENO) == 1, .began_us = clock_mono_us()};
    p->last_us = p->began_us;
    p->began_done = p->last_done = done;
}

static void measure(struct progress *p, uint32_t done)
{
    int64_t now = clock_mono_us();
    double past = (double)(now - p->last_us) / 1e6;

    if (past < 0.05)
        return;
    double current = ((double)done - (double)p->last_done) / past;
    double weight = past / (past + SMOOTHING_S);
    /* In the beginning the mean over all is better than a smoothed value that starts from nothing. */
    double whole = (double)(now - p->began_us) / 1e6;
    p->rate =
        whole < SMOOTHING_S ? ((double)done - (double)p->began_done) / whole : p->rate + (current - p->rate) * weight;
    p->last_us = now;
    p->last_done = done;
}

static void time_left(const struct progress *p, uint32_t left, char out[32])
{
    double seconds = p->rate > 0.01 ? left / p->rate : -1;

    if (left == 0)
        snprintf(out, 32, "done");
    else if (seconds < 0 || seconds > 359999)
        snprintf(out, 32, "--:-- left");
    else if (seconds < 3600)
        snprintf(out, 32, "%d:%02d left", (int)seconds / 60, (int)seconds % 60);
    else
        snprintf(out, 32, "%d:%02d:%02d left", (int)seconds / 3600, (int)seconds / 60 % 60, (int)seconds % 60);
}

static int columns(void)
{
    struct winsize size;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

static void draw(struct progress *p, uint32_t done, uint32_t total, const char *text)
{
    char bar[BAR_MAX + 1];
    int width = columns() - (int)strlen(text) - 12;

    width = width > BAR_MAX ? BAR_MAX : width < 10 ? 10 : width;
    int filled = total ? (int)((uint64_t)width * done / total) : width;
    memset(bar, '.', (size_t)width);
    memset(bar, '#', (size_t)filled);
    bar[width] = '\0';
    int room = columns() - width - 9;
    fprintf(stderr, "\r[%s] %3d%% %.*s\033[K", bar, total ? (int)((uint64_t)100 * done / total) : 100,
            room > 0 ? room : 0, text);
    fflush(stderr);
    p->drawn = true;
}

/* Without the rate, which changes with every look. */
static bool is_news(struct progress *p, uint32_t done, const char *counts)
{
    char line[sizeof p->said];

    snprintf(line, sizeof line, "%" PRIu32 " %s", done, counts);
    bool news = strcmp(line, p->said) != 0;
    memcpy(p->said, line, sizeof line);
    return news;
}

void progress_show(struct progress *p, uint32_t done, uint32_t total, const char *counts)
{
    char left[32], text[512];
    bool news = is_news(p, done, counts);

    measure(p, done);
    time_left(p, total - done, left);
    snprintf(text, sizeof text, "%" PRIu32 "/%" PRIu32 "  %.0f/s  %s  %s", done, total, p->rate > 0 ? p->rate : 0.0,
             left, counts);
    if (p->terminal)
        draw(p, done, total, text);
    else if (news)
        fprintf(stderr, "%s\n", text);
}

void progress_end(struct progress *p)
{
    if (p->drawn)
        fputc('\n', stderr);
    p->drawn = false;
}

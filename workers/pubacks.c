#include "workers/pubacks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FEW (sizeof((struct pubacks *)0)->few / sizeof(struct puback))

static struct puback *all(struct pubacks *p)
{
    return p->grown ? p->many : p->few;
}

static bool grow(struct pubacks *p)
{
    struct puback *many = malloc(PUBACKS_MAX * sizeof *many);
    if (!many)
        return false;
    memcpy(many, p->few, sizeof p->few);
    p->many = many;
    p->grown = true;
    return true;
}

void pubacks_free(struct pubacks *p)
{
    if (p->grown)
        free(p->many);
    *p = (struct pubacks){.first = p->first};
}

bool pubacks_add(struct pubacks *p, uint16_t id, uint16_t *token)
{
    if (p->count == PUBACKS_MAX || (p->count == FEW && !p->grown && !grow(p)))
        return false;
    *token = (uint16_t)(p->first + p->count);
    all(p)[p->count++] = (struct puback){.id = id};
    if (id)
        p->named++;
    return true;
}

void pubacks_settle(struct pubacks *p, uint16_t token, uint8_t reason)
{
    uint16_t at = (uint16_t)(token - p->first);
    assert(at < p->count);
    all(p)[at].reason = reason;
    all(p)[at].settled = true;
}

bool pubacks_next(struct pubacks *p, struct puback *next)
{
    struct puback *v = all(p);
    if (p->count == 0 || !v[0].settled)
        return false;
    *next = v[0];
    p->first++;
    p->count--;
    if (next->id)
        p->named--;
    memmove(v, v + 1, p->count * sizeof *v);
    if (p->count == 0)
        pubacks_free(p);
    return true;
}

/* FNV-1a, 32 bits (draft-eastlake-fnv, section 2): tells bytes apart where nobody gains by making them alike.
 * Owns: nothing. May call: nothing. Loop rule: none, pure. */
#ifndef MUSTER_LIB_BASE_FNV_H
#define MUSTER_LIB_BASE_FNV_H

#include <stddef.h>
#include <stdint.h>

#define FNV_BEGIN 2166136261u

/* The hash of what `hash` is of, FNV_BEGIN for nothing yet, and these `len` bytes behind it. */
static inline uint32_t fnv_add(uint32_t hash, const void *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ ((const uint8_t *)data)[i]) * 16777619u;
    return hash;
}

#endif

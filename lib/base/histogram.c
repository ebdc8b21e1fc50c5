#include <math.h>

#include "lib/base/metrics.h"

/* Bucket 16·e+m holds values v with 2^e <= v < 2^(e+1) whose next four bits below the leading one are m. Below 16 there
 * are fewer than four such bits: they are taken as zeros on the right, so each small value has a bucket of its own. */
static unsigned bucket_of(uint64_t v)
{
    if (v == 0)
        return 0;
    unsigned e = 63 - (unsigned)__builtin_clzll(v);
    unsigned m = (unsigned)(e >= 4 ? v >> (e - 4) : v << (4 - e)) & 15;
    return e * 16 + m;
}

/* Least value above all that fall into `bucket`. */
static uint64_t bucket_end(unsigned bucket)
{
    unsigned e = bucket / 16, m = bucket % 16;
    if (e >= 4)
        return e == 63 && m == 15 ? UINT64_MAX : (uint64_t)(17 + m) << (e - 4);
    return ((uint64_t)(16 + m) >> (4 - e)) + 1;
}

void histogram_add(struct histogram *h, int64_t us)
{
    uint64_t v = us > 0 ? (uint64_t)us : 0;
    h->count++;
    h->sum += v;
    h->buckets[bucket_of(v)]++;
}

int64_t histogram_quantile(const struct histogram *h, double q)
{
    if (h->count == 0)
        return 0;
    uint64_t rank = (uint64_t)ceil(q * (double)h->count), seen = 0;
    if (rank == 0)
        rank = 1;
    if (rank > h->count)
        rank = h->count;
    for (unsigned b = 0; b < 64 * 16; b++) {
        seen += h->buckets[b];
        if (seen >= rank) {
            uint64_t end = bucket_end(b);
            return end > INT64_MAX ? INT64_MAX : (int64_t)end;
        }
    }
    return INT64_MAX;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    into->count += from->count;
    into->sum += from->sum;
    for (unsigned b = 0; b < 64 * 16; b++)
        into->buckets[b] += from->buckets[b];
}

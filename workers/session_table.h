/* The sessions of this worker by (tenant, seq).
 * Owns: struct session_table. May call: the C library; reads struct session. Loop rule: none. */
#ifndef MUSTER_WORKERS_SESSION_TABLE_H
#define MUSTER_WORKERS_SESSION_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct session;
struct session_table;

struct session_table *session_table_new(void);
/* Sessions are not freed. */
void session_table_free(struct session_table **table);
struct session *session_table_get(const struct session_table *table, uint32_t tenant, uint32_t seq);
/* The same, if it is still the one of that generation; else, or if there is none, NULL. */
struct session *session_table_still(const struct session_table *table, uint32_t tenant, uint32_t seq,
                                    uint32_t generation);
/* Under its tenant and seq, which must not change while it is there; whoever stood there is replaced. False without
 * memory. */
bool session_table_put(struct session_table *table, struct session *s);
/* Does nothing to another that has taken its place. */
void session_table_remove(struct session_table *table, const struct session *s);
size_t session_table_count(const struct session_table *table);
/* Calls `fn` for every session; it may remove that session. */
void session_table_each(struct session_table *table, void (*fn)(void *arg, struct session *s), void *arg);

#endif

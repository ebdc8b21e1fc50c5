/* Redis over a wire: commands appended, replies in their order.
 * Owns: struct resp. May call: hiredis' reader, wire. Loop rule: as wire. */
#ifndef MUSTER_PEERS_RESP_H
#define MUSTER_PEERS_RESP_H

#include <hiredis/hiredis.h>
#include <hiredis/read.h>

#include "bench/peers/wire.h"

struct resp {
    struct wire wire;
    redisReader *reader;
};

void resp_open(struct resp *r, const char *at);
void resp_close(struct resp *r);
/* Begins a command of `args` words, each given by resp_arg. */
void resp_command(struct resp *r, uint32_t args);
void resp_arg(struct resp *r, const void *data, size_t len);
void resp_word(struct resp *r, const char *word);
/* Returns owned (freeReplyObject), or NULL when no whole reply is here: wire_turn. Dies of an error reply. */
redisReply *resp_reply(struct resp *r);
/* Waits for the reply to the only command on the way, and drops it. */
void resp_wait(struct resp *r);

#endif

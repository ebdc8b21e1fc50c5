/* Text that devices and other callers chose, made fit for a terminal: what would move the cursor, begin another line or
 * turn the order of the letters round is written out instead (\n, \x1b, \u009b). Everything that the command line
 * prints as text goes through here, answers as a whole.
 * Owns: nothing. May call: lib/base/buf, utf8. Loop rule: writes are blocking. */
#ifndef MUSTER_CLI_VISIBLE_H
#define MUSTER_CLI_VISIBLE_H

#include <protobuf-c/protobuf-c.h>
#include <stdio.h>

#include "lib/base/buf.h"

/* Written out are C0, DEL, C1, the separators of lines and paragraphs, embeddings, overrides and isolates of
 * bidirectional text (UAX 9), and bytes that are no UTF-8. A backslash is not doubled, so that filters and paths stay
 * legible: done twice is done once, but what it was cannot be told for certain (JSON has it exactly). JSON text without
 * line feeds keeps its meaning. */
void visible_put(struct buf *out, const char *text);
/* The same to a stream. */
void visible_print(FILE *to, const char *text);
/* The same with every string in the message and those below it, which must be of the standard allocator. False without
 * memory. */
MUST_CHECK bool visible_message(ProtobufCMessage *message);

#endif

/* What must hold of commands that come to their device more than once: those that are tried again, and those that it
 * has put off.
 * Owns: struct tries (oracle_parts.h). May call: world, device, pg_model. Loop rule: called from events. */
#ifndef MUSTER_TESTS_SIM_ORACLE_RETRY_H
#define MUSTER_TESTS_SIM_ORACLE_RETRY_H

#include "tests/sim/oracle_parts.h"

/* The device had PUBACK of an outcome after which it would be tried again, before it was sent this, or of having put it
 * off, and the leader has heard of that; but for what a lost Redis has forgotten. */
bool retry_came_back(const struct world *w, const struct command *c, unsigned attempt, int64_t sent_us);
/* That was so of a command its batch was canceled for, long before the command ended. */
bool retry_came_back_in_time(const struct world *w, const struct command *c);
void retry_delivered(struct world *w, const struct device *d, const struct row_batch *row, unsigned attempt,
                     int64_t sent_us);
void retry_executed(struct world *w, const struct device *d, const struct row_batch *row, unsigned attempt,
                    uint8_t outcome);
/* Redis has it as sent: perhaps once more, by who lost it, or what was sent before is recorded again. */
void retry_resent(struct world *w, const struct device *d, uint64_t batch);
void retry_put_off(struct world *w, const struct device *d, uint64_t batch);
/* The device has PUBACK. */
void retry_acknowledged(struct world *w, const struct device *d, const struct row_batch *row, uint8_t outcome);
/* The command is tried again after this state, and was executed with such an outcome. */
bool retry_was_tried(const struct row_batch *row, const struct command *c);
/* `was_there`: all the time since everything was put right. */
void retry_judge(struct world *w, const struct row_batch *row, const struct device *d, uint8_t byte, bool was_there);

#endif

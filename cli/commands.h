/* The subcommands of `muster`; main.c has the table. Each parses its arguments, does its work and returns an exit
 * status. Owns: nothing. May call: everything of cli/. Loop rule: calls run the loop until they have ended. */
#ifndef MUSTER_CLI_COMMANDS_H
#define MUSTER_CLI_COMMANDS_H

#include "cli/args.h"

int migrate_run(struct invocation *inv);
int verify_run(struct invocation *inv);
int chaos_run(struct invocation *inv);

int tenant_bootstrap(struct invocation *inv);
int tenant_create(struct invocation *inv);
int tenant_list(struct invocation *inv);
int tenant_policy(struct invocation *inv);
int tenant_quota(struct invocation *inv);

int key_create(struct invocation *inv);
int key_list(struct invocation *inv);
int key_revoke(struct invocation *inv);

int device_import(struct invocation *inv);
int device_get(struct invocation *inv);
int device_list(struct invocation *inv);
int device_delete(struct invocation *inv);
int device_commands(struct invocation *inv);
int device_credentials(struct invocation *inv);

int group_create(struct invocation *inv);
int group_update(struct invocation *inv);
int group_list(struct invocation *inv);
int group_delete(struct invocation *inv);

int batch_submit(struct invocation *inv);
int batch_get(struct invocation *inv);
int batch_show(struct invocation *inv);
int batch_list(struct invocation *inv);
int batch_watch(struct invocation *inv);
int batch_cancel(struct invocation *inv);
int batch_pause(struct invocation *inv);
int batch_resume(struct invocation *inv);
int batch_approve(struct invocation *inv);
int batch_reject(struct invocation *inv);
int batch_release(struct invocation *inv);
int batch_seal(struct invocation *inv);
int batch_commands(struct invocation *inv);
int command_get(struct invocation *inv);

int hold_run(struct invocation *inv);
int release_run(struct invocation *inv);
int holds_run(struct invocation *inv);

int audit_list(struct invocation *inv);
int audit_verify(struct invocation *inv);

int events_watch(struct invocation *inv);
int events_devices(struct invocation *inv);

int webhook_add(struct invocation *inv);
int webhook_list(struct invocation *inv);
int webhook_remove(struct invocation *inv);
int webhook_rotate(struct invocation *inv);
int webhook_test(struct invocation *inv);
int webhook_dead(struct invocation *inv);
int webhook_replay(struct invocation *inv);

int dev_run(struct invocation *inv);

int plan_run(struct invocation *inv);

#endif

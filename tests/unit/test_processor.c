/* What a process asks of the processors: read back from the kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/processor.h"

#define RUNTIME_AT 24 /* of struct sched_attr: sched_setattr(2) */

/* 0: the kernel knows none. */
static uint64_t slice_us(void)
{
    uint8_t attributes[48] = {0};
    uint64_t ns;
    assert_int_equal(syscall(SYS_sched_getattr, 0, attributes, sizeof attributes, 0), 0);
    memcpy(&ns, attributes + RUNTIME_AT, sizeof ns);
    return ns / 1000;
}

static void so_much_at_a_time_is_asked_for_and_nothing_else_changes(void **unused)
{
    (void)unused;
    if (!slice_us())
        skip();
    assert_int_equal(setpriority(PRIO_PROCESS, 0, 3), 0);
    processor_slice_us(400);
    assert_int_equal(slice_us(), 400);
    processor_slice_us(5000);
    assert_int_equal(slice_us(), 5000);
    assert_int_equal(getpriority(PRIO_PROCESS, 0), 3);
    assert_int_equal(sched_getscheduler(0), SCHED_OTHER);
}

static void another_policy_is_left_alone(void **unused)
{
    (void)unused;
    pid_t child = fork();
    if (child == 0) {
        if (sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}) != 0)
            _exit(1);
        uint64_t before = slice_us();
        processor_slice_us(400);
        _exit(sched_getscheduler(0) == SCHED_IDLE && slice_us() == before ? 0 : 2);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(so_much_at_a_time_is_asked_for_and_nothing_else_changes),
        cmocka_unit_test(another_policy_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

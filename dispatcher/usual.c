#include "dispatcher/usual.h"

#define MINUTE_MS (60 * 1000ll)
#define DAY_MS    (24 * 60 * MINUTE_MS)

int64_t usual_ms(Muster__V1__Command__KindCase kind)
{
    switch (kind) {
    case MUSTER__V1__COMMAND__KIND_LOCK:
    case MUSTER__V1__COMMAND__KIND_UNLOCK:
    case MUSTER__V1__COMMAND__KIND_WIPE:
    case MUSTER__V1__COMMAND__KIND_LOST_MODE:
    case MUSTER__V1__COMMAND__KIND_RESTRICT_FUNCTIONS:
    case MUSTER__V1__COMMAND__KIND_QUERY_INFORMATION:
        return 5 * MINUTE_MS;
    case MUSTER__V1__COMMAND__KIND_CONFIGURE:
    case MUSTER__V1__COMMAND__KIND_REMOVE_APPLICATION:
    case MUSTER__V1__COMMAND__KIND_RESTART:
        return 15 * MINUTE_MS;
    case MUSTER__V1__COMMAND__KIND_BACK_UP:
    case MUSTER__V1__COMMAND__KIND_RESTORE:
        return DAY_MS;
    default:
        return 60 * MINUTE_MS;
    }
}

#include "cli/call.h"

#include "cli/show.h"

int call_once(struct invocation *inv, const char *method, const ProtobufCMessage *request,
              const ProtobufCMessageDescriptor *response, void (*show)(const ProtobufCMessage *answer))
{
    struct session s;

    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    ProtobufCMessage *answer = session_call(&s, method, request, response);
    if (answer && inv->common.json)
        show_json(answer);
    else if (answer && show)
        show(answer);
    int status = answer ? EXIT_DONE : EXIT_RPC_FAIL;
    session_free_message(answer);
    session_close(&s);
    return status;
}
